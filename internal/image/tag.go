package image

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
)

// Tag gives the image src the further name repo:tag; "" as tag is repo's own, or
// "latest". An image that had the name before stays, without it.
func (s *Service) Tag(ctx context.Context, src, repo, tag string) error {
	name, err := newName(repo, tag)
	if err != nil {
		return err
	}
	ctx = s.store.Context(ctx)
	c, err := s.catalog(ctx)
	if err != nil {
		return err
	}
	m, err := c.find(src)
	if err != nil {
		return err
	}
	if err := s.setName(ctx, name.String(), m.target.Target, m.target.Name); err != nil {
		if errdefs.IsNotFound(err) {
			return err
		}
		return fmt.Errorf("name the image %s %s: %w", m.ref(), reference.FamiliarString(name), err)
	}
	s.events("tag", m.id().String(), reference.FamiliarString(name))
	return nil
}
