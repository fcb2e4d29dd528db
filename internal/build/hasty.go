package build

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/moby/buildkit/cache/metadata"
	bolt "go.etcd.io/bbolt"

	"github.com/cleatlabs/cleat/internal/store"
)

// hastyLeases tells that a build is under way: with each thing that it makes it takes a
// lease first. Then nobody waits for the disk until the build has a result.
type hastyLeases struct {
	leases.Manager
	hurry func()
}

func (l hastyLeases) Create(ctx context.Context, opts ...leases.Opt) (leases.Lease, error) {
	l.hurry()
	return l.Manager.Create(ctx, opts...)
}

// openRefs opens the database of what is in the cache, whose transactions wait for the
// disk only when the store's do.
func (b *Builder) openRefs(path string) (refs *metadata.Store, end func() error, err error) {
	if err := store.RecoverDatabase(path); err != nil {
		return nil, nil, err
	}
	if err := soundDatabase(path, false, b.warn); err != nil {
		return nil, nil, err
	}
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		if refs, err = metadata.NewStore(path); err == nil {
			err = refs.Close()
		}
		if err != nil {
			return nil, nil, err
		}
	}
	if err := store.WidenDatabase(path); err != nil {
		return nil, nil, fmt.Errorf("make room in %s: %w", path, err)
	}
	if refs, err = metadata.NewStore(path); err != nil {
		return nil, nil, err
	}
	var db *bolt.DB
	err = refs.DB().View(func(tx *bolt.Tx) error {
		db = tx.DB()
		return nil
	})
	if err != nil {
		return nil, nil, errors.Join(err, refs.Close())
	}
	return refs, b.cfg.Store.DeferToo(store.NewDeferral(path, db)), nil
}
