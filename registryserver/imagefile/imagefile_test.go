package imagefile_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"

	"github.com/cleatlabs/cleat/registryserver"
	"github.com/cleatlabs/cleat/registryserver/imagefile"
)

func TestMain(m *testing.M) {
	logrus.SetOutput(io.Discard)
	os.Exit(m.Run())
}

// rootDir is a root directory with one of everything.
func rootDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	p := func(name string) string { return filepath.Join(dir, name) }
	check := func(errs ...error) {
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	check(os.MkdirAll(p("bin"), 0o755), os.MkdirAll(p("tmp"), 0o755), os.Chmod(p("tmp"), 0o777|os.ModeSticky))
	check(os.WriteFile(p("bin/prog"), []byte("program"), 0o755), os.Chmod(p("bin/prog"), 0o755|os.ModeSetuid))
	check(os.Link(p("bin/prog"), p("bin/twin")), os.Symlink("prog", p("bin/link")))
	check(syscall.Mknod(p("null"), syscall.S_IFCHR|0o666, 1<<8|3), syscall.Mkfifo(p("fifo"), 0o600))
	check(os.Lchown(p("bin/link"), 7, 8), os.Chtimes(p("bin"), time.Unix(1e9, 0), time.Unix(1e9, 0)))
	return dir
}

func recipe(dir string) imagefile.Recipe {
	r := imagefile.Recipe{Dir: dir, Name: "docker.io/library/thing:1", Short: "thing:1"}
	r.Config.Cmd = []string{"/bin/prog"}
	r.Config.Env = []string{"A=B"}
	return r
}

func TestMadeImageHasTheWholeTree(t *testing.T) {
	dir := rootDir(t)
	for _, compression := range []imagefile.Compression{imagefile.Gzip, imagefile.Zstd, imagefile.None} {
		t.Run(string(compression), func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "thing.tar")
			r := recipe(dir)
			r.Compression = compression
			id, err := imagefile.Make(r, out)
			if err != nil {
				t.Fatal(err)
			}
			left, _ := os.ReadDir(filepath.Dir(out))
			if len(left) != 1 {
				t.Errorf("beside the archive lies %v", left)
			}
			a, err := imagefile.OpenArchive(out)
			if err != nil {
				t.Fatal(err)
			}
			defer a.Close()
			if got := a.Images(); len(got) != 1 || got[0].Name != "docker.io/library/thing:1" || got[0].Target.Digest != id {
				t.Errorf("images %+v", got)
			}
			entries := map[string]*tar.Header{}
			tr := tar.NewReader(layerIn(t, out))
			for {
				h, err := tr.Next()
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				entries[h.Name] = h
			}
			is := func(name string, ok func(h *tar.Header) bool) {
				if h := entries[name]; h == nil || !ok(h) {
					t.Errorf("%s is %+v", name, h)
				}
			}
			is("bin/", func(h *tar.Header) bool { return h.Typeflag == tar.TypeDir && h.ModTime.Equal(time.Unix(1e9, 0)) })
			is("bin/prog", func(h *tar.Header) bool { return h.Mode == 0o4755 && h.Size == 7 })
			is("bin/twin", func(h *tar.Header) bool { return h.Typeflag == tar.TypeLink && h.Linkname == "bin/prog" })
			is("bin/link", func(h *tar.Header) bool {
				return h.Typeflag == tar.TypeSymlink && h.Linkname == "prog" && h.Uid == 7 && h.Gid == 8 && h.Uname == ""
			})
			is("tmp/", func(h *tar.Header) bool { return h.Mode == 0o1777 })
			is("null", func(h *tar.Header) bool { return h.Typeflag == tar.TypeChar && h.Devmajor == 1 && h.Devminor == 3 })
			is("fifo", func(h *tar.Header) bool { return h.Typeflag == tar.TypeFifo })
		})
	}
}

