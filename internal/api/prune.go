package api

import (
	"context"
	"net/http"
	"time"

	apibuild "github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/system"
	volumetypes "github.com/moby/moby/api/types/volume"

	"github.com/cleatlabs/cleat/internal/build"
	"github.com/cleatlabs/cleat/internal/engine"
	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/filter"
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

func (h *Handler) buildPrune(ctx context.Context, w http.ResponseWriter, q *request) error {
	req, none, err := q.buildPruneRequest()
	if err != nil {
		return err
	}
	report := &apibuild.CachePruneReport{CachesDeleted: []string{}}
	if !none {
		if report, err = h.deps.Builds.Prune(ctx, req); err != nil {
			return err
		}
	}
	h.deps.Pruning.BuildCachePruned(report.SpaceReclaimed)
	return writeJSON(w, http.StatusOK, report)
}

// buildPruneRequest reads what of the build cache is to go. Records have no labels, so
// that none is meant where a filter asks for one.
func (q *request) buildPruneRequest() (req build.PruneRequest, none bool, err error) {
	if req.Filters, err = q.filters(append(build.PruneFilters(), "label", "label!", "until", "unused-for")...); err != nil {
		return req, false, err
	}
	req.All = q.boolean("all")
	none = len(req.Filters["label"]) > 0
	for _, key := range []string{"until", "unused-for"} { // the second is the first's older name
		since, err := filter.Until(key, req.Filters[key], time.Now())
		if err != nil {
			return req, false, err
		}
		delete(req.Filters, key)
		if since.IsZero() {
			continue
		}
		if req.UnusedFor != 0 {
			return req, false, failure.Invalid("more than one until filter specified")
		}
		req.UnusedFor = max(time.Since(since), 0)
	}
	delete(req.Filters, "label")
	delete(req.Filters, "label!")
	sizes := map[string]*int64{
		"keep-storage": &req.Reserved, "reserved-space": &req.Reserved, // one thing, before and since API 1.48
		"max-used-space": &req.MaxUsed, "min-free-space": &req.MinFree,
	}
	for key, size := range sizes {
		n, err := q.integer(key)
		if err != nil {
			return req, false, err
		}
		if n != nil && *n < 0 {
			return req, false, failure.Invalid("invalid value %d for %s: it must not be negative", *n, key)
		}
		if n != nil {
			*size = max(*size, int64(*n))
		}
	}
	return req, none, nil
}

// diskUsageBelow152 is the answer before there were sums in it.
type diskUsageBelow152 struct {
	LayersSize int64                   `json:"LayersSize"`
	Images     any                     `json:"Images,omitempty"`
	Containers *[]container.Summary    `json:"Containers,omitempty"`
	Volumes    *[]volumetypes.Volume   `json:"Volumes,omitempty"`
	BuildCache *[]apibuild.CacheRecord `json:"BuildCache,omitempty"`
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
