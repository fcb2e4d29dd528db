package engine

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"

	api "github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"

	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/logs"
	"github.com/cleatlabs/cleat/internal/runtime"
	"github.com/cleatlabs/cleat/internal/stdio"
)

// defaultDetachKeys end a client's attachment to a terminal.
const defaultDetachKeys = "ctrl-p,ctrl-q"

// Streams connects clients to the input and output of containers.
type Streams struct {
	containers *container.Store
	lives      *lives
	say        *announcer
	pool       *stdio.Pool
	log        *slog.Logger
}

// Attach prepares an attachment. From its return on no output is missed; one
// to a container that does not run waits for its start, and one to a container that
// runs ends with that run, be it just ending.
func (s *Streams) Attach(_ context.Context, name string, opts AttachOptions) (*AttachSession, error) {
	c, err := s.containers.Find(name)
	if err != nil {
		return nil, err
	}
	life := s.lives.of(c)
	present := life.live() // before the state, so that it is not a later run than the state tells of
	rec := c.Load()
	keys, err := detachKeys(opts.DetachKeys, rec.Config.Tty)
	if err != nil {
		return nil, err
	}
	switch rec.State.Status {
	case api.StatePaused:
		return nil, paused(name, "attach")
	case api.StateRestarting:
		return nil, restarting(name)
	}
	a := &attachment{s: s, c: c, rec: rec, opts: opts, keys: keys, life: life}
	a.fed.Store(present)
	session := NewAttachSession(rec.Config.Tty, a.run, nil)
	if opts.Stream {
		if opts.Logs {
			a.sub, a.logged, err = a.life.hub.SubscribeAfterLog(opts.Stdout, opts.Stderr)
		} else {
			a.sub = a.life.hub.Subscribe(opts.Stdout, opts.Stderr)
		}
		if err != nil {
			return nil, err
		}
		if present != nil && rec.State.Alive() {
			a.sub.Until(present.exited)
		}
		session.close = a.sub.Close
	}
	s.say.container(c, apievents.ActionAttach)
	return session, nil
}

// detachKeys decodes the keys; only terminals have any.
func detachKeys(keys string, tty bool) ([]byte, error) {
	chosen := keys
	if chosen == "" {
		chosen = defaultDetachKeys
	}
	b, err := stdio.ParseDetachKeys(chosen)
	if err != nil {
		return nil, failure.Invalid("invalid detach keys (%s) provided: %w", keys, err)
	}
	if !tty {
		return nil, nil
	}
	return b, nil
}

// errInputEnded ends the session of a client whose input has ended and is not
// the process's last one: Docker's clients wait for that.
var errInputEnded = errors.New("the client's input has ended")

type attachment struct {
	s    *Streams
	c    *container.Container
	rec  *container.Record
	opts AttachOptions
	keys []byte
	life *life
	fed  atomic.Pointer[run] // the run that the client is attached to, nil before the first
	sub  *stdio.Subscription
	// logged is where the log ended when sub began.
	logged stdio.Mark
}

