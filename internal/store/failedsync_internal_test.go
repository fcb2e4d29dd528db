package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"github.com/cleatlabs/cleat/internal/record"
)

// twin copies a database's file and what lies beside it.
func twin(b *book) *book {
	b.t.Helper()
	dir := b.t.TempDir()
	for _, name := range append(b.copies(), b.path) {
		text, err := os.ReadFile(name)
		b.check(err)
		b.check(os.WriteFile(filepath.Join(dir, filepath.Base(name)), text, 0o600))
	}
	return &book{t: b.t, path: filepath.Join(dir, filepath.Base(b.path))}
}

func (b *book) open() *book { return openBook(b.t, b.path) }

// once is a disk whose nth sync from now fails, and every later one answers success, as Linux does.
type once struct{ n int }

func (o *once) next() error {
	o.n--
	if o.n == 0 {
		return syscall.EIO
	}
	return nil
}

func (o *once) disk() disk {
	return disk{
		database: func(*bolt.DB) error { return o.next() },
		file:     func(*os.File) error { return o.next() },
	}
}

// TestAFailedSyncIsNotBelieved has each of the syncs fail once that settle a database or end its deferral.
func TestAFailedSyncIsNotBelieved(t *testing.T) {
	for what, settle := range map[string]func(*Deferral) error{"settle": (*Deferral).Settle, "end": (*Deferral).End} {
		for n := 1; ; n++ {
			b := openBook(t, filepath.Join(t.TempDir(), "x.db"))
			b.write(1, 40)
			d := NewDeferral(b.path, b.db)
			begin(b, d)
			b.write(41, 10)
			t.Cleanup(func() { d.release() }) // else to close the database waits for ever
			sound, fails := d.disk, &once{n}
			d.disk = fails.disk()
			err := settle(d)
			d.disk = sound
			if fails.n > 0 { // it needs no more syncs
				b.check(err)
				if n == 1 {
					t.Errorf("%s syncs nothing", what)
				}
				b.check(d.End())
				break
			}
			for range 2 {
				if !errors.Is(err, syscall.EIO) || !errors.Is(err, record.ErrUnwritten) || !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), b.path) {
					t.Fatalf("%s, sync %d failed: %v", what, n, err)
				}
				err = settle(d)
			}
			if on, err := d.Begin(); on || !errors.Is(err, syscall.EIO) {
				t.Errorf("%s: it begins again: %v, %v", what, on, err)
			}
			b.check(d.release())
			b.db.Close()
			// What the first sync was for may be nowhere; what was synced before the one that failed is there.
			b.check(RecoverDatabase(b.path))
			after := b.open()
			if last := after.last(); last != "000040" && (n == 1 || last != "000050") {
				t.Errorf("%s, sync %d failed: the next engine goes on from %s", what, n, last)
			}
			if left := after.copies(); len(left) > 0 {
				t.Errorf("%s, sync %d failed: left %v", what, n, left)
			}
			after.write(51, 5)
		}
	}
}

// failsWith is a database whose transactions are made, and then fail.
type failsWith struct {
	*bolt.DB
	err error
}

func (f *failsWith) Update(fn func(*bolt.Tx) error) error {
	if err := f.DB.Update(fn); err != nil {
		return err
	}
	return f.err
}

// TestATransactionThatIsNotSynced is the last one. One for which there is no space is not, nor one that its maker ends.
func TestATransactionThatIsNotSynced(t *testing.T) {
	b := openBook(t, filepath.Join(t.TempDir(), "x.db"))
	b.write(1, 10)
	d := NewDeferral(b.path, b.db)
	db := &failsWith{DB: b.db}
	g := &guarded{Transactor: db, deferral: d}
	nothing := func(*bolt.Tx) error { return nil }
	full := &os.PathError{Op: "write", Path: b.path, Err: syscall.ENOSPC}
	for _, db.err = range []error{nil, full} {
		if err := g.Update(nothing); !errors.Is(err, db.err) || d.Failed() != nil {
			t.Errorf("%v: %v, %v", db.err, err, d.Failed())
		}
	}
	if err := g.Update(func(*bolt.Tx) error { return syscall.EIO }); err != syscall.EIO || d.Failed() != nil {
		t.Errorf("its maker ends it: %v, %v", err, d.Failed())
	}
	db.err = syscall.EIO
	if err := g.Update(nothing); !errors.Is(err, record.ErrUnwritten) {
		t.Errorf("it was not synced: %v", err)
	}
	db.err = nil
	ran := false
	err := g.Update(func(*bolt.Tx) error { ran = true; return nil })
	if !errors.Is(err, record.ErrUnwritten) || ran {
		t.Errorf("the next one: %v, made: %v", err, ran)
	}
	if err := g.View(nothing); err != nil {
		t.Errorf("it cannot be read: %v", err)
	}
	b.db.Close()
	if len(b.copies()) != 1 {
		t.Errorf("the next engine is told by %v", b.copies())
	}
	b.check(RecoverDatabase(b.path))
	if after := b.open(); after.last() != "000010" || len(after.copies()) > 0 {
		t.Errorf("it goes on from %s, %v", after.last(), after.copies())
	}
}

