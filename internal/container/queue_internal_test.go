package container

import (
	"context"
	"os"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/test/expect"
)

// A turn that comes to a waiter who is just leaving is passed on.
func TestTurnOfAWaiterWhoLeaves(t *testing.T) {
	for range 50 { // as he sees now one first, now the other
		var q queue
		if err := q.lock(t.Context()); err != nil {
			t.Fatal(err)
		}
		leaving, leave := context.WithCancel(t.Context())
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			if q.lock(leaving) == nil {
				q.unlock()
			}
		}()
		waits := func() bool {
			q.mu.Lock()
			defer q.mu.Unlock()
			return len(q.waiters) == 1
		}
		expect.Eventually(t, "somebody waits", waits)
		q.mu.Lock()
		leave()
		turn := q.waiters[0] // as unlock does
		q.waiters = nil
		close(turn)
		q.mu.Unlock()
		<-gone
		if q.held {
			t.Fatal("nobody has it, and nobody gets it")
		}
	}
}

// Who has waited for his turn at a container that was removed meanwhile does not find it.
func TestHoldOfARemovedContainer(t *testing.T) {
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	id := NewID()
	if err := os.Mkdir(s.DirOf(id), 0o700); err != nil {
		t.Fatal(err)
	}
	c := s.Draft(&Record{Definition: Definition{ID: id, Name: "removed", Config: &container.Config{}, HostConfig: &container.HostConfig{}}})
	if err := s.Add(c, false); err != nil {
		t.Fatal(err)
	}
	unlock, err := c.Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	held := make(chan error, 1)
	go func() {
		_, _, err := s.Hold(t.Context(), id)
		held <- err
	}()
	expect.Eventually(t, "somebody waits for the container", func() bool {
		c.ops.mu.Lock()
		defer c.ops.mu.Unlock()
		return len(c.ops.waiters) == 1
	})
	if _, err := s.Remove(c, false); err != nil {
		t.Fatal(err)
	}
	unlock()
	if err := <-held; !errdefs.IsNotFound(err) {
		t.Errorf("held: %v", err)
	}
	if unlock, err = c.Lock(t.Context()); err != nil {
		t.Fatalf("who has not found it keeps the lock: %v", err)
	}
	unlock()
}
