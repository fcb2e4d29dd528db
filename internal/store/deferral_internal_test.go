package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"github.com/cleatlabs/cleat/internal/kernel"
	"github.com/cleatlabs/cleat/internal/record"
)

// book is a database that counts.
type book struct {
	t    *testing.T
	path string
	db   *bolt.DB
}

func openBook(t *testing.T, path string) *book {
	t.Helper()
	db, err := bolt.Open(path, 0o600, &bolt.Options{NoFreelistSync: true, InitialMmapSize: DatabaseSpace})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return &book{t, path, db}
}

func (b *book) check(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// write makes n transactions, each with a page of data under a number of its own.
func (b *book) write(from, n int) {
	b.t.Helper()
	for i := from; i < from+n; i++ {
		b.check(b.db.Update(func(tx *bolt.Tx) error {
			k, err := tx.CreateBucketIfNotExists([]byte("k"))
			if err != nil {
				return err
			}
			if i > 3 {
				if err := k.Delete(fmt.Appendf(nil, "%06d", i-3)); err != nil {
					return err
				}
			}
			return k.Put(fmt.Appendf(nil, "%06d", i), make([]byte, 3000))
		}))
	}
}

// last is the highest number that is there.
func (b *book) last() string {
	b.t.Helper()
	var last string
	b.check(b.db.View(func(tx *bolt.Tx) error {
		k, _ := tx.Bucket([]byte("k")).Cursor().Last()
		last = string(k)
		for err := range tx.Check() {
			return err
		}
		return nil
	}))
	return last
}

func (b *book) copies() []string {
	found, _ := filepath.Glob(b.path + ".before*")
	return found
}

// crash makes of a database and its copy what a crash of the machine may leave: of the pages that were not synced some
// are as before.
func crash(t *testing.T, b *book, synced []byte) (path string) {
	t.Helper()
	now, err := os.ReadFile(b.path)
	b.check(err)
	const page = 4096
	for at := 0; at+page <= len(now); at += page {
		if rand.IntN(2) == 0 {
			if at+page <= len(synced) {
				copy(now[at:at+page], synced[at:at+page])
			} else {
				clear(now[at : at+page])
			}
		}
	}
	path = filepath.Join(t.TempDir(), filepath.Base(b.path))
	b.check(os.WriteFile(path, now, 0o600))
	for _, c := range b.copies() {
		text, err := os.ReadFile(c)
		b.check(err)
		b.check(os.WriteFile(filepath.Join(filepath.Dir(path), filepath.Base(c)), text, 0o600))
	}
	return path
}

func begin(b *book, d *Deferral) {
	b.t.Helper()
	on, err := d.Begin()
	b.check(err)
	if !on {
		b.t.Fatal("it is not on")
	}
}

func TestDeferralOverACrashOfTheMachine(t *testing.T) {
	b := openBook(t, filepath.Join(t.TempDir(), "x.db"))
	b.write(1, 40)
	d := NewDeferral(b.path, b.db)
	b.check(d.Settle()) // it is off
	begin(b, d)
	begin(b, d)
	at := 40
	for range 4 {
		want := fmt.Sprintf("%06d", at)
		synced, err := os.ReadFile(b.path)
		b.check(err)
		b.write(at+1, 60)
		for range 5 {
			path := crash(t, b, synced)
			b.check(recoverDatabase(path, "another boot", record.SyncTree))
			after := openBook(t, path)
			if last := after.last(); last != want {
				t.Fatalf("after a crash the last is %s, not %s", last, want)
			}
			if left := after.copies(); len(left) > 0 {
				t.Fatalf("left: %v", left)
			}
			after.write(at+1, 5)
			after.db.Close()
		}
		at += 60
		b.check(d.Settle())
	}
	b.write(at+1, 5)
	b.check(d.End())
	b.check(d.End())
	if left := b.copies(); len(left) > 0 || b.db.NoSync {
		t.Errorf("it is still on: %v", left)
	}
	synced, err := os.ReadFile(b.path)
	b.check(err)
	path := crash(t, b, synced) // nothing is unsynced
	b.check(recoverDatabase(path, "another boot", record.SyncTree))
	if last := openBook(t, path).last(); last != fmt.Sprintf("%06d", at+5) {
		t.Errorf("what was synced is lost: %s", last)
	}
}

// TestDeferralOverACrashInSettle has the copy itself cut short, which is being written when the machine crashes.
func TestDeferralOverACrashInSettle(t *testing.T) {
	b := openBook(t, filepath.Join(t.TempDir(), "x.db"))
	b.write(1, 40)
	d := NewDeferral(b.path, b.db)
	begin(b, d)
	for turn := range 3 {
		before, err := os.ReadFile(b.copies()[0])
		b.check(err)
		from := fmt.Sprintf("%06d", 40+10*turn)
		b.write(41+10*turn, 10)
		b.check(d.Settle())
		after, err := os.ReadFile(b.copies()[0])
		b.check(err)
		for written := 0; written <= len(after); written += 2500 {
			for _, backwards := range []bool{false, true} {
				torn := append([]byte(nil), after...)
				if backwards {
					for i := range min(len(torn), len(before)) {
						if i < written {
							torn[i] = before[i]
						}
					}
				} else {
					copy(torn[min(written, len(torn)):], before[min(written, len(before)):])
					torn = torn[:max(len(before), written)]
				}
				path := filepath.Join(t.TempDir(), "x.db")
				now, err := os.ReadFile(b.path)
				b.check(err)
				b.check(os.WriteFile(path, now, 0o600))
				b.check(os.WriteFile(filepath.Join(filepath.Dir(path), filepath.Base(b.copies()[0])), torn, 0o600))
				b.check(recoverDatabase(path, "another boot", record.SyncTree))
				book := openBook(t, path)
				last := book.last()
				book.db.Close()
				if settled := fmt.Sprintf("%06d", 50+10*turn); last != settled && last != from {
					t.Fatalf("turn %d, torn at %d: the last is %s, neither %s nor %s", turn, written, last, from, settled)
				}
			}
		}
	}
	b.check(d.End())
}

// TestDeferralWithADamagedCopy wants an error rather than a guess.
func TestDeferralWithADamagedCopy(t *testing.T) {
	b := openBook(t, filepath.Join(t.TempDir(), "x.db"))
	b.write(1, 4)
	for _, text := range []string{"", "x", copyMagic, copyMagic + strings.Repeat("\xff", 100), strings.Repeat("\x00", 20000)} {
		b.check(os.WriteFile(b.path+copyInfix+"a-boot", []byte(text), 0o600))
		if err := recoverDatabase(b.path, "another boot", record.SyncTree); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestDeferralOverAKilledEngine(t *testing.T) {
	b := openBook(t, filepath.Join(t.TempDir(), "x.db"))
	b.write(1, 10)
	d := NewDeferral(b.path, b.db)
	begin(b, d)
	b.write(11, 10)
	b.check(os.WriteFile(b.path+copyPart, []byte("cut short"), 0o600))
	b.check(d.pin.Rollback()) // Close waits for readers, a killed engine does not
	b.db.Close()
	boot, err := kernel.BootID()
	b.check(err)
	// What the transactions know of lies beside the database: all of it is synced before nothing leads back any more.
	// If that fails, nobody can tell what is there of them.
	broken := twin(b)
	b.check(recoverDatabase(broken.path, boot, func(string) error { return syscall.EIO }))
	if last := broken.open().last(); last != "000010" {
		t.Errorf("what could not be synced is believed: the last is %s", last)
	}
	if left := broken.copies(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	synced := ""
	b.check(recoverDatabase(b.path, boot, func(dir string) error { synced = dir; return record.SyncTree(dir) }))
	if synced != filepath.Dir(b.path) {
		t.Errorf("synced: %q", synced)
	}
	after := openBook(t, b.path)
	if last := after.last(); last != "000020" {
		t.Errorf("the last is %s", last)
	}
	if left := after.copies(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	b.check(RecoverDatabase(filepath.Join(t.TempDir(), "nowhere", "x.db")))
}

// TestDeferralWhoseCopyHasGone ends: the removal was done by a try that failed later.
func TestDeferralWhoseCopyHasGone(t *testing.T) {
	b := openBook(t, filepath.Join(t.TempDir(), "x.db"))
	d := NewDeferral(b.path, b.db)
	begin(b, d)
	b.write(1, 3)
	b.check(os.Remove(b.copies()[0]))
	b.check(d.End())
	if b.db.NoSync {
		t.Error("transactions still do not wait")
	}
}

func TestDeferralAmongWriters(t *testing.T) {
	b := openBook(t, filepath.Join(t.TempDir(), "x.db"))
	b.write(1, 4)
	d := NewDeferral(b.path, b.db)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 50 {
				if err := b.db.Update(func(tx *bolt.Tx) error {
					return tx.Bucket([]byte("k")).Put(fmt.Appendf(nil, "%d-%d", w, i), make([]byte, 500))
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 20 {
		begin(b, d)
		if err := d.End(); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
	b.last()
}

// TestStoreDefers holds that names are durable whatever is deferred, inside of a transaction too, and that nothing
// stays on.
func TestStoreDefers(t *testing.T) {
	root := t.TempDir()
	s, err := Open(context.Background(), Config{Root: root, Warn: func(err error) { t.Errorf("warned: %v", err) }})
	if err != nil {
		t.Fatal(err)
	}
	ctx := s.Context(t.Context())
	other := openBook(t, filepath.Join(t.TempDir(), "refs.db"))
	other.write(1, 1)
	done := s.DeferToo(NewDeferral(other.path, other.db))
	boot, err := kernel.BootID()
	if err != nil {
		t.Fatal(err)
	}
	on := func() bool {
		_, err := os.Stat(filepath.Join(root, "meta.db"+copyInfix+boot))
		_, oerr := os.Stat(other.path + copyInfix + boot)
		if (err == nil) != (oerr == nil) {
			t.Errorf("one is on, the other off: %v, %v", err, oerr)
		}
		return err == nil
	}
	// kept reports whether an image has the name after a crash.
	kept := func(n string) (found bool) {
		dir := t.TempDir()
		for _, name := range []string{"meta.db", "meta.db" + copyInfix + boot} {
			if text, err := os.ReadFile(filepath.Join(root, name)); err == nil {
				other.check(os.WriteFile(filepath.Join(dir, name), text, 0o600))
			}
		}
		other.check(recoverDatabase(filepath.Join(dir, "meta.db"), "another boot", record.SyncTree))
		db := openBook(t, filepath.Join(dir, "meta.db")).db
		other.check(db.View(func(tx *bolt.Tx) error {
			b := tx.Bucket([]byte("v1")).Bucket([]byte(Namespace))
			found = b != nil && b.Bucket([]byte("images")) != nil && b.Bucket([]byte("images")).Bucket([]byte(n)) != nil
			return nil
		}))
		return found
	}
	name := func(n string) images.Image {
		return images.Image{Name: n, Target: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(n), Size: 1}}
	}
	for what, change := range map[string]func() error{
		"a": func() error { _, err := s.Images.Create(ctx, name("a")); return err },
		"b": func() error {
			return s.Update(ctx, func(ctx context.Context) error { _, err := s.Images.Create(ctx, name("b")); return err })
		},
	} {
		s.Defer()
		if !on() {
			t.Fatal("it is not on")
		}
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if !kept(what) {
			t.Errorf("image %s would be lost", what)
		}
	}
	s.Defer()
	if _, err := s.GarbageCollect(ctx); err != nil || on() {
		t.Errorf("garbage is collected: it is still on, %v", err)
	}
	s.Defer()
	if err := done(); err != nil || on() {
		t.Errorf("the other database goes: %v", err)
	}
	// A crash must not take the store further back than who relies on it.
	large := openBook(t, filepath.Join(t.TempDir(), "large.db"))
	large.write(1, 1)
	large.db.NoSync = true
	large.check(large.db.Update(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte("k")).Put([]byte("large"), make([]byte, mostDeferred))
	}))
	done = s.DeferToo(NewDeferral(large.path, large.db))
	s.Defer()
	if left, _ := filepath.Glob(root + "/meta.db.*"); len(left) > 0 {
		t.Errorf("the store's is on beside one that is too large: %v", left)
	}
	large.check(done())
	s.Defer()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(root + "/meta.db.*"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
