package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/cleatlabs/cleat/internal/kernel"
	"github.com/cleatlabs/cleat/internal/record"
)

// A Deferral lets a database's transactions be without waiting for the disk for a while: a build makes a thousand small
// ones, none of which is of worth to anybody before the build is done. While it is on, there is a state of the database
// to go back to, which is on the disk: nothing of it is overwritten, for a reader that sees it is kept open; only the
// two pages that say which state is the newest are, and a copy of them lies beside the database. What becomes of a
// crash then:
//
//   - When the engine is killed nothing is lost: what it wrote is in the kernel's hands, and the next engine syncs
//     it.
//   - When the machine crashes, the database may be torn, for nothing says in which order its pages came to the disk.
//     The next engine then puts the copied pages back. It tells the two apart by the boot id in the copy's name.
//
// So who needs something on the disk before he answers calls Settle, which makes the present state the one to go back
// to, or End. What becomes of a sync that fails, failedsync.go says.
type Deferral struct {
	path string
	db   *bolt.DB
	// before, if not nil, has on the disk what the transactions rely on. It is called while none is made, and once ahead
	// of that.
	before func() error
	disk   disk
	failed atomic.Pointer[error] // see GiveUp

	mu   sync.Mutex
	pin  *bolt.Tx // the reader that keeps the state; nil while it is off
	name string   // of the copy
	turn int      // of the pair in it that was written last
}

// NewDeferral is for the database db, whose file is path. [RecoverDatabase] must have seen to path before it was
// opened, and [DatabaseSpace] bytes must be mapped of it: it cannot get more while the reader is open.
func NewDeferral(path string, db *bolt.DB) *Deferral {
	return &Deferral{path: path, db: db, disk: disk{(*bolt.DB).Sync, (*os.File).Sync}}
}

// disk is how databases and files are synced.
type disk struct {
	database func(*bolt.DB) error
	file     func(*os.File) error
}

const (
	// DatabaseSpace is how much of a database, in bytes, is mapped into memory from the start, so that it can grow.
	DatabaseSpace = 256 << 20
	// mostDeferred is the size of a database beyond which its transactions wait: what one second brings fits in what is
	// left many times over.
	mostDeferred = DatabaseSpace / 2

	copyInfix = ".before-"
	copyPart  = ".before.part"
)

// Begin turns it on. If it is on already nothing happens. It reports false for a database that is too large for it.
func (d *Deferral) Begin() (on bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.Failed(); err != nil {
		return false, err
	}
	if d.pin != nil {
		return true, nil
	}
	boot, err := kernel.BootID()
	if err != nil {
		return false, err
	}
	err = d.alone(func(size int64) error {
		if size > mostDeferred {
			return nil
		}
		d.name, d.turn = d.path+copyInfix+boot, 0
		if err := d.firstCopy(); err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
		record.Failpoint("store.defer.after-copy")
		if d.pin, err = d.db.Begin(false); err != nil {
			return errors.Join(err, d.removeDurably(d.name))
		}
		d.db.NoSync = true
		return nil
	})
	return d.pin != nil, err
}

// Settle returns when all transactions until now are on the disk. If it fails they never are, see [Deferral.GiveUp].
func (d *Deferral) Settle() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.synced(func() error {
		if err := d.nextCopy(); err != nil {
			return d.giveUp(fmt.Errorf("%s: %w", d.name, err))
		}
		record.Failpoint("store.defer.after-next-copy")
		pin, err := d.db.Begin(false)
		if err != nil {
			return err
		}
		err = d.pin.Rollback()
		d.pin = pin
		return err
	})
}

// End turns it off: all transactions until now are on the disk when it returns. If it is off, they are. If it fails they
// never are, see [Deferral.GiveUp].
func (d *Deferral) End() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.synced(func() error {
		if err := d.removeDurably(d.name); err != nil {
			return d.giveUp(err)
		}
		err := d.pin.Rollback()
		d.pin, d.db.NoSync = nil, false
		return err
	})
}

// synced has all transactions until now on the disk, and then goes on while none is made, if it is on.
func (d *Deferral) synced(then func() error) error {
	if err := d.Failed(); err != nil || d.pin == nil {
		return err
	}
	if err := d.ahead(); err != nil {
		return d.giveUp(err)
	}
	return d.alone(func(int64) error {
		if err := d.sync(); err != nil {
			return d.giveUp(err)
		}
		return then()
	})
}

// ahead does the most of it while others write, who need not wait for that then.
func (d *Deferral) ahead() error {
	if d.before == nil {
		return nil
	}
	return d.before()
}

