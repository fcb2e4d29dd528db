package engine

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	api "github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"

	"github.com/cleatlabs/cleat/internal/bootorder"
	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/health"
	"github.com/cleatlabs/cleat/internal/network"
	"github.com/cleatlabs/cleat/internal/record"
	"github.com/cleatlabs/cleat/internal/runtime"
	"github.com/cleatlabs/cleat/internal/supervise"
	"github.com/cleatlabs/cleat/internal/volume"
)

// Docker's restart back-off.
const (
	firstBackoff = 100 * time.Millisecond
	maxBackoff   = time.Minute
	// A run this long starts the back-off anew.
	backoffReset = 10 * time.Second
)

// exiter deals with the end of containers: state, events, network, cgroup,
// restart policy and --rm.
type exiter struct {
	runtime  *runtime.Runtime
	networks *network.Service
	volumes  *volume.Service
	lives    *lives
	say      *announcer
	tasks    *supervise.Group
	log      *slog.Logger
	remover  *Remover
	start    func(context.Context, *container.Container, time.Duration) error
	// awaitDonors waits for containers whose namespaces are joined to be up again.
	awaitDonors func(context.Context, *container.Container)
	boot        *bootorder.Queue
	specs       *specBuilder
	leftovers   *supervise.Lull[*run] // of runs that are over: nobody needs any more what they still have
	stdioDir    func(*container.Container) string
	machineEnds atomic.Bool // nothing is restarted any more
}

// settledAfter is when a run is no short one: what its start has left to be written
// of its state is written then.
const settledAfter = time.Second

// watch owns a started run until it has exited and is cleaned up, or the
// engine ends.
func (x *exiter) watch(c *container.Container, r *run) {
	x.tasks.Go("container", func(ctx context.Context) {
		stopOOM := x.watchOOM(c, r)
		defer stopOOM()
		settled := time.NewTimer(settledAfter)
		defer settled.Stop()
		for {
			select {
			case <-r.process.Done():
				x.exited(c, r)
				return
			case <-settled.C:
				x.persist(c)
			case <-ctx.Done():
				// The engine stops and the container stays: leave its output in
				// pipe and journal for the next engine.
				x.persist(c)
				r.stopMonitor()
				r.pump.Stop()
				if r.log != nil {
					_ = r.log.Close()
				}
				r.process.Detach()
				r.unmount()
				return
			}
		}
	})
}

func (x *exiter) persist(c *container.Container) {
	if err := c.Persist(); err != nil {
		x.log.Error("the state of a container could not be written", "container", c.ID(), "error", err)
	}
}

// watchOOM announces kills by the memory limit while the container runs.
func (x *exiter) watchOOM(c *container.Container, r *run) (stop func()) {
	if c.Load().HostConfig.Memory <= 0 {
		return func() {}
	}
	group, err := x.runtime.Group(x.specs.cgroupPath(c.Load()))
	if err != nil {
		return func() {}
	}
	done := make(chan struct{})
	kills, err := group.WatchOOM(done)
	if err != nil {
		x.log.Warn("kills by the memory limit will be noticed at the exit only", "container", c.ID(), "error", err)
		return func() {}
	}
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		for {
			select {
			case _, ok := <-kills:
				if !ok {
					return
				}
				r.mu.Lock()
				r.oomReported = true
				r.mu.Unlock()
				x.say.container(c, apievents.ActionOOM)
			case <-done:
				return
			}
		}
	}()
	return func() { close(done); <-finished }
}

