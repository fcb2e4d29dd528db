package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/client/compose/operate"
	"github.com/cleatlabs/cleat/client/compose/show"
)

// session is an attached `up`: it shows the output of containers until they have ended.
type session struct {
	app   *app
	o     *operate.Operator
	flags *up
	logs  *show.Logs
	tty   map[string]bool // by service

	mu      sync.Mutex
	running int
	codes   map[string]int64 // by service, of the first container that ended
	ended   chan struct{}    // closed when nothing runs any more, or should
	once    sync.Once
	group   sync.WaitGroup
}

// attached starts the project and shows its output until all containers have ended, the
// user interrupts, which stops them, or one ends that ends all.
func (a *app) attached(ctx context.Context, o *operate.Operator, p *types.Project, services []string, u *up, timeout *int) error {
	s := &session{
		app: a, o: o, flags: u, codes: map[string]int64{}, ended: make(chan struct{}), tty: map[string]bool{},
		logs: &show.Logs{Out: a.out, Err: a.err, NoPrefix: u.noPrefix, Colours: a.out.IsTerminal() && !u.noColour && a.ansi != "never"},
	}
	o.HookOutput = s.hook
	list, err := o.Created(ctx, p.Name)
	if err != nil {
		return err
	}
	shown := s.shown(p, services)
	for name, service := range p.Services {
		s.tty[name] = service.Tty
	}
	list = slices.DeleteFunc(list, func(c operate.Container) bool { _, ok := p.Services[c.Service]; return !ok })
	s.running = len(list)
	for _, c := range list {
		if shown[c.Service] {
			s.logs.Announce(c.Name)
		}
	}
	if len(list) > 0 {
		_, _ = fmt.Fprintln(a.out, "Attaching to "+names(slices.DeleteFunc(slices.Clone(list), func(c operate.Container) bool { return !shown[c.Service] })))
	}
	follow, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	for _, c := range list {
		if c.State == container.StateRunning {
			if err := s.attach(follow, c, shown[c.Service]); err != nil {
				return err
			}
		}
	}
	err = o.Start(ctx, p, operate.StartOptions{Attach: func(_ context.Context, c operate.Container) error {
		return s.attach(follow, c, shown[c.Service])
	}})
	if err != nil {
		// What has been started is stopped, as after an interrupt.
		return errors.Join(err, s.stop(p, list, timeout))
	}
	a.reporter.End()
	select {
	case <-s.ended:
	case <-ctx.Done():
		_, _ = fmt.Fprintln(a.err, "Gracefully stopping... (press Ctrl+C again to force)")
	}
	interrupted := ctx.Err() != nil
	if err := s.stop(p, list, timeout); err != nil {
		return err
	}
	s.group.Wait()
	return s.result(interrupted)
}

// hook shows what a hook says in a container.
func (s *session) hook(c operate.Container) io.WriteCloser {
	lines, _ := s.logs.Container(c.Name + " ->")
	return lines
}

// shown are the services whose output is shown.
func (s *session) shown(p *types.Project, services []string) map[string]bool {
	shown := map[string]bool{}
	for name, service := range p.Services {
		switch {
		case slices.Contains(s.flags.noAttach, name), service.Attach != nil && !*service.Attach && !slices.Contains(s.flags.attach, name):
		case len(s.flags.attach) > 0:
			shown[name] = slices.Contains(s.flags.attach, name)
		case len(services) > 0 && !s.flags.attachDependencies:
			shown[name] = slices.Contains(services, name)
		default:
			shown[name] = true
		}
	}
	return shown
}

// attach shows a container's output from now on, and waits for its end.
func (s *session) attach(ctx context.Context, c operate.Container, shown bool) error {
	wait := s.o.API.ContainerWait(ctx, c.ID, client.ContainerWaitOptions{Condition: container.WaitConditionNextExit})
	var copied chan struct{}
	if shown {
		stream, err := s.o.API.ContainerAttach(ctx, c.ID, client.ContainerAttachOptions{Stream: true, Stdout: true, Stderr: true})
		if err != nil {
			return err
		}
		copied = make(chan struct{})
		stdout, stderr := s.logs.Container(c.Name)
		go func() {
			defer close(copied)
			defer stream.Close()
			copyOutput(stdout, stderr, stream.Reader, s.tty[c.Service])
		}()
	}
	s.group.Go(func() {
		var code int64
		select {
		case r := <-wait.Result:
			code = r.StatusCode
		case <-wait.Error:
			return
		}
		if copied != nil {
			<-copied
			s.logs.Status(c.Name, fmt.Sprintf("exited with code %d", code))
		}
		s.exited(c.Service, code)
	})
	return nil
}

// copyOutput splits a container's stream into lines. The end of the stream is no error.
func copyOutput(stdout, stderr *show.Lines, r io.Reader, tty bool) {
	if tty {
		_, _ = io.Copy(stdout, r)
	} else {
		_, _ = stdcopy.StdCopy(stdout, stderr, r)
	}
	stdout.Flush()
	stderr.Flush()
}

// exited counts a container that has ended.
func (s *session) exited(service string, code int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.codes[service]; !known {
		s.codes[service] = code
	}
	s.running--
	if s.running <= 0 || s.flags.abort || s.flags.abortFailure && code != 0 {
		s.once.Do(func() {
			if s.running > 0 {
				_, _ = fmt.Fprintln(s.app.err, "Aborting on container exit...")
			}
			close(s.ended)
		})
	}
}

// stop stops what still runs. A second interrupt kills it.
func (s *session) stop(p *types.Project, list []operate.Container, timeout *int) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	second := make(chan os.Signal, 1)
	signal.Notify(second, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(second)
	go func() {
		select {
		case <-second:
		case <-ctx.Done():
			return
		}
		_ = s.o.Each(ctx, list, func(ctx context.Context, c operate.Container) error {
			_, err := s.o.API.ContainerKill(ctx, c.ID, client.ContainerKillOptions{})
			return err
		})
	}()
	now, err := s.o.Containers(ctx, p.Name, false)
	if err != nil {
		return err
	}
	now = slices.DeleteFunc(now, func(c operate.Container) bool { _, ok := p.Services[c.Service]; return !ok })
	return s.o.Stop(ctx, now, timeout)
}

// result is the exit code of `up`.
func (s *session) result(interrupted bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.flags.exitCodeFrom != "":
		if code := s.codes[s.flags.exitCodeFrom]; code != 0 {
			return &exitError{code: int(code)}
		}
		return nil
	case interrupted:
		return &exitError{code: 130}
	case s.flags.abort, s.flags.abortFailure:
		for _, code := range s.codes {
			if code != 0 {
				return &exitError{code: int(code)}
			}
		}
	}
	return nil
}
