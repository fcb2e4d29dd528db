package command

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/client/compose/follow"
	"github.com/cleatlabs/cleat/client/compose/label"
	"github.com/cleatlabs/cleat/client/compose/operate"
	"github.com/cleatlabs/cleat/client/connect"
)

// run is a run of a container that is waited for.
type run struct {
	operate.Container
	tail  *follow.Tail // nil: it is not shown
	from  client.ContainerLogsOptions
	begun chan struct{} // closed when the run has begun; nil if it has
	wait  client.ContainerWaitResult
}

// attach shows a container's output from now on, and waits for its end. One that does not
// run is about to be started; abandon is for one that is not after all, whose end nobody could wait for.
func (s *session) attach(ctx context.Context, c operate.Container) (abandon func(), err error) {
	ctx, abandon = context.WithCancel(s.within(ctx, c))
	r := &run{Container: c, tail: s.tail(c), from: client.ContainerLogsOptions{Follow: true}}
	runs := c.State == container.StateRunning || c.State == container.StatePaused
	if !runs {
		r.begun = make(chan struct{})
	}
	r.wait = s.o.API.ContainerWait(ctx, c.ID, client.ContainerWaitOptions{Condition: container.WaitConditionNextExit})
	if err := s.open(ctx, r, runs); err != nil {
		abandon()
		return nil, err
	}
	s.mu.Lock()
	s.runsOf(c.Service)[c.ID]++
	if !runs {
		s.expected[c.ID] = r.begun
	}
	s.mu.Unlock()
	s.follow(ctx, r)
	return abandon, nil
}

// open chooses from where on a container is shown, and opens what would be lost otherwise.
func (s *session) open(ctx context.Context, r *run, runs bool) error {
	switch {
	case r.tail == nil:
		return nil
	case runs:
		r.from.Tail = "0"
		return r.tail.Open(ctx, r.from)
	}
	found, err := connect.Container(ctx, s.o.API, r.ID)
	if err != nil {
		return err
	}
	if !readable(found.HostConfig.LogConfig) {
		return r.tail.OpenOutput(ctx)
	}
	if found.State.StartedAt > "0002" { // it has run before
		if r.from.Since, err = r.tail.End(ctx); err != nil { // who follows it hears why
			r.from.Since = found.State.FinishedAt
		}
	}
	return nil
}

// readable says whether an engine keeps what a container with this setting says.
func readable(c container.LogConfig) bool {
	uncached, _ := strconv.ParseBool(c.Config["cache-disabled"]) // the engine has refused what is neither true nor false
	return c.Type != "none" && !uncached
}

