package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/unpack"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/kernel"
	"github.com/cleatlabs/cleat/internal/record"
	"github.com/cleatlabs/cleat/internal/registryclient"
	"github.com/cleatlabs/cleat/internal/store"
)

// transfer brings the content of one image into the store and unpacks it, layer by
// layer as they arrive. It is used once, under a lease.
type transfer struct {
	s      *Service
	report *reporter
	// fetcher is where missing blobs come from; nil if all must be here already.
	fetcher remotes.Fetcher
	// session is the conversation with where they come from; nil without a fetcher.
	session *registryclient.Session
	// source is the repository that they come from; nil without a fetcher.
	source reference.Named
	// wish is the platform asked for, nil for the engine's own.
	wish *ocispec.Platform
	// extracting and done are the statuses that a layer goes through.
	extracting, done string
	downloads        *limiter

	// listed says that an index has told which platform the image is for.
	listed bool

	mu    sync.Mutex
	first error                // what went wrong first; all else follows from it
	order []ocispec.Descriptor // the layers, bottom first
	// chains tells which layer a snapshot is of.
	chains map[string]digest.Digest
}

// run transfers what target names. Whatever goes wrong, no partial blob is left.
func (t *transfer) run(ctx context.Context, target ocispec.Descriptor) error {
	t.chains = map[string]digest.Digest{}
	t.downloads = t.s.downloads.Load()
	unpacker, err := unpack.NewUnpacker(ctx, t.s.store.Content,
		unpack.WithUnpackPlatform(unpack.Platform{
			Platform:                platforms.All, // the handler passes on only what shall be unpacked
			SnapshotterKey:          store.Snapshotter,
			Snapshotter:             &watchedSnapshots{Snapshotter: t.s.store.Snapshots, committed: t.committed},
			SnapshotterCapabilities: []string{snapshots.RebaseCap},
			Applier:                 &watchedApplier{Applier: t.s.store.Applier, t: t},
			ApplyOpts:               []diff.ApplyOpt{diff.WithProgress(t.extractProgress)},
		}),
		unpack.WithDuplicationSuppressor(&t.s.transfers),
		unpack.WithLimiter(t.downloads.Weighted),
		unpack.WithUnpackLimiter(t.s.unpacks),
		// Blobs are kept beside their unpacked layers: a push needs them.
		unpack.WithFetchAllContent(),
	)
	if err != nil {
		return err
	}
	err = images.Dispatch(ctx, unpacker.Unpack(images.HandlerFunc(t.handle)), nil, target)
	if err != nil {
		t.fail(err)
	}
	// In every case the unpacker must have come to rest before the lease ends.
	if _, werr := unpacker.Wait(); werr != nil {
		t.fail(werr)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.first == nil {
		t.report.finish(t.order, t.done)
	}
	return t.first
}

// fail remembers the first fault.
func (t *transfer) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.first == nil {
		t.first = err
	}
}

// handle makes one blob present and gives what it refers to.
func (t *transfer) handle(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	if err := t.fetch(ctx, desc); err != nil {
		t.fail(err)
		return nil, err
	}
	record.Failpoint("image.pull.after-blob")
	children, err := t.children(ctx, desc)
	if err != nil {
		t.fail(err)
	}
	return children, err
}

func (t *transfer) children(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	switch {
	case images.IsIndexType(desc.MediaType):
		children, err := t.linked(ctx, desc)
		if err != nil {
			return nil, err
		}
		return t.chooseManifest(children)
	case images.IsManifestType(desc.MediaType):
		children, err := t.linked(ctx, desc)
		if err != nil {
			return nil, err
		}
		return children, t.beginLayers(ctx, children)
	case images.IsConfigType(desc.MediaType):
		return nil, t.beginConfig(ctx, desc)
	}
	return nil, nil
}

