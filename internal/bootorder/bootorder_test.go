package bootorder

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	api "github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/internal/container"
)

func TestComposeNeeds(t *testing.T) {
	got := composeNeeds("db:service_healthy:false,,cache:service_started:true,plain,:x")
	want := map[string]string{"db": "service_healthy", "cache": "service_started", "plain": ""}
	if len(got) != len(want) {
		t.Fatalf("%v", got)
	}
	for service, condition := range want {
		if got[service] != condition {
			t.Errorf("%s: %q, want %q", service, got[service], condition)
		}
	}
}

func FuzzComposeNeeds(f *testing.F) {
	f.Add("db:service_healthy:false,x:y")
	f.Fuzz(func(t *testing.T, label string) {
		for service := range composeNeeds(label) {
			if service == "" || strings.ContainsAny(service, ":,") {
				t.Errorf("%q: %q", label, service)
			}
		}
	})
}

func TestWhatAConditionAsksFor(t *testing.T) {
	health := func(s api.HealthStatus) *api.Health { return &api.Health{Status: s} }
	for _, c := range []struct {
		condition string
		state     container.State
		ok, final bool
	}{
		{"service_started", container.State{Status: api.StateRunning}, true, true},
		{"", container.State{Status: api.StateExited}, false, true},
		{"", container.State{Status: api.StateRestarting}, true, false},
		{"service_healthy", container.State{Status: api.StateRunning}, true, true},
		{"service_healthy", container.State{Status: api.StateRunning, Health: health(api.Starting)}, false, false},
		{"service_healthy", container.State{Status: api.StateRunning, Health: health(api.Healthy)}, true, true},
		{"service_healthy", container.State{Status: api.StateRunning, Health: health(api.Unhealthy)}, false, true},
		{"service_healthy", container.State{Status: api.StateExited, Health: health(api.Starting)}, false, true},
		{"service_completed_successfully", container.State{Status: api.StateRunning}, false, false},
		{"service_completed_successfully", container.State{Status: api.StateExited}, true, true},
		{"service_completed_successfully", container.State{Status: api.StateExited, ExitCode: 1}, false, true},
	} {
		if ok, final := met(&c.state, c.condition); ok != c.ok || final != c.final {
			t.Errorf("%q of %+v: %v, %v", c.condition, c.state, ok, final)
		}
	}
}

func hadTurn(t *turn) bool {
	select {
	case <-t.had:
		return true
	default:
		return false
	}
}

// What labels make a circle of waits for no circle, and everyone gets a turn.
func TestCirclesAreBroken(t *testing.T) {
	root := t.TempDir()
	store, err := container.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]*container.Container{}
	var all []*container.Container
	for name, on := range map[string]string{"a": "b:service_started:false", "b": "c", "c": "a,c,d:service_healthy:true", "d": "gone", "e": "b"} {
		id := container.NewID()
		if err := os.Mkdir(filepath.Join(root, id), 0o700); err != nil {
			t.Fatal(err)
		}
		c := store.Draft(&container.Record{Definition: container.Definition{
			ID: id, Name: name, HostConfig: &api.HostConfig{},
			Config: &api.Config{Labels: map[string]string{composeProject: "p", composeService: name, composeDependsOn: on}},
		}})
		if err := store.Add(c, false); err != nil {
			t.Fatal(err)
		}
		all, byName[name] = append(all, c), c
	}
	q := New(nil, nil, func(*api.HostConfig) []string { return nil })
	q.Plan(all, all)
	if len(q.turns) != len(all) {
		t.Fatalf("%d turns for %d", len(q.turns), len(all))
	}
	if waits := func(name string) bool { return len(q.turns[byName[name].ID()].after) > 0 }; !waits("e") || waits("d") {
		t.Error("e waits for b, d for nothing")
	}
	// In some order each has its turn after those it waits for.
	for len(q.turns) > 0 {
		before := len(q.turns)
		for _, c := range all {
			turn := q.turns[c.ID()]
			if turn == nil {
				continue
			}
			free := true
			for _, n := range turn.after {
				free = free && (n.turn == nil || hadTurn(n.turn))
			}
			if free {
				q.Had(c)
			}
		}
		if len(q.turns) == before {
			t.Fatalf("%d wait for each other", before)
		}
	}
}
