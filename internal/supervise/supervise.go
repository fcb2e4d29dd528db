// Package supervise owns the engine's goroutines. Each has a name; all are
// told to end by one context, waited for at shutdown, and those that do not
// end are named instead of being forgotten.
package supervise

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
)

// ErrStopped is the cause of a Group's context once it is told to stop.
var ErrStopped = errors.New("the engine is shutting down")

// Group is a set of named goroutines. Make one with New.
type Group struct {
	ctx    context.Context
	cancel context.CancelCauseFunc

	mu      sync.Mutex
	stopped bool
	count   int
	names   map[string]int
	empty   chan struct{} // closed when stopped and count is 0
}

// New returns a running group whose goroutines end when ctx does, or at Stop.
func New(ctx context.Context) *Group {
	ctx, cancel := context.WithCancelCause(ctx)
	return &Group{ctx: ctx, cancel: cancel, names: map[string]int{}, empty: make(chan struct{})}
}

// Context ends when the group is told to stop.
func (g *Group) Context() context.Context { return g.ctx }

// Go runs fn in a goroutine called name; several may share one. fn must return
// soon after its context ends. It reports false, without running fn, if the
// group was stopped. A panic in fn is logged with its stack and ends the
// engine: its containers go on without it and the next engine adopts them.
func (g *Group) Go(name string, fn func(ctx context.Context)) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stopped {
		return false
	}
	g.count++
	g.names[name]++
	go func() {
		defer g.done(name)
		defer func() {
			if p := recover(); p != nil {
				slog.Error("goroutine panicked", "name", name, "panic", p, "stack", string(debug.Stack()))
				panic(p)
			}
		}()
		fn(g.ctx)
	}()
	return true
}

func (g *Group) done(name string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.count--
	if g.names[name]--; g.names[name] == 0 {
		delete(g.names, name)
	}
	if g.stopped && g.count == 0 {
		close(g.empty)
	}
}

// Running returns the names of the live goroutines with their numbers, sorted,
// as "name" or "name ×3".
func (g *Group) Running() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []string
	for _, name := range slices.Sorted(maps.Keys(g.names)) {
		if n := g.names[name]; n > 1 {
			name = fmt.Sprintf("%s ×%d", name, n)
		}
		out = append(out, name)
	}
	return out
}

// Stop ends the group's context, refuses new goroutines and waits for the live
// ones until ctx ends; then the error names those that are left. It may be
// called again, to wait longer.
func (g *Group) Stop(ctx context.Context) error {
	g.mu.Lock()
	if !g.stopped {
		g.stopped = true
		if g.count == 0 {
			close(g.empty)
		}
	}
	g.mu.Unlock()
	g.cancel(ErrStopped)
	select {
	case <-g.empty:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("still running at shutdown: %s", strings.Join(g.Running(), ", "))
	}
}
