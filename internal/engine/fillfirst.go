package engine

import (
	"cmp"
	"context"
	"slices"
	"strings"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"

	"github.com/cleatlabs/cleat/internal/container"
)

// fillFirst gives the new volumes of a container what the images of those hold that were made with them before it, and
// were never started: who was made first fills a volume, as with Docker, which does it when a container is made. It is done
// before the container's own volumes are mounted, and only ever waits for containers that are older, so that no two wait
// for each other.
func (fs *filesystems) fillFirst(ctx context.Context, r *container.Record) {
	if r.State.VolumesFilled {
		return
	}
	var older []*container.Container
	for _, name := range volumeNames(r) {
		for _, id := range fs.volumes.References(name) {
			c, err := fs.containers.Find(id)
			if err == nil && fills(c.Load(), name) && byAge(c.Load(), r) < 0 && !slices.Contains(older, c) {
				older = append(older, c)
			}
		}
	}
	slices.SortFunc(older, func(a, b *container.Container) int { return byAge(a.Load(), b.Load()) })
	for _, c := range older {
		if err := fs.fill(ctx, c); err != nil && ctx.Err() == nil {
			fs.log.Warn("volumes of a container that was made before another", "container", c.ID(), "other", r.ID, "error", err)
		}
	}
}

// fillLast gives the volumes that stay when a container is removed what its image holds, if it was never started.
func (fs *filesystems) fillLast(ctx context.Context, c *container.Container) {
	r := c.Load()
	stays := func(m container.Mount) bool { return !m.Anonymous && fills(r, m.Name) }
	if r.State.Status != api.StateCreated || !slices.ContainsFunc(r.Mounts, stays) {
		return
	}
	if err := fs.fill(ctx, c); err != nil {
		fs.log.Warn("volumes of a container that is being removed", "container", c.ID(), "error", err)
	}
}

// fills says whether a container has still to fill a volume.
func fills(r *container.Record, name string) bool {
	return !r.State.VolumesFilled && slices.ContainsFunc(r.Mounts, func(m container.Mount) bool {
		return m.Type == mount.TypeVolume && m.Name == name && m.CopyUp
	})
}

// byAge compares two containers: who was made first comes first.
func byAge(a, b *container.Record) int {
	return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.ID, b.ID))
}
