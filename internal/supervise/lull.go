package supervise

import (
	"context"
	"sync"
	"time"
)

const (
	lullPause = 200 * time.Millisecond
	lullDelay = 2 * time.Second
)

// A Lull puts off work that nobody waits for until no more of it has come for a
// moment: it would take processor and disk from those who come next. It waits for
// lullDelay at most, and not beyond most things. Its methods may be called concurrently.
type Lull[T any] struct {
	name         string
	tasks        *Group
	most         int
	pause, delay time.Duration // lullPause and lullDelay, but in tests
	do           func(ctx context.Context, batch []T)

	mu      sync.Mutex
	pending []T
	running bool
	idle    chan struct{} // closed when nothing runs any more; made anew for each run
	added   chan struct{} // holds a token when pending has grown
	hurry   chan struct{} // holds a token when somebody waits after all
}

// NewLull has do run with what was added, as a task of that name: at once when there are most
// of it, and one batch at a time.
func NewLull[T any](name string, tasks *Group, most int, do func(context.Context, []T)) *Lull[T] {
	return &Lull[T]{
		name: name, tasks: tasks, most: most, pause: lullPause, delay: lullDelay, do: do,
		added: make(chan struct{}, 1), hurry: make(chan struct{}, 1),
	}
}

// Add takes over x. It reports false, and has not, when the engine ends: what the caller
// does not do then is left to the kernel and the next engine.
func (l *Lull[T]) Add(x T) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pending = append(l.pending, x)
	if l.running {
		select {
		case l.added <- struct{}{}:
		default:
		}
		return true
	}
	l.idle = make(chan struct{})
	if l.running = l.tasks.Go(l.name, l.run); !l.running {
		l.pending = nil
		close(l.idle)
	}
	return l.running
}

// Settle has what was put off be done now, and returns when nothing is left, or ctx ends.
func (l *Lull[T]) Settle(ctx context.Context) {
	l.mu.Lock()
	running, idle := l.running, l.idle
	l.mu.Unlock()
	if !running {
		return
	}
	select {
	case l.hurry <- struct{}{}:
	default:
	}
	select {
	case <-idle:
	case <-ctx.Done():
	}
}

// run goes on until nothing is pending.
func (l *Lull[T]) run(ctx context.Context) {
	for {
		l.awaitPause(ctx)
		l.mu.Lock()
		batch := l.pending
		l.pending = nil
		l.running = len(batch) > 0
		if !l.running {
			close(l.idle)
		}
		l.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		l.do(ctx, batch)
	}
}

func (l *Lull[T]) awaitPause(ctx context.Context) {
	latest := time.After(l.delay)
	for l.count() > 0 && l.count() < l.most {
		select {
		case <-l.added:
		case <-time.After(l.pause):
			return
		case <-latest:
			return
		case <-l.hurry:
			return
		case <-ctx.Done():
			return
		}
	}
}

func (l *Lull[T]) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.pending)
}
