package operate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/client/compose/label"
	"github.com/cleatlabs/cleat/client/connect"
)

// StartOptions are those of `start` and the end of `up`.
type StartOptions struct {
	Services []string // none: all
	// Wait waits until all are running, and healthy where they have a check.
	Wait        bool
	WaitTimeout time.Duration // 0 is no limit
	// Attach is called for each container before it is started; what it returns is called if that fails.
	Attach func(ctx context.Context, c Container) (abandon func(), err error)
}

// Start starts the project's containers that do not run, each service once what it
// depends on is as it has to be.
func (o *Operator) Start(ctx context.Context, p *types.Project, opts StartOptions) error {
	list, err := o.Created(ctx, p.Name)
	o.listed = nil // from now on it changes
	if err != nil {
		return err
	}
	if len(list) == 0 && len(p.Services) > 0 {
		return noContainer(p.Name)
	}
	news := o.watch(ctx, p.Name)
	defer news.close()
	g := graph{}
	for name, s := range p.Services {
		g[name] = nil
		for on := range s.DependsOn {
			g[name] = append(g[name], on)
		}
		g[name] = append(g[name], references(s)...)
	}
	err = g.walk(ctx, func(ctx context.Context, service string) error {
		if len(opts.Services) > 0 && !slices.Contains(opts.Services, service) {
			return nil
		}
		s := p.Services[service]
		if err := o.awaitDependencies(ctx, news, list, p, s); err != nil {
			return err
		}
		mine := OfServices(list, []string{service})
		if err := o.preStart(ctx, p, s, mine); err != nil {
			return err
		}
		return o.Each(ctx, mine, func(ctx context.Context, c Container) error {
			return o.start(ctx, p, s, c, opts.Attach)
		})
	})
	if err != nil || !opts.Wait {
		return err
	}
	return o.awaitAll(ctx, news, list, p, opts)
}

func noContainer(project string) error {
	return fmt.Errorf("no container found for project %q: make them by `compose up` or `compose create`: not found", project)
}

// Remembered is a project as its containers tell of it: which services it has, and what each of them depends on of what
// is there. What else there is to say of them the files do, where they are at hand.
func (o *Operator) Remembered(name string, list []Container) (*types.Project, error) {
	if len(list) == 0 {
		return nil, noContainer(name)
	}
	p := &types.Project{Name: name}
	if o.Project != nil {
		files := *o.Project
		files.DisabledServices = nil
		p = &files
	}
	p.Services = types.Services{}
	for _, c := range list {
		s, _ := o.Service(c)
		s.Name, s.DependsOn = c.Service, types.DependsOnConfig{}
		for _, d := range label.ParseDependencies(c.Labels[label.DependsOn]) {
			if len(OfServices(list, []string{d.Service})) > 0 {
				s.DependsOn[d.Service] = types.ServiceDependency{Condition: d.Condition, Restart: d.Restart, Required: true}
			}
		}
		p.Services[c.Service] = s
	}
	return p, nil
}

// start starts one container and runs what is to be run in it then.
func (o *Operator) start(ctx context.Context, p *types.Project, s types.ServiceConfig, c Container, attach func(context.Context, Container) (func(), error)) error {
	if c.State == container.StateRunning {
		return nil
	}
	abandon := func() {}
	if attach != nil {
		var err error
		if abandon, err = attach(ctx, c); err != nil {
			return err
		}
	}
	o.Report.Report("Container", c.Name, "Starting")
	err := o.fill(ctx, p, s, c.ID)
	if err == nil {
		_, err = o.API.ContainerStart(ctx, c.ID, client.ContainerStartOptions{})
	}
	if err != nil {
		abandon()
	} else {
		err = o.Hooks(ctx, c, s.PostStart)
	}
	return about("services", s.Name, o.ended(ctx, "Container", c.Name, "Started", err))
}

// news wakes whoever waits for something to happen to a project's containers.
type news struct {
	cancel context.CancelFunc
	begin  func() // subscribes, once there is something to wait for
	subs   chan func(map[chan struct{}]bool)
	deaf   chan struct{} // closed when there are no more events
	lost   error         // why, written before
}

// watch is the project's events: whoever waits is subscribed before anything is looked
// at, so that none is missed.
func (o *Operator) watch(ctx context.Context, project string) *news {
	ctx, cancel := context.WithCancel(ctx)
	n := &news{cancel: cancel, subs: make(chan func(map[chan struct{}]bool)), deaf: make(chan struct{})}
	n.begin = sync.OnceFunc(func() {
		stream := o.API.Events(ctx, client.EventsListOptions{Filters: make(client.Filters).
			Add("type", string(events.ContainerEventType)).Add("label", label.Project+"="+project)})
		go n.run(ctx, stream)
	})
	return n
}

