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
	trash      *supervise.Lull[trash]
}

// trash is the directory of a removed container.
type trash struct {
	dir string // what store.Remove has called so
	// run is the container's last; nil where it had none, or where something of the
	// directory is not as every container's is.
	run *run
}

const sweepBatch = 128

func newSweeper(d *Deps) *sweeper {
	s := &sweeper{containers: d.Containers, images: d.Images, log: d.Log}
	s.trash = supervise.NewLull("remove", d.Tasks, sweepBatch, s.sweep)
	return s
}

// add takes over the files of a removed container. Those of an engine that ends
// before it deletes them are the next one's.
func (s *sweeper) add(t trash) { s.trash.Add(t) }

// reusable hands over up to n directories of containers whose filesystems the engine
// does not hold any more.
func (s *sweeper) reusable(n int) []string {
	taken := s.trash.Take(n, func(t trash) bool { return t.run != nil && t.run.unmounted() })
	dirs := make([]string, len(taken))
	for i, t := range taken {
		dirs[i] = t.dir
	}
	return dirs
}

func (s *sweeper) empty(dir string) {
	if err := container.EmptyTrash(dir); err != nil {
		s.log.Warn("files of a removed container are left: the next start of the engine tries again", "dir", dir, "error", err)
	}
}

func (s *sweeper) sweep(ctx context.Context, batch []trash) {
	for _, t := range batch {
		s.empty(t.dir)
	}
	if err := s.images.ReleaseUnused(ctx, func(id string) bool { return imageInUse(s.containers, id) }); err != nil && ctx.Err() == nil {
		s.log.Warn("layers of an unused image could not be released", "error", err)
	}
}
