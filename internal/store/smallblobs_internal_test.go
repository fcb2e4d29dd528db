package store

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

func openStore(t *testing.T) (*Store, context.Context) {
	t.Helper()
	s, err := Open(context.Background(), Config{Root: t.TempDir(), Warn: func(err error) { t.Errorf("warned: %v", err) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, s.Context(t.Context())
}

func beginBlob(t *testing.T, s *Store, ctx context.Context, ref string) content.Writer {
	t.Helper()
	w, err := s.Content.Writer(ctx, content.WithRef(ref))
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (s *Store) filesBelow(dir string) (names []string) {
	found, _ := filepath.Glob(filepath.Join(s.root, "content", dir, "*"))
	return found
}

// TestBlobsOfAllSizes holds that a blob is what was written, however it was written, and that nothing else is left.
func TestBlobsOfAllSizes(t *testing.T) {
	for _, deferred := range []bool{false, true} {
		s, ctx := openStore(t)
		if deferred {
			s.Defer()
		}
		for _, size := range []int{0, 1, 4096, smallBlobs - 1, smallBlobs, smallBlobs + 1, 3*smallBlobs + 7} {
			for _, piece := range []int{1000, smallBlobs, size + 1} {
				text := bytes.Repeat([]byte{byte(size), byte(piece), 7}, size/3+1)[:size]
				w := beginBlob(t, s, ctx, "a blob")
				for rest := text; len(rest) > 0; {
					n, err := w.Write(rest[:min(piece, len(rest))])
					if err != nil {
						t.Fatal(err)
					}
					rest = rest[n:]
				}
				if st, err := w.Status(); err != nil || st.Offset != int64(size) || st.Ref != "a blob" {
					t.Errorf("status: %+v, %v", st, err)
				}
				want := digest.FromBytes(text)
				err := w.Commit(ctx, int64(size), want)
				if err != nil && !errdefs.IsAlreadyExists(err) || w.Digest() != want {
					t.Fatalf("%d bytes by %d: %v", size, piece, err)
				}
				got, err := content.ReadBlob(ctx, s.Content, ocispec.Descriptor{Digest: want, Size: int64(size)})
				if err != nil || !bytes.Equal(got, text) {
					t.Fatalf("%d bytes by %d: %d bytes, %v", size, piece, len(got), err)
				}
			}
		}
		if left := s.filesBelow("ingest"); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
		for _, name := range s.filesBelow("blobs/sha256") {
			if st, err := os.Stat(name); err != nil || st.Mode().Perm()&0o222 != 0 {
				t.Errorf("%s can be written to: %v", name, err)
			}
		}
	}
}

// TestBlobsThatAreNotWhole holds what is refused, given up, or gone on with.
func TestBlobsThatAreNotWhole(t *testing.T) {
	s, ctx := openStore(t)
	w := beginBlob(t, s, ctx, "x")
	if _, err := s.Content.Writer(ctx, content.WithRef("x")); !errdefs.IsUnavailable(err) {
		t.Errorf("a second writer: %v", err)
	}
	if _, err := w.Write([]byte("half")); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(ctx, 5, ""); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "size") {
		t.Errorf("a wrong size: %v", err)
	}
	if err := s.Content.Abort(ctx, "x"); err != nil { // it could be gone on with
		t.Error(err)
	}
	w = beginBlob(t, s, ctx, "y")
	_, _ = w.Write([]byte("half"))
	if err := w.Commit(ctx, 0, digest.FromString("whole")); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "digest") {
		t.Errorf("a wrong digest: %v", err)
	}
	w = beginBlob(t, s, ctx, "z")
	_, _ = w.Write([]byte("half"))
	if all, err := s.Content.ListStatuses(ctx); err != nil || len(all) != 1 || all[0].Ref != "z" || all[0].Offset != 4 {
		t.Errorf("what is being written: %+v, %v", all, err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	w = beginBlob(t, s, ctx, "z")
	if st, err := w.Status(); err != nil || st.Offset != 4 {
		t.Errorf("it is not gone on with: %+v, %v", st, err)
	}
	_, _ = w.Write([]byte(" and half"))
	if err := w.Commit(ctx, 13, digest.FromString("half and half")); err != nil {
		t.Error(err)
	}
	w = beginBlob(t, s, ctx, "given up")
	_, _ = w.Write([]byte("half"))
	if err := s.Content.Abort(ctx, "given up"); err != nil {
		t.Error(err)
	}
	if err := w.Commit(ctx, 4, ""); err == nil {
		t.Error("it was given up and is a blob")
	}
	if left := s.filesBelow("ingest"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// fullDisk is a content store on a disk that takes a part of the first write, and then everything.
type fullDisk struct {
	content.Store
	full bool
}

func (d *fullDisk) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	w, err := d.Store.Writer(ctx, opts...)
	return &fullWriter{w, d}, err
}

type fullWriter struct {
	content.Writer
	disk *fullDisk
}

func (w *fullWriter) Write(p []byte) (int, error) {
	if !w.disk.full {
		return w.Writer.Write(p)
	}
	w.disk.full = false
	n, err := w.Writer.Write(p[:len(p)/2])
	return n, errors.Join(err, unix.ENOSPC)
}

// TestABlobThatGrowsOnAFullDisk is whole once there is room: the part that was written is not gone on with.
func TestABlobThatGrowsOnAFullDisk(t *testing.T) {
	root := t.TempDir()
	local, err := local.NewStore(root)
	if err != nil {
		t.Fatal(err)
	}
	b := newBlobBackend(&fullDisk{local, true}, root, root, nil, func() bool { return false })
	w, err := b.Writer(t.Context(), content.WithRef("x"))
	if err != nil {
		t.Fatal(err)
	}
	text := bytes.Repeat([]byte("0123456789"), smallBlobs/10)
	if _, err := w.Write(text); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("too much to be small")); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the disk was not full: %v", err)
	}
	if _, err := w.Write([]byte("too much to be small")); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(t.Context(), 0, digest.FromBytes(append(text, "too much to be small"...))); err != nil {
		t.Error(err)
	}
}

// TestABlobThatACrashHasCutShort is written anew, and one that is whole is not.
func TestABlobThatACrashHasCutShort(t *testing.T) {
	s, ctx := openStore(t)
	d := digest.FromString("the whole text")
	file := filepath.Join(s.root, "content", "blobs", "sha256", d.Encoded())
	write := func() error {
		w := beginBlob(t, s, ctx, "x")
		_, _ = w.Write([]byte("the whole text"))
		return w.Commit(ctx, 0, d)
	}
	for _, cut := range []string{"", "the", strings.Repeat("\x00", 14)} {
		_ = s.Content.Delete(ctx, d)
		_ = os.Remove(file)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(cut), 0o444); err != nil {
			t.Fatal(err)
		}
		if err := write(); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(file); err != nil || string(got) != "the whole text" {
			t.Errorf("%q stays: %q, %v", cut, got, err)
		}
	}
	if err := write(); !errdefs.IsAlreadyExists(err) {
		t.Errorf("once more: %v", err)
	}
}

// TestBlobsAreSyncedBeforeWhoKnowsThem holds that nothing waits to be synced once a name is given.
func TestBlobsAreSyncedBeforeWhoKnowsThem(t *testing.T) {
	s, ctx := openStore(t)
	b := s.blobs
	// Its end by itself after a second, which a busy machine may take, would sync what waits.
	for s.Defer(); !s.deferrals.timer.Stop(); s.Defer() {
	}
	for i := range mostUnsynced + 5 {
		w := beginBlob(t, s, ctx, "x")
		_, _ = w.Write([]byte{byte(i), byte(i >> 8), 1})
		if err := w.Commit(ctx, 3, ""); err != nil {
			t.Fatal(err)
		}
		if want := min(i+1, mostUnsynced); len(b.unsynced) != want {
			t.Fatalf("after %d blobs %d wait", i+1, len(b.unsynced))
		}
	}
	if err := s.Update(ctx, func(context.Context) error { return nil }); err != nil || len(b.unsynced) > 0 {
		t.Errorf("%d wait: %v", len(b.unsynced), err)
	}
	if _, err := s.GarbageCollect(ctx); err != nil {
		t.Fatal(err)
	}
	w := beginBlob(t, s, ctx, "x")
	_, _ = w.Write([]byte("by now all wait"))
	if err := w.Commit(ctx, 0, ""); err != nil || len(b.unsynced) > 0 {
		t.Errorf("%d wait, and nothing is deferred: %v", len(b.unsynced), err)
	}
}
