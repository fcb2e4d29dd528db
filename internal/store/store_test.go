package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/internal/store"
)

func open(t *testing.T, root string) *store.Store {
	t.Helper()
	s, err := store.Open(context.Background(), store.Config{Root: root, Warn: func(err error) { t.Errorf("warned: %v", err) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// write stores a blob and gives its descriptor.
func write(t *testing.T, ctx context.Context, s *store.Store, text string) ocispec.Descriptor {
	t.Helper()
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(text), Size: int64(len(text))}
	if err := content.WriteBlob(ctx, s.Content, text, strings.NewReader(text), desc); err != nil {
		t.Fatal(err)
	}
	return desc
}

func TestCollectorTakesWhatNobodyHolds(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "store"))
	ctx := s.Context(context.Background())
	leased, done, err := s.WithTemporaryLease(ctx)
	if err != nil {
		t.Fatal(err)
	}
	named, bare := write(t, leased, s, "named"), write(t, leased, s, "bare")
	if _, err := s.Images.Create(ctx, images.Image{Name: "x", Target: named}); err != nil {
		t.Fatal(err)
	}
	has := func(d ocispec.Descriptor) bool {
		_, err := s.Content.Info(ctx, d.Digest)
		if err != nil && !errdefs.IsNotFound(err) {
			t.Fatal(err)
		}
		return err == nil
	}
	if err := s.GC(ctx); err != nil || !has(named) || !has(bare) {
		t.Fatalf("under a lease: named %v, bare %v, %v", has(named), has(bare), err)
	}
	done()
	if err := s.GC(ctx); err != nil || !has(named) || has(bare) {
		t.Fatalf("without the lease: named %v, bare %v, %v", has(named), has(bare), err)
	}
	if err := s.Images.Delete(ctx, "x"); err != nil {
		t.Fatal(err)
	}
	for i := range 64 { // an interrupted search for what is held would give up at one of them, or at none
		if _, err := s.Images.Create(ctx, images.Image{Name: fmt.Sprint("y", i), Target: bare}); err != nil {
			t.Fatal(err)
		}
	}
	gone, leave := context.WithCancel(ctx)
	leave()
	if _, err := s.GarbageCollect(gone); err != nil || has(named) {
		t.Fatalf("without the name, asked for by a client that has gone: %v, %v", has(named), err)
	}
}

// A layer that the collector takes is forgotten by the one that it lay upon.
func TestCollectedLayersAreForgotten(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "store"))
	ctx := s.Context(context.Background())
	layer := func(name, parent string) (done func()) {
		leased, done, err := s.WithTemporaryLease(ctx)
		if err == nil {
			_, err = s.Snapshots.Prepare(leased, "new "+name, parent)
		}
		if err == nil {
			err = s.Snapshots.Commit(leased, name, "new "+name)
		}
		if err != nil {
			t.Fatal(err)
		}
		return done
	}
	defer layer("base", "")()
	gone := layer("gone", "base")
	stays := layer("stays", "base")
	gone()
	if err := s.GC(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Snapshots.Stat(ctx, "gone"); !errdefs.IsNotFound(err) {
		t.Fatalf("the layer that nobody holds: %v", err)
	}
	if err := s.Snapshots.Remove(ctx, "base"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("removing a layer that another lies upon: %v", err)
	}
	stays()
	if err := s.GC(ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.Snapshots.Remove(ctx, "base"); err != nil {
		t.Errorf("removing a layer that none lies upon any more: %v", err)
	}
}

func TestLeaseEndsAlsoAfterACancel(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "store"))
	ctx, cancel := context.WithCancel(s.Context(context.Background()))
	_, done, err := s.WithTemporaryLease(ctx)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	done()
	if l, err := s.Leases.List(s.Context(context.Background())); err != nil || len(l) != 0 {
		t.Errorf("leases %v, %v", l, err)
	}
}