// tail shows a container's log, nil for one that is not shown.
func (s *session) tail(c operate.Container) *follow.Tail {
	if !s.visible[c.Service] {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tails[c.ID] == nil {
		stdout, stderr := s.logs.Container(c.Short())
		s.tails[c.ID] = &follow.Tail{API: s.o.API, ID: c.ID, TTY: s.p.Services[c.Service].Tty, Stdout: stdout, Stderr: stderr, Attach: true}
	}
	return s.tails[c.ID]
}

// started attaches to a container that somebody has started: a policy, another client, or
// this one when files have changed. Its first output is in the log.
func (s *session) started(ctx context.Context, m events.Message) {
	service := m.Actor.Attributes[label.Service]
	if _, ours := s.p.Services[service]; !ours || m.Actor.Attributes[label.OneOff] != "False" {
		return
	}
	s.mu.Lock()
	begun := s.expected[m.Actor.ID]
	delete(s.expected, m.Actor.ID)
	s.starts++
	delete(s.due, m.Actor.ID)
	rejoined := s.rejoined[m.Actor.ID]
	s.mu.Unlock()
	if begun != nil {
		close(begun)
		return
	}
	if rejoined != "" && rejoined == s.beginning(ctx, m.Actor.ID) {
		return
	}
	c := operate.Container{Name: m.Actor.Attributes["name"], Service: service}
	c.ID, c.Labels = m.Actor.ID, m.Actor.Attributes
	c.Number, _ = strconv.Atoi(c.Labels[label.Number]) // 0 for what is not numbered
	s.begin(ctx, c, m.TimeNano)
}

// begin follows the present run of a container; at, in nanoseconds since 1970, lies in it.
func (s *session) begin(ctx context.Context, c operate.Container, at int64) {
	ctx = s.within(ctx, c)
	s.mu.Lock()
	s.runsOf(c.Service)[c.ID]++
	s.mu.Unlock()
	r := &run{Container: c, tail: s.tail(c), from: client.ContainerLogsOptions{Follow: true}}
	r.wait = s.o.API.ContainerWait(ctx, c.ID, client.ContainerWaitOptions{Condition: container.WaitConditionNotRunning})
	if r.tail != nil {
		r.from.Since = s.o.RunSince(ctx, c.ID, at)
	}
	s.follow(ctx, r)
}

// within is the context in which a container is followed.
func (s *session) within(ctx context.Context, c operate.Container) context.Context {
	if !s.counts(c.Service) {
		ctx = s.aside
	}
	if s.before[c.ID] {
		following, leave := context.WithCancel(ctx)
		context.AfterFunc(s.earlier, leave)
		return following
	}
	return ctx
}

// beginning is when a container's present run has begun, "" if that is not known.
func (s *session) beginning(ctx context.Context, id string) string {
	found, err := connect.Container(ctx, s.o.API, id)
	if err != nil {
		return ""
	}
	return found.State.StartedAt
}

// remember takes note of the run that is joined when the engine is back: its start may be told of yet.
func (s *session) remember(ctx context.Context, id string) {
	at := s.beginning(ctx, id)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rejoined[id] = at
	delete(s.expected, id)
}

// follow shows a run's output until the container ends, or the session, with an engine that goes away in between.
func (s *session) follow(ctx context.Context, r *run) {
	s.group.Go(func() {
		for {
			since := time.Now()
			code, err := s.end(ctx, r)
			switch {
			case err == nil:
				s.exited(r.Container, code, r.tail != nil)
				return
			case errdefs.IsNotFound(err):
				s.removed(r.ID)
				return
			case !follow.Broken(err) || s.engine.Back(ctx, since) != nil:
				return // the events tell of an engine that has gone
			}
			s.remember(ctx, r.ID)
			r.begun = nil
			r.wait = s.o.API.ContainerWait(ctx, r.ID, client.ContainerWaitOptions{Condition: container.WaitConditionNotRunning})
		}
	})
}

// end shows a run's output until the container ends, and gives its exit code.
func (s *session) end(ctx context.Context, r *run) (code int64, err error) {
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	shown := make(chan error, 1)
	show := sync.OnceFunc(func() {
		if r.tail == nil {
			shown <- nil
			return
		}
		go func() { shown <- followed(ctx, s.o, r.tail, r.from) }()
	})
	if r.begun == nil || r.tail != nil && r.tail.Opened() {
		show()
	}
	begun, output, result := r.begun, shown, r.wait.Result
	for {
		select {
		case <-begun:
			begun = nil
			show()
		case err := <-output:
			if output = nil; follow.Broken(err) {
				return 0, err
			}
			if result == nil {
				return code, nil
			}
		case w := <-result:
			code, result = w.StatusCode, nil
			if output == nil {
				return code, nil
			}
			show()
		case err := <-r.wait.Error:
			leave()
			if output != nil {
				show()
				<-output
			}
			return 0, err
		}
	}
}

// removed takes note of a container that there is no more.
func (s *session) removed(id string) {
	s.mu.Lock()
	delete(s.live, id)
	delete(s.beside, id)
	delete(s.due, id)
	s.mu.Unlock()
	s.settle()
}

// exited takes note of a container that has ended, unless it is started again.
func (s *session) exited(c operate.Container, code int64, shown bool) {
	again, memory := false, ""
	if r, err := connect.Container(context.Background(), s.o.API, c.ID); err == nil {
		again = r.State.Running || r.State.Restarting
		memory = operate.OutOfMemory(r)
	}
	if shown {
		text := fmt.Sprintf("exited with code %d", code)
		if again {
			text += " (restarting)"
		}
		if memory != "" {
			text += ", " + memory
		}
		s.logs.Status(c.Short(), text)
	}
	if !s.over(c, code, again) {
		s.settle()
	}
}

// over takes note of the end of a run, and says whether that is not the container's end, or has ended the session.
func (s *session) over(c operate.Container, code int64, again bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	counts, runs := s.counts(c.Service), s.runsOf(c.Service)
	if runs[c.ID]--; runs[c.ID] <= 0 {
		delete(runs, c.ID)
		if again && counts {
			s.due[c.ID] = true // unless the next run has begun already
		}
	}
	if again || !counts {
		return again
	}
	if _, known := s.codes[c.Service]; !known {
		s.codes[c.Service] = code
	}
	if s.flags.abort || s.flags.abortFailure && code != 0 {
		s.once.Do(func() {
			s.aborted, s.first = true, code
			if len(s.live) > 0 || len(s.named) == 0 && len(s.beside) > 0 {
				_, _ = fmt.Fprintln(s.app.err, "Aborting on container exit...")
			}
			close(s.ended)
		})
		return true
	}
	return false
}