// linked reads what a blob refers to, and records it for the collector.
func (t *transfer) linked(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	if desc.Size > maxJSON {
		return nil, failure.Invalid("%s of %d bytes is too large for a %s", desc.Digest, desc.Size, desc.MediaType)
	}
	if err := t.mustHave(ctx, desc); err != nil {
		return nil, err
	}
	cs := t.s.store.Content
	children, err := images.Children(ctx, cs, desc)
	if err == nil && images.IsManifestType(desc.MediaType) {
		err = checkLayers(desc, len(children)-1)
	}
	if err != nil {
		return nil, err
	}
	known := func(context.Context, ocispec.Descriptor) ([]ocispec.Descriptor, error) { return children, nil }
	return images.SetChildrenLabels(cs, known)(ctx, desc)
}

// chooseManifest keeps the one manifest of an index that shall run here.
func (t *transfer) chooseManifest(children []ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	matcher := t.s.host
	wanted := platforms.DefaultSpec()
	if t.wish != nil {
		matcher, wanted = platforms.Only(*t.wish), *t.wish
	}
	var best *ocispec.Descriptor
	for i := range children {
		d := &children[i]
		if d.Platform == nil || d.Annotations[annotationReferenceType] != "" || !matcher.Match(*d.Platform) {
			continue
		}
		if best == nil || matcher.Less(*d.Platform, *best.Platform) {
			best = d
		}
	}
	if best == nil && len(children) == 1 && children[0].Platform == nil {
		best = &children[0]
	}
	if best == nil {
		var have []string
		for _, d := range children {
			if d.Platform != nil && d.Annotations[annotationReferenceType] == "" {
				have = append(have, platforms.FormatAll(*d.Platform))
			}
		}
		return nil, failure.NotFound("no matching manifest for %s in the manifest list entries: the image is for %v only; choose one with --platform", platforms.FormatAll(wanted), have)
	}
	t.listed = t.listed || best.Platform != nil
	return []ocispec.Descriptor{*best}, nil
}

// beginLayers tells the layers of a manifest, and refuses what is not an image.
func (t *transfer) beginLayers(_ context.Context, children []ocispec.Descriptor) error {
	var layers []ocispec.Descriptor
	isImage := false
	for _, c := range children {
		if images.IsConfigType(c.MediaType) {
			isImage = true
		}
		if images.IsLayerType(c.MediaType) {
			layers = append(layers, c)
		}
	}
	if !isImage {
		return failure.Invalid("this is not a container image: its config is of the type %q", configType(children))
	}
	if t.fetcher != nil {
		t.report.announce(layers, statusPulling, t.downloads.max)
	} else {
		t.report.know(layers)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.order = layers
	return nil
}

// plain reports whether any layer is uncompressed.
func (t *transfer) plain() bool {
	for _, l := range t.order {
		if gzipType(l.MediaType) != "" {
			return true
		}
	}
	return false
}

func configType(children []ocispec.Descriptor) string {
	if len(children) == 0 {
		return ""
	}
	return children[0].MediaType // a manifest's config is its first child
}

// beginConfig learns which snapshot is of which layer, and whether the image is for the
// platform that was asked for: an image without an index does not say so earlier. What an
// index says counts more: configs may name the platform that the image was built on.
func (t *transfer) beginConfig(ctx context.Context, desc ocispec.Descriptor) error {
	var cfg ocispec.Image
	if _, err := t.s.readJSON(ctx, desc, &cfg); err != nil {
		return err
	}
	if t.wish != nil && !t.listed && cfg.OS != "" && !platforms.Only(*t.wish).Match(platforms.Normalize(cfg.Platform)) {
		return failure.NotFound("no matching manifest for %s: the image is for %s only", platforms.FormatAll(*t.wish), platforms.FormatAll(cfg.Platform))
	}
	if err := checkHistory(desc, len(cfg.History)); err != nil {
		return err
	}
	t.mu.Lock()
	order := t.order
	t.mu.Unlock()
	if len(order) != len(cfg.RootFS.DiffIDs) {
		return failure.Invalid("the image is damaged: its manifest lists %d layers, its config %d", len(order), len(cfg.RootFS.DiffIDs))
	}
	for i, chain := range chainIDs(cfg.RootFS.DiffIDs) {
		t.mu.Lock()
		t.chains[chain.String()] = order[i].Digest
		t.mu.Unlock()
		there, err := t.s.unpacked(ctx, chain)
		if err != nil {
			return err
		}
		if there {
			t.report.present(order[i].Digest)
		}
	}
	return nil
}

// fetch makes a blob present. The unpacker sees to it that one blob is handled once at
// a time, in all transfers.
func (t *transfer) fetch(ctx context.Context, desc ocispec.Descriptor) error {
	if desc.MediaType == images.MediaTypeDockerSchema1Manifest {
		return errSchema1
	}
	if t.fetcher == nil {
		return t.mustHave(ctx, desc)
	}
	err := t.download(ctx, desc)
	switch {
	case err == nil:
		t.report.fetched(desc.Digest, t.done)
		return nil
	case errdefs.IsAlreadyExists(err):
		t.report.exists(desc.Digest)
		return nil
	}
	ref := remotes.MakeRefKey(ctx, desc)
	if aerr := t.s.store.Content.Abort(context.WithoutCancel(ctx), ref); aerr != nil && !errdefs.IsNotFound(aerr) {
		err = errors.Join(err, aerr)
	}
	return t.s.explainWrite(err, desc)
}

// download brings a blob in. After a fault that may pass it is tried again, from where it
// broke off, or from the beginning where the registry gives no parts.
func (t *transfer) download(ctx context.Context, desc ocispec.Descriptor) error {
	for fault := 1; ; fault++ {
		err := remotes.Fetch(ctx, &sourced{t.s.store.Content, t.source}, &watchedFetcher{t: t, desc: desc}, desc)
		if err == nil || errdefs.IsAlreadyExists(err) || ctx.Err() != nil {
			return err
		}
		if t.session == nil || fault >= int(t.s.attempts.Load()) {
			return err
		}
		switch {
		case registryclient.RefusesRange(err): // it may give the blob from its beginning
			if err := t.s.store.Content.Abort(ctx, remotes.MakeRefKey(ctx, desc)); err != nil && !errdefs.IsNotFound(err) {
				return err
			}
		case !t.session.MayPass(err):
			return err
		}
		pause := t.session.Pause(err, fault)
		t.report.step(desc.Digest, retrying(pause))
		again := time.NewTimer(pause)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return context.Cause(ctx)
		}
	}
}

