package volume

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/volume"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/filter"
	"github.com/cleatlabs/cleat/internal/mount"
)

// counters is how many volumes are measured at the same time: enough to keep a
// disk busy, few enough to leave it to others.
const counters = 2

// unknownSize is the size of a volume that is not measured.
const unknownSize = -1

// Usage returns every volume with its size in bytes and the number of containers
// that refer to it, stopped ones included, sorted by name. The size of one whose
// files are on a server, or with a plugin, is not counted, which is -1, as that may wait for the
// server. It takes as long as walking all files does, holds nobody up, and
// returns ctx's error when that ends.
func (s *Service) Usage(ctx context.Context) ([]*volume.Volume, error) {
	list, _, err := s.List(ctx, nil)
	if err != nil {
		return nil, err
	}
	var wg sync.WaitGroup
	turns := make(chan struct{}, counters)
	for _, v := range list {
		wg.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			size, err := s.size(ctx, v)
			if err != nil {
				size = unknownSize // removed meanwhile, or ctx has ended
			}
			v.UsageData = &volume.UsageData{Size: size, RefCount: int64(len(s.References(v.Name)))}
		})
	}
	wg.Wait()
	return list, ctx.Err()
}

func (s *Service) size(ctx context.Context, v *volume.Volume) (int64, error) {
	if v.Driver != Driver || isRemote(v.Options) {
		return unknownSize, nil
	}
	return mount.Usage(ctx, v.Mountpoint)
}

// Prune removes the volumes that no container refers to: anonymous ones, with
// the filter all=true named ones too. Volumes with options stay, as they name
// something that somebody set up. The other filters are label and label!. It
// returns those removed and the sum of their sizes in bytes. When
// ctx ends it stops between two volumes.
func (s *Service) Prune(ctx context.Context, filters map[string][]string) (removed []*volume.Volume, reclaimed uint64, err error) {
	all, err := parsePrune(filters)
	if err != nil {
		return nil, 0, err
	}
	match, err := parseFilters(map[string][]string{"dangling": {"true"}, "label": filters["label"], "label!": filters["label!"]})
	if err != nil {
		return nil, 0, err
	}
	for _, v := range s.prunable(match, all) {
		if ctx.Err() != nil {
			return removed, reclaimed, ctx.Err()
		}
		size, err := mount.Usage(ctx, v.Mountpoint)
		if err != nil {
			size = 0
		}
		err = s.Remove(ctx, v.Name, false)
		if errors.Is(err, errdefs.ErrConflict) || errors.Is(err, errdefs.ErrNotFound) {
			continue // somebody has begun to use it, or was quicker
		}
		if err != nil {
			return removed, reclaimed, err
		}
		removed = append(removed, v)
		reclaimed += uint64(size)
	}
	return removed, reclaimed, nil
}

func (s *Service) prunable(match func(string, *entry) bool, all bool) []*volume.Volume {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []*volume.Volume
	for name, e := range s.entries {
		if e.isPlugins() {
			continue
		}
		_, anonymous := e.meta.Labels[AnonymousLabel]
		if e.busy == nil && (all || anonymous) && len(e.meta.Options) == 0 && match(name, e) {
			list = append(list, s.describe(name, e))
		}
	}
	slices.SortFunc(list, func(a, b *volume.Volume) int { return strings.Compare(a.Name, b.Name) })
	return list
}

func parsePrune(filters map[string][]string) (all bool, err error) {
	for key, values := range filters {
		switch key {
		case "label", "label!":
		case "all":
			if all, err = filter.Bool(key, values); err != nil {
				return false, err
			}
		default:
			return false, failure.Invalid("invalid filter '%s'", strings.TrimSpace(key))
		}
	}
	return all, nil
}
