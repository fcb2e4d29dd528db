package build

import (
	"context"

	"github.com/moby/buildkit/cache/contenthash"
	"github.com/moby/buildkit/cache/metadata"
	bkclient "github.com/moby/buildkit/client"
)

// recordBlobOnly is a key of BuildKit's records, as those in layers.go.
const recordBlobOnly = "cache.blobonly"

// DiskUsage is what the cache's records take. Of a layer that an image had unpacked when a build came to stand upon it
// (see baseLayers), BuildKit counts the blob alone, as if nothing was unpacked; here it is whole. (The cache's budget
// goes on counting the blob.)
func (w *imageWorker) DiskUsage(ctx context.Context, opt bkclient.DiskUsageInfo) ([]*bkclient.UsageInfo, error) {
	items, err := w.Worker.DiskUsage(ctx, opt)
	for _, i := range items {
		i.Size = max(i.Size, 0) + w.unpackedSize(ctx, i.ID)
	}
	return items, err
}

// Prune tells of what it removes as DiskUsage does.
func (w *imageWorker) Prune(ctx context.Context, ch chan bkclient.UsageInfo, opts ...bkclient.PruneInfo) error {
	records, err := w.MetadataStore.All()
	if err != nil {
		return err
	}
	unpacked := make(map[string]int64)
	for _, r := range records {
		unpacked[r.ID()] = w.unpackedSize(ctx, r.ID())
	}
	removed := make(chan bkclient.UsageInfo)
	told := make(chan struct{})
	go func() {
		defer close(told)
		for i := range removed {
			i.Size = max(i.Size, 0) + unpacked[i.ID]
			ch <- i // whose reader reads until it is closed
		}
	}()
	err = w.Worker.Prune(ctx, removed, opts...)
	close(removed)
	<-told
	for _, r := range records {
		contenthash.ClearCacheContext(recordID{id: r.ID()}) // nobody else knows of those that are gone
	}
	return err
}

// unpackedSize is what the unpacked layer of a record takes, in bytes, if the record does not count it. One that is
// going meanwhile takes nothing.
func (w *imageWorker) unpackedSize(ctx context.Context, id string) int64 {
	record, ok := w.MetadataStore.Get(id)
	if !ok || !recordFlag(record, recordBlobOnly) {
		return 0
	}
	usage, err := w.store.Snapshots.Usage(w.store.Context(ctx), recordValue(record, recordSnapshot))
	if err != nil {
		return 0
	}
	return usage.Size
}

func recordFlag(record *metadata.StorageItem, key string) (flag bool) {
	value := record.Get(key)
	return value != nil && value.Unmarshal(&flag) == nil && flag
}
