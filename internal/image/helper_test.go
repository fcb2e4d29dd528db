package image_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/sirupsen/logrus"

	"github.com/cleatlabs/cleat/internal/image"
	"github.com/cleatlabs/cleat/internal/registryclient"
	"github.com/cleatlabs/cleat/internal/store"
	"github.com/cleatlabs/cleat/registryserver"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/snapshots"
)

func TestMain(m *testing.M) {
	logrus.SetOutput(io.Discard) // the libraries' own chatter
	if os.Getenv("CLEAT_TEST_PULL") != "" {
		pullUntilKilled()
	}
	os.Exit(m.Run())
}

// testRegistry is a registry on loopback that tests can interfere with.
type testRegistry struct {
	addr string
	mu   sync.Mutex
	// before, if set, may answer a request itself, and then returns true.
	before func(w http.ResponseWriter, r *http.Request) bool
	gets   map[string]int // GET requests by path
}

func newRegistry(t testing.TB) *testRegistry {
	t.Helper()
	srv, err := registryserver.New(context.Background(), registryserver.Config{Data: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	r := &testRegistry{gets: map[string]int{}}
	h := srv.Handler()
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		if req.Method == http.MethodGet {
			r.gets[req.URL.Path]++
		}
		before := r.before
		r.mu.Unlock()
		if before != nil && before(w, req) {
			return
		}
		h.ServeHTTP(w, req)
	}))
	t.Cleanup(ts.Close)
	r.addr = strings.TrimPrefix(ts.URL, "http://")
	return r
}

func (r *testRegistry) intercept(f func(w http.ResponseWriter, r *http.Request) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.before = f
}

func (r *testRegistry) count(match string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for p, c := range r.gets {
		if strings.Contains(p, match) {
			n += c
		}
	}
	return n
}

func (r *testRegistry) push(t testing.TB, repoTag string, img v1.Image) string {
	t.Helper()
	ref, err := name.ParseReference(r.addr+"/"+repoTag, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		t.Fatal(err)
	}
	return r.addr + "/" + repoTag
}

