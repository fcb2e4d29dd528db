package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/client/compose/follow"
	"github.com/cleatlabs/cleat/client/compose/label"
	"github.com/cleatlabs/cleat/client/compose/operate"
	"github.com/cleatlabs/cleat/client/compose/show"
	"github.com/cleatlabs/cleat/client/connect"
)

// session is an attached `up`: it shows the output of containers, whoever starts them, until
// they have ended.
type session struct {
	app     *app
	o       *operate.Operator
	p       *types.Project
	before  map[string]bool // ids of containers that ran before the session
	named   []string        // services; with any, what these depend on is not stopped with the session
	aside   context.Context // in which the others are followed; it ends before what counts is waited for
	earlier context.Context // in which those are followed that ran before; it ends if the start fails, and they go on
	flags   *up
	logs    *show.Logs
	visible map[string]bool // services whose output is shown
	engine  *follow.Engine

	mu       sync.Mutex
	tails    map[string]*follow.Tail  // of what is shown, by id
	live     map[string]int           // runs that have begun and not ended yet, by id
	beside   map[string]int           // the same, of services that do not count
	expected map[string]chan struct{} // starts to come, by id, that are waited for already; closed when they are told of
	rejoined map[string]string        // when the run began, by id, that was joined after the engine had been away
	due      map[string]bool          // ids of containers that have ended and are started again
	held     int                      // the session goes on though nothing runs: something is being started
	starts   int                      // how many the engine has told of
	codes    map[string]int64         // by service, of the first container that ended
	aborted  bool                     // a container has ended the session
	first    int64                    // that one's exit code
	lost     error                    // why the engine is not heard any more
	ended    chan struct{}            // closed when nothing runs any more, or should
	once     sync.Once
	group    sync.WaitGroup
}

// attached starts the project and shows its output until all containers have ended, the
// user interrupts, which stops them, or one ends that ends all.
func (a *app) attached(ctx context.Context, o *operate.Operator, p *types.Project, services []string, u *up, timeout *int) error {
	s := &session{
		app: a, o: o, p: p, named: services, flags: u, codes: map[string]int64{}, ended: make(chan struct{}), due: map[string]bool{}, live: map[string]int{}, beside: map[string]int{},
		tails: map[string]*follow.Tail{}, expected: map[string]chan struct{}{}, rejoined: map[string]string{},
		logs: &show.Logs{Out: &lossy{to: a.out, say: a.unshown}, Err: &lossy{to: a.err, say: a.unshown}, NoPrefix: u.noPrefix, Colours: a.coloured(u.noColour), Timestamps: u.timestamps},
	}
	s.engine = &follow.Engine{API: o.API, Patience: follow.Patience, Say: s.logs.Notice}
	o.HookOutput = s.hook
	list, err := o.Created(ctx, p.Name)
	if err != nil {
		return err
	}
	s.visible = s.shown(p, services)
	list = slices.DeleteFunc(list, func(c operate.Container) bool { _, ok := p.Services[c.Service]; return !ok })
	a.reporter.End()
	if a.reporter.Redraws() {
		// What containers say comes in between: lines cannot be kept up to date.
		o.Report = silent{s.logs}
	}
	s.before = map[string]bool{}
	for _, c := range list {
		s.before[c.ID] = c.Running()
	}
	s.announce(list)
	following, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	aside, turn := context.WithCancel(following)
	defer turn()
	earlier, depart := context.WithCancel(following)
	defer depart()
	s.aside, s.earlier = aside, earlier
	s.hold()
	leave, err := s.join(following, list)
	if err != nil {
		return err
	}
	err = o.Start(ctx, p, operate.StartOptions{Attach: func(_ context.Context, c operate.Container) (func(), error) { return s.attach(following, c) }})
	if err != nil {
		// What has been started is stopped, and shown to its end, which says why.
		those := s.begun
		if ctx.Err() != nil {
			those = s.stopped(true)
			turn()
		} else {
			depart()
		}
		if serr := s.stop(timeout, those); serr != nil {
			return errors.Join(err, serr)
		}
		leave()
		s.group.Wait()
		return err
	}
	a.reporter.End()
	detached, err := s.work(ctx, following)
	if detached || err != nil {
		return err
	}
	interrupted := ctx.Err() != nil
	switch err := s.stop(timeout, s.stopped(interrupted)); {
	case interrupted && connect.IsUnreachable(err):
		return &exitError{130, fmt.Errorf("the engine is away: what runs goes on, and `%s compose stop` stops it when it is back", s.app.program)}
	case err != nil:
		return err
	}
	leave() // nobody joins the group while it is waited for
	turn()
	s.group.Wait()
	return s.result(interrupted)
}