// exited carries an exit through to its end.
func (x *exiter) exited(c *container.Container, r *run) {
	r.stopMonitor()
	rec := c.Load()
	status := r.process.Status()
	finished := status.FinishedAt
	if finished.IsZero() {
		finished = time.Now()
	}
	ran := r.ran(rec.State.StartedAt, finished)
	oom := x.oomKilled(rec)
	x.endOthers(rec) // they may hold the output open
	r.pump.Drain()
	if r.log != nil {
		_ = r.log.Close()
	}
	record.Failpoint("engine.exit.after-drain")
	// Ports must be free when the exit is seen: `stop` and then `run -p` with
	// the same port is one line in many scripts.
	x.detach(rec)
	// So are volumes idle: `stop` and then `volume restore` is one, too.
	leaveVolumes(c, x.volumes.Left)
	record.Failpoint("engine.exit.after-network")

	again, delay := x.decide(rec, r, status.Code, ran)
	c.SetExitedInMemory(func(st *container.State) {
		st.Status = api.StateExited
		if again {
			st.Status = api.StateRestarting
			if st.RestartCount++; r.overBefore {
				st.RestartCount = 0 // or reboots would use up what on-failure allows
			}
		}
		st.ExitCode, st.Error, st.OOMKilled, st.FinishedAt = status.Code, status.Reason, oom, finished.UTC()
		st.Keeper, st.Sandbox = nil, nil
		st.StoppedByHand = st.StoppedByHand || r.wasStoppedByHand()
		st.HealthRestart = st.HealthRestart && !st.StoppedByHand
		st.Health = health.Ended(st.Health)
	}, func() { x.announce(c, rec, r, oom, status.Code, ran) })
	if again || !x.removes(c) {
		x.persist(c) // else an engine that dies before the removal leaves it to the next, which learns of the exit from the keeper
	}
	record.Failpoint("engine.exit.after-state")
	// The restart is registered before anyone who waits for the exit goes on,
	// so that stop finds it.
	if again {
		x.restartLater(c, delay)
	} else {
		x.boot.Had(c)
	}
	close(r.exited)
	x.conclude(c, rec, r, again)
}

// conclude takes down what a run has left, or has it done later, and removes the container or writes how it ended.
func (x *exiter) conclude(c *container.Container, rec *container.Record, r *run, again bool) {
	defer close(r.left.known)
	cleaned := cleanedFirst(x.specs, rec)
	if cleaned {
		x.clean(c, rec, r)
		x.leftovers.Add(r)
	}
	if !again && x.removes(c) {
		x.autoRemove(c)
	} else {
		x.persist(c)
	}
	if !cleaned {
		x.tidyLater(c, rec, r)
	}
}

// cleanedFirst says whether a run's leavings must be gone before its container is removed: a control group that no later
// engine would find, and what plugins have mounted, which do not remove a volume before they are told that it is not used.
func cleanedFirst(specs *specBuilder, rec *container.Record) bool {
	return !specs.ownsParent(specs.cgroupPath(rec)) ||
		slices.ContainsFunc(rec.Mounts, func(m container.Mount) bool { return m.Driver != "" && m.Driver != volume.Driver })
}

// tidyLater cleans up after a run, at once where the container had mounts of its user's: their filesystems are not to
// be kept busy by one that has ended.
func (x *exiter) tidyLater(c *container.Container, rec *container.Record, r *run) {
	r.left.clean = func() { x.clean(c, rec, r) }
	if len(rec.Mounts) > 0 || !x.leftovers.Add(r) {
		r.left.now()
	}
}

// removes says whether --rm is to be carried out for c, which has exited.
func (x *exiter) removes(c *container.Container) bool {
	r := c.Load()
	return r.HostConfig.AutoRemove && !r.State.HealthRestart && !x.lives.of(c).removalIsHeld()
}

// announce publishes an exit. rec is as it was before.
func (x *exiter) announce(c *container.Container, rec *container.Record, r *run, oom bool, code int, ran time.Duration) {
	r.mu.Lock()
	reported := r.oomReported
	r.mu.Unlock()
	if oom && !reported {
		x.say.container(c, apievents.ActionOOM)
	}
	x.say.container(c, apievents.ActionDie, "exitCode", strconv.Itoa(code), "execDuration", strconv.Itoa(int(ran.Seconds())))
	x.say.networks(apievents.ActionDisconnect, rec.State.Sandbox)
	x.say.volumes(rec, apievents.ActionUnmount)
}

func (x *exiter) detach(rec *container.Record) {
	if rec.State.Sandbox == nil {
		return
	}
	if err := x.networks.Detach(context.WithoutCancel(x.tasks.Context()), rec.State.Sandbox); err != nil {
		x.log.Error("network of an exited container", "container", rec.ID, "error", err)
	}
}

// clean removes what only costs time and nobody waits for. Of a container that had mounts of its user's it ends the
// mounts, too.
func (x *exiter) clean(c *container.Container, rec *container.Record, r *run) {
	defer close(r.cleaned)
	if len(rec.Mounts) > 0 {
		defer r.unmount()
	}
	unmountVolumes(context.WithoutCancel(x.tasks.Context()), x.volumes, c.Load(), x.log)
	if err := x.specs.removeGroup(x.runtime, x.specs.cgroupPath(rec)); err != nil {
		x.log.Warn("cgroup of an exited container", "container", c.ID(), "error", err)
	}
	if err := r.process.Release(); err != nil {
		x.log.Warn("keeper of an exited container", "container", c.ID(), "error", err)
	}
	if err := os.RemoveAll(x.stdioDir(c)); err != nil {
		x.log.Warn("journals of an exited container", "container", c.ID(), "error", err)
	}
}

