package container

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/cleatlabs/cleat/internal/record"
)

const (
	configFile = "config.json"
	stateFile  = "state.json"
)

// Container is one container of the engine. All methods may be called from any
// goroutine.
type Container struct {
	id  string
	dir string

	snapshot atomic.Pointer[Record]
	ops      queue

	mu      sync.Mutex // guards changes of snapshot; never held across I/O
	gone    bool       // removed: nothing is written any more
	waiters waiters

	disk      queue   // one writer of state.json at a time
	persisted *Record // the snapshot on disk; guarded by disk
}

func newContainer(dir string, r *Record) *Container {
	c := &Container{id: r.ID, dir: dir}
	c.snapshot.Store(r)
	return c
}

// ID returns the container's 64 hex digits.
func (c *Container) ID() string { return c.id }

// Dir returns the directory that holds the container's files.
func (c *Container) Dir() string { return c.dir }

// Path returns the path of one of the container's files.
func (c *Container) Path(name string) string { return filepath.Join(c.dir, name) }

// Load returns the present record: an immutable snapshot, got without waiting.
func (c *Container) Load() *Record { return c.snapshot.Load() }

// Lock waits until no other operation changes the container, or until ctx
// ends. Operations are served in order of arrival.
func (c *Container) Lock(ctx context.Context) (unlock func(), err error) {
	if err := c.ops.lock(ctx); err != nil {
		return nil, err
	}
	return c.ops.unlock, nil
}

// SetState changes the state in memory and on disk. The new state is seen by
// readers before it is written: an engine that dies between the two finds it
// out from the kernel and the keeper. change must not block.
func (c *Container) SetState(change func(*State)) error {
	c.mu.Lock()
	c.apply(change)
	c.mu.Unlock()
	return c.Persist()
}

// WriteAhead writes to disk what the state is about to become, before anybody sees
// it: what a SetState would have its caller wait for is done while the caller has to
// wait for something else. Settle makes it the state. An engine that dies between the
// two leaves it to the next.
func (c *Container) WriteAhead(change func(*State)) (*Ahead, error) {
	if err := c.disk.lock(context.Background()); err != nil {
		return nil, err
	}
	defer c.disk.unlock()
	c.mu.Lock()
	next, gone := *c.snapshot.Load(), c.gone
	c.mu.Unlock()
	if gone {
		return nil, nil
	}
	change(&next.State)
	c.persisted = nil // whatever comes, the present state is not on the disk any more
	if err := record.WriteJSON(c.Path(stateFile), &next.State, 0o600); err != nil {
		return nil, err
	}
	c.persisted = &next
	return &Ahead{&next}, nil
}

// Ahead is what WriteAhead has written.
type Ahead struct{ record *Record }

// Settle is SetState for a change that a has on the disk, but for what the next
// engine finds out by itself. It writes only if something else was written meanwhile,
// or if a is nil; Persist writes the rest. announce must not block; nothing else changes
// the state before it is done.
func (c *Container) Settle(a *Ahead, change func(*State), announce func()) error {
	c.mu.Lock()
	c.apply(change)
	announce()
	c.mu.Unlock()
	if a == nil {
		return c.Persist()
	}
	if err := c.disk.lock(context.Background()); err != nil {
		return err
	}
	written := c.persisted == a.record
	c.disk.unlock()
	if written {
		return nil
	}
	return c.Persist()
}

// SetStateInMemory is SetState without the write, for changes that the next
// engine finds out by itself.
func (c *Container) SetStateInMemory(change func(*State)) {
	c.mu.Lock()
	c.apply(change)
	c.mu.Unlock()
}

// apply swaps the snapshot. The caller holds mu.
func (c *Container) apply(change func(*State)) {
	next := *c.snapshot.Load()
	change(&next.State)
	c.snapshot.Store(&next)
}

// Persist writes the state to the disk if what is there is not the same. Of several
// callers at once the first writes for all whose change it already saw.
func (c *Container) Persist() error {
	if err := c.disk.lock(context.Background()); err != nil {
		return err
	}
	defer c.disk.unlock()
	c.mu.Lock()
	latest, gone := c.snapshot.Load(), c.gone
	c.mu.Unlock()
	if gone || latest == c.persisted {
		return nil
	}
	if err := record.WriteJSON(c.Path(stateFile), &latest.State, 0o600); err != nil {
		return err
	}
	c.persisted = latest
	return nil
}

// SyncState has the state that was written last survive a loss of power, after which it is else the one before, or that of
// a container that was never started. It waits for the disk.
func (c *Container) SyncState() error {
	if err := record.Sync(c.Path(stateFile)); err != nil {
		return fmt.Errorf("container %s: the state might not survive a loss of power: %w", c.Load().Name, err)
	}
	return nil
}
