package engine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/internal/cgroup"
	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/failure"
)

// storeOf is a store with one container, db on the host data, which has that state.
func storeOf(t *testing.T, status api.ContainerState) (*container.Store, *container.Container) {
	t.Helper()
	root := t.TempDir()
	store, err := container.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	r := &container.Record{Definition: container.Definition{ID: container.NewID(), Name: "db", Config: &api.Config{Hostname: "data"}, HostConfig: &api.HostConfig{}}}
	r.State.Status = status
	if err := os.Mkdir(filepath.Join(root, r.ID), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := store.ReserveName(r.Name, r.ID); err != nil {
		t.Fatal(err)
	}
	c := store.Draft(r)
	if err := store.Add(c, false); err != nil {
		t.Fatal(err)
	}
	return store, c
}

// A container whose end is not noted yet, and whose control group is gone, needs not be made to stand still.
func TestWhoHasJustEndedStandsStill(t *testing.T) {
	store, c := storeOf(t, api.StateRunning)
	s := &stillness{
		containers: store, specs: &specBuilder{}, dir: filepath.Join(t.TempDir(), "still"), held: map[string]*standing{},
		group: func(path string) (*cgroup.Group, error) {
			return nil, failure.New(errdefs.ErrNotFound, "no control group %s", path)
		},
	}
	resume, err := s.quiesce(t.Context(), []string{c.ID()})
	if err != nil {
		t.Fatal(err)
	}
	if err := resume(); err != nil {
		t.Error(err)
	}
	if len(s.held) != 0 {
		t.Errorf("held: %v", s.held)
	}
}

// A pause waits for the end of a copy, which would thaw the container while it is being paused, and keeps nobody else
// from the container meanwhile.
func TestPauseOfWhatStandsStill(t *testing.T) {
	store, c := storeOf(t, api.StateRunning)
	s := &stillness{
		containers: store, specs: &specBuilder{}, dir: t.TempDir(), held: map[string]*standing{c.ID(): {copies: 1, over: make(chan struct{})}},
		group: func(path string) (*cgroup.Group, error) {
			return nil, failure.New(errdefs.ErrNotFound, "no control group %s", path)
		},
	}
	if err := os.WriteFile(filepath.Join(s.dir, c.ID()), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p := &Pauser{containers: store, lives: newLives(), still: s}
	given, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Pause(given, c.ID()); !errors.Is(err, context.Canceled) {
		t.Errorf("a pause that is given up: %v", err)
	}
	paused := make(chan error, 1)
	go func() { paused <- p.Pause(t.Context(), c.ID()) }()
	select {
	case err := <-paused:
		t.Fatalf("it did not wait: %v", err)
	case <-time.After(10 * time.Millisecond):
	}
	unlock, err := c.Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	unlock()
	if err := s.release(c); err != nil {
		t.Fatal(err)
	}
	if err := <-paused; !errdefs.IsConflict(err) { // it has no process, in this test
		t.Error(err)
	}
}
