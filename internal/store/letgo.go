package store

import (
	"errors"
	"slices"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/cleatlabs/cleat/internal/kernel"
)

// LetGo takes what was read of the databases, and of those that go with them, out of the process's memory: what many
// builds have been through is otherwise counted as the engine's for good.
func (s *Store) LetGo() error {
	s.deferrals.mu.Lock()
	list := slices.Clone(s.deferrals.list)
	s.deferrals.mu.Unlock()
	var errs []error
	for _, d := range list {
		// bbolt maps a database anew, or no more, only when nobody reads it.
		err := d.db.View(func(*bolt.Tx) error { return kernel.DropMapped(d.path) })
		if err != nil && !errors.Is(err, berrors.ErrDatabaseNotOpen) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
