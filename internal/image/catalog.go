package image

import (
	"context"
	"fmt"
	"sort"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"github.com/cleatlabs/cleat/internal/failure"
)

// catalog is all names at one generation of the store, with what was read about their
// images since. It is replaced, never changed, when a name changes.
type catalog struct {
	generation uint64
	names      map[string]images.Image
	// byID holds the names of each image, sorted; ids the images, sorted.
	byID map[digest.Digest][]images.Image
	ids  []digest.Digest
	// pushed are the names of images that a registry has under other digests than here,
	// by repository@digest.
	pushed map[string]images.Image

	resolved sync.Map // resolveKey → *Image
	variants sync.Map // digest of the target → []variant
	sizes    sync.Map // digest of the manifest → variantSize
}

type resolveKey struct{ ref, platform string }

// catalog returns the present catalog. Only after a change of names does it read the
// store.
func (s *Service) catalog(ctx context.Context) (*catalog, error) {
	generation := s.store.Generation() // before reading: too old is safe, too new is not
	if c := s.current.Load(); c != nil && c.generation == generation {
		return c, nil
	}
	list, err := s.store.Images.List(s.store.Context(ctx))
	if err != nil {
		return nil, fmt.Errorf("read the names of images: %w", err)
	}
	c := &catalog{
		generation: generation,
		names:      make(map[string]images.Image, len(list)),
		byID:       make(map[digest.Digest][]images.Image, len(list)),
		pushed:     map[string]images.Image{},
	}
	for _, img := range list {
		c.names[img.Name] = img
		if d := pushedAs(img); d != "" {
			c.pushed[repositoryOf(img.Name)+"@"+d.String()] = img
		}
		id := img.Target.Digest
		if len(c.byID[id]) == 0 {
			c.ids = append(c.ids, id)
		}
		c.byID[id] = append(c.byID[id], img)
	}
	sort.Slice(c.ids, func(i, j int) bool { return c.ids[i] < c.ids[j] })
	for _, names := range c.byID {
		sort.Slice(names, func(i, j int) bool { return names[i].Name < names[j].Name })
	}
	s.current.Store(c)
	return c, nil
}

// match is what a reference was found to mean.
type match struct {
	// target is one of the names; all of them share the image.
	target images.Image
	names  []images.Image
	// named is the reference if it was a name, nil if it was an id or part of one.
	named reference.Named
}

func (m *match) id() digest.Digest { return m.target.Target.Digest }

// ref is how the image was asked for, in its familiar form.
func (m *match) ref() string {
	if m.named == nil {
		return m.id().String()
	}
	return reference.FamiliarString(m.named)
}

// find looks an image up by name, id or id prefix. A name wins over an id prefix that
// is spelled alike. A digest in a name must be in that repository.
func (c *catalog) find(ref string) (*match, error) {
	parsed, err := reference.ParseAnyReference(ref)
	if err != nil {
		return nil, badName(ref, err)
	}
	if digested, ok := parsed.(reference.Digested); ok {
		named, _ := parsed.(reference.Named)
		if m := c.byDigest(named, digested.Digest()); m != nil {
			return m, nil
		}
		return nil, failure.NotFound("No such image: %s", reference.FamiliarString(parsed))
	}
	named := reference.TagNameOnly(parsed.(reference.Named))
	if img, ok := c.names[named.String()]; ok {
		return &match{target: img, names: c.byID[img.Target.Digest], named: named}, nil
	}
	if sub := idPrefix.FindStringSubmatch(ref); sub != nil {
		if m, err := c.byPrefix(ref, digest.Canonical.String()+":"+sub[1]); m != nil || err != nil {
			return m, err
		}
	}
	return nil, failure.NotFound("No such image: %s", reference.FamiliarString(named))
}

func (c *catalog) byDigest(named reference.Named, id digest.Digest) *match {
	names := c.byID[id]
	if named == nil {
		if len(names) == 0 {
			return nil
		}
		return &match{target: names[0], names: names}
	}
	for _, img := range names {
		if repositoryOf(img.Name) == named.Name() {
			return &match{target: img, names: names, named: named}
		}
	}
	if img, ok := c.pushed[named.Name()+"@"+id.String()]; ok {
		return &match{target: img, names: c.byID[img.Target.Digest], named: named}
	}
	return nil
}

func (c *catalog) byPrefix(ref, prefix string) (*match, error) {
	i := sort.Search(len(c.ids), func(i int) bool { return c.ids[i].String() >= prefix })
	if i == len(c.ids) || !strings.HasPrefix(c.ids[i].String(), prefix) {
		return nil, nil
	}
	if i+1 < len(c.ids) && strings.HasPrefix(c.ids[i+1].String(), prefix) {
		return nil, failure.NotFound("No such image: %s: more than one image id begins with it; give more digits", ref)
	}
	names := c.byID[c.ids[i]]
	return &match{target: names[0], names: names}, nil
}

// repositoryOf is a stored name without tag and digest, "" for one that is not a name.
func repositoryOf(name string) string {
	if isDangling(name) {
		return ""
	}
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return ""
	}
	return named.Name()
}

// repoTagsAndDigests gives the tags and digests that an image is shown with; never nil.
// A digest is that of the image at the registry. An image that will have another one there
// than here, since it will be sent compressed, has none before it was pushed: local says
// that it is one.
func repoTagsAndDigests(names []images.Image, local bool) (tags, digests []string) {
	tags, digests = []string{}, []string{}
	seen := map[string]bool{}
	for _, img := range names {
		if isDangling(img.Name) {
			continue
		}
		named, err := reference.ParseNormalizedNamed(img.Name)
		if err != nil {
			continue
		}
		if _, ok := named.(reference.Tagged); ok {
			tags = append(tags, reference.FamiliarString(named))
		}
		there := pushedAs(img)
		_, byDigest := named.(reference.Digested)
		if there == "" && (byDigest || !local) {
			there = img.Target.Digest
		}
		d := reference.FamiliarName(named) + "@" + there.String()
		if there != "" && !seen[d] {
			seen[d] = true
			digests = append(digests, d)
		}
	}
	return tags, digests
}

// local reports whether an image has layers that no registry has in this form.
func local(variants []variant) bool {
	for _, v := range variants {
		for _, l := range v.manifest.Layers {
			if gzipType(l.MediaType) != "" {
				return true
			}
		}
	}
	return false
}
