package image

import (
	"context"
	"fmt"
	"sort"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// List describes all images, newest first, one entry for each, however many platforms
// and names it has. uses, if not nil, gives the number of containers by image id; the
// count is -1 without it.
func (s *Service) List(ctx context.Context, req ListRequest, uses func() map[string]int64) ([]image.Summary, error) {
	c, err := s.catalog(ctx)
	if err != nil {
		return nil, err
	}
	accept, err := s.newFilter(ctx, c, req.Filters)
	if err != nil {
		return nil, err
	}
	var counts map[string]int64
	if uses != nil {
		counts = uses()
	}
	list := []image.Summary{}
	shared := newSharing()
	for _, id := range c.ids {
		l, err := s.listed(ctx, c, id)
		if err != nil {
			return nil, err
		}
		if req.SharedSize {
			if err := s.countParts(ctx, l.variants, shared, string(id)); err != nil {
				return nil, err
			}
		}
		if !accept(l) {
			continue
		}
		sum := l.summary
		if counts != nil {
			sum.Containers = counts[sum.ID]
		}
		if req.Manifests {
			if sum.Manifests, err = s.manifests(ctx, c, l.variants); err != nil {
				return nil, err
			}
		}
		list = append(list, sum)
	}
	if req.SharedSize {
		for i := range list {
			list[i].SharedSize = shared.of(list[i].ID)
		}
	}
	sort.SliceStable(list, func(i, j int) bool { return list[i].Created > list[j].Created })
	return list, nil
}

// listed is an image as the list shows it, before the filters.
type listed struct {
	summary  image.Summary
	created  time.Time
	names    []string // familiar, with tag or digest
	dangling bool
	variants []variant
}

func (s *Service) listed(ctx context.Context, c *catalog, id digest.Digest) (*listed, error) {
	names := c.byID[id]
	target := names[0].Target
	variants, err := s.variantsOfAny(ctx, c, target)
	if err != nil {
		return nil, err
	}
	l := &listed{variants: variants, dangling: true}
	tags, digests := repoTagsAndDigests(names, local(variants))
	l.summary = image.Summary{
		ID:          id.String(),
		RepoTags:    tags,
		RepoDigests: digests,
		SharedSize:  -1,
		Containers:  -1,
		Descriptor:  &ocispec.Descriptor{MediaType: target.MediaType, Digest: target.Digest, Size: target.Size},
	}
	for _, n := range names {
		if !isDangling(n.Name) {
			l.dangling = false
			l.names = append(l.names, n.Name)
		}
	}
	if l.summary.Size, err = s.totalSize(ctx, c, variants); err != nil {
		return nil, err
	}
	if v := s.choose(variants, nil); v != nil {
		l.summary.Labels = v.config.Config.Labels
		if v.config.Created != nil {
			l.created = *v.config.Created
			l.summary.Created = l.created.Unix()
		}
	}
	return l, nil
}

// totalSize is what an image takes on disk: blobs and unpacked layers of all platforms
// that are here.
func (s *Service) totalSize(ctx context.Context, c *catalog, variants []variant) (int64, error) {
	var total int64
	for i := range variants {
		z, err := s.sizeOf(ctx, c, &variants[i])
		if err != nil {
			return 0, fmt.Errorf("measure the image %s: %w", variants[i].desc.Digest, err)
		}
		total += z.total()
	}
	return total, nil
}

// sharing finds the blobs and unpacked layers that several images have.
type sharing struct {
	users map[digest.Digest]map[string]bool // images by blob or chain
	sizes map[digest.Digest]int64
}

func newSharing() *sharing {
	return &sharing{users: map[digest.Digest]map[string]bool{}, sizes: map[digest.Digest]int64{}}
}

func (s *Service) countParts(ctx context.Context, variants []variant, sh *sharing, id string) error {
	ctx = s.store.Context(ctx)
	for i := range variants {
		v := &variants[i]
		usage, err := s.layerUsage(ctx, v)
		if err != nil {
			return err
		}
		for j, chain := range chainIDs(v.config.RootFS.DiffIDs) {
			sh.add(chain, id, usage[j])
		}
		for _, b := range v.blobs() {
			if _, err := s.store.Content.Info(ctx, b.Digest); err == nil {
				sh.add(b.Digest, id, b.Size)
			} else if !errdefs.IsNotFound(err) {
				return err
			}
		}
	}
	return nil
}

func (sh *sharing) add(part digest.Digest, image string, size int64) {
	if sh.users[part] == nil {
		sh.users[part] = map[string]bool{}
	}
	sh.users[part][image] = true
	sh.sizes[part] = size
}

func (sh *sharing) of(id string) int64 {
	var n int64
	for part, users := range sh.users {
		if users[id] && len(users) > 1 {
			n += sh.sizes[part]
		}
	}
	return n
}

// Manifests describes the manifests of an image, for clients that ask for them.
func (s *Service) Manifests(ctx context.Context, ref string) ([]image.ManifestSummary, error) {
	c, err := s.catalog(ctx)
	if err != nil {
		return nil, err
	}
	m, err := c.find(ref)
	if err != nil {
		return nil, err
	}
	variants, err := s.variantsOf(ctx, c, m.target.Target)
	if err != nil {
		return nil, err
	}
	return s.manifests(ctx, c, variants)
}

func (s *Service) manifests(ctx context.Context, c *catalog, variants []variant) ([]image.ManifestSummary, error) {
	list := []image.ManifestSummary{}
	for i := range variants {
		v := &variants[i]
		z, err := s.sizeOf(ctx, c, v)
		if err != nil {
			return nil, err
		}
		m := image.ManifestSummary{
			ID:         v.desc.Digest.String(),
			Descriptor: v.desc,
			Available:  z.available,
			Kind:       v.kind,
		}
		m.Size.Content = z.content
		m.Size.Total = z.total()
		switch v.kind {
		case image.ManifestKindImage:
			m.ImageData = &image.ImageProperties{Platform: v.platform, Containers: []string{}}
			m.ImageData.Size.Unpacked = z.unpacked
		case image.ManifestKindAttestation:
			m.AttestationData = &image.AttestationProperties{For: v.attests}
		}
		list = append(list, m)
	}
	return list, nil
}
