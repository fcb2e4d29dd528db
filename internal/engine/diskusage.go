package engine

import (
	"context"

	apibuild "github.com/moby/moby/api/types/build"
	api "github.com/moby/moby/api/types/container"
	apiimage "github.com/moby/moby/api/types/image"
	apivolume "github.com/moby/moby/api/types/volume"
	"golang.org/x/sync/singleflight"

	"github.com/cleatlabs/cleat/internal/image"
)

// DiskUsages tells what takes how much of the disk.
type DiskUsages struct {
	queries *Queries
	images  *Images
	volumes *Volumes
	cache   BuildCache
	flights singleflight.Group
}

// BuildCache is what builds have left to be used again.
type BuildCache interface {
	DiskUsage(ctx context.Context) (*apibuild.DiskUsage, error)
}

// DiskUsageKinds says what to measure: walking volumes may take long.
type DiskUsageKinds struct{ Containers, Images, Volumes, BuildCache bool }

// DiskUsage is what was measured; what was not is nil. Items are always filled in.
type DiskUsage struct {
	Containers *api.DiskUsage
	Images     *apiimage.DiskUsage
	Volumes    *apivolume.DiskUsage
	BuildCache *apibuild.DiskUsage
}

// DiskUsage measures what is asked for, in bytes. Calls at the same time share what they measure.
func (d *DiskUsages) DiskUsage(ctx context.Context, kinds DiskUsageKinds) (*DiskUsage, error) {
	out := &DiskUsage{}
	if kinds.Containers {
		got, err := shared(ctx, &d.flights, "containers", d.ofContainers)
		if err != nil {
			return nil, err
		}
		out.Containers = got
	}
	if kinds.Images {
		got, err := shared(ctx, &d.flights, "images", d.ofImages)
		if err != nil {
			return nil, err
		}
		out.Images = got
	}
	if kinds.Volumes {
		got, err := shared(ctx, &d.flights, "volumes", d.ofVolumes)
		if err != nil {
			return nil, err
		}
		out.Volumes = got
	}
	if kinds.BuildCache {
		got, err := shared(ctx, &d.flights, "build cache", d.cache.DiskUsage)
		if err != nil {
			return nil, err
		}
		out.BuildCache = got
	}
	return out, nil
}

// shared measures once for all who ask at the same time. Who leaves does not end it for
// the others.
func shared[T any](ctx context.Context, flights *singleflight.Group, key string, measure func(context.Context) (*T, error)) (*T, error) {
	result := flights.DoChan(key, func() (any, error) { return measure(context.WithoutCancel(ctx)) })
	select {
	case r := <-result:
		if r.Err != nil {
			return nil, r.Err
		}
		got := *r.Val.(*T)
		return &got, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (d *DiskUsages) ofContainers(ctx context.Context) (*api.DiskUsage, error) {
	list, err := d.queries.List(ctx, ListOptions{All: true, Size: true})
	if err != nil {
		return nil, err
	}
	u := &api.DiskUsage{Items: []api.Summary{}, TotalCount: int64(len(list))}
	for _, c := range list {
		u.Items = append(u.Items, *c)
		u.TotalSize += c.SizeRw
		switch c.State {
		case api.StateRunning, api.StatePaused, api.StateRestarting:
			u.ActiveCount++
		default:
			u.Reclaimable += c.SizeRw
		}
	}
	return u, nil
}

func (d *DiskUsages) ofImages(ctx context.Context) (*apiimage.DiskUsage, error) {
	list, err := d.images.List(ctx, image.ListRequest{SharedSize: true})
	if err != nil {
		return nil, err
	}
	inUse := map[string]bool{}
	for i := range list {
		if list[i].Containers > 0 {
			inUse[list[i].ID] = true
		}
	}
	total, kept, err := d.images.DiskUsage(ctx, inUse)
	if err != nil {
		return nil, err
	}
	return &apiimage.DiskUsage{
		Items: list, TotalCount: int64(len(list)), ActiveCount: int64(len(inUse)), TotalSize: total, Reclaimable: total - kept,
	}, nil
}

func (d *DiskUsages) ofVolumes(ctx context.Context) (*apivolume.DiskUsage, error) {
	list, err := d.volumes.Usage(ctx)
	if err != nil {
		return nil, err
	}
	u := &apivolume.DiskUsage{Items: []apivolume.Volume{}, TotalCount: int64(len(list))}
	for _, v := range list {
		u.Items = append(u.Items, *v)
		if v.UsageData == nil {
			continue
		}
		size := max(0, v.UsageData.Size)
		u.TotalSize += size
		if v.UsageData.RefCount > 0 {
			u.ActiveCount++
		} else {
			u.Reclaimable += size
		}
	}
	return u, nil
}
