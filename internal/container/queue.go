package container

import (
	"context"
	"sync"
)

// queue is a mutual exclusion lock whose waiters are served in order of
// arrival and may give up. The zero value is unlocked.
type queue struct {
	mu      sync.Mutex
	held    bool
	waiters []chan struct{}
}

// lock waits for its turn or for the end of ctx.
func (q *queue) lock(ctx context.Context) error {
	q.mu.Lock()
	if !q.held {
		q.held = true
		q.mu.Unlock()
		return nil
	}
	turn := make(chan struct{})
	q.waiters = append(q.waiters, turn)
	q.mu.Unlock()

	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	q.mu.Lock()
	for i, w := range q.waiters {
		if w == turn {
			q.waiters = append(q.waiters[:i], q.waiters[i+1:]...)
			q.mu.Unlock()
			return context.Cause(ctx)
		}
	}
	q.mu.Unlock()
	// The turn came together with the cancellation: pass it on.
	q.unlock()
	return context.Cause(ctx)
}

func (q *queue) unlock() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiters) == 0 {
		q.held = false
		return
	}
	next := q.waiters[0]
	q.waiters = q.waiters[1:]
	close(next)
}
