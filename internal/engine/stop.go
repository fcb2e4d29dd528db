package engine

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"strconv"
	"syscall"
	"time"

	api "github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"

	"github.com/cleatlabs/cleat/internal/bootorder"
	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/health"
	"github.com/cleatlabs/cleat/internal/record"
	"github.com/cleatlabs/cleat/internal/runtime"
)

const (
	// idleBeforeKill is how long a container must use no CPU after a stop
	// signal that nothing in it can receive.
	idleBeforeKill = 50 * time.Millisecond
	// betweenLooks is how soon it is noticed that a program which could not receive a
	// stop's signal has come to be able to.
	betweenLooks = 200 * time.Millisecond
	// killPatience bounds the wait for the exit after SIGKILL; a process in an
	// uninterruptible wait cannot be killed by anyone.
	killPatience = 30 * time.Second
	// earlyKillReason is the attribute that tells why stop did not wait.
	earlyKillReason = "cleat.reason"
)

// Stopper ends containers.
type Stopper struct {
	containers *container.Store
	runtime    *runtime.Runtime
	lives      *lives
	say        *announcer
	starter    *Starter
	pauser     *Pauser
	exits      *exiter
	boot       *bootorder.Queue
	adjustable *adjustable
}

// Stop asks a container to end and kills it after its timeout. One that does not run is failure.ErrNotModified, unless
// it waits for being started with the engine: it does not any more then. The stop goes on if ctx ends.
func (s *Stopper) Stop(ctx context.Context, name string, opts StopOptions) error {
	c, err := s.containers.Find(name)
	if err != nil {
		return err
	}
	if err := checkStopOptions(opts); err != nil {
		return err
	}
	if !c.Load().State.Running() {
		if s.boot.Leave(c) {
			return c.SetState(func(st *container.State) { st.StoppedByHand = true })
		}
		return failure.NotModified("container %s is already stopped", c.ID())
	}
	return s.stop(context.WithoutCancel(ctx), c, opts)
}

func checkStopOptions(opts StopOptions) error {
	if opts.Signal == "" {
		return nil
	}
	_, err := parseSignal(opts.Signal)
	return err
}

// Restart stops a container, if it runs, and starts it. Once begun, it goes on to its end though ctx ends.
func (s *Stopper) Restart(ctx context.Context, name string, opts StopOptions) error {
	c, err := s.containers.Find(name)
	if err != nil {
		return err
	}
	if err := errors.Join(checkStopOptions(opts), c.Load().Whole()); err != nil { // before it is ended for nothing
		return err
	}
	ctx = context.WithoutCancel(ctx)
	if c.Load().State.Running() {
		l := s.lives.of(c)
		l.holdRemoval(1) // --rm must not take away what is to be started again
		defer l.holdRemoval(-1)
		if err := s.stop(ctx, c, opts); err != nil {
			return err
		}
	}
	unlock, err := s.starter.writers.lock(ctx, c)
	if err != nil {
		return err
	}
	defer unlock()
	if err := startable(c); err != nil && !errors.Is(err, failure.ErrNotModified) {
		return err
	} else if err == nil {
		if err := s.starter.launch(ctx, c, 0, false); err != nil {
			return err
		}
	}
	s.say.container(c, apievents.ActionRestart)
	return nil
}

// noteByHand has the state say that the user ends c. That it cannot be written keeps nobody from ending a container,
// which may be what fills the disk: only an engine that dies before there is space might start it again.
func (s *Stopper) noteByHand(c *container.Container) {
	if err := c.SetState(func(st *container.State) { st.StoppedByHand = true }); err != nil {
		s.exits.log.Warn("that a container is stopped by hand could not be written", "container", c.ID(), "error", err)
	}
}

// stop ends a running container and returns when its exit is in the state.
func (s *Stopper) stop(ctx context.Context, c *container.Container, opts StopOptions) error {
	s.noteByHand(c)
	left := s.boot.Leave(c)
	r, settled := s.giveUpRestart(c)
	if settled || left && settleRestart(c) {
		s.say.container(c, apievents.ActionStop)
		return nil
	}
	if r == nil {
		return nil
	}
	r.stopByHand()
	if err := s.end(ctx, c, r, opts); err != nil {
		return err
	}
	s.say.container(c, apievents.ActionStop)
	return nil
}

