package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/jsonstream"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/internal/failure"
)

// Load takes all images of an archive: docker save's format or an OCI layout, plain or
// compressed with gzip, zstd, bzip2 or xz. Layers are kept as they are in the archive. For
// each name progress gets a stream record `Loaded image: name:tag`, for an image without
// one `Loaded image ID: sha256:…`. An archive that is damaged, incomplete or has paths
// that lead out of it is refused as a whole, and after any error nothing of it is left.
func (s *Service) Load(ctx context.Context, r io.Reader, opts LoadOptions, progress func(jsonstream.Message)) (err error) {
	wishes := make([]ocispec.Platform, 0, len(opts.Platforms))
	for _, p := range opts.Platforms {
		wish, err := parsePlatform(p)
		if err != nil {
			return err
		}
		if wish != nil {
			wishes = append(wishes, *wish)
		}
	}
	ctx, done, err := s.store.WithTemporaryLease(s.store.Context(ctx))
	if err != nil {
		return s.explainWrite(err, ocispec.Descriptor{})
	}
	lease, _ := leases.FromContext(ctx)
	a := &archive{s: s, lease: lease, files: map[string]blobFile{}, links: map[string]string{}}
	defer func() {
		if err != nil {
			if aerr := a.abort(ctx); aerr != nil {
				err = fmt.Errorf("%w; and removing what was read of it failed: %w", err, aerr)
			}
		}
		// Also after success: files of the archive that no image names.
		done()
		s.store.ScheduleGC()
	}()
	if err := a.read(ctx, r); err != nil {
		return err
	}
	list, err := a.images(ctx)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return failure.Invalid("the image archive holds no image")
	}
	l := &loading{s: s, opts: opts, wishes: wishes, report: newReporter(progress)}
	if list, err = l.withoutArtifacts(ctx, list); err != nil {
		return err
	}
	for _, img := range list {
		if err := l.unpack(ctx, img); err != nil {
			return err
		}
	}
	// Names come last, so that there are none if anything was wrong.
	for _, img := range list {
		if err := l.name(ctx, img); err != nil {
			return err
		}
	}
	return nil
}

// loading is a load whose archive is read.
type loading struct {
	s      *Service
	opts   LoadOptions
	wishes []ocispec.Platform
	report *reporter
}

// withoutArtifacts leaves out what no container is made of: a layout lists signatures and the like beside the image that
// they are about.
func (l *loading) withoutArtifacts(ctx context.Context, list []archived) ([]archived, error) {
	var kept []archived
	left := ""
	for _, img := range list {
		variants, err := l.s.readVariants(ctx, img.target)
		if err != nil {
			return nil, err
		}
		if of := artifactType(variants); of != "" {
			left += fmt.Sprintf("Left out %s, which is no image: it is of the type %s\n", img.target.Digest, of)
			continue
		}
		kept = append(kept, img)
	}
	if len(kept) == 0 {
		return nil, failure.Invalid("the image archive holds no image. %s", strings.TrimSpace(left))
	}
	if left != "" && !l.opts.Quiet { // what programs read is the names of images
		l.report.stream(left)
	}
	return kept, nil
}

// artifactType is the type of what is there and no image, "" of anything else.
func artifactType(variants []variant) (of string) {
	for _, v := range variants {
		if !v.present || v.kind != image.ManifestKindUnknown {
			return ""
		}
		of = cmp.Or(v.manifest.ArtifactType, v.manifest.Config.MediaType)
	}
	return of
}

// unpack checks that an image is all there and unpacks it: the platforms asked for, or
// else the engine's own, or else the first that is there.
func (l *loading) unpack(ctx context.Context, img archived) error {
	variants, err := l.s.readVariants(ctx, img.target)
	if err != nil {
		return err
	}
	chosen, err := l.choose(img, variants)
	if err != nil {
		return err
	}
	for _, v := range chosen {
		report := newReporter(nil)
		if !l.opts.Quiet {
			report = newReporter(l.report.send)
		}
		t := &transfer{s: l.s, report: report, extracting: statusLoading, done: statusLoaded}
		desc := v.desc
		desc.Platform = nil
		err := t.run(ctx, desc)
		var missing *missingBlobError
		if errors.As(err, &missing) {
			return failure.Invalid("the image archive is incomplete: of the image %s, %w", l.title(img), missing)
		}
		if err != nil {
			return fmt.Errorf("the image %s in the archive: %w", l.title(img), err)
		}
	}
	return l.link(ctx, img.target, chosen)
}

