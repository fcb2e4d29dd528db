package engine

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	api "github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/internal/bootorder"
	"github.com/cleatlabs/cleat/internal/container"
)

// Nobody waits for a container that somebody has stopped since the turns were planned.
func TestWhatDoesNotStartAfterAllLeavesTheQueue(t *testing.T) {
	root := t.TempDir()
	store, err := container.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	id := container.NewID()
	if err := os.Mkdir(filepath.Join(root, id), 0o700); err != nil {
		t.Fatal(err)
	}
	c := store.Draft(&container.Record{Definition: container.Definition{
		ID: id, Name: "stopped", HostConfig: &api.HostConfig{RestartPolicy: api.RestartPolicy{Name: api.RestartPolicyUnlessStopped}}, Config: &api.Config{},
	}, State: container.State{Status: api.StateExited, StartedAt: time.Unix(1, 0), StoppedByHand: true}})
	if err := store.Add(c, false); err != nil {
		t.Fatal(err)
	}
	q := bootorder.New(nil, nil, donors)
	q.Plan([]*container.Container{c}, []*container.Container{c})
	(&Recovery{boot: q, exits: &exiter{}}).settle(t.Context(), []*container.Container{c})
	if q.Take(c) {
		t.Error("others still wait for it")
	}
}