// sync has the transactions on the disk. The caller is alone.
func (d *Deferral) sync() error {
	if d.before != nil {
		if err := d.before(); err != nil {
			return err
		}
		record.Failpoint("store.defer.after-blobs")
	}
	if err := d.disk.database(d.db); err != nil {
		return fmt.Errorf("sync %s: %w", d.path, err)
	}
	record.Failpoint("store.defer.after-sync")
	return nil
}

// tight reports whether it is on and shall not stay so: the database has grown.
func (d *Deferral) tight() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.pin == nil {
		return false
	}
	var size int64
	err := d.db.View(func(tx *bolt.Tx) error {
		size = tx.Size()
		return nil
	})
	return err != nil || size > mostDeferred
}

// errAlone ends a transaction that has changed nothing.
var errAlone = errors.New("nothing is to be written")

// alone runs f while nobody writes to the database, whose size it is told.
func (d *Deferral) alone(f func(size int64) error) error {
	var failed error
	err := d.db.Update(func(tx *bolt.Tx) error {
		failed = f(tx.Size())
		return errAlone
	})
	if errors.Is(err, errAlone) {
		return failed
	}
	return err
}

// A copy has room for two pairs of pages, which are written by turns: the older is whole while the other is written.
// Each has a head of copyHead bytes: what it is, how many were written before, the size of a page and, of all this and
// the pages, a checksum.
const (
	copyMagic = "cleat deferral 1"
	copyHead  = len(copyMagic) + 8 + 8 + sha256.Size
)

// statePages are the pages that say which state of a database is the newest.
const statePages = 2

// pair is what is to be written at a turn, and where. The caller is alone.
func (d *Deferral) pair(turn int) (b []byte, at int64, err error) {
	size := d.db.Info().PageSize
	b = make([]byte, copyHead+statePages*size)
	copy(b, copyMagic)
	binary.LittleEndian.PutUint64(b[len(copyMagic):], uint64(turn))
	binary.LittleEndian.PutUint64(b[len(copyMagic)+8:], uint64(size))
	f, err := os.Open(d.path)
	if err != nil {
		return nil, 0, err
	}
	_, err = f.ReadAt(b[copyHead:], 0)
	copy(b[copyHead-sha256.Size:], checksum(b))
	return b, int64(turn%2) * int64(len(b)), errors.Join(err, f.Close())
}

// checksum is that of a pair but for itself.
func checksum(pair []byte) []byte {
	h := sha256.New()
	h.Write(pair[:copyHead-sha256.Size])
	h.Write(pair[copyHead:])
	return h.Sum(nil)
}

// firstCopy makes the copy, on the disk.
func (d *Deferral) firstCopy() error {
	b, _, err := d.pair(0)
	if err != nil {
		return err
	}
	part := d.path + copyPart
	f, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.Write(b); err == nil {
		err = d.disk.file(f)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(part))
	}
	if err := os.Rename(part, d.name); err != nil {
		return err
	}
	return d.syncDir(filepath.Dir(d.name))
}

// nextCopy replaces the older pair, on the disk.
func (d *Deferral) nextCopy() error {
	b, at, err := d.pair(d.turn + 1)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(d.name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(b, at); err == nil {
		err = d.disk.file(f)
	}
	if err = errors.Join(err, f.Close()); err == nil {
		d.turn++ // else the other pair is the only one that is whole, and stays
	}
	return err
}

// newestPair reads the pages to go back to out of a copy. A copy of one pair and a part of the next is as good as one
// of two of which one is damaged.
func newestPair(name string) ([]byte, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	first, turn := readPair(b)
	second, later := readPair(b[len(b)/2:])
	if first == nil || second != nil && later > turn {
		first = second
	}
	if first == nil {
		return nil, fmt.Errorf("%s is damaged: it says which state of the database was on the disk before the machine crashed; "+
			"without that file the database is taken as it is", name)
	}
	return first, nil
}

// readPair gives the pages of the pair that b begins with; nil if it is not whole.
func readPair(b []byte) (pages []byte, turn uint64) {
	const largestPage = 1 << 20
	if len(b) < copyHead || !bytes.HasPrefix(b, []byte(copyMagic)) {
		return nil, 0
	}
	page := binary.LittleEndian.Uint64(b[len(copyMagic)+8:])
	if page > largestPage || len(b) < copyHead+statePages*int(page) {
		return nil, 0
	}
	b = b[:copyHead+statePages*int(page)]
	if !bytes.Equal(checksum(b), b[copyHead-sha256.Size:copyHead]) {
		return nil, 0
	}
	return b[copyHead:], binary.LittleEndian.Uint64(b[len(copyMagic):])
}

// RecoverDatabase sees to a database whose engine ended while a [Deferral] of it was on. Call it before the database is
// opened.
func RecoverDatabase(path string) error {
	boot, err := kernel.BootID()
	if err != nil {
		return err
	}
	return recoverDatabase(path, boot, record.SyncTree)
}

// recoverDatabase is RecoverDatabase in the boot of this id; sync has on the disk what was written below a directory.
func recoverDatabase(path, boot string, sync func(dir string) error) error {
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
			// With what the transactions rely on, which the killed engine would have synced first: the whole filesystem.
			if sync(filepath.Dir(path)) != nil {
				err = goBack(path, name) // what of it is there nobody can tell any more, see failedsync.go
			}
			if err == nil {
				err = removeDurably(name)
			}
		case isCopy:
			if err = goBack(path, name); err == nil {
				err = removeDurably(name)
			}
		}
		if err != nil {
			return fmt.Errorf("bring %s back after a crash: %w", path, err)
		}
	}
	return nil
}