// announce says what is attached to.
func (s *session) announce(list []operate.Container) {
	seen := slices.DeleteFunc(slices.Clone(list), func(c operate.Container) bool { return !s.visible[c.Service] })
	short := make([]string, len(seen))
	for i, c := range seen {
		short[i] = c.Short()
		s.logs.Announce(short[i])
	}
	if len(list) > 0 {
		_, _ = fmt.Fprintln(s.app.out, "Attaching to "+strings.Join(short, ", "))
	}
}

// join attaches to what runs already, and to what is started from now on until leave has returned.
func (s *session) join(ctx context.Context, list []operate.Container) (leave func(), err error) {
	hearing, deaf := context.WithCancel(ctx)
	news := s.news(hearing)
	for _, c := range list {
		if c.State == container.StateRunning || c.State == container.StatePaused {
			if _, err := s.attach(ctx, c); err != nil {
				deaf()
				return nil, err
			}
		}
	}
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		for {
			since := time.Now()
			err := s.hear(ctx, news) // at the latest when hearing ends
			if follow.Broken(err) && hearing.Err() == nil {
				err = s.engine.Back(hearing, since)
			}
			if hearing.Err() != nil {
				return
			}
			if err != nil {
				s.lose(err)
				return
			}
			news = s.news(hearing)
			s.rejoin(ctx)
		}
	}()
	return func() { deaf(); <-heard }, nil
}

// news are the events of the project that matter here.
func (s *session) news(ctx context.Context) client.EventsResult {
	return s.o.API.Events(ctx, client.EventsListOptions{Filters: make(client.Filters).Add("type", string(events.ContainerEventType)).
		Add("event", string(events.ActionStart), string(events.ActionStop), string(events.ActionDestroy)).Add("label", label.Project+"="+s.p.Name)})
}

// hear acts on events until there are no more.
func (s *session) hear(ctx context.Context, news client.EventsResult) error {
	for {
		select {
		case m := <-news.Messages:
			if m.Action == events.ActionStart {
				s.started(ctx, m)
			} else {
				s.givenUp(m.Actor.ID)
			}
		case err := <-news.Err:
			return err
		}
	}
}

// rejoin makes up for the events that nobody has heard while the engine was away. What is followed already finds out
// for itself.
func (s *session) rejoin(ctx context.Context) {
	list, err := s.o.Containers(ctx, s.p.Name, false)
	if err != nil {
		return // the events break off, too, and all this begins again
	}
	now := map[string]container.ContainerState{}
	for _, c := range list {
		now[c.ID] = c.State
		s.mu.Lock()
		followed := s.runsOf(c.Service)[c.ID] > 0
		s.mu.Unlock()
		_, ours := s.p.Services[c.Service]
		if ours && !followed && (c.State == container.StateRunning || c.State == container.StatePaused) {
			s.remember(ctx, c.ID)
			s.begin(ctx, c, time.Now().UnixNano())
		}
	}
	s.mu.Lock()
	for id := range s.due {
		if now[id] != container.StateRestarting {
			delete(s.due, id)
		}
	}
	s.mu.Unlock()
	s.settle()
}

// work goes on until all has ended, or the user has had enough of it, or does not want to
// watch any more.
func (s *session) work(ctx, following context.Context) (detached bool, err error) {
	w := &watcher{app: s.app, project: s.p, log: s.logs, engine: s.engine, quiet: s.flags.quietBuild, prune: true, hold: s.hold, release: s.release}
	if s.flags.watch {
		if err := w.start(following); err != nil {
			return false, errors.Join(err, s.stop(nil, s.begun))
		}
	}
	defer w.stop()
	m, err := s.menu(w)
	if err != nil {
		return false, err
	}
	defer m.close()
	s.release()
	for {
		select {
		case <-s.ended:
			return false, s.lost // written before
		case <-ctx.Done():
			m.close()
			_, _ = fmt.Fprintln(s.app.err, "Gracefully stopping... (press Ctrl+C again to force)")
			return false, nil
		case key := <-m.keys:
			switch key {
			case 'd':
				return true, nil
			case 'w':
				w.toggle(following)
				m.draw()
			}
		}
	}
}

// lose ends the session, as nobody tells it anything any more. What runs goes on.
func (s *session) lose(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.once.Do(func() {
		s.lost = s.app.lost(err, "up")
		close(s.ended)
	})
}

// lost is the error of a stream that has ended before the engine did end it; verb is the command to be run again.
func (a *app) lost(err error, verb string) error {
	return fmt.Errorf("lost the connection to the engine (%w): what runs goes on, and `%s compose %s` shows it again", err, a.program, verb)
}

// hold keeps the session from ending while containers are replaced or started again.
func (s *session) hold() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held++
}

