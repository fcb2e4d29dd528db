package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	bkclient "github.com/moby/buildkit/client"
	apibuild "github.com/moby/moby/api/types/build"
)

// refsFile is the database of what is in the cache.
const refsFile = "refs.db"

// empty reports whether nothing was ever built here: then there is nothing to open.
func (b *Builder) empty() (bool, error) {
	b.mu.Lock()
	opened := b.opened != nil
	b.mu.Unlock()
	if opened {
		return false, nil
	}
	_, err := os.Stat(filepath.Join(b.cfg.Root, refsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("builder: %w", err)
	}
	return false, nil
}

// DiskUsage describes what is in the build cache. An item that is shared is part of an
// image as well, and takes no space of its own.
func (b *Builder) DiskUsage(ctx context.Context) (*apibuild.DiskUsage, error) {
	usage := &apibuild.DiskUsage{Items: []apibuild.CacheRecord{}}
	if empty, err := b.empty(); empty || err != nil {
		return usage, err
	}
	s, err := b.open()
	if err != nil {
		return nil, err
	}
	items, err := s.worker.DiskUsage(ctx, bkclient.DiskUsageInfo{})
	if err != nil {
		return nil, fmt.Errorf("measure the build cache: %w", err)
	}
	for _, i := range items {
		usage.Items = append(usage.Items, apibuild.CacheRecord{
			ID: i.ID, Parents: i.Parents, Type: string(i.RecordType), Description: i.Description, InUse: i.InUse, Shared: i.Shared,
			Size: i.Size, CreatedAt: i.CreatedAt, LastUsedAt: i.LastUsedAt, UsageCount: i.UsageCount,
		})
		usage.TotalCount++
		if i.InUse {
			usage.ActiveCount++
		}
		if i.Shared {
			continue
		}
		usage.TotalSize += i.Size
		if !i.InUse {
			usage.Reclaimable += i.Size
		}
	}
	return usage, nil
}
