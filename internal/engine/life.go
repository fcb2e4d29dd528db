package engine

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/health"
	"github.com/cleatlabs/cleat/internal/logs"
	"github.com/cleatlabs/cleat/internal/runtime"
	"github.com/cleatlabs/cleat/internal/stdio"
)

// lives holds what the engine keeps in memory about each container, besides
// its record.
type lives struct {
	mu sync.Mutex
	m  map[string]*life
}

func newLives() *lives { return &lives{m: map[string]*life{}} }

// of returns the life of c, made at first use.
func (l *lives) of(c *container.Container) *life {
	l.mu.Lock()
	defer l.mu.Unlock()
	if life := l.m[c.ID()]; life != nil {
		return life
	}
	life := &life{hub: stdio.NewHub(), changed: make(chan struct{})}
	l.m[c.ID()] = life
	return life
}

// drop forgets a removed container.
func (l *lives) drop(c *container.Container) {
	l.mu.Lock()
	life := l.m[c.ID()]
	delete(l.m, c.ID())
	l.mu.Unlock()
	if life == nil {
		return
	}
	life.hub.Close()
	life.mu.Lock()
	defer life.mu.Unlock()
	life.gone = true
	life.signal()
}

// life is what one container has beyond its record: attached clients, the
// process of the present run, a restart that is due.
type life struct {
	hub  *stdio.Hub
	bell logs.Bell // of the container's log

	mu   sync.Mutex
	run  *run // the present or the last one
	gone bool
	// removalHeld counts restarts by hand that are under way.
	removalHeld int
	restart     *restart      // pending, nil if none
	changed     chan struct{} // closed and replaced at each change of run or gone
}

// restart is one that the policy has decided on and that waits for its time.
type restart struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when it was carried out or given up
}

// run is one run of a container's process.
type run struct {
	process *runtime.Process
	pump    *stdio.Pump
	log     interface{ Close() error } // nil with log driver none
	// rootFD holds the root filesystem while the run lasts, -1 if another engine
	// mounted it. The kernel takes a filesystem down with the last who holds it,
	// and for an overlay that writes what is dirty below it to the disk: the
	// engine does that when nobody waits, not the process when it ends.
	rootFD     int
	unmounting sync.Mutex // guards rootFD
	// backoff is the delay before this run, 0 for a run started by hand.
	backoff time.Duration
	begun   time.Time // by a clock that nobody sets; zero for a run of an earlier engine's
	// overBefore says that it ended while there was no engine, as with the machine: what follows is a start with the engine.
	overBefore bool

	exited  chan struct{} // closed when the exit is in the state and announced
	cleaned chan struct{} // closed when nothing of the run is left but what unmount ends
	left    *leftover

	pauses  atomic.Int32 // how often it was paused
	dropped atomic.Bool  // the stop signal could not be received when it was sent

	mu          sync.Mutex
	monitor     *health.Monitor // of its health, nil without one
	byHand      bool            // stop or kill asked for the end: no restart by policy
	ending      int             // stops and kills under way
	stdinOnce   sync.Once
	execs       map[string]struct{}
	oomReported bool
}

// ran is how long the run took that has just ended. The record's times say that for one of an earlier engine's: they
// are of the host's clock, which may have been set.
func (r *run) ran(started, finished time.Time) time.Duration {
	if !r.begun.IsZero() {
		return time.Since(r.begun)
	}
	return max(0, finished.Sub(started))
}

// signal tells everyone who waits for a change. The caller holds mu.
func (l *life) signal() {
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *life) setRun(r *run) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.run = r
	l.signal()
}

// current returns the latest run, nil before the first.
func (l *life) current() *run {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.run
}

// live returns the run whose exit has not been handled yet, or nil.
func (l *life) live() *run {
	r := l.current()
	if r == nil {
		return nil
	}
	select {
	case <-r.exited:
		return nil
	default:
		return r
	}
}

// awaitRun returns the run whose process lives, waiting for one to start. It
// returns nil when the container was removed or ctx ended. A run whose process
// has ended is passed over although its exit may not have been handled yet:
// what a client types after it has seen the end belongs to the next one.
func (l *life) awaitRun(ctx context.Context) *run {
	for {
		l.mu.Lock()
		changed, gone, r := l.changed, l.gone, l.run
		l.mu.Unlock()
		if gone {
			return nil
		}
		if r != nil && !isClosed(r.exited) && !isClosed(r.process.Done()) {
			return r
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// cancelRestart gives up a pending restart and waits until it is given up (or
// already carried out). It reports whether there was one.
func (l *life) cancelRestart() bool {
	l.mu.Lock()
	r := l.restart
	l.mu.Unlock()
	if r == nil {
		return false
	}
	r.cancel()
	<-r.done
	return true
}

// unmount lets go of the root filesystem and of the process's mounts, once nothing
// of the run needs them.
func (r *run) unmount() {
	r.unmounting.Lock() // held over the work: who comes second needs it done
	defer r.unmounting.Unlock()
	r.process.LetMountsGo()
	if r.rootFD >= 0 {
		_ = unix.Close(r.rootFD)
		r.rootFD = -1
	}
}

func (r *run) setMonitor(m *health.Monitor) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.monitor = m
}

// stopMonitor ends the health checks of the run.
func (r *run) stopMonitor() {
	r.healthMonitor().Stop()
}

// wasHealthy says whether a probe of the run has succeeded.
func (r *run) wasHealthy() bool { return r.healthMonitor().Succeeded() }

func (r *run) healthMonitor() *health.Monitor {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.monitor
}

func (r *run) stopByHand() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.byHand = true
}

// endBegins counts a stop or kill until done is called: nothing must be frozen
// meanwhile, or it would wait in vain.
func (r *run) endBegins() (done func()) {
	r.countEnding(1)
	return func() { r.countEnding(-1) }
}

func (r *run) countEnding(delta int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ending += delta
}

func (r *run) isEnding() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ending > 0
}

func (r *run) wasStoppedByHand() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.byHand
}

// closeStdinOnce closes the process's stdin when the first of its attached
// clients has left, as StdinOnce asks.
func (r *run) closeStdinOnce() {
	r.stdinOnce.Do(func() { _ = r.process.CloseStdin() })
}

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// holdRemoval keeps --rm from removing the container while a restart by hand
// is between its stop and its start.
func (l *life) holdRemoval(delta int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.removalHeld += delta
}

func (l *life) removalIsHeld() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.removalHeld > 0
}
