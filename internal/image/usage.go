package image

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// DiskUsage is how many bytes all images take together, each blob and each unpacked layer
// counted once, whoever shares it: those of images with a name, and the layers of others
// that containers still use. What only the build cache has is not the images'. kept is
// how many of them stay when all images but those in use (by their ids) are removed.
func (s *Service) DiskUsage(ctx context.Context, inUse map[string]bool) (total, kept int64, err error) {
	c, err := s.catalog(ctx)
	if err != nil {
		return 0, 0, err
	}
	u := &usage{s: s, blobs: map[digest.Digest]bool{}, layers: map[string]bool{}}
	ctx = s.store.Context(ctx)
	if err := u.images(ctx, c, func(id string) bool { return inUse[id] }); err != nil {
		return 0, 0, err
	}
	err = s.store.Snapshots.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		of, isView := strings.CutPrefix(info.Name, viewPrefix)
		if info.Kind != snapshots.KindView || !isView {
			return nil
		}
		of, _, _ = strings.Cut(of, "-")
		if len(c.byID[digest.NewDigestFromEncoded(digest.Canonical, of)]) > 0 {
			return nil // goes with its image
		}
		return u.chain(ctx, info.Parent)
	})
	if err != nil {
		return 0, 0, fmt.Errorf("measure the layers of images: %w", err)
	}
	kept = u.total
	err = u.images(ctx, c, func(string) bool { return true })
	return u.total, kept, err
}

// usage sums up what was not counted yet.
type usage struct {
	s      *Service
	total  int64
	blobs  map[digest.Digest]bool
	layers map[string]bool
}

func (u *usage) images(ctx context.Context, c *catalog, chosen func(id string) bool) error {
	for _, id := range c.ids {
		if !chosen(id.String()) {
			continue
		}
		if err := u.image(ctx, c, id); err != nil {
			return fmt.Errorf("measure the image %s: %w", id, err)
		}
	}
	return nil
}

func (u *usage) image(ctx context.Context, c *catalog, id digest.Digest) error {
	target := c.byID[id][0].Target
	if err := u.blob(ctx, target.Digest); err != nil {
		return err
	}
	variants, err := u.s.variantsOfAny(ctx, c, target)
	if err != nil {
		return err
	}
	for i := range variants {
		v := &variants[i]
		for _, b := range v.blobs() {
			if err := u.blob(ctx, b.Digest); err != nil {
				return err
			}
		}
		if err := u.chain(ctx, v.chainID.String()); err != nil {
			return err
		}
	}
	return nil
}

func (u *usage) blob(ctx context.Context, d digest.Digest) error {
	if d == "" || u.blobs[d] {
		return nil
	}
	u.blobs[d] = true
	info, err := u.s.store.Content.Info(ctx, d)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err == nil {
		u.total += u.s.store.BlobSpace(d, info.Size)
	}
	return err
}

// chain counts a layer and those below it.
func (u *usage) chain(ctx context.Context, name string) error {
	for name != "" && !u.layers[name] {
		u.layers[name] = true
		info, err := u.s.store.Snapshots.Stat(ctx, name)
		if errdefs.IsNotFound(err) {
			return nil // not unpacked, or not all of it
		}
		if err != nil {
			return err
		}
		size, err := u.s.store.Snapshots.Usage(ctx, name)
		if err != nil && !errdefs.IsNotFound(err) {
			return err
		}
		u.total += size.Size
		name = info.Parent
	}
	return nil
}

// Occupied is how many bytes the store takes on the disk, the build cache's contents
// included.
func (s *Service) Occupied(ctx context.Context) (int64, error) {
	return s.store.Occupied(s.store.Context(ctx))
}

// Collect frees the space of what nobody refers to any more and says what is occupied
// then.
func (s *Service) Collect(ctx context.Context) (int64, error) {
	if err := s.store.GC(ctx); err != nil {
		return 0, fmt.Errorf("collect unused images: %w", err)
	}
	return s.Occupied(ctx)
}