// goBack makes the state of a copy the newest one of the database.
func goBack(path, name string) error {
	pages, err := newestPair(name)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(pages, 0); err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// WidenDatabase makes room in the file of a database, without taking any of the disk: as much of a database as its file
// is long is mapped into memory when it is opened by who cannot be told how much to map. Of a database that is not
// there yet nothing is made.
func WidenDatabase(path string) error {
	st, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil || st.Size() == 0 || st.Size() >= DatabaseSpace {
		return err
	}
	return os.Truncate(path, DatabaseSpace)
}

func (d *Deferral) removeDurably(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return d.syncDir(filepath.Dir(name))
}

func (d *Deferral) syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.disk.file(f), f.Close())
}

// removeDurably removes a file, which an earlier try may have removed without that being on the disk.
func removeDurably(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return syncDir(filepath.Dir(name))
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// deferrals are those of the store and of who builds on it. They go on and off together: what one database says of
// another's contents must still be so after a crash.
type deferrals struct {
	warn func(error)

	mu   sync.Mutex
	list []*Deferral // the store's own last: it is relied on by the others
	own  *Deferral
	on   bool // all of list, or those at its beginning
	off  int  // who wants it off
	// failed is why what was written while it was on will never be on the disk. It stays on then.
	failed error
	timer  *time.Timer
}

// deferTime is how long after the last call of Defer it ends by itself.
const deferTime = time.Second

// Defer lets transactions be without waiting for the disk from now on, until nobody has called it for a second. Who
// gives or takes a name waits for all that came before. It is called by who makes many transactions that are of no
// worth to anybody yet. Where it fails everything is as safe as without, and slower.
func (s *Store) Defer() { s.deferrals.begin() }

// DeferToo has another database, whose contents are about those of the store, go with it until the returned function is
// called, which syncs it.
func (s *Store) DeferToo(d *Deferral) (done func() error) {
	l := &s.deferrals
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.endLocked(); err != nil { // it cannot go back to where the others can
		l.warn(fmt.Errorf("what builds have written may not be on the disk: %w", err))
	}
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
		return errors.Join(err, d.End(), d.release())
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
	if l.off > 0 || l.failed != nil {
		return
	}
	if l.on {
		if !slices.ContainsFunc(l.list, (*Deferral).tight) {
			return
		}
		if err := l.endLocked(); err != nil {
			l.warn(fmt.Errorf("builds wait for the disk: %w", err))
			return
		}
	}
	l.on = true
	for _, d := range l.list {
		on, err := d.Begin()
		if errors.Is(err, record.ErrUnwritten) {
			l.failed = err
		}
		if err != nil {
			l.warn(fmt.Errorf("builds wait for the disk: %w", err))
		}
		if !on {
			return // what the others rely on must not go back further than they do
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

// settle returns when all until now is on the disk, and leaves it on.
func (l *deferrals) settle() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.on {
		return l.failed
	}
	return l.each((*Deferral).Settle)
}

// endLocked is end for who holds l.mu.
func (l *deferrals) endLocked() error {
	if !l.on {
		return l.failed
	}
	err := l.each((*Deferral).End)
	l.on = err != nil
	return err
}

// each syncs the store's own first, and the others if that is done: they may say less than there is, but nothing that
// is not. Where one fails all go back. The caller holds l.mu.
func (l *deferrals) each(do func(*Deferral) error) error {
	for _, d := range slices.Backward(l.list) {
		if l.failed != nil {
			break
		}
		l.failed = do(d)
	}
	if l.failed != nil {
		for _, d := range l.list {
			_ = d.GiveUp(l.failed) // which it returns
		}
	}
	return l.failed
}

func (l *deferrals) background() {
	if err := l.end(); err != nil {
		l.warn(fmt.Errorf("what builds have written may not be on the disk: %w", err))
	}
}