// end asks a run to end, and kills it when its time is over or ctx ends. It returns when the exit is in the state. extra
// goes with the events of the signals.
func (s *Stopper) end(ctx context.Context, c *container.Container, r *run, opts StopOptions, extra ...string) error {
	rec := c.Load()
	sig, err := stopSignal(rec, opts.Signal)
	if err != nil {
		return err
	}
	timeout, byDefault := s.timeout(rec, opts)
	defer r.endBegins()()
	r.stopMonitor() // a probe would be work that hides that nothing else is done
	asked, err := s.ask(c, r, sig, extra...)
	if err != nil {
		return err
	}
	record.Failpoint("engine.stop.after-signal")
	if asked && s.awaitExit(ctx, c, r, sig, timeout, byDefault) {
		s.settleEnd(c, r)
		return nil
	}
	return s.kill(c, r, extra...)
}

// giveUpRestart ends a container that waits for being restarted, which is settled then, or returns its run, which is to
// be ended; nil if it has none.
func (s *Stopper) giveUpRestart(c *container.Container) (r *run, settled bool) {
	for l := s.lives.of(c); ; {
		r = l.live() // before the look for a restart: what its exit plans from then on is settleEnd's
		if !l.cancelRestart() {
			return r, false
		}
		if settleRestart(c) {
			return nil, true
		}
	}
}

// settleEnd gives up the restart of a container whose run was ended by hand too late for its exit to know: it was being
// dealt with. The caller has waited for the exit.
func (s *Stopper) settleEnd(c *container.Container, r *run) {
	if l := s.lives.of(c); r.wasStoppedByHand() && l.current() == r && l.cancelRestart() {
		settleRestart(c)
	}
}

// endUnhealthy ends a run whose health checks have failed: kindly, as stop
// does, or at once. What follows is for its exit to decide.
func (s *Stopper) endUnhealthy(c *container.Container, r *run, action health.Action) error {
	reason := "unhealthy, and --health-on-failure is " + string(action)
	if action == health.Kill {
		return s.kill(c, r, earlyKillReason, reason)
	}
	// Once begun it goes on to its end, also over that of the health checks which have asked for it.
	if err := s.end(context.Background(), c, r, StopOptions{}, earlyKillReason, reason); err != nil {
		return err
	}
	s.say.container(c, apievents.ActionStop)
	return nil
}

// settleRestart ends a container whose restart was given up: nothing of it
// runs. It reports false if the restart had already been carried out.
func settleRestart(c *container.Container) bool {
	settled := false
	err := c.SetExited(func(st *container.State) {
		if st.Status == api.StateRestarting {
			st.Status, settled = api.StateExited, true
		}
	}, nil)
	return err == nil && settled
}

// stopSignal is the signal of the request, else of the container, else TERM.
func stopSignal(r *container.Record, requested string) (syscall.Signal, error) {
	for _, s := range []string{requested, r.Config.StopSignal} {
		if s != "" {
			return parseSignal(s)
		}
	}
	return syscall.SIGTERM, nil
}

// timeout is how long to wait before SIGKILL; negative is for ever. byDefault
// says that nobody chose it.
func (s *Stopper) timeout(r *container.Record, opts StopOptions) (d time.Duration, byDefault bool) {
	for _, t := range []*int{opts.Timeout, r.Config.StopTimeout} {
		if t != nil {
			return seconds(*t), false
		}
	}
	return s.adjustable.Load().StopTimeout, true
}

// seconds is n of them, or as long as a duration can be.
func seconds(n int) time.Duration {
	const most = math.MaxInt64 / int(time.Second)
	return time.Duration(min(max(n, -1), most)) * time.Second
}

