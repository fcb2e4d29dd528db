package engine

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	api "github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/failure"
)

// Docker's numbers.
const (
	defaultProbeInterval = 30 * time.Second
	defaultProbeTimeout  = 30 * time.Second
	defaultStartInterval = 5 * time.Second
	defaultProbeRetries  = 3
	keptProbes           = 5
	keptProbeOutput      = 4096 // bytes of each
)

// healthcheck is a container's health check with the defaults filled in.
type healthcheck struct {
	cmd                                           []string
	interval, timeout, startPeriod, startInterval time.Duration
	retries                                       int
	onFailure                                     healthAction
}

// healthcheckOf returns nil for a container without one.
func healthcheckOf(r *container.Record) *healthcheck {
	h := r.Config.Healthcheck
	cmd, err := healthCommand(r.Config)
	if err != nil || len(cmd) == 0 {
		return nil
	}
	or := func(d, otherwise time.Duration) time.Duration {
		if d == 0 {
			return otherwise
		}
		return d
	}
	out := &healthcheck{
		cmd: cmd, interval: or(h.Interval, defaultProbeInterval), timeout: or(h.Timeout, defaultProbeTimeout), startPeriod: h.StartPeriod,
		startInterval: or(h.StartInterval, defaultStartInterval), retries: h.Retries, onFailure: healthAction(r.HostConfig.Annotations[healthActionKey]),
	}
	if out.retries == 0 {
		out.retries = defaultProbeRetries
	}
	return out
}

// healthCommand is the command line of a merged config's health check, nil
// without one.
func healthCommand(c *api.Config) ([]string, error) {
	h := c.Healthcheck
	if h == nil || len(h.Test) == 0 {
		return nil, nil
	}
	args := h.Test[1:]
	switch h.Test[0] {
	case "NONE":
		return nil, nil
	case "CMD":
	case "CMD-SHELL":
		shell := c.Shell
		if len(shell) == 0 {
			shell = []string{"/bin/sh", "-c"}
		}
		if len(args) > 0 {
			args = slices.Concat(shell, args)
		}
	default:
		return nil, failure.Invalid("Unknown healthcheck type '%s' (expected 'NONE', 'CMD' or 'CMD-SHELL')", h.Test[0])
	}
	if len(args) == 0 || args[0] == "" {
		return nil, failure.Invalid("Healthcheck has no command after %q", h.Test[0])
	}
	return args, nil
}

// healthAction is what is done with a container that turns unhealthy.
type healthAction string

// healthActionKey is the annotation that carries the action through an API that
// has no field for it: every client can set annotations, and only who makes the
// container can.
const healthActionKey = "cleat.health-on-failure"

const (
	healthNone    healthAction = "none"
	healthRestart healthAction = "restart"
	healthStop    healthAction = "stop"
	healthKill    healthAction = "kill"
)

// checkHealthAction looks at the annotation, before the image is known.
func checkHealthAction(h *api.HostConfig) error {
	v, given := h.Annotations[healthActionKey]
	switch healthAction(v) {
	case healthNone, healthRestart, healthStop, healthKill:
		return nil
	case "":
		if !given {
			return nil
		}
	}
	return failure.Invalid("invalid action %q on health check failure (--health-on-failure, annotation %s): want none, restart, stop or kill", v, healthActionKey)
}

// checkHealth looks at the check itself, after the image is merged in.
func checkHealth(c *api.Config, h *api.HostConfig) error {
	if v := h.Annotations[healthActionKey]; v != "" && v != string(healthNone) && !hasHealthcheck(c) {
		return failure.Invalid("cannot %s the container on health check failure (--health-on-failure): neither --health-cmd nor the image gives it a health check", v)
	}
	return nil
}

// startedHealth is the health of a container that is being started; before is
// that of its last run, whose results stay to be seen.
func startedHealth(r *container.Record, before *api.Health) *api.Health {
	if healthcheckOf(r) == nil {
		return nil
	}
	h := &api.Health{Status: api.Starting, Log: []*api.HealthcheckResult{}}
	if before != nil {
		h.Log = before.Log
	}
	return h
}

// endedHealth is the health of a container that does not run: Docker's programs
// expect it not to be healthy.
func endedHealth(h *api.Health) *api.Health {
	if h == nil {
		return nil
	}
	next := *h
	next.Status = api.Unhealthy
	return &next
}

// after is the health that follows h with the result of one more probe. started
// is when the container was.
func (hc *healthcheck) after(h *api.Health, result *api.HealthcheckResult, started time.Time) *api.Health {
	next := api.Health{Status: h.Status, FailingStreak: h.FailingStreak}
	kept := h.Log
	if n := len(kept); n >= keptProbes {
		kept = kept[n-keptProbes+1:]
	}
	next.Log = append(slices.Clone(kept), result)
	switch {
	case result.ExitCode == 0:
		next.Status, next.FailingStreak = api.Healthy, 0
	case h.Status == api.Starting && result.Start.Sub(started) < hc.startPeriod:
		// It may still be on its way.
	default:
		next.FailingStreak++
		if next.FailingStreak >= hc.retries {
			next.Status = api.Unhealthy
		}
	}
	return &next
}

// wait is how long after now the next probe is due, if the last one ended, or
// the container started, just now.
func (hc *healthcheck) wait(h *api.Health, started, now time.Time) time.Duration {
	if h.Status == api.Starting && now.Sub(started) < hc.startPeriod {
		return hc.startInterval
	}
	return hc.interval
}

// probeOutput keeps the first of a probe's output.
type probeOutput struct {
	buf bytes.Buffer
	cut bool
}

func (o *probeOutput) Write(p []byte) (int, error) {
	n := len(p)
	if room := keptProbeOutput - o.buf.Len(); len(p) > room {
		p, o.cut = p[:room], true
	}
	o.buf.Write(p)
	return n, nil
}

func (o *probeOutput) String() string {
	if o.cut {
		return o.buf.String() + "..."
	}
	return o.buf.String()
}

// timedOut is the result of a probe that took too long, in Docker's words.
func timedOut(timeout time.Duration, output string) *api.HealthcheckResult {
	text := fmt.Sprintf("Health check exceeded timeout (%v)", timeout)
	if output != "" {
		text += ": " + output
	}
	return &api.HealthcheckResult{ExitCode: -1, Output: text}
}

// probe runs a health check's command in the live run of its container, as an
// exec without a client. The error is for a probe that says nothing about the
// container's health: that has ended, stands still, or ctx has ended.
func (x *Execs) probe(ctx context.Context, c *container.Container, hc *healthcheck, turn chan struct{}) (*api.HealthcheckResult, error) {
	e, err := x.prepareProbe(ctx, c, hc)
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
	err = x.start(ctx, e, nil, false, false)
	<-turn
	if err != nil {
		return nil, err
	}
	output := &probeOutput{}
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		_ = copyOutput(ctx, sub, StreamIO{Stdout: output, Stderr: output})
	}()
	timer := time.NewTimer(hc.timeout)
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
		return timedOut(hc.timeout, output.String()), nil
	}
	return &api.HealthcheckResult{ExitCode: e.process.Status().Code, Output: output.String()}, nil
}

func (x *Execs) prepareProbe(ctx context.Context, c *container.Container, hc *healthcheck) (*execution, error) {
	r, err := x.runningRun(ctx, c)
	if err != nil {
		return nil, err
	}
	user, err := x.lookupUser(c, r, "")
	if err != nil {
		return nil, err
	}
	req := api.ExecCreateRequest{Cmd: hc.cmd, AttachStdout: true, AttachStderr: true}
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
