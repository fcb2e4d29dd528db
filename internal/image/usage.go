package image

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
)

// DiskUsage is how many bytes all images take together, each blob and each unpacked layer
// counted once, whoever shares it.
func (s *Service) DiskUsage(ctx context.Context) (int64, error) {
	ctx = s.store.Context(ctx)
	var total int64
	err := s.store.Content.Walk(ctx, func(info content.Info) error {
		total += info.Size
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("measure the images: %w", err)
	}
	var layers []string
	err = s.store.Snapshots.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		if info.Kind == snapshots.KindCommitted {
			layers = append(layers, info.Name)
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("measure the layers of images: %w", err)
	}
	for _, name := range layers {
		u, err := s.store.Snapshots.Usage(ctx, name)
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("measure the layer %s: %w", name, err)
		}
		total += u.Size
	}
	return total, nil
}

// Collect frees the space of what nobody refers to any more and says what images take
// then.
func (s *Service) Collect(ctx context.Context) (int64, error) {
	if err := s.store.GC(ctx); err != nil {
		return 0, fmt.Errorf("collect unused images: %w", err)
	}
	return s.DiskUsage(ctx)
}