func TestOpenSweepsWhatAKillLeft(t *testing.T) {
	root := filepath.Join(t.TempDir(), "store")
	s := open(t, root)
	ctx := s.Context(context.Background())
	leased, _, err := s.WithTemporaryLease(ctx) // never ended
	if err != nil {
		t.Fatal(err)
	}
	write(t, leased, s, "leased only")
	w, err := content.OpenWriter(leased, s.Content, content.WithRef("half"))
	if err != nil {
		t.Fatal(err)
	}
	w.Write([]byte("half a blob"))
	w.Close()
	if _, err := s.Snapshots.Prepare(leased, "half-unpacked", ""); err != nil {
		t.Fatal(err)
	}
	kept, err := s.Leases.Create(ctx, leases.WithID("kept"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, leases.WithLease(ctx, kept.ID), s, "kept")
	s.Close()
	// And between the files and the database.
	for _, dir := range []string{"content/blobs/sha256/" + digest.FromString("orphan").Encoded() + "x", "content/ingest/orphan", "snapshots/snapshots/77"} {
		if err := os.MkdirAll(filepath.Join(root, dir, "deep"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	os.RemoveAll(filepath.Join(root, "content/blobs/sha256", digest.FromString("orphan").Encoded()+"x"))
	orphan := digest.FromString("orphan")
	if err := os.WriteFile(filepath.Join(root, "content/blobs/sha256", orphan.Encoded()), []byte("orphan"), 0o444); err != nil {
		t.Fatal(err)
	}

	s = open(t, root)
	if err := s.GC(ctx); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]int{"content/blobs/sha256": 1, "content/ingest": 0, "snapshots/snapshots": 0} {
		entries, err := os.ReadDir(filepath.Join(root, dir))
		if err != nil || len(entries) != want {
			t.Errorf("%s holds %v, %v", dir, entries, err)
		}
	}
	if l, err := s.Leases.List(ctx); err != nil || len(l) != 1 || l[0].ID != "kept" {
		t.Errorf("leases %v, %v", l, err)
	}
}

func TestGenerationFollowsNames(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "store"))
	ctx := s.Context(context.Background())
	target := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("x"), Size: 1}
	last := s.Generation()
	moved := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if g := s.Generation(); g == last {
			t.Errorf("%s is not seen", what)
		} else {
			last = g
		}
	}
	_, err := s.Images.Create(ctx, images.Image{Name: "x", Target: target})
	moved("a new name", err)
	_, err = s.Images.Update(ctx, images.Image{Name: "x", Target: target})
	moved("a name moved", err)
	moved("a transaction", s.Update(ctx, func(context.Context) error { return nil }))
	moved("a name removed", s.Images.Delete(ctx, "x"))
	if _, err := s.Images.List(ctx); err != nil || s.Generation() != last {
		t.Errorf("reading counts as a change: %v", err)
	}
}

func TestUpdateIsAllOrNothing(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "store"))
	ctx := s.Context(context.Background())
	target := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("x"), Size: 1}
	fault := errors.New("fault")
	err := s.Update(ctx, func(ctx context.Context) error {
		if _, err := s.Images.Create(ctx, images.Image{Name: "x", Target: target}); err != nil {
			return err
		}
		return fault
	})
	if !errors.Is(err, fault) {
		t.Errorf("error %v", err)
	}
	if _, err := s.Images.Get(ctx, "x"); !errdefs.IsNotFound(err) {
		t.Errorf("half of it was done: %v", err)
	}
}

// layer commits a layer with one file under the lease of ctx.
func layer(t *testing.T, ctx context.Context, s *store.Store, name, parent, file string) {
	t.Helper()
	mounts, err := s.Snapshots.Prepare(ctx, "making "+name, parent)
	if err != nil {
		t.Fatal(err)
	}
	dir := mounts[0].Source
	for _, o := range mounts[0].Options {
		if upper, ok := strings.CutPrefix(o, "upperdir="); ok {
			dir = upper
		}
	}
	if err := os.WriteFile(filepath.Join(dir, file), []byte(file), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := s.Snapshots.Commit(ctx, name, "making "+name); err != nil {
		t.Fatal(err)
	}
}

func lower(t *testing.T, ctx context.Context, s *store.Store, name string) []string {
	t.Helper()
	view := "view of " + name
	mounts, err := s.Snapshots.View(ctx, view, name)
	if err != nil {
		t.Fatal(err)
	}
	dirs, err := s.LowerDirs(mounts)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Snapshots.Remove(ctx, view); err != nil {
		t.Fatal(err)
	}
	return dirs
}

func TestLayerOfTwoNames(t *testing.T) {
	root := filepath.Join(t.TempDir(), "store")
	s := open(t, root)
	ctx := s.Context(context.Background())
	lease := func(id string) context.Context {
		if _, err := s.Leases.Create(ctx, leases.WithID(id)); err != nil {
			t.Fatal(err)
		}
		return leases.WithLease(ctx, id)
	}
	first, second := lease("first"), lease("second")
	layer(t, first, s, "bottom", "", "a")
	layer(t, first, s, "top", "bottom", "b")
	layer(t, first, s, "other", "", "c")
	for _, n := range [][3]string{{"x", "", "bottom"}, {"y", "x", "top"}, {"y", "x", "top"}} {
		if err := s.AliasLayer(second, n[0], n[1], n[2]); err != nil {
			t.Fatalf("%v: %v", n, err)
		}
	}
	if want, got := lower(t, first, s, "top"), lower(t, second, s, "y"); len(got) != 2 || !slices.Equal(want, got) {
		t.Errorf("the layers of two names lie in %v and %v", want, got)
	}
	for _, n := range [][3]string{{"z", "other", "top"}, {"z", "", "top"}} {
		if err := s.AliasLayer(second, n[0], n[1], n[2]); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("%v: %v", n, err)
		}
	}
	if err := s.AliasLayer(second, "z", "missing", "top"); err == nil {
		t.Error("a parent that is not there was accepted")
	}
	if err := s.AliasLayer(second, "z", "", "missing"); !errdefs.IsNotFound(err) {
		t.Errorf("a layer that is not there: %v", err)
	}
	// One name goes, the layer stays; and none of it is an orphan.
	dirs := lower(t, second, s, "y")
	if err := s.Leases.Delete(ctx, leases.Lease{ID: "first"}); err != nil {
		t.Fatal(err)
	}
	if err := s.GC(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Snapshots.Stat(ctx, "top"); !errdefs.IsNotFound(err) {
		t.Errorf("the name that nobody holds: %v", err)
	}
	s.Close()
	s = open(t, root)
	if err := s.GC(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dirs[0], "b")); err != nil {
		t.Errorf("the layer has gone with one of its names: %v", err)
	}
	if err := s.Leases.Delete(ctx, leases.Lease{ID: "second"}); err != nil {
		t.Fatal(err)
	}
	if err := s.GC(ctx); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(filepath.Join(root, "snapshots", "snapshots")); err != nil || len(entries) != 0 {
		t.Errorf("the last name has gone, and %v are left, %v", entries, err)
	}
}

