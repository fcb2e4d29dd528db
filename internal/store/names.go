package store

import (
	"context"
	"sync/atomic"

	"github.com/containerd/containerd/v2/core/images"
)

// countedImages counts the changes of names, so that what is cached about them can be
// checked by comparing one number. The count moves after the change is durable: a
// reader that sees the new number reads the new state.
type countedImages struct {
	images.Store
	generation *atomic.Uint64
}

func (c *countedImages) Create(ctx context.Context, img images.Image) (images.Image, error) {
	defer c.generation.Add(1)
	return c.Store.Create(ctx, img)
}

func (c *countedImages) Update(ctx context.Context, img images.Image, fields ...string) (images.Image, error) {
	defer c.generation.Add(1)
	return c.Store.Update(ctx, img, fields...)
}

func (c *countedImages) Delete(ctx context.Context, name string, opts ...images.DeleteOpt) error {
	defer c.generation.Add(1)
	return c.Store.Delete(ctx, name, opts...)
}
