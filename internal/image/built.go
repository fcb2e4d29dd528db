package image

import (
	"context"
	"fmt"
	"slices"

	"github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/record"
)

// ByID is the target of the image whose id begins with the hexadecimal digits: an
// errdefs.ErrNotFound where none or more than one does.
func (s *Service) ByID(ctx context.Context, digits string) (ocispec.Descriptor, error) {
	c, err := s.catalog(s.store.Context(ctx))
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	m, err := c.byPrefix(digits, digest.Canonical.String()+":"+digits)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if m == nil {
		return ocispec.Descriptor{}, failure.NotFound("No such image: %s", digits)
	}
	return m.target.Target, nil
}

// NameBuilt gives an image whose blobs a build has put into the store a name, in its full
// form, in one commit. An image that loses its last name to it stays as a dangling one,
// unless it differs in nothing but what is said about its making: a build that found
// everything in the cache leaves no image behind, but its attestations have another time.
// A dangling name is not given to an image that has another.
func (s *Service) NameBuilt(ctx context.Context, name string, target ocispec.Descriptor) error {
	ctx = s.store.Context(ctx)
	if isDangling(name) {
		c, err := s.catalog(ctx)
		if err != nil {
			return err
		}
		if len(c.byID[target.Digest]) > 0 {
			return nil
		}
	}
	set := s.setName
	if s.madeAgain(ctx, name, target) {
		set = s.replaceName
	}
	if err := set(ctx, name, target, ""); err != nil {
		return fmt.Errorf("name the image %s: %w", target.Digest, err)
	}
	record.Failpoint("image.built.after-name")
	return nil
}

// madeAgain reports whether the image that has the name now is the same as target but
// for attestations, and no container needs it.
func (s *Service) madeAgain(ctx context.Context, name string, target ocispec.Descriptor) bool {
	old, err := s.store.Images.Get(ctx, name)
	if err != nil || old.Target.Digest == target.Digest {
		return false
	}
	s.layers.mu.Lock()
	used := s.layers.leased[old.Target.Digest]
	s.layers.mu.Unlock()
	if used {
		return false
	}
	before, err := s.imageManifests(ctx, old.Target)
	if err != nil {
		return false
	}
	after, err := s.imageManifests(ctx, target)
	return err == nil && len(after) > 0 && slices.Equal(before, after)
}

// imageManifests gives the digests of an image's manifests without those that accompany
// them.
func (s *Service) imageManifests(ctx context.Context, target ocispec.Descriptor) ([]digest.Digest, error) {
	variants, err := s.readVariants(ctx, target)
	var list []digest.Digest
	for _, v := range variants {
		if v.kind == image.ManifestKindImage {
			list = append(list, v.desc.Digest)
		}
	}
	return list, err
}

// Unpack unpacks those layers of a manifest that are not yet; its blobs are all here.
func (s *Service) Unpack(ctx context.Context, manifest ocispec.Descriptor) error {
	if err := s.unpackNow(s.store.Context(ctx), manifest); err != nil {
		return fmt.Errorf("unpack the image %s: %w", manifest.Digest, err)
	}
	return nil
}

// Built tells the world of an image that a build has made, and of the names that it gave
// it.
func (s *Service) Built(target ocispec.Descriptor, names []string) {
	id := target.Digest.String()
	s.events("create", id, id)
	for _, n := range names {
		if !isDangling(n) {
			s.events("tag", id, familiar(n))
		}
	}
}