// release undoes hold.
func (s *session) release() {
	s.mu.Lock()
	s.held--
	s.mu.Unlock()
	s.settle()
}

// settle ends the session if nothing is left of it. The engine is asked as well: what has just been started is told by
// an event, which may come after the answer to whoever has started it.
func (s *session) settle() {
	s.mu.Lock()
	idle, starts := s.idle(), s.starts
	s.mu.Unlock()
	if !idle || s.runs() {
		return // a container that runs is told of yet, and settles this again at its end
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.idle() && s.starts == starts {
		s.once.Do(func() { close(s.ended) })
	}
}

// idle says whether nothing that counts is known to run or to be started. The caller holds the lock.
func (s *session) idle() bool { return len(s.live) == 0 && len(s.due) == 0 && s.held == 0 }

// ours says whether a service is one that is brought up.
func (s *session) ours(service string) bool {
	_, ours := s.p.Services[service]
	return ours
}

// chosen says whether a service is one of those that are named, or none are.
func (s *session) chosen(service string) bool {
	return s.ours(service) && (len(s.named) == 0 || slices.Contains(s.named, service))
}

// counts says whether the session lasts as long as a service does. As with docker compose it is so with those that are
// named: a migration that they wait for may end, and a database goes on; or else with those that are shown, if any is.
func (s *session) counts(service string) bool {
	return s.chosen(service) && (len(s.named) > 0 || len(s.visible) == 0 || s.visible[service])
}

// stopped are the containers that the end of the session stops: where all that counts has ended by itself, the others go
// on.
func (s *session) stopped(interrupted bool) func(operate.Container) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	of := s.counts
	if interrupted || s.aborted {
		of = s.chosen
	}
	return func(c operate.Container) bool { return of(c.Service) }
}

// begun says whether the session has started a container, which runs only because of it.
func (s *session) begun(c operate.Container) bool { return s.ours(c.Service) && !s.before[c.ID] }

// runs says whether the engine has anything of the project that runs. One that is away tells when it is back.
func (s *session) runs() bool {
	list, err := s.o.Containers(context.Background(), s.p.Name, false)
	return follow.Broken(err) || err == nil && slices.ContainsFunc(list, func(c operate.Container) bool {
		return s.counts(c.Service) && (c.State == container.StateRunning || c.State == container.StatePaused || c.State == container.StateRestarting)
	})
}

// hook shows what a hook says in a container.
func (s *session) hook(c operate.Container) io.WriteCloser {
	lines, _ := s.logs.Container(c.Short() + " ->")
	return lines
}

// shown are the services whose output is shown.
func (s *session) shown(p *types.Project, services []string) map[string]bool {
	shown := map[string]bool{}
	for name, service := range p.Services {
		switch {
		case slices.Contains(s.flags.noAttach, name), service.Attach != nil && !*service.Attach && !slices.Contains(s.flags.attach, name):
		case len(s.flags.attach) > 0 && !slices.Contains(s.flags.attach, name):
		case len(s.flags.attach) == 0 && len(services) > 0 && !s.flags.attachDependencies && !slices.Contains(services, name):
		default:
			shown[name] = true
		}
	}
	return shown
}

// givenUp takes note of a container that is not started again after all.
func (s *session) givenUp(id string) {
	s.mu.Lock()
	delete(s.due, id)
	s.mu.Unlock()
	s.settle()
}

// runsOf has the runs of a service's containers, by id.
func (s *session) runsOf(service string) map[string]int {
	if s.counts(service) {
		return s.live
	}
	return s.beside
}

// stop stops what still runs of some containers. A second interrupt kills it.
func (s *session) stop(timeout *int, those func(operate.Container) bool) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	second := make(chan os.Signal, 1)
	signal.Notify(second, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(second)
	now, err := s.o.Containers(ctx, s.p.Name, false)
	if err != nil {
		return err
	}
	now = slices.DeleteFunc(now, func(c operate.Container) bool { return !those(c) })
	go func() {
		select {
		case <-second:
		case <-ctx.Done():
			return
		}
		_ = s.o.Each(ctx, now, func(ctx context.Context, c operate.Container) error {
			_, err := s.o.API.ContainerKill(ctx, c.ID, client.ContainerKillOptions{})
			return err
		})
	}()
	return s.o.Stop(ctx, now, timeout)
}

// result is the exit code of `up`.
func (s *session) result(interrupted bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.counts(s.flags.exitCodeFrom):
		if code := s.codes[s.flags.exitCodeFrom]; code != 0 {
			return &exitError{code: int(code)}
		}
		return nil
	case interrupted:
		return &exitError{code: 130}
	case s.first != 0: // not that of what was stopped for it
		return &exitError{code: int(s.first)}
	}
	return nil
}
