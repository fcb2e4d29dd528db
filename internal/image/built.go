package image

import (
	"context"
	"fmt"
	"slices"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
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

// NameBuilt gives an image whose blobs a build has put into the store names, in their full form, each in one commit. An
// image that loses its last name to it stays as a dangling one. A dangling name is not given to an image that has another.
//
// Where the store has the same image but for when its making was attested, under one of these names or, for an image
// without a name, as another dangling one, that one keeps its id and gets the names: a build that found everything in the
// cache makes no other image. NameBuilt returns the image that has the names. If exact is set it is the given one, as where
// a registry gets it; the former, which nobody will miss, goes then.
func (s *Service) NameBuilt(ctx context.Context, names []string, target ocispec.Descriptor, exact bool) (ocispec.Descriptor, error) {
	ctx = s.store.Context(ctx)
	s.naming.Lock()
	defer s.naming.Unlock()
	c, err := s.catalog(ctx)
	if err != nil {
		return target, err
	}
	if before, ok := s.madeBefore(ctx, c, names, target); ok && !exact {
		err := s.nameBuilt(ctx, c, names, before.Target, before.Name, false)
		if !errdefs.IsNotFound(err) { // it was removed meanwhile
			return before.Target, err
		}
	}
	return target, s.nameBuilt(ctx, c, names, target, "", exact)
}

// nameBuilt gives the names to target, which has the name from already, if that is not "". With replace, an image that was
// the same but for when that was attested, and that no container needs, loses its name for good.
func (s *Service) nameBuilt(ctx context.Context, c *catalog, names []string, target ocispec.Descriptor, from string, replace bool) error {
	for _, name := range names {
		if isDangling(name) && len(c.byID[target.Digest]) > 0 {
			continue
		}
		set := s.setName
		if old, ok := c.names[name]; ok && replace && s.isUnused(old.Target.Digest) && s.sameMaking(ctx, old.Target, target) {
			set = s.replaceName
		}
		if err := set(ctx, name, target, from); err != nil {
			return fmt.Errorf("name the image %s: %w", target.Digest, err)
		}
		record.Failpoint("image.built.after-name")
	}
	return nil
}

// isUnused reports whether no container needs an image.
func (s *Service) isUnused(id digest.Digest) bool {
	s.layers.mu.Lock()
	defer s.layers.mu.Unlock()
	return !s.layers.leased[id]
}

// madeBefore finds the image that the names had, or a dangling one for dangling names, which is the same as target but for
// when that was attested.
func (s *Service) madeBefore(ctx context.Context, c *catalog, names []string, target ocispec.Descriptor) (images.Image, bool) {
	for _, name := range names {
		if old, ok := c.names[name]; ok && s.sameMaking(ctx, old.Target, target) {
			return old, true
		}
	}
	if !slices.ContainsFunc(names, isDangling) {
		return images.Image{}, false
	}
	for _, id := range c.ids {
		for _, old := range c.byID[id] {
			// Their documents are read only where they can be alike.
			if isDangling(old.Name) && old.Target.Size == target.Size && s.sameMaking(ctx, old.Target, target) {
				return old, true
			}
		}
	}
	return images.Image{}, false
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