// missingBlobError says that a part of an image is not in the store.
type missingBlobError struct{ desc ocispec.Descriptor }

func (e *missingBlobError) Error() string {
	return fmt.Sprintf("%s %s is missing", e.desc.MediaType, e.desc.Digest)
}

// mustHave checks a blob that should have been brought in before.
func (t *transfer) mustHave(ctx context.Context, desc ocispec.Descriptor) error {
	info, err := t.s.store.Content.Info(ctx, desc.Digest)
	if errdefs.IsNotFound(err) {
		return &missingBlobError{desc}
	}
	if err != nil {
		return err
	}
	if info.Size != desc.Size {
		return wrongSize(desc, info.Size)
	}
	return nil
}

// explainWrite says in plain words why a blob could not be stored.
func (s *Service) explainWrite(err error, desc ocispec.Descriptor) error {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case noSpace(err):
		need := "the image does"
		switch {
		case desc.Size > 0:
			need = fmt.Sprintf("the %d bytes of %s do", desc.Size, desc.Digest)
		case desc.Digest != "":
			need = desc.Digest.String() + " does"
		}
		return s.full(need, err)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return failure.Unavailable("the registry sent only a part of %s, which has %d bytes, and broke off again when asked for the rest; try again", desc.Digest, desc.Size)
	case errdefs.IsFailedPrecondition(err):
		return failure.New(errdefs.ErrDataLoss, "what the registry sent does not match the digest %s and size %d that it promised: the transfer or the registry's storage is damaged; try again", desc.Digest, desc.Size)
	}
	return err
}

// full says that there is no space for what does not fit; what ends in "does" or "do".
func (s *Service) full(what string, cause error) error {
	missing := syscall.ENOSPC.Error()
	if errors.Is(kernel.NoSpace(cause, s.store.Root()), kernel.ErrNoInodes) {
		missing = kernel.ErrNoInodes.Error()
	}
	return failure.New(errdefs.ErrResourceExhausted, "%s: %s not fit under %s; remove images or containers that are not needed, or choose another --data-root", missing, what, s.store.Root())
}

