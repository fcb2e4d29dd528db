package engine

import (
	"context"
	"path/filepath"
	goruntime "runtime"
	"time"

	api "github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"

	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/health"
)

// prober runs the probes of health checks as execs, and ends containers whose checks fail.
type prober struct {
	monitors *health.Monitors
	execs    *Execs
	stopper  *Stopper
	say      *announcer
	turn     chan struct{} // held while a probe is started
}

func newProber(execs *Execs, stopper *Stopper, say *announcer, d *Deps) *prober {
	return &prober{
		monitors: health.NewMonitors(d.Tasks, d.Log, filepath.Join(d.Settings.ExecRoot, "health")), execs: execs, stopper: stopper, say: say,
		turn: make(chan struct{}, goruntime.NumCPU()),
	}
}

// begin probes a run from now until its monitor is stopped.
func (p *prober) begin(c *container.Container, r *run) {
	m := p.monitors.Of(c, &probedRun{p, c, r})
	r.setMonitor(m)
	m.Begin()
}

// probedRun is a run as the monitor of its health needs it.
type probedRun struct {
	p *prober
	c *container.Container
	r *run
}

func (u *probedRun) Over() bool    { return isClosed(u.r.process.Done()) }
func (u *probedRun) Pauses() int32 { return u.r.pauses.Load() }

func (u *probedRun) Announce(status api.HealthStatus) {
	u.p.say.container(u.c, apievents.Action(string(apievents.ActionHealthStatus)+": "+string(status)))
}

// Probe implements health.Run.
func (u *probedRun) Probe(ctx context.Context, check *health.Check) (*api.HealthcheckResult, error) {
	return u.p.execs.probe(ctx, u.c, check, u.p.turn)
}

// End implements health.Run. What outlives the run is in the state before it ends: the next engine must know it, too,
// should this one die meanwhile.
func (u *probedRun) End(action health.Action) error {
	var err error
	switch action {
	case health.Restart:
		err = u.c.SetState(func(st *container.State) { st.HealthRestart = true })
	case health.Stop:
		u.r.stopByHand()
		err = u.c.SetState(func(st *container.State) { st.StoppedByHand = true })
	}
	if err != nil {
		return err
	}
	return u.p.stopper.endUnhealthy(u.c, u.r, action)
}

// probe runs a health check's command in the live run of its container, as an
// exec without a client. The error is for a probe that says nothing about the
// container's health: that has ended, stands still, or ctx has ended.
func (x *Execs) probe(ctx context.Context, c *container.Container, check *health.Check, turn chan struct{}) (*api.HealthcheckResult, error) {
	e, err := x.prepareProbe(ctx, c, check)
	if err != nil {
		return nil, err
	}
	defer x.forget(e)
	sub := e.hub.Subscribe(true, true)
	defer sub.Close()
	// Starts take turns: of many probes that are due at one time each is quick.
	select {
	case turn <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	err = x.start(ctx, e, nil, false)
	<-turn
	if err != nil {
		return nil, err
	}
	output := &health.Output{}
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		_ = copyOutput(ctx, sub, StreamIO{Stdout: output, Stderr: output})
	}()
	timer := time.NewTimer(check.Timeout)
	defer timer.Stop()
	late := false
	select {
	case <-e.process.Done():
	case <-timer.C:
		late = true
		_ = e.process.KillGroup()
	case <-ctx.Done():
		_ = e.process.KillGroup()
	}
	// One that is stuck in the kernel, or stands still, must not be joined by another.
	select {
	case <-e.process.Done():
	case <-x.tasks.Context().Done():
		return nil, context.Cause(x.tasks.Context())
	}
	<-copied
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if late {
		return health.TimedOut(check.Timeout, output.String()), nil
	}
	return &api.HealthcheckResult{ExitCode: e.process.Status().Code, Output: output.String()}, nil
}

func (x *Execs) prepareProbe(ctx context.Context, c *container.Container, check *health.Check) (*execution, error) {
	r, err := x.runningRun(ctx, c)
	if err != nil {
		return nil, err
	}
	user, err := x.lookupUser(c, r, "")
	if err != nil {
		return nil, err
	}
	req := api.ExecCreateRequest{Cmd: check.Cmd, AttachStdout: true, AttachStderr: true}
	e := newExecution(c, r, req, user, nil)
	e.probe, e.begun = true, true
	x.register(e)
	return e, nil
}

// forget drops a probe: nobody asks for one that has ended, and there are many.
func (x *Execs) forget(e *execution) {
	x.mu.Lock()
	delete(x.byID, e.id)
	x.mu.Unlock()
	e.run.mu.Lock()
	delete(e.run.execs, e.id)
	e.run.mu.Unlock()
}