// layerIn gives the plain layer of an archive: the largest file in it.
func layerIn(t *testing.T, archive string) io.Reader {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var last []byte
	tr := tar.NewReader(f)
	for {
		_, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if last, err = io.ReadAll(tr); err != nil {
			t.Fatal(err)
		}
	}
	plain, err := imagefile.Decompress(bytes.NewReader(last))
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

func registry(t *testing.T) string {
	t.Helper()
	s, err := registryserver.New(context.Background(), registryserver.Config{Data: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	ts := httptest.NewServer(s.Handler())
	t.Cleanup(ts.Close)
	return strings.TrimPrefix(ts.URL, "http://")
}

func remoteImage(t *testing.T, ref string) v1.Image {
	t.Helper()
	r, err := name.ParseReference(ref, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	img, err := remote.Image(r)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestPushBothFormats(t *testing.T) {
	addr := registry(t)
	ctx := context.Background()
	made := filepath.Join(t.TempDir(), "made.tar")
	id, err := imagefile.Make(recipe(rootDir(t)), made)
	if err != nil {
		t.Fatal(err)
	}
	// docker save's own format, without an OCI layout, gzipped as a whole.
	img, err := random.Image(1000, 3)
	if err != nil {
		t.Fatal(err)
	}
	tag, _ := name.NewTag("other:2")
	var buf bytes.Buffer
	if err := tarball.Write(tag, img, &buf); err != nil {
		t.Fatal(err)
	}
	saved := filepath.Join(t.TempDir(), "saved.tar.gz")
	f, _ := os.Create(saved)
	z := gzip.NewWriter(f)
	z.Write(buf.Bytes())
	z.Close()
	f.Close()

	for file, ref := range map[string]string{made: addr + "/library/made:1", saved: addr + "/saved:2"} {
		a, err := imagefile.OpenArchive(file)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time nothing is sent, and all is well
			if err := a.Push(ctx, a.Images()[0], imagefile.Destination{Ref: ref}); err != nil {
				t.Fatal(err)
			}
		}
		target := a.Images()[0].Target
		a.Close()
		got := remoteImage(t, ref)
		if d, _ := got.Digest(); d.String() != target.Digest.String() || file == made && d.String() != id.String() {
			t.Errorf("%s became %s", file, d)
		}
		layers, err := got.Layers()
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range layers {
			rc, err := l.Compressed()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, rc); err != nil {
				t.Error(err)
			}
			rc.Close()
		}
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(saved), ".image-*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestArchiveInItsOwnDirectory: the archive is no part of the image, nor is what it is made of on the way.
func TestArchiveInItsOwnDirectory(t *testing.T) {
	dir := rootDir(t)
	out := filepath.Join(dir, "bin/thing.tar")
	for range 2 { // the second time there is one already
		if _, err := imagefile.Make(recipe(dir), out); err != nil {
			t.Fatal(err)
		}
		var names []string
		for tr := tar.NewReader(layerIn(t, out)); ; {
			h, err := tr.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, h.Name)
		}
		if want := []string{"bin/", "bin/link", "bin/prog", "bin/twin", "fifo", "null", "tmp/"}; !slices.Equal(names, want) {
			t.Errorf("the layer has %q, not %q", names, want)
		}
	}
}

// TestBadDigests: an archive that calls something by no digest is refused.
func TestBadDigests(t *testing.T) {
	const manifest = `{"schemaVersion":2,"config":{"digest":"nope","size":1}}`
	index := func(d string) string {
		return fmt.Sprintf(`{"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%q,"size":%d}]}`, d, len(manifest))
	}
	good := digest.FromString(manifest)
	for d, want := range map[string]string{"nope": "invalid checksum digest format", "": `by ""`, good.String(): `lacks "nope"`} {
		file := filepath.Join(t.TempDir(), "bad.tar")
		f, err := os.Create(file)
		if err != nil {
			t.Fatal(err)
		}
		w := tar.NewWriter(f)
		for name, text := range map[string]string{"index.json": index(d), "blobs/sha256/" + good.Encoded(): manifest} {
			if err := errors.Join(w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))}), write(w, text)); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(w.Close(), f.Close()); err != nil {
			t.Fatal(err)
		}
		a, err := imagefile.OpenArchive(file)
		if err == nil {
			err = a.Push(context.Background(), a.Images()[0], imagefile.Destination{Ref: registry(t) + "/x:1"})
			a.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", d, err)
		}
	}
}

func write(w io.Writer, text string) error {
	_, err := io.WriteString(w, text)
	return err
}

func TestBadInput(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	nonsense := file("nonsense", strings.Repeat("no tar here ", 100))
	for what, c := range map[string]struct {
		r    imagefile.Recipe
		text string
	}{
		"both":            {imagefile.Recipe{Dir: dir, Tar: nonsense}, "either a directory or a tar file"},
		"neither":         {imagefile.Recipe{}, "either a directory or a tar file"},
		"no directory":    {imagefile.Recipe{Dir: "/nonexistent"}, "no such file"},
		"file as root":    {imagefile.Recipe{Dir: nonsense}, "is not a directory"},
		"no tar":          {imagefile.Recipe{Tar: nonsense}, "is not a tar file"},
		"bad compression": {imagefile.Recipe{Dir: dir, Compression: "lzma"}, "choose gzip, zstd or none"},
	} {
		out := filepath.Join(t.TempDir(), "x.tar")
		if _, err := imagefile.Make(c.r, out); err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: error %v, want one with %q", what, err, c.text)
		}
		if left, _ := os.ReadDir(filepath.Dir(out)); len(left) > 0 {
			t.Errorf("%s: left %v", what, left)
		}
	}
	for what, p := range map[string]string{"nonsense": nonsense, "empty": file("empty", ""), "missing": "/nonexistent"} {
		if _, err := imagefile.OpenArchive(p); err == nil || !strings.Contains(err.Error(), p) {
			t.Errorf("%s: error %v", what, err)
		}
	}
	good := filepath.Join(dir, "good.tar")
	if _, err := imagefile.Make(imagefile.Recipe{Dir: rootDir(t), Name: "docker.io/library/a:1", Short: "a:1", Config: dockerspec.DockerOCIImageConfig{}}, good); err != nil {
		t.Fatal(err)
	}
	a, err := imagefile.OpenArchive(good)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	for ref, text := range map[string]string{
		"Upper:1":             "must be lowercase",
		"127.0.0.1:1/a:1":     "connection refused",
		"a@sha256:" + zeros64: "push to a tag",
	} {
		if err := a.Push(context.Background(), a.Images()[0], imagefile.Destination{Ref: ref}); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: error %v, want one with %q", ref, err, text)
		}
	}
}

var zeros64 = string(slices.Repeat([]byte("0"), 64))
