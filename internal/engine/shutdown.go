package engine

import (
	"context"
	"errors"
	"sync"
	"time"
)

// goingDown is the reason that events give for the ends of containers.
const goingDown = "the machine goes down"

// StopAll ends all containers because the machine goes down: kindly, as stop does, and all at once. Nothing is restarted
// from then on, and nobody is said to have stopped them, so that after the boot the restart policies hold.
func (s *Stopper) StopAll(ctx context.Context) error {
	s.RestartNothing()
	var (
		all  sync.WaitGroup
		mu   sync.Mutex
		errs []error
	)
	for _, c := range s.containers.All() {
		l := s.lives.of(c)
		l.cancelRestart()
		r := l.live()
		if r == nil {
			continue
		}
		all.Go(func() {
			if err := s.end(ctx, c, r, StopOptions{}, earlyKillReason, goingDown); err != nil {
				mu.Lock()
				errs = append(errs, err)
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// RestartNothing leaves what restart policies ask for to the next engine. Called before Recovery.Run, that starts nothing
// either.
func (s *Stopper) RestartNothing() { s.exits.machineEnds.Store(true) }

// LongestStop is how long StopAll may take: the longest of the running containers' timeouts, and what a kill may take.
// The containers that are to be waited for without end do not count.
func (s *Stopper) LongestStop() time.Duration {
	longest := time.Duration(0)
	for _, c := range s.containers.All() {
		if s.lives.of(c).live() != nil {
			timeout, _ := s.timeout(c.Load(), StopOptions{})
			longest = max(longest, timeout)
		}
	}
	return longest + killPatience
}
