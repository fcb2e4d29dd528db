package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/containerd/containerd/v2/core/metadata"
	bolt "go.etcd.io/bbolt"

	"github.com/cleatlabs/cleat/internal/record"
)

// A sync that failed is not tried again and believed: [record.Unwritten] says why. What it was to have on the disk is
// given up instead, where it cannot be written anew:
//
//   - A database takes no more changes, and the next engine goes back to the state that was on the disk before.
//   - A blob is removed, and whoever brings it again writes all of it.

// givenUp stands in place of the boot id in the name of a copy that is gone back to in any boot.
const givenUp = "given-up"

// Failed is why the database was given up, or nil.
func (d *Deferral) Failed() error {
	if err := d.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// GiveUp is for when what was written to the database did not come to the disk: nothing more is written to it that
// could ever be read, and the next [RecoverDatabase] makes that state the newest one that is known to be there. It
// returns the reason, which is that of the first call.
func (d *Deferral) GiveUp(cause error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.giveUp(cause)
}

// giveUp is GiveUp for who holds d.mu. It goes as far as the disk lets it: after a crash of the machine there is no need
// of it, and what a killed engine leaves is synced by the next, which sees to a failure as well.
func (d *Deferral) giveUp(cause error) error {
	if err := d.Failed(); err != nil {
		return err
	}
	cause = record.Unwritten(d.path, cause)
	d.failed.Store(&cause)
	name := d.path + copyInfix + givenUp
	if d.pin != nil {
		_ = os.Rename(d.name, name)
		d.name = name
	} else {
		// The pages that say which state is the newest are all that may differ from the disk: what they refer to was
		// synced before they were written. They are written again.
		d.name = name
		_ = d.firstCopy()
	}
	_ = syncDir(filepath.Dir(name))
	return cause
}

// release lets go of the state to go back to, so that the database can be closed. Nothing is written to it any more.
func (d *Deferral) release() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.pin == nil {
		return nil
	}
	err := d.pin.Rollback()
	d.pin = nil
	return err
}

// guarded is the store's database for who makes transactions.
type guarded struct {
	metadata.Transactor
	deferral *Deferral
	// turn has nobody write between a failure and what becomes of it. Those who write wait for each other anyway.
	turn sync.Mutex
}

// Update gives the database up if the transaction could not be synced.
func (g *guarded) Update(fn func(*bolt.Tx) error) error {
	g.turn.Lock()
	defer g.turn.Unlock()
	if err := g.deferral.Failed(); err != nil {
		return err
	}
	done := false
	err := g.Transactor.Update(func(tx *bolt.Tx) error {
		err := fn(tx)
		done = err == nil
		return err
	})
	if done && unsynced(err) {
		return g.deferral.GiveUp(err)
	}
	return err
}

// unsynced reports whether the error of a commit is that of a sync. Writes that fail, for want of space above all, name
// the file, and leave the database as it was.
func unsynced(err error) bool {
	if err == nil {
		return false
	}
	_, isErrno := err.(syscall.Errno) //nolint:errorlint // bbolt gives that of fdatasync as it is, and others wrapped
	return isErrno || strings.HasPrefix(err.Error(), "file sync error:")
}

// Failed is why the store takes no more changes until it is opened again, or nil: its disk did.
func (s *Store) Failed() error {
	return errors.Join(s.deferrals.own.Failed(), s.blobs.failure())
}
