package logship

import (
	"context"
	"sync"
	"time"

	"github.com/cleatlabs/cleat/internal/logsend"
)

const (
	// longestWait is the longest pause between two tries to reach a server: what waits for one comes soon after it is back,
	// and a try costs next to nothing.
	longestWait = 5 * time.Second
	// longestCountedWait is that where the options say after how many tries what waits is given up, as with Docker's
	// drivers, whose pauses grow: shorter ones would give it up earlier.
	longestCountedWait = 30 * time.Second
)

// servers lets the deliveries that wait for a server know that another one has reached it.
type servers struct {
	mu      sync.Mutex
	awaited map[string]chan struct{} // by address; closed when it is reached
}

// reached wakes who waits for the server of an address.
func (s *servers) reached(address string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.awaited[address]; c != nil {
		close(c)
		delete(s.awaited, address)
	}
}

// await pauses for d, or until somebody else has reached the server, or ctx ends.
func (s *servers) await(ctx context.Context, address string, d time.Duration) {
	s.mu.Lock()
	c := s.awaited[address]
	if c == nil {
		if s.awaited == nil {
			s.awaited = map[string]chan struct{}{}
		}
		c = make(chan struct{})
		s.awaited[address] = c
	}
	s.mu.Unlock()
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-c:
	case <-t.C:
	case <-ctx.Done():
	}
}

// pause is how long to wait after so many failures in a row.
func pause(t *logsend.Target, failures int) time.Duration {
	longest := longestWait
	if t.Tries > 0 {
		longest = longestCountedWait
	}
	longest = max(longest, t.FirstWait) // which the user may have chosen
	p := t.FirstWait
	for i := 1; i < failures && p < longest; i++ {
		p = p * 3 / 2
	}
	return min(p, longest)
}
