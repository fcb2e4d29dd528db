package build

import (
	"context"

	"github.com/containerd/containerd/v2/core/images"

	"github.com/cleatlabs/cleat/internal/store"
)

// names is the store's names of images for BuildKit, whose contexts have no namespace.
type names struct{ s *store.Store }

func (n names) Get(ctx context.Context, name string) (images.Image, error) {
	return n.s.Images.Get(n.s.Context(ctx), name)
}

func (n names) List(ctx context.Context, filters ...string) ([]images.Image, error) {
	return n.s.Images.List(n.s.Context(ctx), filters...)
}

func (n names) Create(ctx context.Context, image images.Image) (images.Image, error) {
	return n.s.Images.Create(n.s.Context(ctx), image)
}

func (n names) Update(ctx context.Context, image images.Image, fields ...string) (images.Image, error) {
	return n.s.Images.Update(n.s.Context(ctx), image, fields...)
}

func (n names) Delete(ctx context.Context, name string, opts ...images.DeleteOpt) error {
	return n.s.Images.Delete(n.s.Context(ctx), name, opts...)
}
