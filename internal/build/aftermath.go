package build

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/moby/buildkit/cache/metadata"
	bkclient "github.com/moby/buildkit/client"
	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/cleatlabs/cleat/internal/kernel"
	"github.com/cleatlabs/cleat/internal/record"
)

// What the cache says of its contents may be wrong after an end that was none of ours:
//
//   - When the engine is killed while a client's files come, some of those of the build
//     before have been written over, and their checksums are noted as they were.
//   - When the machine crashes, what steps have written shortly before is not on the disk,
//     though the databases may say so: nothing waits for it but the naming of an image.
//
// So a note beside the databases says since when contents may be unwritten, and whether a
// builder was at work; the next one forgets what it cannot trust. BuildKit by itself would
// build on it.

// aftermathFile is the note, below the root; it is replaced atomically.
const aftermathFile = "aftermath.json"

// aftermath is the note.
type aftermath struct {
	// Boot is the kernel's id of the boot in which it was written.
	Boot string
	// Settled is when all that had been made before was on the disk.
	Settled time.Time
	// Open says that a builder has the databases open.
	Open bool
}

const (
	// calmTime is how long after the last sign of a build its contents are synced: steps
	// that follow each other are not to compete with that.
	calmTime = 2 * time.Second
	// restlessTime is how long a build without a calm may put it off.
	restlessTime = 30 * time.Second
)

// settler keeps the note up to date.
type settler struct {
	path     string
	contents string // a directory on the filesystem of the contents
	boot     string
	warn     func(error)

	turn sync.Mutex // held while it syncs

	mu      sync.Mutex
	settled time.Time
	timer   *time.Timer
	since   time.Time // of the first sign that nothing was synced after; zero is none
	over    bool
	failed  error // why what was made since settled is not on the disk, nor ever will be
	sync    func(dir string) error
}

// lostBoot stands in a note in place of the boot, when contents did not come to the disk: for the next builder that is as
// if the machine had crashed.
const lostBoot = "lost"

// openSettler reads the note that the last builder left. It reports how that one ended:
// killed says that it did not close, crashed that it did not and the machine went down with
// it.
func openSettler(root, contents string, warn func(error)) (s *settler, killed, crashed bool, err error) {
	boot, err := kernel.BootID()
	if err != nil {
		return nil, false, false, err
	}
	s = &settler{path: filepath.Join(root, aftermathFile), contents: contents, boot: boot, warn: warn, sync: record.SyncTree}
	var last aftermath
	text, err := os.ReadFile(s.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		last.Open = true // for all that is known
	case err != nil:
		return nil, false, false, fmt.Errorf("builder: %w", err)
	case json.Unmarshal(text, &last) != nil:
		last = aftermath{Open: true}
	}
	s.settled = last.Settled
	return s, last.Open, last.Open && last.Boot != boot, nil
}

// begin says that a builder is at work, which the disk knows before it has made anything.
func (s *settler) begin(killed, crashed bool) error {
	switch {
	case crashed: // what is still there has been read from the disk
		s.settled = time.Now()
	case killed: // what the last one has made is still to be synced
		s.since = time.Now()
	}
	return s.note(s.boot, s.settled, true)
}

func (s *settler) note(boot string, settled time.Time, open bool) error {
	text, err := json.Marshal(aftermath{boot, settled, open})
	if err == nil {
		err = record.WriteDurable(s.path, text, 0o600)
		if errors.Is(err, syscall.ENOSPC) && s.overwrite(text) == nil {
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("note the state of the build cache: %w", err)
	}
	return nil
}

// overwrite writes the note where the disk is too full for another file: without a note the cache could not even be
// pruned. What a crash leaves of that reads as no note, which says that nothing is known.
func (s *settler) overwrite(text []byte) error {
	f, err := os.OpenFile(s.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	old, err := f.Stat()
	if err != nil {
		return err
	}
	blank := bytes.Repeat([]byte(" "), max(0, int(old.Size())-len(text)))
	if _, err := f.WriteAt(append(text, blank...), 0); err != nil {
		return err
	}
	return f.Sync()
}

// stir is called when a build is about to make something. It waits for nothing, but once after the clock was set back.
func (s *settler) stir() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.setBack(now)
	if s.since.IsZero() {
		s.since = now
	}
	wait := max(0, min(calmTime, s.since.Add(restlessTime).Sub(now)))
	switch {
	case s.over:
	case s.timer == nil:
		s.timer = time.AfterFunc(wait, s.background)
	default:
		s.timer.Reset(wait)
	}
}

// setBack corrects the note if the host's clock was set back since: what is made now would be older, by that clock, than
// when all was on the disk, and be trusted after a crash. The caller holds s.mu.
func (s *settler) setBack(now time.Time) {
	if !now.Round(0).Before(s.settled.Round(0)) { // without the readings of the clock that nobody sets
		return
	}
	s.settled = now
	if err := s.note(s.boot, now, true); err != nil {
		s.warn(err)
	}
}

func (s *settler) background() {
	if err := s.settle(true); err != nil {
		s.warn(fmt.Errorf("what builds have written may not be on the disk: %w", err))
	}
}

// settle has on the disk what was made until now, and notes it.
func (s *settler) settle(open bool) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	s.mu.Lock()
	if s.over && open {
		s.mu.Unlock()
		return nil
	}
	since, settled, failed := s.since, s.settled, s.failed
	s.since = time.Time{}
	s.mu.Unlock()
	if failed != nil {
		return failed
	}
	if !since.IsZero() {
		before := settled
		settled = time.Now()
		if err := s.sync(s.contents); err != nil {
			return s.lose(before, err)
		}
	}
	if err := s.note(s.boot, settled, open); err != nil {
		// Still to be done: the next settle, the last one above all, is not to call it settled.
		s.mu.Lock()
		if !since.IsZero() {
			s.since = since
		}
		s.mu.Unlock()
		return err
	}
	s.mu.Lock()
	s.settled = settled
	s.mu.Unlock()
	return nil
}