func (n *news) close() { n.cancel() }

// run wakes all who wait at each event; the channels are their own, of one place.
func (n *news) run(ctx context.Context, stream client.EventsResult) {
	waiting := map[chan struct{}]bool{}
	wake := func() {
		for c := range waiting {
			select {
			case c <- struct{}{}:
			default:
			}
		}
	}
	for {
		select {
		case change := <-n.subs:
			change(waiting)
		case <-stream.Messages:
			wake()
		case err := <-stream.Err:
			n.lost = fmt.Errorf("lost the connection to the engine (%w): run this again when it is back", err)
			close(n.deaf)
			stream.Messages, stream.Err = nil, nil
		case <-ctx.Done():
			return
		}
	}
}

// until calls look at once and after each event, until it says done or fails.
func (n *news) until(ctx context.Context, look func() (done bool, err error)) error {
	n.begin()
	woken := make(chan struct{}, 1)
	subscribe := func(w map[chan struct{}]bool) { w[woken] = true }
	select {
	case n.subs <- subscribe:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() {
		select {
		case n.subs <- func(w map[chan struct{}]bool) { delete(w, woken) }:
		case <-ctx.Done():
		}
	}()
	for {
		var lost error
		select {
		case <-n.deaf:
			lost = n.lost
		default:
		}
		done, err := look()
		if done || err != nil {
			return err
		}
		if lost != nil {
			return lost // though the next engine may have answered already: nothing tells when to look again
		}
		select {
		case <-woken:
		case <-n.deaf:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// awaitDependencies waits until what a service depends on is as its conditions say.
func (o *Operator) awaitDependencies(ctx context.Context, n *news, list []Container, p *types.Project, s types.ServiceConfig) error {
	for on, d := range s.DependsOn {
		if d.Condition == types.ServiceConditionStarted || d.Condition == "" || provided(p, on) {
			continue
		}
		targets := OfServices(list, []string{on})
		if len(targets) == 0 {
			if dependency, ok := p.Services[on]; !d.Required || ok && dependency.GetScale() == 0 {
				continue // it is to have none
			}
			return fmt.Errorf("service %q depends on %q, which has no container", s.Name, on)
		}
		err := each(ctx, targets, func(ctx context.Context, c Container) error { return o.await(ctx, n, c, d.Condition) })
		if err != nil && d.Required {
			return err
		}
		if err != nil {
			o.Report.Warn(fmt.Sprintf("optional dependency %q of %q failed: %v", on, s.Name, err))
		}
	}
	return ctx.Err()
}

// await waits until a container meets a condition or cannot any more.
func (o *Operator) await(ctx context.Context, n *news, c Container, condition string) error {
	o.Report.Report("Container", c.Name, "Waiting")
	if o.DryRun {
		return o.done("Container", c.Name, "Healthy", nil)
	}
	state := "Healthy"
	if c.State == container.StateRunning && c.Health != nil && c.Health.Status == container.Healthy && condition != types.ServiceConditionCompletedSuccessfully {
		// It was so when it was listed a moment ago, before all this began.
		return o.done("Container", c.Name, state, nil)
	}
	loop := crashLoop{before: -1}
	err := n.until(ctx, func() (bool, error) {
		inspected, err := connect.Container(ctx, o.API, c.ID)
		if err != nil {
			return false, err
		}
		if loop.seen(inspected.RestartCount) {
			// This may never end, and looks like something that takes long; but what it lacks may come yet.
			o.Report.Warn(o.withReason(ctx, inspected, fmt.Errorf("container %s, which others wait for, ends again and again: 'compose logs %s' shows why", c.Name, c.Service)).Error())
		}
		var done bool
		if condition == types.ServiceConditionCompletedSuccessfully {
			state = "Exited"
			done, err = completed(c, inspected.State)
		} else {
			done, err = healthy(c.Name, inspected.State, condition == types.ServiceConditionHealthy)
		}
		if err != nil {
			err = o.withReason(ctx, inspected, err)
		}
		return done, err
	})
	return o.ended(ctx, "Container", c.Name, state, err)
}

// crashLoop notices that a container which is waited for ends again and again.
type crashLoop struct {
	before int // restarts before it was waited for, -1 while that is not known
	told   bool
}

// seen is given how often the container was started again, and says once that it was often.
func (l *crashLoop) seen(count int) bool {
	const often = 3 // the first may be for want of something that comes later
	if l.before < 0 {
		l.before = count
	}
	if l.told || count-l.before < often {
		return false
	}
	l.told = true
	return true
}

func completed(c Container, s *container.State) (bool, error) {
	if s.Status != container.StateExited {
		return false, nil
	}
	if s.ExitCode != 0 {
		return false, fmt.Errorf("service %q didn't complete successfully: exit %d (container %s)", c.Service, s.ExitCode, c.Name)
	}
	return true, nil
}

// healthy says whether a container runs, and is healthy if it has a check, which it must
// have if checked is set.
func healthy(name string, s *container.State, checked bool) (bool, error) {
	switch s.Status {
	case container.StateExited, container.StateDead:
		return false, fmt.Errorf("dependency failed to start: container %s exited (%d)", name, s.ExitCode)
	case container.StateRunning:
	default:
		return false, nil
	}
	if s.Health == nil || s.Health.Status == container.NoHealthcheck {
		if checked {
			return false, fmt.Errorf("container %s has no healthcheck configured", name)
		}
		return true, nil
	}
	switch s.Health.Status {
	case container.Healthy:
		return true, nil
	case container.Unhealthy:
		return false, fmt.Errorf("dependency failed to start: container %s is unhealthy", name)
	}
	return false, nil
}

// awaitAll is the end of `up --wait`.
func (o *Operator) awaitAll(ctx context.Context, n *news, list []Container, p *types.Project, opts StartOptions) error {
	if opts.WaitTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, opts.WaitTimeout, errors.New("timeout waiting for the services to be running and healthy"))
		defer cancel()
	}
	targets := slices.DeleteFunc(slices.Clone(list), func(c Container) bool {
		_, ok := p.Services[c.Service]
		return !ok || len(opts.Services) > 0 && !slices.Contains(opts.Services, c.Service)
	})
	err := each(ctx, targets, func(ctx context.Context, c Container) error {
		condition := goal(p, c.Service)
		if err := o.await(ctx, n, c, condition); err != nil || condition != "" || c.State == container.StateRunning || o.DryRun {
			return err
		}
		return o.settled(ctx, c)
	})
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	return err
}

// settling is how long a container without a health check has to run before it counts as running: one that ends over a
// mistake in its configuration mostly does so sooner.
const settling = 500 * time.Millisecond

// settled waits until a container that has just been started has run for that long.
func (o *Operator) settled(ctx context.Context, c Container) error {
	inspected, err := connect.Container(ctx, o.API, c.ID)
	if err != nil || inspected.State.Health != nil {
		return err
	}
	enough, cancel := context.WithTimeout(ctx, settling)
	defer cancel()
	wait := o.API.ContainerWait(enough, c.ID, client.ContainerWaitOptions{Condition: container.WaitConditionNotRunning})
	select {
	case err := <-wait.Error:
		if enough.Err() != nil && ctx.Err() == nil {
			return nil
		}
		return err
	case <-wait.Result:
	}
	if inspected, err = connect.Container(ctx, o.API, c.ID); err != nil {
		return err
	}
	if _, err := healthy(c.Name, inspected.State, false); err != nil {
		return o.withReason(ctx, inspected, err)
	}
	return nil // it has been started again
}

// goal is what a service is waited for to come to: where others need its good end, that, else to run, "".
func goal(p *types.Project, service string) string {
	for _, s := range p.Services {
		if s.DependsOn[service].Condition == types.ServiceConditionCompletedSuccessfully {
			return types.ServiceConditionCompletedSuccessfully
		}
	}
	return ""
}

// RunSince is the time, as the API's logs take it, from which on all output is that of a
// container's present run. An event of its start, at nanoseconds since 1970, comes later
// than its first output.
func (o *Operator) RunSince(ctx context.Context, id string, event int64) string {
	at := time.Unix(0, event)
	if r, err := connect.Container(ctx, o.API, id); err == nil {
		state := r.State
		finished, ferr := time.Parse(time.RFC3339Nano, state.FinishedAt)
		started, serr := time.Parse(time.RFC3339Nano, state.StartedAt)
		switch {
		case ferr == nil && finished.Unix() <= 0: // its first run
			return ""
		case ferr == nil && finished.Before(at): // that of the run before
			at = finished
		case serr == nil && started.Before(at): // it has ended again
			at = started
		}
	}
	return fmt.Sprintf("%d.%09d", at.Unix(), at.Nanosecond())
}
