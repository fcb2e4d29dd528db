package engine

import (
	"os"
	"path/filepath"
	"testing"

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
