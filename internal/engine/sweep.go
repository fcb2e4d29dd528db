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
// creates files meanwhile wait: so it happens when removals pause. Where they do
// not, as many containers are made as go, and get the directories of these.
type sweeper struct {
	containers  *container.Store
	images      *image.Service
	directories *directories
	log         *slog.Logger
	trash       *supervise.Lull[removed]
}

// removed is what a removed container has left.
type removed struct {
	dir string // what store.Remove has called so
	// last is its last run, if its directory is as good as new once that is tidied; nil otherwise.
	last *run
}

const sweepBatch = 64

func newSweeper(d *Deps, dirs *directories) *sweeper {
	s := &sweeper{containers: d.Containers, images: d.Images, directories: dirs, log: d.Log}
	s.trash = supervise.NewLull("remove", d.Tasks, sweepBatch, s.sweep)
	return s
}

// add takes over the files of a removed container. Those of an engine that ends
// before it deletes them are the next one's.
func (s *sweeper) add(r removed) { s.trash.Add(r) }

func (s *sweeper) sweep(ctx context.Context, batch []removed) {
	if len(batch) >= spareDirectories {
		batch = s.directories.recycle(batch)
	}
	for _, r := range batch {
		if err := container.EmptyTrash(r.dir); err != nil {
			s.log.Warn("files of a removed container are left: the next start of the engine tries again", "dir", r.dir, "error", err)
		}
	}
	if err := s.images.ReleaseUnused(ctx, func(id string) bool { return imageInUse(s.containers, id) }); err != nil && ctx.Err() == nil {
		s.log.Warn("layers of an unused image could not be released", "error", err)
	}
}