func (r *testRegistry) pushIndex(t testing.TB, repoTag string, idx v1.ImageIndex) string {
	t.Helper()
	ref, err := name.ParseReference(r.addr+"/"+repoTag, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(ref, idx); err != nil {
		t.Fatal(err)
	}
	return r.addr + "/" + repoTag
}

// entry is a file of a layer: a directory if the name ends in "/".
type entry struct{ name, data string }

func layerOf(t testing.TB, entries ...entry) v1.Layer {
	t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: 0o755, Size: int64(len(e.data)), Typeflag: tar.TypeReg}
		if strings.HasSuffix(e.name, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(tw, e.data)
	}
	tw.Close()
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func noise(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return string(b)
}

func imageOf(t testing.TB, arch string, layers ...v1.Layer) v1.Image {
	t.Helper()
	img := empty.Image
	for i, l := range layers {
		var err error
		img, err = mutate.Append(img, mutate.Addendum{Layer: l, History: v1.History{CreatedBy: fmt.Sprintf("step %d", i), Created: v1.Time{Time: time.Unix(1700000000, 0)}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	cfg = cfg.DeepCopy()
	cfg.Architecture, cfg.OS = arch, "linux"
	cfg.Created = v1.Time{Time: time.Unix(1700000000, 0)}
	cfg.Config.Env = []string{"PATH=/bin", "X=" + noiseHex()}
	cfg.Config.Cmd = []string{"sh"}
	cfg.Config.Labels = map[string]string{"who": "test"}
	img, err = mutate.ConfigFile(img, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func noiseHex() string { return fmt.Sprintf("%016x", rand.Uint64()) }

func digestOf(t testing.TB, d interface{ Digest() (v1.Hash, error) }) string {
	t.Helper()
	h, err := d.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return h.String()
}

// bench is a store and a service over it.
type bench struct {
	store  *store.Store
	images *image.Service
	mu     sync.Mutex
	events []string
	// mayWarn is set by tests in which the disk itself fails.
	mayWarn atomic.Bool
}

func open(t testing.TB, root string, cfg registryclient.Config) *bench {
	t.Helper()
	b := &bench{}
	var err error
	b.store, err = store.Open(context.Background(), store.Config{Root: root, Warn: func(err error) {
		if !b.mayWarn.Load() {
			t.Errorf("store: %v", err)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.store.Close() })
	client, err := registryclient.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	b.images, err = image.New(context.Background(), image.Config{
		Store: b.store, Registry: client,
		Events: func(action, id, name string) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.events = append(b.events, action+" "+id+" "+name)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func newBench(t testing.TB) *bench {
	return open(t, filepath.Join(t.TempDir(), "store"), registryclient.Config{})
}

// pull pulls and gives the messages, one a line: "id: status" or "status".
func (b *bench) pull(t testing.TB, ref string) []string {
	t.Helper()
	lines, err := b.tryPull(context.Background(), image.PullRequest{Ref: ref})
	if err != nil {
		t.Fatalf("pull %s: %v", ref, err)
	}
	return lines
}

func (b *bench) tryPull(ctx context.Context, req image.PullRequest) ([]string, error) {
	var lines []string
	err := b.images.Pull(ctx, req, func(m jsonstream.Message) {
		line := m.Status
		if m.ID != "" {
			line = m.ID + ": " + line
		}
		lines = append(lines, line)
	})
	return lines, err
}

// contents counts what lies in the store.
type contents struct{ blobs, ingests, leases, layers, names int }

func (b *bench) contents(t testing.TB) contents {
	t.Helper()
	ctx := b.store.Context(context.Background())
	var c contents
	var errs []error
	errs = append(errs, b.store.Content.Walk(ctx, func(content.Info) error { c.blobs++; return nil }))
	st, err := b.store.Content.ListStatuses(ctx)
	errs = append(errs, err)
	ls, err := b.store.Leases.List(ctx)
	errs = append(errs, err)
	errs = append(errs, b.store.Snapshots.Walk(ctx, func(context.Context, snapshots.Info) error { c.layers++; return nil }))
	names, err := b.store.Images.List(ctx)
	errs = append(errs, err)
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	c.ingests, c.leases, c.names = len(st), len(ls), len(names)
	return c
}

// files counts the files of the store on disk: blobs, ingests, layer directories.
func files(t testing.TB, root string) (blobs, ingests, layers int) {
	t.Helper()
	n := func(dir string) int {
		e, err := os.ReadDir(filepath.Join(root, dir))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		return len(e)
	}
	return n("content/blobs/sha256"), n("content/ingest"), n("snapshots/snapshots")
}

func (b *bench) mustBeEmpty(t testing.TB) {
	t.Helper()
	if err := b.store.GC(context.Background()); err != nil {
		t.Fatal(err)
	}
	if c := b.contents(t); c != (contents{}) {
		t.Errorf("left in the store: %+v", c)
	}
	if blobs, ingests, layers := files(t, b.store.Root()); blobs+ingests+layers != 0 {
		t.Errorf("left on disk: %d blobs, %d ingests, %d layers", blobs, ingests, layers)
	}
}

func (b *bench) resolve(t testing.TB, ref string) *image.Image {
	t.Helper()
	img, err := b.images.Resolve(context.Background(), ref, "")
	if err != nil {
		t.Fatalf("resolve %s: %v", ref, err)
	}
	return img
}

func (b *bench) lower(t testing.TB, img *image.Image) []string {
	t.Helper()
	dirs, err := b.images.Lower(context.Background(), img)
	if err != nil {
		t.Fatalf("lower %s: %v", img.Ref, err)
	}
	return dirs
}

func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func appendLayer(t testing.TB, img v1.Image, l v1.Layer) v1.Image {
	t.Helper()
	img, err := mutate.AppendLayers(img, l)
	if err != nil {
		t.Fatal(err)
	}
	return img
}
