package network

import (
	"errors"
	"slices"
	"sync"
	"time"
)

// passing is how long a port may be held, after it was let go of, by a process that is a fork of the engine: that has
// copies of all its sockets until its exec closes them. 14 ms were measured on two processors. Starts have the nursery
// make their processes, but the nursery itself is a fork, so is each process when that cannot make one or a start hands
// over too many files, and so are the one that makes a user namespace (mount.UserNamespace) and a build's git.
const passing = 200 * time.Millisecond

// freed are the ports that were let go of lately.
type freed struct {
	mu     sync.Mutex
	lately []freeing // in the order of their times
}

type freeing struct {
	at    time.Time
	ports []bound
}

// add takes note of ports whose sockets have been closed.
func (f *freed) add(ports []bound) {
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.expire(now)
	f.lately = append(f.lately, freeing{now, ports})
}

// expire drops what is held by nobody any more. The caller holds mu.
func (f *freed) expire(now time.Time) {
	f.lately = slices.DeleteFunc(f.lately, func(l freeing) bool { return now.Sub(l.at) > passing })
}

// has says whether the port that an error tells to be taken was let go of lately.
func (f *freed) has(err error) bool {
	var t *errTaken
	if !errors.As(err, &t) {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.expire(time.Now())
	return slices.ContainsFunc(f.lately, func(l freeing) bool {
		return slices.ContainsFunc(l.ports, t.is)
	})
}

// letGo gives a reservation back.
func (s *Service) letGo(r *reservation) {
	ports := r.ports
	r.release(s.proxy)
	if len(ports) > 0 {
		s.freed.add(ports)
	}
}

// takePort is bindPort for a port that is to be this one. Of one that was let go of lately, nothing tells when it is
// free.
func (s *Service) takePort(r *reservation, w wish, port uint16, t targets) error {
	for {
		err := s.bindPort(r, w, port, t)
		if err == nil || !s.freed.has(err) {
			return err
		}
		time.Sleep(time.Millisecond)
	}
}
