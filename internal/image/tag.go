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
	var m *match
	for again := true; again; {
		c, err := s.catalog(ctx)
		if err != nil {
			return err
		}
		if m, err = c.find(src); err != nil {
			return err
		}
		err = s.setName(ctx, name.String(), m.target.Target, m.target.Name)
		// The name by which it was found may have gone, and another one be there.
		if again = errdefs.IsNotFound(err); err != nil && !again {
			return fmt.Errorf("name the image %s %s: %w", m.ref(), reference.FamiliarString(name), err)
		}
	}
	s.events("tag", m.id().String(), reference.FamiliarString(name))
	return nil
}
