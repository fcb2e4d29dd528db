package build

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/cache/metadata"
	"github.com/moby/buildkit/exporter"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/snapshot"
	"github.com/moby/buildkit/util/progress"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/internal/record"
	"github.com/cleatlabs/cleat/internal/store"
)

// A layer of an image and the state that a build step starts from or leaves are the same
// files. BuildKit and the engine's images call them by different names; neither unpacks
// what the other has.

// baseLayers is the store's layers for BuildKit. A layer that it looks for to build upon,
// and that an image here has unpacked, is there.
type baseLayers struct {
	snapshots.Snapshotter
	s *store.Store
}

func (l baseLayers) Stat(ctx context.Context, name string) (snapshots.Info, error) {
	info, err := l.Snapshotter.Stat(ctx, name)
	if !errdefs.IsNotFound(err) {
		return info, err
	}
	chain, ok := snapshot.ParseLayerSnapshotID(name)
	if !ok || l.adopt(ctx, chain) != nil {
		return info, err // BuildKit unpacks it itself
	}
	return l.Snapshotter.Stat(ctx, name)
}

// adopt gives a layer of an image, and those below it, the names that BuildKit has for
// them. The lease of BuildKit's record holds a name even before it is there.
func (l baseLayers) adopt(ctx context.Context, chain digest.Digest) error {
	layer, err := l.Snapshotter.Stat(ctx, chain.String())
	if err != nil {
		return err
	}
	below := ""
	if layer.Parent != "" {
		parent, err := digest.Parse(layer.Parent)
		if err != nil {
			return err
		}
		below = snapshot.LayerSnapshotID(parent)
		if _, err := l.Snapshotter.Stat(ctx, below); errdefs.IsNotFound(err) {
			err = l.adopt(ctx, parent)
			if err != nil {
				return err
			}
		} else if err != nil {
			return err
		}
	}
	return l.s.AliasLayer(ctx, snapshot.LayerSnapshotID(chain), below, chain.String())
}

// The keys of BuildKit's records (cache/metadata.go). Its types do not tell these two.
const (
	recordDiffID   = "cache.diffID"
	recordSnapshot = "cache.snapshot"
)

// unpack readies the layers of an image for containers: those that the build has left
// are given the image's names for them, any other is unpacked. An image for other
// platforms only has nothing to ready. ctx has a lease.
func (w *imageWorker) unpack(ctx context.Context, src *exporter.Source, image ocispec.Descriptor, name string) (err error) {
	ref, ok := nativeRef(src)
	if !ok {
		return nil
	}
	done := progress.OneOff(ctx, "unpacking to "+name)
	defer func() { err = done(err) }()
	manifest, config, diffIDs, err := w.layersOf(ctx, image)
	if err != nil || len(diffIDs) == 0 {
		return err
	}
	chains := identity.ChainIDs(append([]digest.Digest(nil), diffIDs...))
	named, err := w.nameLayers(ctx, ref, diffIDs, chains)
	if err != nil {
		return err
	}
	record.Failpoint("build.export.after-layers")
	if !named {
		if err := w.images.Unpack(ctx, manifest); err != nil {
			return err
		}
	}
	key := "containerd.io/gc.ref.snapshot." + store.Snapshotter
	_, err = w.ContentStore().Update(ctx, content.Info{
		Digest: config.Digest, Labels: map[string]string{key: chains[len(chains)-1].String()},
	}, labelField+key)
	return err
}

// nativeRef gives the result for this machine's platform.
func nativeRef(src *exporter.Source) (cache.ImmutableRef, bool) {
	wanted := platforms.Only(nativePlatform())
	ps, err := exptypes.ParsePlatforms(src.Metadata)
	if err != nil {
		return nil, false // the export has told of that
	}
	var best *exptypes.Platform
	for i, p := range ps.Platforms {
		if wanted.Match(p.Platform) && (best == nil || wanted.Less(p.Platform, best.Platform)) {
			best = &ps.Platforms[i]
		}
	}
	if best == nil {
		return nil, false
	}
	ref, ok := src.FindRef(best.ID)
	return ref, ok
}

