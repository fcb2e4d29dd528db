package build

import (
	"context"
	"fmt"
	"slices"

	"github.com/moby/buildkit/cache/contenthash"
	"github.com/moby/buildkit/cache/metadata"
	bkclient "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/snapshot/imagerefchecker"
	"github.com/opencontainers/go-digest"
)

// Keys of BuildKit's records, as those in layers.go.
const (
	recordBlobOnly = "cache.blobonly"
	recordBlob     = "cache.blob"
	recordParent   = "cache.parent"
	recordMerged   = "cache.mergeParents"
	recordLower    = "cache.lowerDiffParent"
	recordUpper    = "cache.upperDiffParent"
)

// DiskUsage is what the cache's records take. Of a layer that an image had unpacked when a build came to stand upon it
// (see baseLayers), BuildKit counts the blob alone, as if nothing was unpacked; here it is whole. Nor is a layer of an
// image told as shared that BuildKit was asked about before it was one; here it is (see layersOfImages). The cache's
// budget, and which records a filter or a prune without All selects, go by what BuildKit counts.
func (w *imageWorker) DiskUsage(ctx context.Context, opt bkclient.DiskUsageInfo) ([]*bkclient.UsageInfo, error) {
	items, err := w.Worker.DiskUsage(ctx, opt)
	if err != nil {
		return nil, err
	}
	records, err := w.MetadataStore.All()
	if err != nil {
		return nil, err
	}
	shared, err := w.layersOfImages(records)
	if err != nil {
		return nil, err
	}
	for _, i := range items {
		i.Size = max(i.Size, 0) + w.unpackedSize(ctx, i.ID)
		i.Shared = i.Shared || shared[i.ID]
	}
	return items, nil
}

// Prune tells of what it removes as DiskUsage does.
func (w *imageWorker) Prune(ctx context.Context, ch chan bkclient.UsageInfo, opts ...bkclient.PruneInfo) error {
	records, err := w.MetadataStore.All()
	if err != nil {
		return err
	}
	shared, err := w.layersOfImages(records)
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
			i.Shared = i.Shared || shared[i.ID]
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

// layersOfImages gives the ids of the records that images consist of. BuildKit keeps which blobs a record consists of
// from when it is first asked. Its garbage collection asks a second after the first build has begun, which need not have
// made one by then.
func (w *imageWorker) layersOfImages(records []*metadata.StorageItem) (map[string]bool, error) {
	images, err := imagerefchecker.New(imagerefchecker.Opt{ImageStore: w.names, ContentStore: w.ContentStore()})()
	if err != nil {
		return nil, fmt.Errorf("which layers images have: %w", err)
	}
	l := lineage{}
	for _, r := range records {
		l[r.ID()] = r
	}
	found := make(map[string]bool)
	for id := range l {
		if images.Exists(id, l.blobs(id)) {
			l.add(found, id)
		}
	}
	return found, nil
}

// lineage is BuildKit's records by their ids.
type lineage map[string]*metadata.StorageItem

// blobs are those that a record's files consist of, the lowest first; a blob that has not been made is "".
func (l lineage) blobs(id string) (blobs []digest.Digest) {
	r, ok := l[id]
	if !ok {
		return nil
	}
	blob := digest.Digest(recordValue(r, recordBlob))
	if merged := recordValues(r, recordMerged); len(merged) > 0 {
		for _, m := range merged {
			blobs = append(blobs, l.blobs(m)...)
		}
		return blobs
	}
	upper := recordValue(r, recordUpper)
	if upper != "" && blob == "" {
		return l.blobs(upper)
	}
	if upper != "" || recordValue(r, recordLower) != "" {
		return []digest.Digest{blob}
	}
	return append(l.blobs(recordValue(r, recordParent)), blob)
}

// add puts a record and all that it stands upon into found.
func (l lineage) add(found map[string]bool, id string) {
	r, ok := l[id]
	if !ok || found[id] {
		return
	}
	found[id] = true
	for _, below := range slices.Concat(recordValues(r, recordMerged),
		[]string{recordValue(r, recordParent), recordValue(r, recordLower), recordValue(r, recordUpper)}) {
		l.add(found, below)
	}
}

func recordValues(record *metadata.StorageItem, key string) (texts []string) {
	value := record.Get(key)
	if value == nil || value.Unmarshal(&texts) != nil {
		return nil
	}
	return texts
}

func recordFlag(record *metadata.StorageItem, key string) (flag bool) {
	value := record.Get(key)
	return value != nil && value.Unmarshal(&flag) == nil && flag
}