// ask sends the signal that a stop begins with. It reports false if the container
// cannot be asked, because its AppArmor profile lets nobody signal it.
func (s *Stopper) ask(c *container.Container, r *run, sig syscall.Signal, extra ...string) (asked bool, err error) {
	deaf := s.deaf(r, sig)
	err = s.signal(c, r, sig, extra...)
	r.dropped.Store(deaf && s.deaf(r, sig))
	asked = !errors.Is(err, fs.ErrPermission)
	if !asked {
		err = nil
	}
	// In this order the first thing that a thawed process meets is the signal.
	return asked, errors.Join(err, s.pauser.release(c))
}

// deaf says that PID 1 has no way to receive sig by now: the kernel drops what is sent to it.
func (s *Stopper) deaf(r *run, sig syscall.Signal) bool {
	return sig != syscall.SIGKILL && r.process.StopHint(int(sig)) != runtime.MayReact
}

// repeat sends a signal again that was dropped because the program had only just been
// started and not come to install its handler, which it has now. That it fails shows at
// the end of the timeout.
func (s *Stopper) repeat(c *container.Container, r *run, sig syscall.Signal) {
	if r.dropped.Swap(false) {
		_ = s.signal(c, r, sig, earlyKillReason, "PID 1 had no handler for signal "+strconv.Itoa(int(sig))+" when it was sent, and has one now: sent again")
	}
}

// signal sends sig and announces it. A process that is gone already is not an
// error: its exit is on the way. SIGKILL arrives whatever profile the process has.
func (s *Stopper) signal(c *container.Container, r *run, sig syscall.Signal, extra ...string) error {
	s.say.container(c, apievents.ActionKill, append([]string{"signal", strconv.Itoa(int(sig))}, extra...)...)
	err := r.process.Signal(int(sig))
	if errors.Is(err, fs.ErrPermission) && sig == syscall.SIGKILL {
		group, gerr := s.runtime.Group(s.starter.specs.cgroupPath(c.Load()))
		if gerr != nil {
			return errors.Join(err, gerr)
		}
		err = group.Kill()
	}
	if err != nil && !errors.Is(err, runtime.ErrNotRunning) {
		return err
	}
	return nil
}

// awaitExit waits up to timeout for the exit. With a timeout that is only the
// default it gives up as soon as nothing in the container can react to sig:
// it then has killed the container, and waits for the end of that.
func (s *Stopper) awaitExit(ctx context.Context, c *container.Container, r *run, sig syscall.Signal, timeout time.Duration, byDefault bool) bool {
	var expired <-chan time.Time
	if timeout >= 0 {
		timer := time.NewTimer(timeout)
		defer timer.Stop()
		expired = timer.C
	}
	if (byDefault || r.dropped.Load()) && s.inVain(ctx, r, c, sig, timeout, byDefault) {
		if isClosed(r.exited) {
			return true
		}
		err := s.signal(c, r, syscall.SIGKILL, earlyKillReason,
			"no thread of PID 1 can receive signal "+strconv.Itoa(int(sig))+" and the container was idle: killed before its timeout")
		return err == nil && await(context.Background(), r.exited, killPatience)
	}
	select {
	case <-r.exited:
		return true
	case <-expired:
		return false
	case <-ctx.Done():
		return false
	}
}