var errSchema1 = failure.Invalid("the image has a manifest of Docker's schema version 1, which is no longer supported: push it again with a current tool")

// committed is told when a layer has become a snapshot.
func (t *transfer) committed(chain string) {
	t.mu.Lock()
	layer, ok := t.chains[chain]
	t.mu.Unlock()
	if ok {
		t.report.unpacked(layer, t.done)
	}
}

func (t *transfer) extractProgress(desc ocispec.Descriptor, n int64) {
	t.report.bytes(desc.Digest, t.extracting, n)
}

// watchedFetcher counts the bytes of a blob as they come.
type watchedFetcher struct {
	t    *transfer
	desc ocispec.Descriptor
}

func (f *watchedFetcher) Fetch(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	rc, err := f.t.fetcher.Fetch(ctx, desc)
	if err != nil {
		return nil, err
	}
	return &watchedReader{ReadCloser: rc, report: f.t.report, desc: f.desc}, nil
}

// watchedReader passes Seek on: a download that breaks off is resumed where it was.
type watchedReader struct {
	io.ReadCloser
	report *reporter
	desc   ocispec.Descriptor
	n      int64
}

func (r *watchedReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.n += int64(n)
	if n > 0 {
		r.report.bytes(r.desc.Digest, statusDownloading, r.n)
	}
	if r.n == r.desc.Size {
		r.report.step(r.desc.Digest, statusVerifying)
	}
	return n, err
}

func (r *watchedReader) Seek(offset int64, whence int) (int64, error) {
	s, ok := r.ReadCloser.(io.Seeker)
	if !ok {
		return 0, fmt.Errorf("the download of %s cannot be resumed", r.desc.Digest)
	}
	n, err := s.Seek(offset, whence)
	if err == nil {
		r.n = n
	}
	return n, err
}

// watchedSnapshots tells of each layer committed.
type watchedSnapshots struct {
	snapshots.Snapshotter
	committed func(chain string)
}

func (w *watchedSnapshots) Commit(ctx context.Context, name, key string, opts ...snapshots.Opt) error {
	err := w.Snapshotter.Commit(ctx, name, key, opts...)
	if err == nil || errdefs.IsAlreadyExists(err) {
		w.committed(name)
	}
	return err
}

// Remove takes a snapshot that is gone already for removed: the unpacker removes twice
// what it could not unpack.
func (w *watchedSnapshots) Remove(ctx context.Context, key string) error {
	if err := w.Snapshotter.Remove(ctx, key); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	return nil
}

// unpackNow unpacks the layers of a manifest whose blobs are all here.
func (s *Service) unpackNow(ctx context.Context, manifest ocispec.Descriptor) error {
	ctx, done, err := s.store.WithTemporaryLease(ctx)
	if err != nil {
		return err
	}
	defer done()
	manifest.Platform = nil
	t := &transfer{s: s, report: newReporter(nil)}
	if err := t.run(ctx, manifest); err != nil {
		return err
	}
	s.current.Store(nil) // it knows the sizes that images had before
	return nil
}

// watchedApplier tells what went wrong with a layer, and whether that is the disk.
type watchedApplier struct {
	diff.Applier
	t *transfer
}

func (w *watchedApplier) Apply(ctx context.Context, desc ocispec.Descriptor, mounts []mount.Mount, opts ...diff.ApplyOpt) (ocispec.Descriptor, error) {
	d, err := w.Applier.Apply(ctx, desc, mounts, opts...)
	if err != nil {
		err = w.t.explainUnpack(ctx, err, desc)
		w.t.fail(err)
	}
	return d, err
}

func (t *transfer) explainUnpack(ctx context.Context, err error, desc ocispec.Descriptor) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case noSpace(err):
		what := fmt.Sprintf("the layer %s, unpacked, does", desc.Digest)
		var file *os.PathError
		if errors.As(err, &file) && file.Op == "unpack" {
			what = fmt.Sprintf("of the layer %s the file %s does", desc.Digest, file.Path)
		}
		return t.s.full(what, err)
	}
	return failure.New(errdefs.ErrDataLoss, "cannot unpack the layer %s: %w", desc.Digest, err)
}
