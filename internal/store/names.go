package store

import (
	"context"
	"sync/atomic"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/metadata/boltutil"
)

// countedImages counts the changes of names, so that what is cached about them can be
// checked by comparing one number. The count moves after the change is durable: a
// reader that sees the new number reads the new state.
type countedImages struct {
	images.Store
	generation *atomic.Uint64
	settle     func() error // see [Store.Defer]
}

func (c *countedImages) Create(ctx context.Context, img images.Image) (images.Image, error) {
	defer c.generation.Add(1)
	made, err := c.Store.Create(ctx, img)
	return made, c.settled(ctx, err)
}

func (c *countedImages) Update(ctx context.Context, img images.Image, fields ...string) (images.Image, error) {
	defer c.generation.Add(1)
	made, err := c.Store.Update(ctx, img, fields...)
	return made, c.settled(ctx, err)
}

func (c *countedImages) Delete(ctx context.Context, name string, opts ...images.DeleteOpt) error {
	defer c.generation.Add(1)
	return c.settled(ctx, c.Store.Delete(ctx, name, opts...))
}

// settled returns when a change that was made is durable. One inside of a transaction of [Store.Update] is so with
// that.
func (c *countedImages) settled(ctx context.Context, err error) error {
	if _, within := boltutil.Transaction(ctx); within || err != nil {
		return err
	}
	return c.settle()
}