// inVain says whether waiting for a reaction to sig is pointless: PID 1 can
// not receive it, and nothing in the container has run for a while since it was
// sent. A container that is busy at first, as one that has only just been
// started, has to be idle for twice as long the next time, until the timeout; once it
// can receive the signal, and could not before, it gets it again. Somebody who
// chose the timeout (byDefault is false) wants it waited for.
func (s *Stopper) inVain(ctx context.Context, r *run, c *container.Container, sig syscall.Signal, timeout time.Duration, byDefault bool) bool {
	if sig == syscall.SIGKILL {
		return false
	}
	// One whose threads wait for a processor may be on its way to wait for the
	// signal, and uses no time meanwhile: it counts as busy.
	hint := r.process.StopHint(int(sig))
	if hint == runtime.MayReact {
		s.repeat(c, r, sig)
		return false
	}
	group, err := s.runtime.Group(s.starter.specs.cgroupPath(c.Load()))
	if err != nil {
		return false
	}
	before, err := group.CPUUsage()
	if err != nil {
		return false
	}
	for window := idleBeforeKill; timeout != 0; window *= 2 {
		if timeout > 0 {
			window = min(window, timeout)
			timeout -= window
		}
		now := s.listen(ctx, r, sig, window)
		if isClosed(r.exited) {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		after, err := group.CPUUsage()
		if now == runtime.MayReact {
			s.repeat(c, r, sig)
		}
		if err != nil || now == runtime.MayReact {
			return false
		}
		if byDefault && after == before && hint == runtime.Deaf && now == runtime.Deaf {
			return true
		}
		before, hint = after, now
	}
	return false
}

// listen waits for d, for the container's end or for a way to receive sig, whichever comes first, and says whether it can
// receive it. It looks often: a program that takes seconds to start is to get its signal as soon as it can.
func (s *Stopper) listen(ctx context.Context, r *run, sig syscall.Signal, d time.Duration) runtime.Reaction {
	for ; ; d -= betweenLooks {
		over := await(ctx, r.exited, min(d, betweenLooks)) || ctx.Err() != nil
		if hint := r.process.StopHint(int(sig)); over || hint == runtime.MayReact || d <= betweenLooks {
			return hint
		}
	}
}

// await waits for ch to be closed, at most d or until ctx ends.
func await(ctx context.Context, ch <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ch:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return isClosed(ch)
}

// kill ends the container with SIGKILL and returns after the exit.
func (s *Stopper) kill(c *container.Container, r *run, extra ...string) error {
	defer r.endBegins()()
	if err := errors.Join(s.signal(c, r, syscall.SIGKILL, extra...), s.pauser.release(c)); err != nil {
		return err
	}
	rec := c.Load()
	if !ownPIDs(rec.HostConfig) {
		// Without a PID namespace of its own the death of PID 1 leaves the
		// rest alive.
		group, err := s.runtime.Group(s.starter.specs.cgroupPath(rec))
		if err != nil {
			return err
		}
		if err := group.Kill(); err != nil {
			return err
		}
	}
	if !await(context.Background(), r.exited, killPatience) {
		return failure.Unavailable("container %s did not die within %s of SIGKILL: one of its processes (PID 1 is %d on the host) "+
			"waits in the kernel, often for a disk or a network filesystem", rec.Name, killPatience, r.process.PID())
	}
	s.settleEnd(c, r)
	return nil
}

// Kill sends a signal to a running container; "" is KILL, which is answered
// after the exit.
func (s *Stopper) Kill(ctx context.Context, name, signal string) error {
	sig := syscall.SIGKILL
	if signal != "" {
		var err error
		if sig, err = parseSignal(signal); err != nil {
			return err
		}
	}
	c, err := s.containers.Find(name)
	if err != nil {
		return err
	}
	rec := c.Load()
	stop, err := stopSignal(rec, "")
	if err != nil {
		return err
	}
	r, settled, ends := s.lives.of(c).live(), false, endsByHand(sig, stop)
	if ends && rec.State.Running() {
		s.noteByHand(c)
		if r, settled = s.giveUpRestart(c); settled {
			return nil
		}
	}
	if r == nil || !rec.State.Running() { // its exit is known, though it is still being dealt with
		return failure.Conflict("cannot kill container: %s: container %s is not running", name, c.ID())
	}
	if ends {
		r.stopByHand()
	}
	if sig == syscall.SIGKILL {
		return s.kill(c, r)
	}
	if err := s.signal(c, r, sig); err != nil {
		return err
	}
	if ends && isClosed(r.process.Done()) { // its exit may be decided on already
		await(ctx, r.exited, killPatience)
		s.settleEnd(c, r)
	}
	if rec.Config.StopSignal == "" || sig == stop {
		return s.pauser.release(c) // Docker's rule: other signals wait for unpause
	}
	return nil
}

// endsByHand says whether a signal sent by the user asks for the end, after
// which the restart policy stays out of it.
func endsByHand(sig, stop syscall.Signal) bool {
	switch sig {
	case stop, syscall.SIGKILL, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT:
		return true
	}
	return false
}