// lose notes that what was made since settled is not on the disk: no later sync can be believed.
func (s *settler) lose(settled time.Time, cause error) error {
	err := record.Unwritten(s.contents, cause)
	s.mu.Lock()
	s.failed = err
	s.mu.Unlock()
	return errors.Join(err, s.note(lostBoot, settled, true))
}

// with makes of a settling of another's one that is believed only once, too.
func (s *settler) with(settle func() error) func() error {
	if settle == nil {
		return nil
	}
	return func() error {
		err := settle()
		if !errors.Is(err, record.ErrUnwritten) {
			return err
		}
		s.turn.Lock()
		defer s.turn.Unlock()
		s.mu.Lock()
		settled, failed := s.settled, s.failed
		s.mu.Unlock()
		if failed != nil {
			return failed
		}
		return s.lose(settled, err)
	}
}

// stop ends the settling behind the builds' backs.
func (s *settler) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	if s.timer != nil {
		s.timer.Stop()
	}
}

// close settles for the last time. Nothing is built any more, and the databases are closed.
func (s *settler) close() error {
	s.stop()
	return s.settle(false)
}

// The keys of BuildKit's records (cache/metadata.go).
const (
	recordCreated   = "cache.createdAt" // in nanoseconds
	recordCommitted = "snapshot.committed"
	recordKind      = "cache.recordType"
	recordEqual     = "cache.equalMutable"
)

// distrust makes the cache forget what an end without a close has left untrue. It reports
// whether there was anything, which a collection shall take before something is built.
func (b *Builder) distrust(ctx context.Context, refs *metadata.Store, settled time.Time, crashed bool) (forgotten bool, err error) {
	items, err := refs.All()
	if err != nil {
		return false, fmt.Errorf("read the build cache: %w", err)
	}
	// What can be written to, and was not since a result of it was taken that can be trusted.
	whole := map[string]bool{}
	var doubtful []*metadata.StorageItem
	for _, item := range items {
		done := false
		if v := item.Get(recordCommitted); v != nil {
			_ = v.Unmarshal(&done) // what cannot be read is not
		}
		switch {
		case !done || crashed && b.madeAfter(ctx, item, settled):
			doubtful = append(doubtful, item)
		default:
			whole[recordValue(item, recordEqual)] = true
		}
	}
	for _, item := range doubtful {
		files := recordValue(item, recordKind) == string(bkclient.UsageRecordTypeLocalSource)
		if whole[item.ID()] || !crashed && !files {
			continue
		}
		if err := refs.Clear(item.ID()); err != nil {
			return forgotten, fmt.Errorf("forget what is not certain of the build cache: %w", err)
		}
		forgotten = true
	}
	return forgotten, nil
}

// madeAfter reports whether what a record stands for may be younger than settled: the
// record of an image's layer is as old as the image says.
func (b *Builder) madeAfter(ctx context.Context, item *metadata.StorageItem, settled time.Time) bool {
	var nanoseconds int64
	v := item.Get(recordCreated)
	if v == nil || v.Unmarshal(&nanoseconds) != nil || time.Unix(0, nanoseconds).After(settled) {
		return true
	}
	info, err := b.cfg.Store.Snapshots.Stat(b.cfg.Store.Context(ctx), recordValue(item, recordSnapshot))
	return err == nil && info.Created.After(settled)
}

// soundDatabase removes a database that is damaged, by a crash of the machine or a full disk, and tells of it: the
// builder's can be done without, then there is less in the cache, or in the history. Only with thorough it is read to
// its end. What is only not to be had (a lock, a disk that fails) is left for who opens it next to say.
func soundDatabase(path string, thorough bool, warn func(error)) error {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !st.Mode().IsRegular() {
		return nil
	}
	var errno syscall.Errno
	if err == nil && st.Size() == 0 {
		err = errors.New("empty") // what is made in its place has room from the start, see store.WidenDatabase
	} else if err == nil {
		err = intact(path, thorough)
	}
	if err == nil || errors.Is(err, berrors.ErrTimeout) || errors.As(err, &errno) {
		return nil
	}
	warn(fmt.Errorf("%s is made anew, as it is damaged: %w", path, err))
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove the damaged database %s: %w", path, err)
	}
	return nil
}

// intact looks at how a database begins and whether all of it is there, and with thorough reads it to its end. The
// library panics at some damage.
func intact(path string, thorough bool) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("damaged: %v", p)
		}
	}()
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return err
	}
	defer db.Close()
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	return db.View(func(tx *bolt.Tx) (err error) {
		if tx.Size() > st.Size() { // to look at what is not there would be a fault that nothing recovers from
			return fmt.Errorf("damaged: %d bytes of %d are there", st.Size(), tx.Size())
		}
		if !thorough {
			return nil
		}
		for e := range tx.Check() {
			err = errors.Join(err, e)
		}
		return err
	})
}
