package health

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/supervise"
	"github.com/cleatlabs/cleat/test/expect"
)

// scripted is a run whose probes end as they are told to.
type scripted struct {
	results chan any // exit codes and errors
	probing chan struct{}
	over    atomic.Bool
	pauses  atomic.Int32

	mu   sync.Mutex
	told []string
}

func (s *scripted) Over() bool    { return s.over.Load() }
func (s *scripted) Pauses() int32 { return s.pauses.Load() }

func (s *scripted) Announce(status api.HealthStatus) { s.tell(string(status)) }

func (s *scripted) End(a Action) error {
	s.tell("end:" + string(a))
	return nil
}

func (s *scripted) tell(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = append(s.told, what)
}

func (s *scripted) said() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.told, " ")
}

func (s *scripted) Probe(ctx context.Context, _ *Check) (*api.HealthcheckResult, error) {
	select {
	case s.probing <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	select {
	case r := <-s.results:
		if err, failed := r.(error); failed {
			return nil, err
		}
		return &api.HealthcheckResult{ExitCode: r.(int)}, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// give has the next probe end with each of the results in turn.
func (s *scripted) give(results ...any) {
	for _, r := range results {
		<-s.probing
		s.results <- r
	}
}

// ward is a container with a health check.
type ward struct {
	*container.Container
	*scripted
	monitors *Monitors
	tasks    *supervise.Group
	dir      string
}

func newWard(t *testing.T, action Action) *ward {
	t.Helper()
	store, err := container.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	id := container.NewID()
	if err := errors.Join(store.ReserveName("ill", id), os.Mkdir(store.DirOf(id), 0o700)); err != nil {
		t.Fatal(err)
	}
	r := &container.Record{Definition: container.Definition{
		ID: id, Name: "ill",
		Config:     &api.Config{Healthcheck: &api.HealthConfig{Test: []string{"CMD", "probe"}, Interval: time.Millisecond, Retries: 2}},
		HostConfig: &api.HostConfig{Annotations: map[string]string{actionKey: string(action)}},
	}}
	r.State = container.State{Status: api.StateRunning, StartedAt: time.Now(), Health: Started(r, nil)}
	c := store.Draft(r)
	if err := store.Add(c, false); err != nil {
		t.Fatal(err)
	}
	w := &ward{
		Container: c, scripted: &scripted{results: make(chan any), probing: make(chan struct{})}, tasks: supervise.New(t.Context()),
		dir: filepath.Join(t.TempDir(), "health"),
	}
	w.monitors = NewMonitors(w.tasks, slog.New(slog.DiscardHandler), w.dir)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), expect.Patience)
		defer cancel()
		if err := w.tasks.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *ward) health() string {
	h := w.Load().State.Health
	return fmt.Sprint(h.Status, h.FailingStreak)
}

func TestMonitorNotesWhatProbesFind(t *testing.T) {
	w := newWard(t, Kill)
	m := w.monitors.Of(w.Container, w.scripted)
	m.Begin()
	w.give(1, 0)
	expect.Eventually(t, "a probe succeeds", m.Succeeded)
	w.give(errdefs.ErrConflict, 1) // that it stands still does not count
	expect.Eventually(t, "one probe has failed", func() bool { return w.health() == "healthy1" })
	w.give(errors.New("no such file"))
	expect.Eventually(t, "the container is ended", func() bool { return strings.HasSuffix(w.said(), "end:kill") })
	if got, want := w.said(), "healthy unhealthy end:kill"; got != want {
		t.Errorf("told %q, want %q", got, want)
	}
	m.Stop()
	log := w.Load().State.Health.Log
	if n := len(log); n != 4 || log[n-1].ExitCode != -1 || log[n-1].Output != "no such file" || log[n-1].End.Before(log[n-1].Start) {
		t.Errorf("log: %+v", log)
	}
}

// The start period is as long as it was to be, whichever way the host's clock is set meanwhile: what the record says of
// the start is by that.
func TestStartPeriodGoesByNoClockThatIsSet(t *testing.T) {
	for _, c := range []struct {
		period, set time.Duration
		want        string
	}{{time.Hour, 24 * time.Hour, "starting0"}, {time.Nanosecond, -24 * time.Hour, "unhealthy2"}} {
		w := newWard(t, "")
		m := w.monitors.Of(w.Container, w.scripted)
		m.check.StartPeriod, m.check.StartInterval = c.period, time.Millisecond
		m.Begin()
		w.SetStateInMemory(func(st *container.State) { st.StartedAt = st.StartedAt.Add(-c.set) })
		w.give(1, 1)
		<-w.probing // the next one: those before are noted
		m.Stop()
		if got := w.health(); got != c.want {
			t.Errorf("a start period of %v, the clock set by %v: %s, want %s", c.period, c.set, got, c.want)
		}
	}
}

// A result that comes after the stop, or of a probe that was paused meanwhile, is no result.
func TestMonitorNotesNothingLate(t *testing.T) {
	w := newWard(t, "")
	m := w.monitors.Of(w.Container, w.scripted)
	m.Begin()
	<-w.probing
	w.pauses.Add(1)
	w.results <- 1
	<-w.probing // the next one
	m.Stop()
	expect.Eventually(t, "no probe runs", func() bool { return len(w.tasks.Running()) == 0 })
	if got := w.health(); got != "starting0" {
		t.Errorf("health %s", got)
	}
	m.Begin() // whoever stopped it before it began means it
	if len(w.tasks.Running()) != 0 || w.said() != "" {
		t.Errorf("a stopped monitor goes on: %v, %q", w.tasks.Running(), w.said())
	}
}

func TestNoMonitorWithoutACheck(t *testing.T) {
	w := newWard(t, "")
	w.SetStateInMemory(func(st *container.State) { st.Health = nil })
	m := w.monitors.Of(w.Container, w.scripted)
	m.Begin()
	m.Stop()
	if m != nil || m.Succeeded() {
		t.Error("there is a monitor")
	}
}

// What one engine has found the next one has; files of containers that are gone go.
func TestHealthIsKept(t *testing.T) {
	w := newWard(t, Restart)
	found := &api.Health{Status: api.Unhealthy, FailingStreak: 7, Log: []*api.HealthcheckResult{}}
	w.SetStateInMemory(func(st *container.State) { st.Health = found })
	w.monitors.save(w.Container)
	stray := filepath.Join(w.dir, "stray")
	if err := os.WriteFile(stray, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	reload := func(change func(*container.State)) string {
		w.SetStateInMemory(func(st *container.State) { st.Health = nil; change(st) })
		w.monitors.Load([]*container.Container{w.Container})
		return w.health()
	}
	if got := reload(func(*container.State) {}); got != "unhealthy7" {
		t.Errorf("the same run: %s", got)
	}
	if _, err := os.Stat(stray); err == nil {
		t.Error("a file that belongs to nothing is left")
	}
	// The engine that found it may not have come to act on it.
	m := w.monitors.Of(w.Container, w.scripted)
	m.Begin()
	expect.Eventually(t, "the next engine acts on it", func() bool { return w.said() == "end:restart" })
	m.Stop()
	if got := reload(func(st *container.State) { st.StartedAt = st.StartedAt.Add(time.Second) }); got != "starting0" {
		t.Errorf("another run: %s", got)
	}
	if got := reload(func(st *container.State) { st.Status = api.StateExited }); got != "unhealthy7" {
		t.Errorf("one that has ended: %s", got)
	}
	w.monitors.Forget(w.Load())
	if left, _ := os.ReadDir(w.dir); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}
