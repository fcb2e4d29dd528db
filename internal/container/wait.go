package container

import (
	"runtime"

	"github.com/moby/moby/api/types/container"
)

// Exit is what a waiter learns.
type Exit struct {
	Code int
	// Err is why the wait could not be answered properly; empty normally.
	Err string
}

// waiters are the waits registered on one container. Guarded by Container.mu.
type waiters struct {
	exit    []chan Exit
	removed []chan Exit
}

func notify(list *[]chan Exit, e Exit) {
	for _, ch := range *list {
		ch <- e // buffered, one value per waiter
	}
	*list = nil
}

// Wait registers for cond and returns a channel that yields exactly one Exit.
// Registration is complete on return: no later exit is missed. cancel forgets
// the registration.
func (c *Container) Wait(cond container.WaitCondition) (exit <-chan Exit, cancel func()) {
	ch := make(chan Exit, 1)
	c.mu.Lock()
	defer c.mu.Unlock()
	state := &c.snapshot.Load().State
	list := &c.waiters.exit
	switch {
	case c.gone:
		ch <- Exit{Code: state.ExitCode}
		return ch, func() {}
	case cond == container.WaitConditionRemoved:
		list = &c.waiters.removed
	case cond == container.WaitConditionNotRunning && !state.Running():
		ch <- Exit{Code: state.ExitCode, Err: state.Error}
		return ch, func() {}
	}
	*list = append(*list, ch)
	return ch, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		for i, w := range *list {
			if w == ch {
				*list = append((*list)[:i:i], (*list)[i+1:]...)
				return
			}
		}
	}
}

// SetExited applies an exit and tells everyone who waits for one, after announce
// (nil is none), which must not block: what follows an exit must not be announced before it. No
// exit can fall between a look at the state and a registration: both hold the same
// lock. Nobody is told where change has left the container running. The write to disk is as in SetState.
func (c *Container) SetExited(change func(*State), announce func()) error {
	c.SetExitedInMemory(change, announce)
	return c.Persist()
}

// SetExitedInMemory is SetExited without the write, which is the caller's: by Persist, or none where the container is
// about to be removed.
func (c *Container) SetExitedInMemory(change func(*State), announce func()) {
	c.mu.Lock()
	c.apply(change)
	if announce != nil {
		announce()
	}
	state := &c.snapshot.Load().State
	waited := len(c.waiters.exit) > 0 && !state.Alive()
	if waited {
		notify(&c.waiters.exit, Exit{Code: state.ExitCode})
	}
	c.mu.Unlock()
	if waited {
		runtime.Gosched() // they are told first, by this processor: to wake another one for them takes as long as the write
	}
}

// Removed tells everyone who waits that the container is no more.
func (c *Container) Removed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := Exit{Code: c.snapshot.Load().State.ExitCode}
	notify(&c.waiters.exit, e)
	notify(&c.waiters.removed, e)
}

// Gone says whether the container was removed. An operation that waited for
// its turn asks this first.
func (c *Container) Gone() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gone
}