func (l *loading) choose(img archived, variants []variant) ([]*variant, error) {
	var chosen []*variant
	for i := range l.wishes {
		v := l.s.choose(variants, &l.wishes[i])
		if v == nil {
			return nil, failure.NotFound("the image %s in the archive is not for the platform %s", l.title(img), platforms.FormatAll(l.wishes[i]))
		}
		chosen = append(chosen, v)
	}
	if len(l.wishes) > 0 {
		return chosen, nil
	}
	v := l.s.choose(variants, nil)
	if v == nil {
		return nil, failure.Invalid("the image archive is incomplete: of the image %s it has neither manifest nor config", l.title(img))
	}
	return []*variant{v}, nil
}

// link records, for the collector, what the blobs of an image refer to. Platforms that
// were not asked for are left to it.
func (l *loading) link(ctx context.Context, target ocispec.Descriptor, chosen []*variant) error {
	cs := l.s.store.Content
	children := images.ChildrenHandler(cs)
	var labels func(ocispec.Descriptor) []string
	if len(l.wishes) > 0 {
		labels = labelsOfSome
		all := children
		children = func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
			list, err := all(ctx, desc)
			if err != nil || !images.IsIndexType(desc.MediaType) {
				return list, err
			}
			var kept []ocispec.Descriptor
			for _, d := range list {
				for _, v := range chosen {
					if d.Digest == v.desc.Digest || images.IsIndexType(d.MediaType) {
						kept = append(kept, d)
						break
					}
				}
			}
			return kept, nil
		}
	}
	labelled := images.SetChildrenMappedLabels(cs, children, labels)
	return images.Walk(ctx, images.HandlerFunc(func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		if !images.IsIndexType(desc.MediaType) && !images.IsManifestType(desc.MediaType) {
			return nil, images.ErrSkipDesc
		}
		// An archive may lack platforms of an index.
		if _, err := cs.Info(ctx, desc.Digest); err != nil {
			return nil, images.ErrSkipDesc
		}
		return labelled(ctx, desc)
	}), target)
}

// labelsOfSome is how an index refers to a manifest where others of it may be left out. The usual labels are numbered, and
// would take the place of those of what is here already.
func labelsOfSome(d ocispec.Descriptor) []string {
	if images.IsManifestType(d.MediaType) {
		return []string{"containerd.io/gc.ref.content." + d.Digest.Encoded()}
	}
	return images.ChildGCLabels(d)
}

// name gives an image its names, or a place among the dangling ones.
func (l *loading) name(ctx context.Context, img archived) error {
	id := img.target.Digest.String()
	if len(img.names) == 0 {
		c, err := l.s.catalog(ctx)
		if err != nil {
			return err
		}
		if len(c.byID[img.target.Digest]) == 0 {
			if err := l.s.setName(ctx, danglingName(img.target.Digest), img.target, ""); err != nil {
				return fmt.Errorf("keep the image %s: %w", id, err)
			}
		}
		l.s.current.Store(nil) // where it is one that was here, it may have less of it
		l.report.stream("Loaded image ID: " + id + "\n")
		l.s.events("load", id, id)
		return nil
	}
	before, err := l.s.catalog(ctx)
	if err != nil {
		return err
	}
	for _, name := range img.names {
		l.tellReplaced(before, name, img.target)
		if err := l.s.setName(ctx, name, img.target, ""); err != nil {
			return fmt.Errorf("name the image %s: %w", name, err)
		}
		l.report.stream("Loaded image: " + familiar(name) + "\n")
		l.s.events("load", id, familiar(name))
	}
	return nil
}

// tellReplaced says, as Docker does, that a name will mean another image than it did before.
func (l *loading) tellReplaced(before *catalog, name string, target ocispec.Descriptor) {
	if old, ok := before.names[name]; ok && old.Target.Digest != target.Digest && len(before.byID[old.Target.Digest]) == 1 {
		l.report.stream(fmt.Sprintf("The image %s already exists, renaming the old one with ID %s to empty string\n", familiar(name), old.Target.Digest))
	}
}

func (l *loading) title(img archived) string {
	if len(img.names) > 0 {
		return familiar(img.names[0])
	}
	return img.target.Digest.String()
}

// loadedName normalises a name that an archive gives.
func loadedName(s string) (string, error) {
	named, err := parseName(s)
	if err != nil {
		return "", fmt.Errorf("the image archive names an image %q: %w", s, err)
	}
	if digested, ok := named.(reference.Digested); ok {
		if named, err = reference.WithDigest(reference.TrimNamed(named), digested.Digest()); err != nil {
			return "", err
		}
	}
	return reference.TagNameOnly(named).String(), nil
}
