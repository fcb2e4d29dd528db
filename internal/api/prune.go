package api

import (
	"context"
	"net/http"

	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/system"
	volumetypes "github.com/moby/moby/api/types/volume"

	"github.com/cleatlabs/cleat/internal/engine"
	"github.com/cleatlabs/cleat/internal/failure"
)

func (h *Handler) containerPrune(ctx context.Context, w http.ResponseWriter, q *request) error {
	filters, err := q.filters("label", "label!", "until")
	if err != nil {
		return err
	}
	report, err := h.deps.Pruning.PruneContainers(ctx, filters)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, report)
}

func (h *Handler) imagePrune(ctx context.Context, w http.ResponseWriter, q *request) error {
	filters, err := q.filters("dangling", "label", "label!", "until")
	if err != nil {
		return err
	}
	report, err := h.deps.Pruning.PruneImages(ctx, filters)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, report)
}

// buildPrune is served because the answer is true: there is no build cache.
func (h *Handler) buildPrune(_ context.Context, w http.ResponseWriter, q *request) error {
	// Nothing is left to decide, but a mistake in the request is still one.
	for _, key := range []string{"keep-storage", "reserved-space", "max-used-space", "min-free-space"} {
		if _, err := q.integer(key); err != nil {
			return err
		}
	}
	if _, err := parseFilters(q.query.Get("filters")); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, build.CachePruneReport{CachesDeleted: []string{}})
}

// diskUsageBelow152 is the answer before there were sums in it.
type diskUsageBelow152 struct {
	LayersSize int64                 `json:"LayersSize"`
	Images     any                   `json:"Images,omitempty"`
	Containers *[]container.Summary  `json:"Containers,omitempty"`
	Volumes    *[]volumetypes.Volume `json:"Volumes,omitempty"`
	BuildCache *[]build.CacheRecord  `json:"BuildCache,omitempty"`
}

func (h *Handler) systemDiskUsage(ctx context.Context, w http.ResponseWriter, q *request) error {
	kinds, err := q.diskUsageKinds()
	if err != nil {
		return err
	}
	usage, err := h.deps.DiskUsage.DiskUsage(ctx, kinds)
	if err != nil {
		return err
	}
	old := oldDiskUsage(usage, q.version)
	if q.version.below(52) {
		return writeJSON(w, http.StatusOK, old)
	}
	sums := &system.DiskUsage{
		ImageUsage: usage.Images, ContainerUsage: usage.Containers, VolumeUsage: usage.Volumes, BuildCacheUsage: usage.BuildCache,
	}
	if q.boolean("verbose") {
		return writeJSON(w, http.StatusOK, sums)
	}
	// The old arrays have the items.
	if sums.ImageUsage != nil {
		sums.ImageUsage.Items = nil
	}
	if sums.ContainerUsage != nil {
		sums.ContainerUsage.Items = nil
	}
	if sums.VolumeUsage != nil {
		sums.VolumeUsage.Items = nil
	}
	if sums.BuildCacheUsage != nil {
		sums.BuildCacheUsage.Items = nil
	}
	return writeJSON(w, http.StatusOK, struct {
		*system.DiskUsage
		*diskUsageBelow152
	}{sums, old})
}

func oldDiskUsage(u *engine.DiskUsage, asked version) *diskUsageBelow152 {
	old := &diskUsageBelow152{}
	if u.Images != nil {
		old.Images, old.LayersSize = list(u.Images.Items), u.Images.TotalSize
		if asked.below(44) { // of which the client then computed what can be reclaimed
			old.Images = newSummariesBelow144(u.Images.Items)
		}
	}
	if u.Containers != nil {
		items := u.Containers.Items
		old.Containers = &items
	}
	if u.Volumes != nil {
		items := u.Volumes.Items
		old.Volumes = &items
	}
	if u.BuildCache != nil {
		items := u.BuildCache.Items
		old.BuildCache = &items
	}
	return old
}

func (q *request) diskUsageKinds() (kinds engine.DiskUsageKinds, err error) {
	asked := q.query["type"]
	if len(asked) == 0 || q.version.below(42) {
		return engine.DiskUsageKinds{Containers: true, Images: true, Volumes: true, BuildCache: true}, nil
	}
	for _, t := range asked {
		switch system.DiskUsageObject(t) {
		case system.ContainerObject:
			kinds.Containers = true
		case system.ImageObject:
			kinds.Images = true
		case system.VolumeObject:
			kinds.Volumes = true
		case system.BuildCacheObject:
			kinds.BuildCache = true
		default:
			return kinds, failure.Invalid("unknown object type: %s", t)
		}
	}
	return kinds, nil
}