func (a *attachment) run(ctx context.Context, client StreamIO) error {
	if a.opts.Logs {
		if err := a.replay(ctx, client); err != nil {
			return err
		}
	}
	if a.sub == nil {
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if a.opts.Stdin && client.Stdin != nil && a.rec.Config.OpenStdin {
		go func() {
			if err := a.copyStdin(ctx, client.Stdin); err != nil {
				cancel(err)
			}
		}()
	}
	err := copyOutput(ctx, a.sub, client)
	if err == nil && client.Sent != nil {
		client.Sent(ctx)
	}
	if a.rec.Config.StdinOnce && a.opts.Stdin && !errors.Is(context.Cause(ctx), stdio.ErrDetached) {
		if r := a.fed.Load(); r != nil { // not a later one: a client may take its time over the output
			r.closeStdinOnce()
		}
	}
	if errors.Is(context.Cause(ctx), stdio.ErrDetached) {
		a.s.say.container(a.c, apievents.ActionDetach)
		return nil
	}
	if errors.Is(context.Cause(ctx), errInputEnded) {
		return nil
	}
	return err
}

// copyStdin feeds the process; it returns an error only to end the session.
func (a *attachment) copyStdin(ctx context.Context, src io.Reader) error {
	r := a.life.awaitRun(ctx)
	if r == nil {
		return nil
	}
	a.fed.Store(r)
	stdin := stdinOf(r.process)
	if stdin == nil {
		return nil
	}
	err := stdio.CopyStdin(stdin, src, a.keys)
	if errors.Is(err, stdio.ErrDetached) {
		return err
	}
	if a.rec.Config.StdinOnce && !a.rec.Config.Tty {
		r.closeStdinOnce()
		return nil
	}
	// The process's input stays open for the next client; this one has nothing
	// more to say, and an attachment that only listens is asked for as such.
	return errInputEnded
}

// copyOutput writes what the subscription yields to the client until either
// ends.
func copyOutput(ctx context.Context, sub *stdio.Subscription, client StreamIO) error {
	for {
		stream, p, err := sub.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		w := client.writer(stream)
		if w == nil {
			continue
		}
		if _, err := w.Write(p); err != nil {
			return err
		}
	}
}

// replay writes the log so far.
func (a *attachment) replay(ctx context.Context, client StreamIO) error {
	if l := a.rec.HostConfig.LogConfig; !logs.Readable(l.Type, l.Config) {
		return nil // nothing was kept
	}
	o := logs.ReadOptions{Tail: -1, Stdout: a.opts.Stdout, Stderr: a.opts.Stderr, To: a.logged}
	return logs.Read(ctx, logConfig(a.rec, a.s.pool, nil), o, nil, func(e logs.Entry) error {
		w := client.writer(e.Stream)
		if w == nil {
			return nil
		}
		_, err := w.Write(e.Line)
		return err
	})
}

// Logs prepares reading a container's log. ErrConflict while the container is removed, ErrNotImplemented if its driver
// keeps no lines here.
func (s *Streams) Logs(_ context.Context, name string, opts logs.ReadOptions) (*LogSession, error) {
	if !opts.Stdout && !opts.Stderr {
		return nil, failure.Invalid("Bad parameters: you must choose at least one stream")
	}
	c, err := s.containers.Find(name)
	if err != nil {
		return nil, err
	}
	rec := c.Load()
	switch {
	case rec.State.Status == api.StateRemoving, rec.State.Status == api.StateDead:
		return nil, failure.Conflict("can not get logs from container which is dead or marked for removal")
	case !logs.Readable(rec.HostConfig.LogConfig.Type, rec.HostConfig.LogConfig.Config):
		return nil, failure.NotImplemented("configured logging driver does not support reading: container %s has the driver %s and keeps no lines here",
			name, rec.HostConfig.LogConfig.Type)
	}
	var live <-chan struct{}
	l := s.lives.of(c)
	if r := l.live(); r != nil {
		live = r.exited
	}
	opts.Lost = sync.OnceFunc(func() { // the client is told each time
		s.log.Warn("a client follows a container's log more slowly than lines are written, and does not get those that were rotated away: "+
			"a larger max-size or max-file keeps more", "container", c.ID(), "name", rec.Name)
	})
	return NewLogSession(rec.Config.Tty, func(ctx context.Context, emit func(stdio.Stream, []byte) error) error {
		return logs.Read(ctx, logConfig(rec, s.pool, &l.bell), opts, live, func(e logs.Entry) error {
			return emit(e.Stream, e.Line)
		})
	}), nil
}

// Resize sets the size of a running container's terminal, in characters; ErrConflict if it does not run.
func (s *Streams) Resize(_ context.Context, name string, rows, cols uint16) error {
	c, err := s.containers.Find(name)
	if err != nil {
		return err
	}
	r := s.lives.of(c).live()
	if r == nil || !c.Load().State.Alive() {
		return notRunning(c)
	}
	if err := r.process.Resize(rows, cols); err != nil {
		if errors.Is(err, runtime.ErrNotRunning) {
			return notRunning(c)
		}
		return err
	}
	s.say.container(c, apievents.ActionResize, "height", strconv.Itoa(int(rows)), "width", strconv.Itoa(int(cols)))
	return nil
}
