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

// stopped is a container that has run, in a store of its own.
func stopped(t *testing.T, policy api.RestartPolicyMode, byHand bool) *container.Container {
	t.Helper()
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
		ID: id, Name: "stopped", HostConfig: &api.HostConfig{RestartPolicy: api.RestartPolicy{Name: policy}}, Config: &api.Config{},
	}, State: container.State{Status: api.StateExited, StartedAt: time.Unix(1, 0), StoppedByHand: byHand}})
	if err := store.Add(c, false); err != nil {
		t.Fatal(err)
	}
	return c
}

// Nobody waits for a container that somebody has stopped since the turns were planned.
func TestWhatDoesNotStartAfterAllLeavesTheQueue(t *testing.T) {
	c := stopped(t, api.RestartPolicyUnlessStopped, true)
	q := bootorder.New(nil, nil, donors)
	q.Plan([]*container.Container{c}, []*container.Container{c})
	(&Recovery{boot: q, exits: &exiter{}}).settle(t.Context(), []*container.Container{c})
	if q.Take(c) {
		t.Error("others still wait for it")
	}
}

// TestClientIsQuickerThanTheEngine: what a client did with a container since it was found to start with the engine stays.
// One that it had started was told in the log as a failure, and one that it had also stopped was started again.
func TestClientIsQuickerThanTheEngine(t *testing.T) {
	for name, change := range map[string]func(*container.State){
		"started":             func(s *container.State) { s.Status, s.StartedAt = api.StateRunning, time.Unix(2, 0) },
		"started and stopped": func(s *container.State) { s.StartedAt, s.StoppedByHand = time.Unix(2, 0), true },
	} {
		c := stopped(t, api.RestartPolicyAlways, false)
		seen := c.Load()
		c.SetStateInMemory(change)
		// A start of its own would ask what this engine does not have.
		if err := (&Starter{writers: &writers{}}).startWithEngine(t.Context(), c, seen); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
