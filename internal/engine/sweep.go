package engine

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/image"
	"github.com/cleatlabs/cleat/internal/supervise"
)

// sweeper deletes the files of removed containers. Deleting takes longer than
// all else in a container's short life, and the disk's journal makes whoever
// creates files meanwhile wait: so it happens when removals pause, at the latest
// after sweepDelay or sweepBatch of them.
type sweeper struct {
	containers *container.Store
	images     *image.Service
	tasks      *supervise.Group
	log        *slog.Logger

	mu      sync.Mutex
	pending []string // what store.Remove called trash
	running bool
	added   chan struct{} // holds a token when pending has grown
}

const (
	sweepPause = 200 * time.Millisecond
	sweepDelay = 2 * time.Second
	sweepBatch = 128
)

// add takes over the files of a removed container. Those of an engine that ends
// before it deletes them are the next one's.
func (s *sweeper) add(trash string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending = append(s.pending, trash)
	if s.running {
		select {
		case s.added <- struct{}{}:
		default:
		}
		return
	}
	s.running = s.tasks.Go("remove", s.run)
}

// run goes on until nothing is pending.
func (s *sweeper) run(ctx context.Context) {
	for {
		s.awaitPause(ctx)
		s.mu.Lock()
		batch := s.pending
		s.pending = nil
		s.running = len(batch) > 0
		s.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		s.sweep(ctx, batch)
	}
}

func (s *sweeper) awaitPause(ctx context.Context) {
	latest := time.After(sweepDelay)
	for s.count() > 0 && s.count() < sweepBatch {
		select {
		case <-s.added:
		case <-time.After(sweepPause):
			return
		case <-latest:
			return
		case <-ctx.Done():
			return
		}
	}
}

func (s *sweeper) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.pending)
}

func (s *sweeper) sweep(ctx context.Context, batch []string) {
	for _, trash := range batch {
		if err := container.EmptyTrash(trash); err != nil {
			s.log.Warn("files of a removed container are left: the next start of the engine tries again", "dir", trash, "error", err)
		}
	}
	if err := s.images.ReleaseUnused(ctx, func(id string) bool { return imageInUse(s.containers, id) }); err != nil && ctx.Err() == nil {
		s.log.Warn("layers of an unused image could not be released", "error", err)
	}
}
