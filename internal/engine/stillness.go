package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/internal/cgroup"
	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/record"
)

// stillness makes containers stand still for the moment in which a volume of
// theirs is copied. They are not paused: nobody is told, and whoever stops one lets
// it go. A note for each, below the exec root, lets the next engine thaw them if
// this one dies meanwhile.
type stillness struct {
	containers *container.Store
	group      func(path string) (*cgroup.Group, error) // not found if there is none
	specs      *specBuilder
	log        *slog.Logger
	dir        string

	mu   sync.Mutex
	held map[string]*standing // by container
}

// standing is a container that stands still.
type standing struct {
	copies int           // that it stands still for
	over   chan struct{} // closed when it goes on
}

// stands says whether a container stands still for a copy.
func (s *stillness) stands(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held[id] != nil
}

// await waits until a container does not stand still for a copy, and says whether it
// did.
func (s *stillness) await(ctx context.Context, id string) bool {
	s.mu.Lock()
	h := s.held[id]
	s.mu.Unlock()
	if h == nil {
		return false
	}
	select {
	case <-h.over:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// quiesce freezes the containers that run, of those named, and returns what lets
// them go on.
func (s *stillness) quiesce(ctx context.Context, ids []string) (resume func() error, err error) {
	// All locks first: nobody is to stand still while another container is waited
	// for, which is being started or stopped. In one order, as two copies may meet.
	slices.Sort(ids)
	var running, held []*container.Container
	var unlocks []func()
	defer func() {
		for _, unlock := range unlocks {
			unlock()
		}
	}()
	for _, id := range ids {
		c, err := s.containers.Find(id)
		if err != nil {
			continue // it has just gone
		}
		unlock, err := c.Lock(ctx)
		if err != nil {
			return nil, err
		}
		unlocks = append(unlocks, unlock)
		if c.Load().State.Alive() {
			running = append(running, c)
		}
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	for _, c := range running {
		stands, err := s.freeze(c)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("container %s cannot be made to stand still: %w", c.Load().Name, err), s.resume(held))
		}
		if stands {
			held = append(held, c)
		}
	}
	record.Failpoint("engine.still.after-freeze")
	return func() error { return s.resume(held) }, nil
}

// freeze reports false for a container that has just ended, for which nothing is to be undone.
func (s *stillness) freeze(c *container.Container) (bool, error) {
	group, err := s.group(s.specs.cgroupPath(c.Load()))
	if err != nil {
		return false, ignoreNotFound(err)
	}
	s.mu.Lock()
	if s.held[c.ID()] == nil {
		s.held[c.ID()] = &standing{over: make(chan struct{})}
	}
	s.held[c.ID()].copies++
	s.mu.Unlock()
	err = record.Write(filepath.Join(s.dir, c.ID()), nil, 0o600)
	if err == nil {
		err = group.Freeze()
	}
	if err != nil {
		return false, errors.Join(ignoreNotFound(err), s.release(c))
	}
	return true, nil
}

// resume lets containers go on. One that has not stood still all the time is an
// error.
func (s *stillness) resume(held []*container.Container) error {
	var errs []error
	for _, c := range held {
		errs = append(errs, s.moved(c), s.release(c))
	}
	return errors.Join(errs...)
}

// moved is an error if the container was let go before its time.
func (s *stillness) moved(c *container.Container) error {
	group, err := s.group(s.specs.cgroupPath(c.Load()))
	if err == nil {
		var frozen bool
		if frozen, err = group.Frozen(); err == nil && frozen {
			return nil
		}
	}
	if err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	return failure.Conflict("container %s was stopped, or let go on, before the copy was complete: try again", c.Load().Name)
}

// release thaws a container that nobody else wants to stand still.
func (s *stillness) release(c *container.Container) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.held[c.ID()]
	if h.copies--; h.copies > 0 {
		return nil
	}
	delete(s.held, c.ID())
	defer close(h.over)
	return s.thaw(c)
}

// thaw lets a container go on, unless somebody has paused it, and removes its note.
func (s *stillness) thaw(c *container.Container) error {
	var err error
	if c.Load().State.Status != api.StatePaused {
		group, gerr := s.group(s.specs.cgroupPath(c.Load()))
		if gerr == nil {
			gerr = group.Thaw()
		}
		err = ignoreNotFound(gerr)
	}
	return errors.Join(err, os.Remove(filepath.Join(s.dir, c.ID())))
}

// recover thaws what an earlier engine has left standing still. Call it before
// anyone takes a frozen container for a paused one.
func (s *stillness) recover() {
	notes, err := os.ReadDir(s.dir)
	if err != nil {
		return // there are none
	}
	for _, n := range notes {
		c, err := s.containers.Find(n.Name())
		if err == nil {
			err = s.thaw(c)
		} else {
			err = os.Remove(filepath.Join(s.dir, n.Name()))
		}
		if err != nil {
			s.log.Error("a container may stand still: unpause it", "container", n.Name(), "error", err)
		}
	}
}
