package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/mount"
	"github.com/cleatlabs/cleat/internal/record"
)

// Mount notes that a container that has the volume is being started and returns
// the directory to bind; what the volume's options name is mounted there first,
// unless it is already. Doing so twice counts once. While the volume is being
// restored, and for the instant that a copy is of, it waits.
func (s *Service) Mount(ctx context.Context, name, containerID string) (path string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.usable(ctx, name)
	if err != nil {
		return "", err
	}
	path = s.mountpoint(name)
	switch {
	case e.isPlugins():
		err := s.hold(e, func() (err error) { path, err = s.mountIn(ctx, name, e, containerID); return err })
		if err != nil {
			return "", fmt.Errorf("error while mounting volume %s: %w", name, err)
		}
		e.path = path
	case isMounted(e.meta.Options):
		if err := s.hold(e, func() error { return s.ensureMounted(ctx, e.meta.Options, path) }); err != nil {
			return "", fmt.Errorf("error while mounting volume '%s': %w", path, err)
		}
	}
	e.active[containerID] = struct{}{}
	e.starts++
	return path, nil
}

// Unmount takes back a Mount. With the last one, what is mounted for the volume
// is unmounted. Unknown pairs are ignored.
func (s *Service) Unmount(ctx context.Context, name, containerID string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[name]
	if e == nil {
		return nil
	}
	_, was := e.active[containerID]
	delete(e.active, containerID)
	if !was || e.isDirectory() {
		return nil
	}
	e, err := s.free(ctx, name)
	if err != nil {
		return nil // it was removed, with what was mounted
	}
	if e.isPlugins() {
		err := s.hold(e, func() error { return s.unmountIn(ctx, name, e, containerID) })
		if len(e.active) == 0 {
			e.path = ""
		}
		return err
	}
	if len(e.active) > 0 || s.unknown {
		return nil
	}
	return s.hold(e, func() error { return s.ensureUnmounted(name) })
}

// Left notes that a container has ended, where nothing is mounted for the volume: who sees the end finds the volume
// idle, though Unmount, which may take its time, is still to come. Unknown pairs are ignored.
func (s *Service) Left(name, containerID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[name]; e != nil && e.isDirectory() {
		delete(e.active, containerID)
	}
}

// Fill calls fill, which copies what an image holds into the volume, when nobody else fills it: containers may be started
// with one new volume at the same time. Who copies the volume does not wait for it, as it may wait for the container that
// is being started.
func (s *Service) Fill(ctx context.Context, name string, fill func() error) error {
	s.mu.Lock()
	e := s.entries[name]
	s.mu.Unlock()
	if e == nil {
		return missing(name)
	}
	select {
	case e.filling <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-e.filling }()
	return fill()
}

// free returns a volume that is there once nothing is done with it. s.mu is
// held, but not while it waits.
func (s *Service) free(ctx context.Context, name string) (*entry, error) {
	return s.awaitOne(ctx, name, func(e *entry) bool { return e.held == nil })
}

// usable is free, or held for what containers may be started with meanwhile.
func (s *Service) usable(ctx context.Context, name string) (*entry, error) {
	return s.awaitOne(ctx, name, func(e *entry) bool { return e.held == nil || e.open && e.isDirectory() })
}

// awaitOne returns a volume that is there and that is ready. s.mu is held, but not
// while it waits.
func (s *Service) awaitOne(ctx context.Context, name string, ready func(*entry) bool) (*entry, error) {
	for {
		e, err := s.settled(ctx, name)
		if err != nil {
			return nil, err
		}
		if e == nil {
			return nil, missing(name)
		}
		if ready(e) {
			return e, nil
		}
		if err := s.await(ctx, e.held); err != nil {
			return nil, err
		}
	}
}

// hold keeps a free volume for f: it is not removed, mounted or copied
// meanwhile. s.mu is held, but not while f runs.
func (s *Service) hold(e *entry, f func() error) error {
	held := make(chan struct{})
	e.held = held
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		e.held, e.open = nil, false
		close(held)
	}()
	return f()
}

// holdOpen is hold, but containers may be started with the volume until f shuts it.
func (s *Service) holdOpen(e *entry, f func() error) error {
	e.open = true
	return s.hold(e, f)
}

// shut makes those wait who start containers with a volume that is held open.
func (s *Service) shut(e *entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.open = false
}

func (s *Service) ensureMounted(ctx context.Context, opts map[string]string, path string) error {
	there, err := mount.IsMountpoint(path)
	if err != nil || there {
		return err
	}
	if err := mountLocal(ctx, opts, path); err != nil {
		return err
	}
	record.Failpoint("volume.mount.after-mount")
	return nil
}

func (s *Service) ensureUnmounted(name string) error {
	path := s.mountpoint(name)
	for {
		there, err := mount.IsMountpoint(path)
		if err != nil || !there {
			return err
		}
		if err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("unmount volume %s: %w", name, err)
		}
	}
}

// Users returns the ids of the containers that run with a volume or are being
// started with it, sorted.
func (s *Service) Users(name string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[name]
	if e == nil {
		return nil
	}
	ids := make([]string, 0, len(e.active))
	for id := range e.active {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// Reconcile sets all references at once (volume name → container ids) at engine
// start, and those of the containers that run. What is mounted for volumes that no
// container runs with, is unmounted, unless there are containers of which nobody
// knows what they run with: then all of it stays, until the next engine.
func (s *Service) Reconcile(refs, active map[string][]string, unknown bool) error {
	s.mu.Lock()
	s.unknown = unknown
	var idle []string
	for name, e := range s.entries {
		clear(e.refs)
		clear(e.active)
		for _, id := range refs[name] {
			e.refs[id] = struct{}{}
		}
		for _, id := range active[name] {
			e.active[id] = struct{}{}
		}
		if !e.isPlugins() && isMounted(e.meta.Options) && len(e.active) == 0 && !unknown {
			idle = append(idle, name)
		}
	}
	s.mu.Unlock()
	var errs []error
	for _, name := range idle {
		errs = append(errs, s.ensureUnmounted(name))
	}
	return errors.Join(errs...)
}