// oomKilled asks the group, which still exists, whether its limit killed.
func (x *exiter) oomKilled(rec *container.Record) bool {
	n, err := x.runtime.OOMKills(x.specs.cgroupPath(rec))
	return err == nil && n > 0
}

// decide applies the restart policy to an exit. An engine that is ending, alone or
// with the machine, leaves the decision to the next one.
func (x *exiter) decide(rec *container.Record, r *run, code int, ran time.Duration) (again bool, delay time.Duration) {
	if x.tasks.Context().Err() != nil || x.machineEnds.Load() {
		return false, 0
	}
	if rec.State.HealthRestart && !r.wasStoppedByHand() {
		delay = firstBackoff
		if r.backoff > 0 && !r.wasHealthy() {
			delay = min(2*r.backoff, maxBackoff)
		}
		return true, delay
	}
	return restartAfter(rec, r.wasStoppedByHand(), r.backoff, ran, code)
}

// restartAfter says whether the policy asks for another run, and after which
// delay. before is the delay that preceded the run that ended, ran how long that took.
func restartAfter(rec *container.Record, byHand bool, before, ran time.Duration, code int) (again bool, delay time.Duration) {
	if byHand {
		return false, 0
	}
	p := rec.HostConfig.RestartPolicy
	switch {
	case p.IsAlways(), p.IsUnlessStopped():
	case p.IsOnFailure():
		if code == 0 || (p.MaximumRetryCount > 0 && rec.State.RestartCount >= p.MaximumRetryCount) {
			return false, 0
		}
	default:
		return false, 0
	}
	delay = firstBackoff
	if before > 0 && ran < backoffReset {
		delay = min(2*before, maxBackoff)
	}
	return true, delay
}

// restartLater starts c again after delay, unless someone stops, starts or
// removes it before.
func (x *exiter) restartLater(c *container.Container, delay time.Duration) {
	l := x.lives.of(c)
	ctx, cancel := context.WithCancel(x.tasks.Context())
	pending := &restart{cancel: cancel, done: make(chan struct{})}
	l.mu.Lock()
	l.restart = pending
	l.mu.Unlock()
	finish := func() {
		cancel()
		l.mu.Lock()
		if l.restart == pending {
			l.restart = nil
		}
		l.mu.Unlock()
		close(pending.done)
		x.boot.Had(c)
	}
	if !x.tasks.Go("restart", func(context.Context) {
		defer finish()
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
			x.awaitDonors(ctx, c)
			x.boot.Await(ctx, c)
			x.restartNow(ctx, c, delay)
		case <-ctx.Done():
		}
	}) {
		finish()
	}
}

func (x *exiter) restartNow(ctx context.Context, c *container.Container, delay time.Duration) {
	unlock, err := c.Lock(ctx)
	if err != nil {
		return
	}
	defer unlock()
	if ctx.Err() != nil || c.Gone() || c.Load().State.Status != api.StateRestarting {
		return
	}
	// A stop that came while the exit was dealt with may not have come to give the restart up.
	if c.Load().State.StoppedByHand {
		settleRestart(c)
		return
	}
	if err := x.start(context.WithoutCancel(ctx), c, delay); err != nil {
		x.log.Error("restart of a container by its policy failed", "container", c.ID(), "error", err)
	}
}

// autoRemove carries out --rm.
func (x *exiter) autoRemove(c *container.Container) {
	ctx := context.WithoutCancel(x.tasks.Context())
	unlock, err := c.Lock(ctx)
	if err != nil {
		return
	}
	defer unlock()
	if c.Gone() || c.Load().State.Alive() {
		return // removed or started again by someone who was quicker
	}
	if err := x.remover.discard(ctx, c); err != nil {
		x.log.Error("automatic removal of a container failed", "container", c.ID(), "error", err)
	}
}

// leaveVolumes takes note that a container's volumes are idle. One that is renamed meanwhile is looked for again: the
// container knows a volume's new name before the former one is gone.
func leaveVolumes(c *container.Container, left func(name, containerID string)) {
	for again := true; again; {
		names := volumeNames(c.Load())
		for _, name := range names {
			left(name, c.ID())
		}
		again = !slices.Equal(names, volumeNames(c.Load()))
	}
}
