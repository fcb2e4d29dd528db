// Package store is the engine's storage of images: containerd's content store,
// metadata database, overlay snapshotter, leases and garbage collector, wired in
// process.
package store

import "context"

// Config says where and how a store works.
type Config struct {
	// Root is the directory of the store; it is made if missing.
	Root string
}

// Store is an opened store.
type Store struct{ root string }

// Open opens or makes the store.
func Open(ctx context.Context, cfg Config) (*Store, error) { return &Store{root: cfg.Root}, nil }

// Close ends background work and closes the databases.
func (s *Store) Close() error { return nil }
