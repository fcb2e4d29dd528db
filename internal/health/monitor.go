package health

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/internal/container"
)

// Run is one run of a container, as its monitor needs it.
type Run interface {
	// Probe runs the check's command and waits for its end. The result's times are the monitor's to fill in. The error
	// says that there was no result; a conflict, that the container stood still.
	Probe(context.Context, *Check) (*api.HealthcheckResult, error)
	// Over says whether the container's process has ended.
	Over() bool
	// Pauses counts how often the run was paused until now.
	Pauses() int32
	// Announce tells that the container's health has changed to status.
	Announce(status api.HealthStatus)
	// End does what was asked for if the container turns unhealthy. It may stop the monitor.
	End(Action) error
}

// Monitor probes one run of a container. A nil one is of a container without a health check.
type Monitor struct {
	all       *Monitors
	c         *container.Container
	run       Run
	check     *Check
	succeeded atomic.Bool
	born      time.Time // when the run began, by a clock that nobody sets

	mu     sync.Mutex
	timer  *time.Timer
	over   bool
	cancel context.CancelFunc // of the probe that is under way, or nil
}

// Of makes the monitor of a run of c, whose state has its health; nil if it has no health check.
func (w *Monitors) Of(c *container.Container, run Run) *Monitor {
	r := c.Load()
	check := Of(r)
	if check == nil || r.State.Health == nil {
		return nil
	}
	return &Monitor{all: w, c: c, run: run, check: check}
}

// Begin probes the run from now until Stop.
func (m *Monitor) Begin() {
	if m == nil {
		return
	}
	m.all.save(m.c)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.over {
		return
	}
	st, now := &m.c.Load().State, time.Now()
	m.born = now.Add(-max(0, now.Sub(st.StartedAt)))
	m.timer = time.AfterFunc(m.check.due(st, now), func() { m.all.tasks.Go("health", m.once) })
	if st.Health.Status == api.Unhealthy && m.check.OnFailure != "" {
		// An earlier engine has found that, and may not have come to act on it.
		m.all.tasks.Go("health", func(context.Context) { m.act() })
	}
}

// Stop ends the probing: no result is noted after it.
func (m *Monitor) Stop() {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.over = true
	if m.timer != nil {
		m.timer.Stop()
	}
	if m.cancel != nil {
		m.cancel()
	}
}

// Succeeded says whether a probe of this run has.
func (m *Monitor) Succeeded() bool { return m != nil && m.succeeded.Load() }

// again sets the timer for the next probe.
func (m *Monitor) again() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.over {
		m.timer.Reset(m.check.wait(m.c.Load().State.Health, time.Since(m.born)))
	}
}

// once runs one probe.
func (m *Monitor) once(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m.mu.Lock()
	if m.over {
		m.mu.Unlock()
		return
	}
	m.cancel = cancel
	m.mu.Unlock()
	pauses := m.run.Pauses()
	begun := time.Now()
	result, err := m.run.Probe(ctx, m.check)
	if ctx.Err() != nil || m.run.Over() {
		return
	}
	switch {
	case m.c.Load().State.Status == api.StatePaused || m.run.Pauses() != pauses || errdefs.IsConflict(err):
		// It stood still, or does: that is not ill health.
	case err != nil:
		m.note(&api.HealthcheckResult{Start: begun, End: time.Now(), ExitCode: -1, Output: err.Error()})
	default:
		result.Start, result.End = begun, time.Now()
		m.note(result)
	}
	m.again()
}

// note adds a result to the container's state and does what follows from it.
func (m *Monitor) note(result *api.HealthcheckResult) {
	before, now, over := m.add(result)
	if over {
		return
	}
	if now == api.Healthy {
		m.succeeded.Store(true)
	}
	m.all.save(m.c)
	if before == now {
		return
	}
	m.run.Announce(now)
	if now == api.Unhealthy {
		m.act()
	}
}

// add adds a result to the container's state, unless the monitor was stopped.
func (m *Monitor) add(result *api.HealthcheckResult) (before, now api.HealthStatus, over bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.over {
		return "", "", true
	}
	m.c.SetStateInMemory(func(st *container.State) {
		before = st.Health.Status
		st.Health = m.check.after(st.Health, result, result.Start.Sub(m.born))
		now = st.Health.Status
	})
	return before, now, false
}

// act ends the container, if that was asked for.
func (m *Monitor) act() {
	if a := m.check.OnFailure; a != "" && a != None {
		if err := m.run.End(a); err != nil {
			m.all.log.Error("an unhealthy container could not be ended", "container", m.c.ID(), "action", a, "error", err)
		}
	}
}
