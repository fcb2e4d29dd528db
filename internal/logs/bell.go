package logs

import (
	"sync"
	"sync/atomic"
)

// Bell wakes those who follow a container's log when its writer has written. It works in memory, as the engine that reads
// a log is the one that writes it: the kernel gives a user 128 instances of inotify, which all programs share. The zero
// Bell is ready; it may be used concurrently, and over all runs of the container.
type Bell struct {
	listening atomic.Int32 // how many followers there are, so that a writer without any is held up by nothing

	mu        sync.Mutex
	followers map[chan struct{}]struct{}
}

// ring wakes all followers. One that is awake looks once more.
func (b *Bell) ring() {
	if b == nil || b.listening.Load() == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for f := range b.followers {
		select {
		case f <- struct{}{}:
		default:
		}
	}
}

// listen returns a channel that has a value when something was written since it was last received from, and what ends
// that. What was written before listen is there for a first look.
func (b *Bell) listen() (changed <-chan struct{}, stop func()) {
	f := make(chan struct{}, 1)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.followers == nil {
		b.followers = map[chan struct{}]struct{}{}
	}
	b.followers[f] = struct{}{}
	b.listening.Add(1)
	return f, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.followers, f)
		b.listening.Add(-1)
	}
}
