package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/cleatlabs/cleat/internal/kernel"
	"github.com/cleatlabs/cleat/internal/record"
)

// A Deferral lets a database's transactions be without waiting for the disk for a while: a build makes a thousand small ones, none of which is of
// worth to anybody before the build is done. While it is on, a copy of the database as it was before lies beside it. What becomes of a crash then:
//
//   - When the engine is killed nothing is lost: what it wrote is in the kernel's hands, and the next engine syncs it.
//   - When the machine crashes, the database may be torn, for nothing says in which order its pages came to the disk. The next engine then goes back
//     to the copy. It tells the two apart by the boot id in the copy's name.
//
// So who needs something on the disk before he answers calls End.
type Deferral struct {
	path string
	db   *bolt.DB

	mu   sync.Mutex
	copy string // "" while it is off
}

// NewDeferral is for the database db, whose file is path. [RecoverDatabase] must have seen to path before it was opened.
func NewDeferral(path string, db *bolt.DB) *Deferral { return &Deferral{path: path, db: db} }

const (
	// largestDeferred is the size of a database, in bytes, beyond which a copy costs more than it saves.
	largestDeferred = 64 << 20
	copyInfix       = ".before-"
	copyPart        = ".before.part"
)

// Begin turns it on. If it is on already, or the database is too large for that, nothing happens.
func (d *Deferral) Begin() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.copy != "" {
		return nil
	}
	boot, err := kernel.BootID()
	if err != nil {
		return err
	}
	st, err := os.Stat(d.path)
	if err != nil || st.Size() > largestDeferred {
		return err
	}
	return d.alone(func() error {
		name := d.path + copyInfix + boot
		if err := d.writeCopy(name); err != nil {
			return fmt.Errorf("copy %s: %w", d.path, err)
		}
		record.Failpoint("store.defer.after-copy")
		d.copy, d.db.NoSync = name, true
		return nil
	})
}

// End turns it off: all transactions until now are on the disk when it returns. If it is off, they are.
func (d *Deferral) End() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.copy == "" {
		return nil
	}
	return d.alone(func() error {
		if err := d.db.Sync(); err != nil {
			return fmt.Errorf("sync %s: %w", d.path, err)
		}
		record.Failpoint("store.defer.after-sync")
		if err := removeDurably(d.copy); err != nil {
			return err
		}
		d.copy, d.db.NoSync = "", false
		return nil
	})
}

// errAlone ends a transaction that has changed nothing.
var errAlone = errors.New("nothing is to be written")

// alone runs f while nobody writes to the database.
func (d *Deferral) alone(f func() error) error {
	var failed error
	err := d.db.Update(func(*bolt.Tx) error {
		failed = f()
		return errAlone
	})
	if errors.Is(err, errAlone) {
		return failed
	}
	return err
}

// writeCopy makes the copy, on the disk.
func (d *Deferral) writeCopy(name string) error {
	part := d.path + copyPart
	f, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	err = d.db.View(func(tx *bolt.Tx) error {
		_, err := tx.WriteTo(f)
		return err
	})
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(part))
	}
	if err := os.Rename(part, name); err != nil {
		return err
	}
	return syncDir(filepath.Dir(name))
}

// RecoverDatabase sees to a database whose engine ended while a [Deferral] of it was on. Call it before the database is opened.
func RecoverDatabase(path string) error {
	boot, err := kernel.BootID()
	if err != nil {
		return err
	}
	return recoverDatabase(path, boot)
}

func recoverDatabase(path, boot string) error {
	entries, err := os.ReadDir(filepath.Dir(path))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	base := filepath.Base(path)
	for _, e := range entries {
		name := filepath.Join(filepath.Dir(path), e.Name())
		of, isCopy := strings.CutPrefix(e.Name(), base+copyInfix)
		switch {
		case e.Name() == base+copyPart:
			err = os.Remove(name)
		case isCopy && of == boot:
			if err = syncFile(path); err == nil {
				err = removeDurably(name)
			}
		case isCopy:
			if err = os.Rename(name, path); err == nil {
				err = syncDir(filepath.Dir(path))
			}
		}
		if err != nil {
			return fmt.Errorf("bring %s back after a crash: %w", path, err)
		}
	}
	return nil
}

func removeDurably(name string) error {
	if err := os.Remove(name); err != nil {
		return err
	}
	return syncDir(filepath.Dir(name))
}

func syncDir(dir string) error { return syncFile(dir) }

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// deferrals are those of the store and of who builds on it. They go on and off together: what one database says of another's contents must still
// be so after a crash.
type deferrals struct {
	warn func(error)

	mu    sync.Mutex
	list  []*Deferral // the store's own last: it is relied on by the others
	on    bool
	off   int // who wants it off
	timer *time.Timer
}

// deferTime is how long after the last call of Defer it ends by itself.
const deferTime = time.Second

// Defer lets transactions be without waiting for the disk from now on, until nobody has called it for a second or a name is given or taken. It is
// called by who makes many transactions that are of no worth to anybody yet. Where it fails everything is as safe as without, and slower.
func (s *Store) Defer() { s.deferrals.begin() }

// DeferToo has another database, whose contents are about those of the store, go with it until the returned function is called, which syncs it.
func (s *Store) DeferToo(d *Deferral) (done func() error) {
	l := &s.deferrals
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append([]*Deferral{d}, l.list...)
	return func() error {
		err := l.end()
		l.mu.Lock()
		defer l.mu.Unlock()
		for i, o := range l.list {
			if o == d {
				l.list = append(l.list[:i:i], l.list[i+1:]...)
				break
			}
		}
		return errors.Join(err, d.End())
	}
}

func (l *deferrals) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer == nil {
		l.timer = time.AfterFunc(deferTime, l.background)
	} else {
		l.timer.Reset(deferTime)
	}
	if l.on || l.off > 0 {
		return
	}
	l.on = true
	for _, d := range l.list {
		if err := d.Begin(); err != nil {
			l.warn(fmt.Errorf("builds wait for the disk: %w", err))
		}
	}
}

// suspend returns when all is on the disk, and has it stay so until resume is called.
func (l *deferrals) suspend() (resume func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.off++
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.off--
	}, l.endLocked()
}

// end returns when all until now is on the disk.
func (l *deferrals) end() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.endLocked()
}

// endLocked syncs the store's own first: others may say less than there is, but nothing that is not. The caller holds l.mu.
func (l *deferrals) endLocked() error {
	if !l.on {
		return nil
	}
	l.on = false
	var errs []error
	for i := len(l.list) - 1; i >= 0; i-- {
		errs = append(errs, l.list[i].End())
	}
	return errors.Join(errs...)
}

func (l *deferrals) background() {
	if err := l.end(); err != nil {
		l.warn(fmt.Errorf("what builds have written may not be on the disk: %w", err))
	}
}
