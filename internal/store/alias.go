package store

import (
	"context"
	"fmt"
	"sync"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/cleatlabs/cleat/internal/failure"
)

// AliasLayer gives the unpacked layer source the further name name, on top of the layer
// parent ("" for none): builds and images call one and the same layer differently, and
// it shall be on the disk once. The content goes when the last of its names has gone. A
// name that is there already is left as it is.
//
// As with every layer, a lease in ctx holds the name. source must be a committed layer
// that holds what name promises; if it does not lie upon what parent is, that is an
// errdefs.ErrFailedPrecondition.
func (s *Store) AliasLayer(ctx context.Context, name, parent, source string) error {
	keys := &backendKeys{}
	if _, err := s.Snapshots.Stat(context.WithValue(ctx, keysKey{}, keys), source); err != nil {
		return fmt.Errorf("find the layer %s: %w", source, err)
	}
	ctx = context.WithValue(ctx, aliasKey{}, alias{name: name, key: keys.last})
	_, err := s.Snapshots.Prepare(ctx, "alias "+name, parent, snapshots.WithLabels(map[string]string{snapshots.LabelSnapshotRef: name}))
	switch {
	case errdefs.IsAlreadyExists(err):
		return nil
	case errdefs.IsNotFound(err):
		return failure.New(errdefs.ErrFailedPrecondition, "the layer %s does not lie upon %s: %w", source, parent, err)
	case err == nil:
		return fmt.Errorf("the layer store did not take %s for a name of %s", name, source)
	}
	return fmt.Errorf("name the layer %s: %w", source, err)
}

// layerBackend is the snapshotter below the metadata database. The database can make a
// name for a layer that its snapshotter has already: it asks to prepare a layer, is told
// that one of the wanted label exists, and looks for it. Snapshotters that find layers
// elsewhere work in this way; here it is one that is given in the context.
type layerBackend struct{ snapshots.Snapshotter }

type (
	aliasKey struct{}
	keysKey  struct{}
)

// alias, in a context, is the layer to find.
type alias struct{ name, key string }

// backendKeys, in a context, notes which layers of the backend were asked about.
type backendKeys struct {
	mu   sync.Mutex
	last string
	all  map[string]bool // if not nil
}

func (b *layerBackend) Stat(ctx context.Context, key string) (snapshots.Info, error) {
	if keys, ok := ctx.Value(keysKey{}).(*backendKeys); ok {
		keys.mu.Lock()
		keys.last = key
		if keys.all != nil {
			keys.all[key] = true
		}
		keys.mu.Unlock()
	}
	return b.Snapshotter.Stat(ctx, key)
}

func (b *layerBackend) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	if _, ok := ctx.Value(aliasKey{}).(alias); ok {
		return nil, errdefs.ErrAlreadyExists
	}
	return b.Snapshotter.Prepare(ctx, key, parent, opts...)
}

func (b *layerBackend) Walk(ctx context.Context, fn snapshots.WalkFunc, filters ...string) error {
	a, ok := ctx.Value(aliasKey{}).(alias)
	if !ok {
		return b.Snapshotter.Walk(ctx, fn, filters...)
	}
	info, err := b.Snapshotter.Stat(ctx, a.key)
	if err != nil {
		return err
	}
	info.Labels = map[string]string{snapshots.LabelSnapshotRef: a.name}
	return fn(ctx, info)
}

// Cleanup removes directories that belong to no layer any more.
func (b *layerBackend) Cleanup(ctx context.Context) error {
	if c, ok := b.Snapshotter.(snapshots.Cleaner); ok {
		return c.Cleanup(ctx)
	}
	return nil
}