// layersOf reads which layers the image for this machine's platform has.
func (w *imageWorker) layersOf(ctx context.Context, image ocispec.Descriptor) (manifest, config ocispec.Descriptor, diffIDs []digest.Digest, err error) {
	manifest = image
	blobs := w.ContentStore()
	if images.IsIndexType(image.MediaType) {
		var index ocispec.Index
		if err := readJSON(ctx, blobs, image, &index); err != nil {
			return manifest, config, nil, err
		}
		wanted := platforms.Only(nativePlatform())
		found := false
		for _, m := range index.Manifests {
			if m.Platform != nil && wanted.Match(*m.Platform) && (!found || wanted.Less(*m.Platform, *manifest.Platform)) {
				manifest, found = m, true
			}
		}
		if !found {
			return manifest, config, nil, nil
		}
	}
	var m ocispec.Manifest
	if err := readJSON(ctx, blobs, manifest, &m); err != nil {
		return manifest, config, nil, err
	}
	var c ocispec.Image
	err = readJSON(ctx, blobs, m.Config, &c)
	return manifest, m.Config, c.RootFS.DiffIDs, err
}

func readJSON(ctx context.Context, blobs content.Provider, desc ocispec.Descriptor, into any) error {
	blob, err := content.ReadBlob(ctx, blobs, desc)
	if err == nil {
		err = json.Unmarshal(blob, into)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", desc.Digest, err)
	}
	return nil
}

// nameLayers gives the layers that the build has left the image's names for them. It
// reports whether all of the image's layers are there. One that was made anew for the
// export, with other times, is not what the build has left.
func (w *imageWorker) nameLayers(ctx context.Context, ref cache.ImmutableRef, diffIDs, chains []digest.Digest) (bool, error) {
	if ref == nil {
		return false, nil
	}
	layers := ref.LayerChain()
	defer layers.Release(context.WithoutCancel(ctx))
	ctx = w.store.Context(ctx)
	first := w.highest(ctx, chains)
	fresh := first < 0
	first = max(first, 0)
	below := ""
	if first > 0 {
		below = chains[first-1].String()
	}
	for i := first; i < len(chains); i++ {
		chain := chains[i]
		if err := w.nameLayer(ctx, layers, i, diffIDs[i], chain.String(), below); err != nil {
			if errdefs.IsNotFound(err) || errdefs.IsFailedPrecondition(err) {
				return false, nil
			}
			return false, err
		}
		if i == 0 && fresh {
			if err := w.lowestWritten(ctx, chain.String()); err != nil {
				return false, err
			}
		}
		below = chain.String()
	}
	return true, nil
}

// lowestWritten has a layer settled that lies upon none: BuildKit writes straight into its directory, without an overlay
// whose end would tell of it.
func (w *imageWorker) lowestWritten(ctx context.Context, name string) error {
	if w.wrote == nil {
		return nil
	}
	dir, err := w.store.LayerPath(ctx, name)
	if err != nil {
		return err
	}
	return w.wrote(dir)
}

// highest is the highest layer that has its name already: it holds those below it. -1 if none has.
func (w *imageWorker) highest(ctx context.Context, chains []digest.Digest) int {
	for i := len(chains) - 1; i >= 0; i-- {
		if _, err := w.store.Snapshots.Stat(ctx, chains[i].String()); err == nil {
			return i
		}
	}
	return -1
}

func (w *imageWorker) nameLayer(ctx context.Context, layers cache.RefList, i int, diffID digest.Digest, name, below string) error {
	if i < len(layers) {
		if record, ok := w.MetadataStore.Get(layers[i].ID()); ok && recordValue(record, recordDiffID) == diffID.String() {
			// It is done for one that is there, too: the lease shall hold it.
			return w.store.AliasLayer(ctx, name, below, recordValue(record, recordSnapshot))
		}
	}
	return errdefs.ErrNotFound
}

// recordValue reads a text from one of BuildKit's records, "" if it is not there.
func recordValue(record *metadata.StorageItem, key string) (text string) {
	value := record.Get(key)
	if value == nil || value.Unmarshal(&text) != nil {
		return ""
	}
	return text
}
