package engine

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	goruntime "runtime"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"

	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/record"
	"github.com/cleatlabs/cleat/internal/supervise"
)

// prober runs health checks. A container that waits for its next probe costs a
// timer and no goroutine. What the probes have found lies on tmpfs, one small
// file for each container, so that the next engine goes on where this one ended
// and no disk is written to for it.
type prober struct {
	execs   *Execs
	stopper *Stopper
	say     *announcer
	tasks   *supervise.Group
	log     *slog.Logger
	dir     string
	turn    chan struct{}
}

func newProber(execs *Execs, stopper *Stopper, say *announcer, d Deps) *prober {
	return &prober{
		execs: execs, stopper: stopper, say: say, tasks: d.Tasks, log: d.Log, dir: filepath.Join(d.Settings.ExecRoot, "health"),
		turn: make(chan struct{}, goruntime.NumCPU()),
	}
}

// healthFile is what lies on tmpfs.
type healthFile struct {
	StartedAt time.Time // of the run that Health is about
	Health    *api.Health
}

func (p *prober) path(id string) string { return filepath.Join(p.dir, id) }

// save writes a container's health down for the next engine.
func (p *prober) save(c *container.Container) {
	st := &c.Load().State
	if st.Health == nil || c.Gone() {
		return
	}
	err := record.WriteJSON(p.path(c.ID()), healthFile{st.StartedAt, st.Health}, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(p.dir, 0o700); err == nil {
			err = record.WriteJSON(p.path(c.ID()), healthFile{st.StartedAt, st.Health}, 0o600)
		}
	}
	if err != nil {
		p.log.Warn("the health of a container is not kept over an end of the engine", "container", c.ID(), "error", err)
	}
}

// load brings back what earlier engines have found, and removes what belongs to
// nothing.
func (p *prober) load(all []*container.Container) {
	known := map[string]bool{}
	for _, c := range all {
		r := c.Load()
		if healthcheckOf(r) == nil {
			continue
		}
		known[c.ID()] = true
		var f healthFile
		err := record.ReadJSON(p.path(c.ID()), &f)
		if err != nil || f.Health == nil {
			f.Health = nil
		}
		c.SetStateInMemory(func(st *container.State) {
			switch {
			case !st.Alive() && st.Status != api.StateRestarting:
				st.Health = endedHealth(f.Health)
			case f.Health != nil && f.StartedAt.Equal(st.StartedAt):
				st.Health = f.Health
			default: // it was not written any more, or the machine was restarted
				st.Health = startedHealth(r, f.Health)
			}
		})
	}
	entries, _ := os.ReadDir(p.dir)
	for _, e := range entries {
		if !known[e.Name()] {
			_ = os.Remove(filepath.Join(p.dir, e.Name()))
		}
	}
}

// drop forgets a removed container.
func (p *prober) drop(r *container.Record) {
	if healthcheckOf(r) != nil {
		_ = os.Remove(p.path(r.ID))
	}
}

// monitor probes one run of a container.
type monitor struct {
	p  *prober
	c  *container.Container
	r  *run
	hc *healthcheck

	mu     sync.Mutex
	timer  *time.Timer
	over   bool
	cancel context.CancelFunc // of the probe that is under way, or nil
}

// begin probes a run from now until stop. Its container's state has its health.
func (p *prober) begin(c *container.Container, r *run) {
	rec := c.Load()
	hc := healthcheckOf(rec)
	if hc == nil || rec.State.Health == nil {
		return
	}
	p.save(c)
	m := &monitor{p: p, c: c, r: r, hc: hc}
	m.mu.Lock()
	defer m.mu.Unlock()
	h := rec.State.Health
	m.timer = time.AfterFunc(p.due(rec, hc), m.fire)
	if h.Status == api.Unhealthy && hc.onFailure != "" {
		// An earlier engine has found that, and may not have come to act on it.
		p.tasks.Go("health", func(context.Context) { m.act() })
	}
	r.setMonitor(m)
}

// due is when the next probe of a run is, as seen from now: for one that an
// earlier engine has probed it is counted from then.
func (p *prober) due(rec *container.Record, hc *healthcheck) time.Duration {
	h, now := rec.State.Health, time.Now()
	last := rec.State.StartedAt
	if n := len(h.Log); n > 0 && h.Log[n-1].End.After(last) {
		last = h.Log[n-1].End
	}
	return max(0, hc.wait(h, rec.State.StartedAt, now)-max(0, now.Sub(last)))
}

// stop ends the probing: no result is noted after it.
func (m *monitor) stop() {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.over = true
	m.timer.Stop()
	if m.cancel != nil {
		m.cancel()
	}
}

func (m *monitor) fire() { m.p.tasks.Go("health", m.once) }

// again sets the timer for the next probe.
func (m *monitor) again() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.over {
		st := &m.c.Load().State
		m.timer.Reset(m.hc.wait(st.Health, st.StartedAt, time.Now()))
	}
}

// once runs one probe.
func (m *monitor) once(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m.mu.Lock()
	if m.over {
		m.mu.Unlock()
		return
	}
	m.cancel = cancel
	m.mu.Unlock()
	pauses := m.r.pauses.Load()
	begun := time.Now()
	result, err := m.p.execs.probe(ctx, m.c, m.hc, m.p.turn)
	if ctx.Err() != nil || isClosed(m.r.process.Done()) {
		return
	}
	switch {
	case m.c.Load().State.Status == api.StatePaused || m.r.pauses.Load() != pauses || errdefs.IsConflict(err):
		// It stood still, or does: that is not ill health.
	case err != nil:
		m.note(&api.HealthcheckResult{Start: begun, End: time.Now(), ExitCode: -1, Output: err.Error()})
	default:
		result.Start, result.End = begun, time.Now()
		m.note(result)
	}
	m.again()
}

// note adds a result to the container's state and says what follows from it.
func (m *monitor) note(result *api.HealthcheckResult) {
	m.mu.Lock()
	over := m.over
	var before, now api.HealthStatus
	if !over {
		m.c.SetStateInMemory(func(st *container.State) {
			before = st.Health.Status
			st.Health = m.hc.after(st.Health, result, st.StartedAt)
			now = st.Health.Status
		})
	}
	m.mu.Unlock()
	if over {
		return
	}
	if now == api.Healthy {
		m.r.wasHealthy.Store(true)
	}
	m.p.save(m.c)
	if before == now {
		return
	}
	m.p.say.container(m.c, apievents.Action(string(apievents.ActionHealthStatus)+": "+string(now)))
	if now == api.Unhealthy {
		m.act()
	}
}

// act does what was asked for if the container turns unhealthy.
func (m *monitor) act() {
	var err error
	c, r := m.c, m.r
	switch m.hc.onFailure {
	case healthRestart:
		// The next engine must know it, too, should this one die meanwhile.
		err = c.SetState(func(st *container.State) { st.HealthRestart = true })
		if err == nil {
			err = m.p.stopper.endUnhealthy(c, r, healthRestart)
		}
	case healthStop:
		r.stopByHand()
		err = c.SetState(func(st *container.State) { st.StoppedByHand = true })
		if err == nil {
			err = m.p.stopper.endUnhealthy(c, r, healthStop)
		}
	case healthKill:
		err = m.p.stopper.endUnhealthy(c, r, healthKill)
	}
	if err != nil {
		m.p.log.Error("an unhealthy container could not be ended", "container", c.ID(), "action", m.hc.onFailure, "error", err)
	}
}