// TestStoreOnADiskThatFailsOnce: no name is given that could be lost, whoever asks; what was named before is there.
func TestStoreOnADiskThatFailsOnce(t *testing.T) {
	root := t.TempDir()
	warned := 0
	s, err := Open(context.Background(), Config{Root: root, Warn: func(error) { warned++ }})
	if err != nil {
		t.Fatal(err)
	}
	other := openBook(t, filepath.Join(t.TempDir(), "refs.db"))
	other.write(1, 1)
	also := NewDeferral(other.path, other.db)
	done := s.DeferToo(also)
	ctx := s.Context(t.Context())
	name := func(n string) error {
		_, err := s.Images.Create(ctx, images.Image{Name: n, Target: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(n), Size: 1}})
		return err
	}
	other.check(name("before"))
	s.Defer()
	other.check(name("on"))
	other.write(2, 1)
	blob := []byte("a small blob")
	other.check(content.WriteBlob(ctx, s.Content, "ref", strings.NewReader(string(blob)), ocispec.Descriptor{Size: int64(len(blob)), Digest: digest.FromBytes(blob)}))
	s.deferrals.own.disk = (&once{1}).disk()
	for _, n := range []string{"lost", "lost too"} {
		if err := name(n); !errors.Is(err, record.ErrUnwritten) {
			t.Errorf("%s: %v", n, err)
		}
	}
	if _, err := s.GarbageCollect(ctx); !errors.Is(err, record.ErrUnwritten) {
		t.Errorf("garbage is collected: %v", err)
	}
	if !errors.Is(s.Failed(), record.ErrUnwritten) || !errors.Is(also.Failed(), record.ErrUnwritten) {
		t.Errorf("%v, %v", s.Failed(), also.Failed())
	}
	s.Defer()
	if err := done(); !errors.Is(err, record.ErrUnwritten) {
		t.Errorf("the other database ends: %v", err)
	}
	other.db.Close()
	if err := s.Close(); !errors.Is(err, record.ErrUnwritten) {
		t.Errorf("it closes: %v", err)
	}
	other.check(RecoverDatabase(other.path))
	if last := other.open().last(); last != "000001" {
		t.Errorf("who builds on the store knows of %s", last)
	}
	again, err := Open(context.Background(), Config{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	list, err := again.Images.List(ctx)
	other.check(err)
	var names []string
	for _, i := range list {
		names = append(names, i.Name)
	}
	if fmt.Sprint(names) != "[before on]" || again.Failed() != nil {
		t.Errorf("there are %v, %v", names, again.Failed())
	}
}

// TestABlobWhoseSyncFailed is written anew by the next who brings it.
func TestABlobWhoseSyncFailed(t *testing.T) {
	root := filepath.Join(t.TempDir(), "content")
	large, err := local.NewStore(root)
	if err != nil {
		t.Fatal(err)
	}
	fails := &once{1}
	b := newBlobBackend(syncing{large, fails}, root, root, func(digest.Digest) (bool, error) { return false, nil }, func() bool { return false })
	ctx := t.Context()
	text := strings.Repeat("x", smallBlobs+1)
	d := digest.FromString(text)
	write := func() (content.Writer, error) {
		w, err := b.Writer(ctx, content.WithRef("ref"), content.WithDescriptor(ocispec.Descriptor{Size: int64(len(text))}))
		if err != nil {
			t.Fatal(err)
		}
		st, err := w.Status()
		if err != nil || st.Offset != 0 {
			t.Errorf("it goes on from %d, %v", st.Offset, err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if err := w.(content.Syncer).Sync(); err != nil {
			return w, err
		}
		return w, w.Commit(ctx, int64(len(text)), d)
	}
	w, err := write()
	if !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if _, err := write(); err != nil {
		t.Error(err)
	}
	// A small one that lies there without the database knowing it is not taken for what is on the disk.
	small := []byte("small")
	for range 2 {
		if err := b.put(digest.FromBytes(small), small); err != nil {
			t.Errorf("it is taken for known: %v", err)
		}
	}
}

// syncing is a store of blobs of which some syncs fail.
type syncing struct {
	content.Store
	fails *once
}

func (s syncing) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	w, err := s.Store.Writer(ctx, opts...)
	if err != nil {
		return nil, err
	}
	return &syncingWriter{w, s.fails}, nil
}

type syncingWriter struct {
	content.Writer
	fails *once
}

func (w *syncingWriter) Sync() error { return w.fails.next() }
