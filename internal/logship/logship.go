// Package logship brings the lines of containers to log servers.
//
// # What it promises
//
// The container's local log is the truth; what is sent is read from it, in order
// and over rotations, by a goroutine of the container's own that sleeps while there
// is nothing to send. A server that is away delays nothing and nobody: lines wait in
// the local log, for as long as its rotation keeps them, and when some are gone before
// they were sent the engine's log says so.
//
// How far the sending got is noted next to the log after each batch, without waiting
// for the disk, and only what is known to have arrived counts, as far as the protocol
// tells (package logsend). Over an end of the engine, also by SIGKILL, no line is lost;
// lines that were under way then, one batch of 128 KiB of the log and what the
// server's kernel had not acknowledged, may arrive twice.
//
// Lines of a removed container that have not been sent move, with what is needed to
// send them, to a directory of their own, and are sent from there for a day.
package logship

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/logs"
	"github.com/cleatlabs/cleat/internal/logsend"
	"github.com/cleatlabs/cleat/internal/stdio"
	"github.com/cleatlabs/cleat/internal/supervise"
)

// Service sends the logs of all containers. Its methods may be called concurrently.
type Service struct {
	tasks *supervise.Group
	log   *slog.Logger
	dir   string // of removed containers' lines

	servers servers

	mu    sync.Mutex
	byKey map[string]*shipment
}

// New makes a service that keeps lines of removed containers in dir, which is made
// when it is needed.
func New(tasks *supervise.Group, log *slog.Logger, dir string) *Service {
	return &Service{tasks: tasks, log: log, dir: dir, byKey: map[string]*shipment{}}
}

// Open returns the writer of a container's log, nil for the driver none, as
// logs.Open does; what is written to one whose driver sends is sent, once Begin was
// called. With connect, it is an error if the server cannot be reached though the
// driver's options require that of a start.
func (s *Service) Open(ctx context.Context, c logs.Config, connect bool) (logs.Writer, error) {
	if !logs.Sends(c.Driver) {
		return logs.Open(c)
	}
	target, err := targetOf(c)
	if err != nil {
		return nil, err
	}
	var sender logsend.Sender
	if connect && target.Required {
		if sender, err = target.Dial(ctx); err != nil {
			return nil, failure.New(errdefs.ErrInternal, "failed to create task for container: failed to initialize logging driver: %w: %s", err, target.Advice)
		}
		s.servers.reached(target.Address)
	}
	sh := s.take(c.ContainerID, c)
	c.Turns = &sh.turns
	sh.renew(c, target, sender)
	w, err := logs.Open(c)
	if err != nil {
		sh.end()
		return nil, err
	}
	return &writer{Writer: w, config: c, sh: sh}, nil
}

func targetOf(c logs.Config) (*logsend.Target, error) {
	src, err := logs.Source(c)
	if err != nil {
		return nil, err
	}
	return logsend.New(c.Driver, logs.SendOptions(c), src)
}

// Begin starts sending what w's log holds. Call it when the Pump that writes to it
// was started, which may have cut the log back.
func Begin(w logs.Writer) {
	if w, ok := w.(*writer); ok {
		w.sh.begin()
	}
}

// writer tells the sender of what is written.
type writer struct {
	logs.Writer
	config logs.Config
	sh     *shipment
}

// Append implements stdio.Sink.
func (w *writer) Append(st stdio.Stream, p []byte, t time.Time, last bool) (int, error) {
	n, err := w.Writer.Append(st, p, t, last)
	if n > 0 {
		w.sh.poke()
	}
	return n, err
}

// Rewind implements stdio.Sink: what was sent of what is cut off is sent again when
// it is written again.
func (w *writer) Rewind(m stdio.Mark) error {
	err := w.Writer.Rewind(m)
	if m.File == 0 {
		return err
	}
	return errors.Join(err, logs.CutPosition(w.config, m.File, m.Offset))
}

// Close implements logs.Writer. What is not sent yet goes on being sent.
func (w *writer) Close() error {
	err := w.Writer.Close()
	w.sh.end()
	return err
}

// take returns the shipment of a container, or of what is left of a removed one, whose
// key is its directory; it is made if there is none.
func (s *Service) take(key string, c logs.Config) *shipment {
	s.mu.Lock()
	defer s.mu.Unlock()
	sh := s.byKey[key]
	if sh == nil {
		sh = &shipment{s: s, key: key, id: c.ContainerID, wake: make(chan struct{}, 1)}
		s.byKey[key] = sh
	}
	sh.ended = false
	return sh
}

// Resume sends what the log of a container that does not run still has to be sent,
// if its driver sends.
func (s *Service) Resume(c logs.Config) error {
	if !logs.Sends(c.Driver) {
		return nil
	}
	unsent, err := logs.Unsent(c)
	if err != nil || !unsent {
		return err
	}
	target, err := targetOf(c)
	if err != nil {
		return err
	}
	sh := s.take(c.ContainerID, c)
	sh.renew(c, target, nil)
	sh.end()
	return nil
}

// Remove is called before the log of a container that does not run disappears: what
// is not sent yet is kept.
func (s *Service) Remove(c logs.Config) error {
	if !logs.Sends(c.Driver) {
		return nil
	}
	s.mu.Lock()
	sh := s.byKey[c.ContainerID]
	if sh != nil {
		sh.held = true
	}
	s.mu.Unlock()
	if sh == nil {
		return nil // all is sent, or nothing was ever written
	}
	err := sh.moveOut(c)
	s.mu.Lock()
	sh.held = false
	s.mu.Unlock()
	sh.poke()
	if err != nil {
		return fmt.Errorf("lines of the removed container %s that are not sent yet: %w", c.ContainerID, err)
	}
	return nil
}

// Recover goes on sending the lines of removed containers that an earlier engine has
// left. Call it once.
func (s *Service) Recover() {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return // none: the directory is made when it is needed
	}
	for _, e := range entries {
		dir := filepath.Join(s.dir, e.Name())
		p, c, err := openParcel(dir)
		var target *logsend.Target
		if err == nil {
			target, err = logsend.New(p.Driver, p.Options, &p.Source)
		}
		if err != nil {
			s.giveUp(dir, p, err)
			continue
		}
		sh := s.take(dir, c)
		sh.dir, sh.until = dir, time.Now().Add(p.left())
		sh.renew(c, target, nil)
		sh.end()
	}
}

// giveUp drops lines that nobody can ever send: cut short before anything was moved there, damaged, or waiting for too
// long. What only cannot be read now, or not sent as the host is, waits for the next start. p is nil if it is not known.
func (s *Service) giveUp(dir string, p *parcel, err error) {
	var unread *fs.PathError
	if p == nil && errors.As(err, &unread) && !errors.Is(err, fs.ErrNotExist) || p != nil && p.left() > 0 {
		s.log.Warn("unsent lines of a removed container cannot be sent now: the engine's next start tries it again", "dir", dir, "error", err)
		return
	}
	s.log.Warn("unsent lines of a removed container cannot be sent and are dropped", "dir", dir, "error", err)
	if err := os.RemoveAll(dir); err != nil {
		s.log.Warn("left-over lines of a removed container", "dir", dir, "error", err)
	}
}
