package store

import (
	"context"
	"sync"
)

// KeyedLock is a set of locks by name. Two pulls of one blob or layer take turns at it:
// the second finds the work done. The zero value is ready for use.
type KeyedLock struct {
	mu    sync.Mutex
	locks map[string]*keyedEntry
}

type keyedEntry struct {
	held  chan struct{} // holds one token while locked
	users int           // holder and waiters
}

// Lock waits until key is free and takes it, or returns ctx.Err().
func (k *KeyedLock) Lock(ctx context.Context, key string) error {
	k.mu.Lock()
	if k.locks == nil {
		k.locks = map[string]*keyedEntry{}
	}
	e := k.locks[key]
	if e == nil {
		e = &keyedEntry{held: make(chan struct{}, 1)}
		k.locks[key] = e
	}
	e.users++
	k.mu.Unlock()

	select {
	case e.held <- struct{}{}:
		return nil
	case <-ctx.Done():
		k.leave(key, e)
		return ctx.Err()
	}
}

// Unlock frees key, which must be locked.
func (k *KeyedLock) Unlock(key string) {
	k.mu.Lock()
	e := k.locks[key]
	k.mu.Unlock()
	if e == nil {
		panic("store: Unlock of a key that is not locked: " + key)
	}
	<-e.held
	k.leave(key, e)
}

func (k *KeyedLock) leave(key string, e *keyedEntry) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if e.users--; e.users == 0 {
		delete(k.locks, key)
	}
}
