package store

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/diff/apply"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/containerd/v2/plugins/diff/walking"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/kernel"
)

// applier unpacks layers straight into their directories: that of a first layer, which
// the snapshotter gives as a bind mount, and the upper one of an overlay. Containerd's own
// applier would mount a first layer under /tmp, and a kill -9 would leave that mount
// behind; other mounts are left to it.
type applier struct {
	provider content.Provider
	mounted  diff.Applier
}

func newApplier(provider content.Provider) diff.Applier {
	return &applier{provider: provider, mounted: apply.NewFileSystemApplier(provider)}
}

// destination is the directory that a snapshot's mounts have new files go to, and how; ""
// if there is none.
func destination(mounts []mount.Mount) (string, []archive.ApplyOpt) {
	if len(mounts) != 1 {
		return "", nil
	}
	m := mounts[0]
	switch m.Type {
	case "bind":
		if !slices.Contains(m.Options, "ro") {
			return m.Source, nil
		}
	case "overlay":
		upper, opts := "", []archive.ApplyOpt{archive.WithConvertWhiteout(archive.OverlayConvertWhiteout)}
		for _, o := range m.Options {
			if dir, ok := strings.CutPrefix(o, "upperdir="); ok {
				upper = dir
			} else if dirs, ok := strings.CutPrefix(o, "lowerdir="); ok {
				opts = append(opts, archive.WithParents(strings.Split(dirs, ":")))
			}
		}
		return upper, opts
	}
	return "", nil
}

// checked is how large a file, in bytes, the space for it is asked for: smaller ones fail
// soon enough where there is none.
const checked = 1 << 30

// guard refuses files of a layer that cannot be unpacked, before anything of them is: a few
// bytes can declare a petabyte of holes, which would fill the disk with zeros, or a path
// that takes minutes to look up and is too long in the end.
func guard(dir string) archive.Filter {
	return func(h *tar.Header) (bool, error) {
		if longest := max(len(h.Name), len(h.Linkname)); longest >= unix.PathMax {
			return false, failure.Invalid("it has a name of %d bytes, longer than any path can be", longest)
		}
		if h.Size < checked {
			return true, nil
		}
		var fs unix.Statfs_t
		if err := unix.Statfs(dir, &fs); err != nil {
			return false, fmt.Errorf("ask for the space in %s: %w", dir, err)
		}
		if free := fs.Bavail * uint64(fs.Bsize); uint64(h.Size) > free {
			return false, &os.PathError{Op: "unpack", Path: fmt.Sprintf("%s (%d bytes, and %d are free)", h.Name, h.Size, free), Err: unix.ENOSPC}
		}
		return true, nil
	}
}

func (a *applier) Apply(ctx context.Context, desc ocispec.Descriptor, mounts []mount.Mount, opts ...diff.ApplyOpt) (ocispec.Descriptor, error) {
	dir, how := destination(mounts)
	if dir == "" {
		return a.mounted.Apply(ctx, desc, mounts, opts...)
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
	plain, closeTar, err := decode(ctx, desc.MediaType, &reportingReader{Reader: content.NewReader(blob), report: cfg.Progress}, cfg)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer closeTar()

	diffID := digest.Canonical.Digester()
	counted := &countingReader{Reader: io.TeeReader(plain, diffID.Hash())}
	if _, err := archive.Apply(ctx, dir, counted, append(how, archive.WithFilter(guard(dir)))...); err != nil {
		return ocispec.Descriptor{}, kernel.NoSpace(err, dir)
	}
	// The digest is that of the whole stream; tar stops at its end mark.
	if _, err := io.Copy(io.Discard, counted); err != nil {
		return ocispec.Descriptor{}, err
	}
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Size: counted.n, Digest: diffID.Digest()}, nil
}

// detected is the media type of a layer whose first bytes say how it is compressed. Some tools give OCI's type of plain
// archives to compressed ones, which only Docker's type of the same meaning has unpacked.
func detected(mediaType string) string {
	if mediaType == ocispec.MediaTypeImageLayer || mediaType == ocispec.MediaTypeImageLayerNonDistributable { //nolint:staticcheck // old images have it
		return images.MediaTypeDockerSchema2Layer
	}
	return mediaType
}

// decode gives the plain tar stream of a layer of the given media type.
func decode(ctx context.Context, mediaType string, r io.Reader, cfg diff.ApplyConfig) (io.Reader, func(), error) {
	var chain []io.Closer
	closeAll := func() {
		for _, c := range slices.Backward(chain) {
			c.Close()
		}
	}
	p := diff.NewProcessorChain(detected(mediaType), r)
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