func TestRootIsChecked(t *testing.T) {
	for _, root := range []string{"relative", "/tmp/with:colon", "/tmp/with,comma"} {
		if _, err := store.Open(context.Background(), store.Config{Root: root}); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), root) {
			t.Errorf("%s: %v", root, err)
		}
	}
	file := filepath.Join(t.TempDir(), "meta.db")
	if err := os.WriteFile(file, bytes.Repeat([]byte("nonsense"), 10_000), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(context.Background(), store.Config{Root: filepath.Dir(file)}); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("a damaged database: %v", err)
	}
}

// A database that is made anew knows nothing: all that is beside it would be removed as garbage.
func TestLostDatabaseIsNotMadeAnew(t *testing.T) {
	for _, c := range []struct{ database, listed string }{
		{"meta.db", "content/blobs/sha256/0123"},
		{"meta.db", "content/woven/0123"},
		{"snapshots/metadata.db", "snapshots/snapshots/1"},
	} {
		root := t.TempDir()
		open := func() error {
			s, err := store.Open(context.Background(), store.Config{Root: root})
			if err == nil {
				err = s.Close()
			}
			return err
		}
		listed, database := filepath.Join(root, c.listed), filepath.Join(root, c.database)
		if err := errors.Join(open(), os.MkdirAll(listed, 0o700)); err != nil {
			t.Fatal(err)
		}
		for what, lose := range map[string]func(string) error{
			"emptied": func(name string) error { return os.WriteFile(name, nil, 0o600) },
			"removed": os.RemoveAll, // that of the snapshots is made when it is used first
		} {
			if err := lose(database); err != nil {
				t.Fatal(err)
			}
			if err := open(); err == nil || !strings.Contains(err.Error(), database) {
				t.Errorf("%s is %s: %v", c.database, what, err)
			}
			if _, err := os.Stat(listed); err != nil {
				t.Errorf("%s is %s: %v", c.database, what, err)
			}
			if err := os.WriteFile(database, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(os.Remove(listed), open()); err != nil {
			t.Errorf("without anything listed: %v", err)
		}
	}
}

func TestKeyedLock(t *testing.T) {
	var k store.KeyedLock
	ctx := context.Background()
	var mu sync.Mutex
	inside, most := map[string]int{}, 0
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			key := string(rune('a' + i%3))
			if err := k.Lock(ctx, key); err != nil {
				t.Error(err)
				return
			}
			defer k.Unlock(key)
			mu.Lock()
			inside[key]++
			most = max(most, inside[key])
			mu.Unlock()
			time.Sleep(time.Microsecond) // gives the others the chance to be wrong
			mu.Lock()
			inside[key]--
			mu.Unlock()
		})
	}
	wg.Wait()
	if most != 1 {
		t.Errorf("%d held one lock at a time", most)
	}
	if err := k.Lock(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if err := k.Lock(cancelled, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting under a cancelled context: %v", err)
	}
	k.Unlock("a")
	if err := k.Lock(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	k.Unlock("a")
}
