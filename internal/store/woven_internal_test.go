package store

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// newLayer makes a committed layer of files.
func newLayer(t *testing.T, s *Store, ctx context.Context, name string, files map[string]string) {
	t.Helper()
	key := "making " + name
	root := snapshots.WithLabels(map[string]string{"containerd.io/gc.root": "for the test"})
	if _, err := s.Snapshots.Prepare(ctx, key, "", root); err != nil {
		t.Fatal(err)
	}
	dir, err := s.layerDir(ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		path := filepath.Join(s.root, dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Snapshots.Commit(ctx, name, key, root); err != nil {
		t.Fatal(err)
	}
}

// archiveOf is a layer's archive.
func archiveOf(t *testing.T, names []string, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range names {
		err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(files[name])), Typeflag: tar.TypeReg, Format: tar.FormatPAX})
		if err == nil {
			_, err = io.WriteString(w, files[name])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func noise(n int) string {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(uint64(n), 1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return string(b)
}

// writeLayer writes the archive of a layer in pieces.
func writeLayer(t *testing.T, s *Store, ctx context.Context, layer string, archive []byte, piece int) error {
	t.Helper()
	w, err := s.LayerWriter(ctx, layer, content.WithRef("archive of "+layer))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("what an attempt before has left")); err != nil {
		t.Fatal(err)
	}
	if err := w.Truncate(0); err != nil {
		t.Fatal(err)
	}
	for rest := archive; len(rest) > 0; {
		n, err := w.Write(rest[:min(piece, len(rest))])
		if err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	if st, err := w.Status(); err != nil || st.Offset != int64(len(archive)) {
		t.Errorf("status: %+v, %v", st, err)
	}
	return w.Commit(ctx, int64(len(archive)), digest.FromBytes(archive))
}

func readBlob(t *testing.T, s *Store, ctx context.Context, archive []byte) ([]byte, error) {
	t.Helper()
	return content.ReadBlob(ctx, s.Content, ocispec.Descriptor{Digest: digest.FromBytes(archive), Size: int64(len(archive))})
}

var (
	wovenNames = []string{"a", "large", "dir/larger", strings.Repeat("long/", 60) + "name", "last"}
	wovenFiles = map[string]string{
		"a": "small", "large": noise(wovenFile), "dir/larger": noise(3*wovenFile + 77), wovenNames[3]: noise(wovenFile + 1), "last": noise(wovenFile - 1),
	}
)

// TestWovenBlobs holds that a blob reads as it was written, at every offset, that the large files are on the disk once,
// and that it says what it takes.
func TestWovenBlobs(t *testing.T) {
	archive := archiveOf(t, wovenNames, wovenFiles)
	for _, deferred := range []bool{false, true} {
		for _, piece := range []int{100, 4096, len(archive)} {
			s, ctx := openStore(t)
			if deferred {
				s.Defer()
			}
			newLayer(t, s, ctx, "layer", wovenFiles)
			if err := writeLayer(t, s, ctx, "layer", archive, piece); err != nil {
				t.Fatal(err)
			}
			got, err := readBlob(t, s, ctx, archive)
			if err != nil || !bytes.Equal(got, archive) {
				t.Fatalf("by %d: %d bytes of %d, %v", piece, len(got), len(archive), err)
			}
			d := digest.FromBytes(archive)
			if n := s.BlobSpace(d, int64(len(archive))); n < wovenFile || n > wovenFile+16<<10 {
				t.Errorf("it takes %d bytes", n)
			}
			if left := append(s.filesBelow("ingest"), s.filesBelow("blobs/sha256")...); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
			if err := s.Update(ctx, func(context.Context) error { return nil }); err != nil || len(s.blobs.unsynced) > 0 {
				t.Errorf("%d wait: %v", len(s.blobs.unsynced), err)
			}
			if err := writeLayer(t, s, ctx, "layer", archive, piece); !errdefs.IsAlreadyExists(err) {
				t.Errorf("once more: %v", err)
			}
		}
	}
}

func TestWovenBlobsAreReadFromEverywhere(t *testing.T) {
	s, ctx := openStore(t)
	archive := archiveOf(t, wovenNames, wovenFiles)
	newLayer(t, s, ctx, "layer", wovenFiles)
	if err := writeLayer(t, s, ctx, "layer", archive, 32<<10); err != nil {
		t.Fatal(err)
	}
	ra, err := s.Content.ReaderAt(ctx, ocispec.Descriptor{Digest: digest.FromBytes(archive)})
	if err != nil {
		t.Fatal(err)
	}
	defer ra.Close()
	if ra.Size() != int64(len(archive)) {
		t.Errorf("size %d", ra.Size())
	}
	done := make(chan error)
	for g := range 4 {
		go func() {
			r := rand.New(rand.NewPCG(uint64(g), 2))
			for range 500 {
				at, n := r.IntN(len(archive)+10), r.IntN(100_000)
				p := make([]byte, n)
				m, err := ra.ReadAt(p, int64(at))
				want := archive[min(at, len(archive)):min(at+n, len(archive))]
				if !bytes.Equal(p[:m], want) || (m < n) != errors.Is(err, io.EOF) || m == n && err != nil {
					done <- fmt.Errorf("%d bytes at %d: %d, %v", n, at, m, err)
					return
				}
			}
			done <- nil
		}()
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// TestAWovenBlobHoldsItsLayer holds it against the garbage collection, and that both go together.
func TestAWovenBlobHoldsItsLayer(t *testing.T) {
	s, ctx := openStore(t)
	archive := archiveOf(t, wovenNames, wovenFiles)
	d := digest.FromBytes(archive)
	leased, done, err := s.WithTemporaryLease(ctx)
	if err != nil {
		t.Fatal(err)
	}
	newLayer(t, s, leased, "layer", wovenFiles)
	if err := writeLayer(t, s, leased, "layer", archive, 32<<10); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Content.Update(ctx, content.Info{Digest: d, Labels: map[string]string{"containerd.io/gc.root": "held"}}, "labels.containerd.io/gc.root"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Snapshots.Update(ctx, snapshots.Info{Name: "layer"}, "labels.containerd.io/gc.root"); err != nil {
		t.Fatal(err)
	}
	done()
	if err := s.GC(ctx); err != nil {
		t.Fatal(err)
	}
	if got, err := readBlob(t, s, ctx, archive); err != nil || !bytes.Equal(got, archive) {
		t.Fatalf("after a collection: %v", err)
	}
	if _, err := s.Content.Update(ctx, content.Info{Digest: d}, "labels.containerd.io/gc.root"); err != nil {
		t.Fatal(err)
	}
	if err := s.GC(ctx); err != nil {
		t.Fatal(err)
	}
	if left := s.filesBelow(wovenDir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if left, _ := filepath.Glob(filepath.Join(s.root, "snapshots", "snapshots", "*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestAWovenBlobOfTwoLayers holds that each of two builds that have made the same archive can do without the other's
// layer.
func TestAWovenBlobOfTwoLayers(t *testing.T) {
	for _, gone := range []string{"one", "two"} {
		s, ctx := openStore(t)
		archive := archiveOf(t, wovenNames, wovenFiles)
		for _, layer := range []string{"one", "two"} {
			newLayer(t, s, ctx, layer, wovenFiles)
			if err := writeLayer(t, s, ctx, layer, archive, 32<<10); err != nil && !errdefs.IsAlreadyExists(err) {
				t.Fatal(err)
			}
		}
		// As BuildKit's records do, which follow no labels.
		lease, err := s.Leases.Create(ctx, leases.WithID("holder"), leases.WithLabel("containerd.io/gc.flat", "yes"))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Leases.AddResource(ctx, lease, leases.Resource{ID: digest.FromBytes(archive).String(), Type: "content"}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Snapshots.Update(ctx, snapshots.Info{Name: gone}, "labels.containerd.io/gc.root"); err != nil {
			t.Fatal(err)
		}
		if err := s.GC(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Snapshots.Stat(ctx, gone); !errdefs.IsNotFound(err) {
			t.Fatalf("the layer %s: %v", gone, err)
		}
		if got, err := readBlob(t, s, ctx, archive); err != nil || !bytes.Equal(got, archive) {
			t.Errorf("without %s: %v", gone, err)
		}
	}
}

// TestAWovenBlobThatACrashHasLeft is made anew: the database does not know it, and its layer may be gone.
func TestAWovenBlobThatACrashHasLeft(t *testing.T) {
	s, ctx := openStore(t)
	archive := archiveOf(t, wovenNames, wovenFiles)
	newLayer(t, s, ctx, "layer", wovenFiles)
	file := s.blobs.wovenPath(digest.FromBytes(archive))
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"", "torn"} {
		if err := os.WriteFile(file, []byte(text), 0o444); err != nil {
			t.Fatal(err)
		}
		if err := writeLayer(t, s, ctx, "layer", archive, 32<<10); err != nil {
			t.Fatal(err)
		}
		if got, err := readBlob(t, s, ctx, archive); err != nil || !bytes.Equal(got, archive) {
			t.Errorf("%q: %v", text, err)
		}
		if err := s.Content.Delete(ctx, digest.FromBytes(archive)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAWovenBlobWithoutItsFiles says so, whatever has become of them, and never gives other bytes.
func TestAWovenBlobWithoutItsFiles(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, []byte(wovenFiles["large"]), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(path string) error{
		"gone":      os.Remove,
		"shortened": func(p string) error { return os.Truncate(p, 5) },
		"a link":    func(p string) error { return errors.Join(os.Remove(p), os.Symlink(outside, p)) },
		"a dir":     func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o755)) },
		"the layer": func(p string) error { return os.RemoveAll(filepath.Dir(p)) },
	} {
		s, ctx := openStore(t)
		archive := archiveOf(t, wovenNames, wovenFiles)
		newLayer(t, s, ctx, "layer", wovenFiles)
		if err := writeLayer(t, s, ctx, "layer", archive, 32<<10); err != nil {
			t.Fatal(err)
		}
		dir, err := s.layerDir(ctx, "layer")
		if err != nil {
			t.Fatal(err)
		}
		if err := spoil(filepath.Join(s.root, dir, "large")); err != nil {
			t.Fatal(err)
		}
		if _, err := readBlob(t, s, ctx, archive); err == nil || !strings.Contains(err.Error(), "layer") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestDamagedPatterns holds that a list that cannot be is refused.
func TestDamagedPatterns(t *testing.T) {
	dir := t.TempDir()
	for list, why := range map[string]string{
		`{"Size":10,"Layers":["../x"],"Files":[{"At":0,"Size":10,"Name":"a"}]}`:                                  "fit",
		`{"Size":10,"Layers":["x"],"Files":[{"At":5,"Size":6,"Name":"a"}]}`:                                      "place",
		`{"Size":10,"Layers":["x"],"Files":[{"At":0,"Size":6,"Name":"a"},{"At":5,"Size":1,"Name":"b"}]}`:         "place",
		`{"Size":10,"Layers":["x"],"Files":[{"At":-9223372036854775808,"Size":9223372036854775807,"Name":"a"}]}`: "place",
		`{"Size":11,"Layers":["x"],"Files":[{"At":0,"Size":10,"Name":"a"}]}`:                                     "fit",
		`{`: "damaged",
	} {
		text := append([]byte(list), 0, 0, 0, 0, 0, 0, 0, byte(len(list)))
		file := filepath.Join(dir, "x")
		if err := os.WriteFile(file, append(text, wovenMagic...), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := readPattern(f); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v", list, err)
		}
		_ = f.Close()
	}
}

// FuzzTarCutter holds the cutter against the library that writes and reads archives: what is left out is the content of
// a regular file that the library knows by the same name and size, at the same place.
func FuzzTarCutter(f *testing.F) {
	f.Add(archiveOf2(tar.FormatPAX), 7)
	f.Add(archiveOf2(tar.FormatGNU), 512)
	f.Add([]byte("no archive"), 3)
	f.Fuzz(func(t *testing.T, archive []byte, piece int) {
		if piece <= 0 {
			return
		}
		type cut struct {
			name string
			size int64
		}
		cuts := map[int64]cut{}
		c := newTarCutter(func(name string, size, at int64) bool {
			cuts[at] = cut{name, size}
			return true
		})
		var left, all int64
		for rest := archive; len(rest) > 0; {
			p := rest[:min(piece, len(rest))]
			for len(p) > 0 {
				n, out := c.next(p)
				if n <= 0 || n > len(p) {
					t.Fatalf("%d of %d bytes", n, len(p))
				}
				if out {
					left += int64(n)
				}
				all, p, rest = all+int64(n), p[n:], rest[n:]
			}
		}
		if all != int64(len(archive)) {
			t.Fatalf("%d of %d bytes", all, len(archive))
		}
		in := bytes.NewReader(archive)
		r := tar.NewReader(in)
		for {
			h, err := r.Next()
			if err != nil {
				return // what comes after is not read by anybody
			}
			at := int64(len(archive) - in.Len())
			if got, ok := cuts[at]; ok && (h.Typeflag == tar.TypeReg && (got.size != h.Size || got.name != h.Name) || h.Typeflag != tar.TypeReg && h.Size > 0) {
				t.Fatalf("at %d: %+v for %q of %d bytes", at, got, h.Name, h.Size)
			}
		}
	})
}

func archiveOf2(format tar.Format) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range []string{"a", strings.Repeat("n", 150), strings.Repeat("dir/", 30) + "x"} {
		_ = w.WriteHeader(&tar.Header{Name: name, Size: 700, Mode: 0o600, Typeflag: tar.TypeReg, Format: format})
		_, _ = w.Write(make([]byte, 700))
		_ = w.WriteHeader(&tar.Header{Name: name + "l", Linkname: name, Typeflag: tar.TypeLink, Format: format})
		_ = w.WriteHeader(&tar.Header{Name: "d/", Typeflag: tar.TypeDir, Format: format})
	}
	_ = w.Close()
	return b.Bytes()
}
