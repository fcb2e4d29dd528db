package store

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/diff/apply"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/containerd/v2/plugins/diff/walking"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// applier unpacks layers. A first layer, which the snapshotter gives as a bind mount
// of its directory, is unpacked straight into that directory: containerd's own applier
// would mount it under /tmp first, and a kill -9 would leave that mount behind. All
// other layers take containerd's way, which does not mount for overlay either.
type applier struct {
	provider content.Provider
	stacked  diff.Applier
}

func newApplier(provider content.Provider) diff.Applier {
	return &applier{provider: provider, stacked: apply.NewFileSystemApplier(provider)}
}

func (a *applier) Apply(ctx context.Context, desc ocispec.Descriptor, mounts []mount.Mount, opts ...diff.ApplyOpt) (ocispec.Descriptor, error) {
	if len(mounts) != 1 || mounts[0].Type != "bind" || slices.Contains(mounts[0].Options, "ro") {
		return a.stacked.Apply(ctx, desc, mounts, opts...)
	}
	var cfg diff.ApplyConfig
	for _, o := range opts {
		if err := o(ctx, desc, &cfg); err != nil {
			return ocispec.Descriptor{}, fmt.Errorf("unpack option: %w", err)
		}
	}
	blob, err := a.provider.ReaderAt(ctx, desc)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("open the layer %s: %w", desc.Digest, err)
	}
	defer blob.Close()
	tar, closeTar, err := decode(ctx, desc.MediaType, &reportingReader{Reader: content.NewReader(blob), report: cfg.Progress}, cfg)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer closeTar()

	diffID := digest.Canonical.Digester()
	counted := &countingReader{Reader: io.TeeReader(tar, diffID.Hash())}
	if _, err := archive.Apply(ctx, mounts[0].Source, counted); err != nil {
		return ocispec.Descriptor{}, err
	}
	// The digest is that of the whole stream; tar stops at its end mark.
	if _, err := io.Copy(io.Discard, counted); err != nil {
		return ocispec.Descriptor{}, err
	}
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Size: counted.n, Digest: diffID.Digest()}, nil
}

// decode gives the plain tar stream of a layer of the given media type.
func decode(ctx context.Context, mediaType string, r io.Reader, cfg diff.ApplyConfig) (io.Reader, func(), error) {
	var chain []io.Closer
	closeAll := func() {
		for _, c := range slices.Backward(chain) {
			c.Close()
		}
	}
	p := diff.NewProcessorChain(mediaType, r)
	for p.MediaType() != ocispec.MediaTypeImageLayer || len(chain) == 0 {
		next, err := diff.GetProcessor(ctx, p, cfg.ProcessorPayloads)
		if err != nil {
			closeAll()
			return nil, nil, fmt.Errorf("a layer of type %q cannot be unpacked: %w", mediaType, err)
		}
		chain = append(chain, next)
		p = next
	}
	return p, closeAll, nil
}

type reportingReader struct {
	io.Reader
	n      int64
	report func(int64)
}

func (r *reportingReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.n += int64(n)
	if r.report != nil {
		r.report(r.n)
	}
	return n, err
}

type countingReader struct {
	io.Reader
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += int64(n)
	return n, err
}

// NewApplier makes an applier like [Store.Applier] that reads its blobs from provider,
// whose contexts need not be those of the store.
func (s *Store) NewApplier(provider content.Provider) diff.Applier { return newApplier(provider) }

// NewDiffer makes a differ like [Store.Differ] that writes its blobs to blobs, whose
// contexts need not be those of the store.
func (s *Store) NewDiffer(blobs content.Store) diff.Comparer { return walking.NewWalkingDiff(blobs) }
