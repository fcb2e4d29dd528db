package engine

import (
	"context"
	"log/slog"

	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/image"
	"github.com/cleatlabs/cleat/internal/supervise"
)

// sweeper deletes the files of removed containers. Deleting takes longer than
// all else in a container's short life, and the disk's journal makes whoever
// creates files meanwhile wait: so it happens when removals pause.
type sweeper struct {
	containers *container.Store
	images     *image.Service
	log        *slog.Logger
	trash      *supervise.Lull[string] // what store.Remove has called so
}

const sweepBatch = 128

func newSweeper(d *Deps) *sweeper {
	s := &sweeper{containers: d.Containers, images: d.Images, log: d.Log}
	s.trash = supervise.NewLull("remove", d.Tasks, sweepBatch, s.sweep)
	return s
}

// add takes over the files of a removed container. Those of an engine that ends
// before it deletes them are the next one's.
func (s *sweeper) add(trash string) { s.trash.Add(trash) }

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
