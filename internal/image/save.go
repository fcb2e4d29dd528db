package image

import (
	"context"
	"io"

	export "github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/internal/failure"
)

// Saving are images that were found and are to be written to an archive. They are kept
// from being collected until Close.
type Saving struct {
	s     *Service
	opts  []export.ExportOpt
	list  manifestList
	ids   []digest.Digest
	close func()
}

// Save finds the images to be saved, by name or id: of the platforms asked for or,
// without any, of all that are here. A repository without a tag stands for all of its
// tags. The caller closes what it returns.
func (s *Service) Save(ctx context.Context, refs, wishes []string) (_ *Saving, err error) {
	if len(refs) == 0 {
		return nil, failure.Invalid("no image to save was named")
	}
	ctx, done, err := s.store.WithTemporaryLease(s.store.Context(ctx))
	if err != nil {
		return nil, s.explainWrite(err, ocispec.Descriptor{})
	}
	defer func() {
		if err != nil {
			done()
		}
	}()
	c, err := s.catalog(ctx)
	if err != nil {
		return nil, err
	}
	sel := &selection{s: s, c: c, wishes: wishes, seen: map[string]bool{}, present: map[string]bool{}}
	if len(wishes) == 0 {
		sel.wishes = []string{""}
	}
	for _, ref := range refs {
		if err := sel.add(ctx, ref); err != nil {
			return nil, err
		}
	}
	sv := &Saving{s: s, list: sel.list, ids: sel.ids, close: done}
	for _, id := range sel.ids {
		if err := s.keepForSave(ctx, c, id); err != nil {
			return nil, err
		}
	}
	sv.opts = append(sel.opts, export.WithPlatform(presentPlatforms{sel.present, s.host}), export.WithSkipNonDistributableBlobs(), export.WithSkipDockerManifest())
	if len(wishes) == 0 {
		sv.opts = append(sv.opts, export.WithAllPlatforms(), export.WithSkipMissing(s.store.Content))
	}
	return sv, nil
}

// keepForSave keeps an image from being collected as long as the lease in ctx is there. One that has lost all of its names
// before that is not found: parts of it may be gone, which the archive would lack without a word.
func (s *Service) keepForSave(ctx context.Context, c *catalog, id digest.Digest) error {
	lease, _ := leases.FromContext(ctx)
	err := s.store.Leases.AddResource(ctx, leases.Lease{ID: lease}, leases.Resource{ID: id.String(), Type: "content"})
	if err != nil {
		return err
	}
	for _, img := range c.byID[id] {
		now, err := s.store.Images.Get(ctx, img.Name)
		if err == nil && now.Target.Digest == id {
			return nil
		}
		if err != nil && !errdefs.IsNotFound(err) {
			return err
		}
	}
	return failure.NotFound("No such image: %s", id)
}

// Write writes the archive: an OCI layout with docker's manifest.json beside it.
func (sv *Saving) Write(ctx context.Context, w io.Writer) error {
	layout := &openEnd{w: w}
	if err := export.Export(sv.s.store.Context(ctx), sv.s.store.Content, layout, sv.opts...); err != nil {
		return err
	}
	if err := sv.list.write(w); err != nil {
		return err
	}
	for _, id := range sv.ids {
		sv.s.events("save", id.String(), id.String())
	}
	return nil
}

// Close lets go of the images. It may be called twice.
func (sv *Saving) Close() {
	if sv.close != nil {
		sv.close()
		sv.close = nil
	}
}

// selection is what is to be saved, as it is found.
type selection struct {
	s       *Service
	c       *catalog
	wishes  []string
	seen    map[string]bool // names, and ids without one
	present map[string]bool // platforms that are here, of those asked for
	ids     []digest.Digest
	opts    []export.ExportOpt
	list    manifestList
}

func (sel *selection) add(ctx context.Context, ref string) error {
	if tags := sel.tagsOf(ref); len(tags) > 0 {
		for _, tag := range tags {
			if err := sel.one(ctx, tag); err != nil {
				return err
			}
		}
		return nil
	}
	return sel.one(ctx, ref)
}

// tagsOf gives all tags of a repository, if ref names one and no more.
func (sel *selection) tagsOf(ref string) []string {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil || !reference.IsNameOnly(named) {
		return nil
	}
	var tags []string
	for _, id := range sel.c.ids {
		for _, img := range sel.c.byID[id] {
			if repositoryOf(img.Name) != named.Name() {
				continue
			}
			if parsed, err := reference.ParseNormalizedNamed(img.Name); err == nil {
				if _, tagged := parsed.(reference.Tagged); tagged {
					tags = append(tags, img.Name)
				}
			}
		}
	}
	return tags
}

func (sel *selection) one(ctx context.Context, ref string) error {
	m, err := sel.c.find(ref)
	if err != nil {
		return err
	}
	var best *variant // the one that manifest.json describes, as it knows one of each image: the engine's own if there is a choice
	for _, wish := range sel.wishes {
		_, v, err := sel.s.pick(ctx, sel.c, ref, wish)
		if err != nil {
			return err
		}
		size, err := sel.s.sizeOf(ctx, sel.c, v)
		if err != nil {
			return err
		}
		if !size.available {
			return failure.NotFound("image with reference %s was found but some of its content is not here; pull it again", m.ref())
		}
		sel.present[platforms.FormatAll(v.platform)] = true
		if best == nil || sel.s.host.Less(v.platform, best.platform) {
			best = v
		}
	}
	name := sel.nameOf(m)
	key := name
	if key == "" {
		key = m.id().String()
	}
	if sel.seen[key] {
		return nil
	}
	sel.seen[key] = true
	one := export.WithManifest(m.target.Target, name)
	if name == "" {
		one = export.WithManifest(m.target.Target)
	}
	sel.opts = append(sel.opts, one)
	sel.list.add(best, name)
	sel.ids = append(sel.ids, m.id())
	return nil
}

// nameOf is the name under which an image is saved: that by which it was asked for, if it has a tag. Beside a digest the
// tag may be one that is not here, or another image's.
func (sel *selection) nameOf(m *match) string {
	tagged, ok := m.named.(reference.NamedTagged)
	if !ok {
		return ""
	}
	name := reference.TrimNamed(tagged).Name() + ":" + tagged.Tag()
	if sel.c.names[name].Target.Digest != m.id() {
		return ""
	}
	return name
}

// presentPlatforms matches the platforms that are to be saved, the engine's own first.
type presentPlatforms struct {
	present map[string]bool
	host    platforms.MatchComparer
}

func (p presentPlatforms) Match(platform ocispec.Platform) bool {
	return p.present[platforms.FormatAll(platforms.Normalize(platform))]
}

func (p presentPlatforms) Less(a, b ocispec.Platform) bool { return p.host.Less(a, b) }
