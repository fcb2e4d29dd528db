package build_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	bkclient "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/executor"
	resourcestypes "github.com/moby/buildkit/executor/resources/types"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/network"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
	"github.com/tonistiigi/fsutil"

	"github.com/cleatlabs/cleat/internal/build"
	"github.com/cleatlabs/cleat/internal/store"
)

func TestMain(m *testing.M) {
	logrus.SetOutput(io.Discard) // the libraries' own chatter
	os.Exit(m.Run())
}

// noSteps is an executor for builds that have nothing to run.
type noSteps struct{}

func (noSteps) Run(context.Context, string, executor.Mount, []executor.Mount, executor.ProcessInfo, chan<- struct{}) (resourcestypes.Recorder, error) {
	return nil, errors.New("no step was expected to run")
}

func (noSteps) Exec(context.Context, string, executor.ProcessInfo) error {
	return errors.New("no step was expected to run")
}

// noRegistry is a way to registries that none was expected to take.
type noRegistry struct{}

func (noRegistry) RoundTrip(r *http.Request) (*http.Response, error) {
	return nil, fmt.Errorf("no registry was expected to be asked, but %s was", r.URL)
}

// bench is a builder over a store of its own, and a client of it.
type bench struct {
	root    string
	store   *store.Store
	builder *build.Builder
	client  *bkclient.Client
	named   chan string
	wrote   chan string // directories that are to be settled
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := bareBench(t)
	b.connect(t)
	return b
}

// NameBuilt does what internal/image does, without its care.
func (b *bench) NameBuilt(ctx context.Context, names []string, target ocispec.Descriptor, _ bool) (ocispec.Descriptor, error) {
	for _, name := range names {
		_, err := b.store.Images.Create(b.store.Context(ctx), images.Image{Name: name, Target: target})
		if err != nil && !errdefs.IsAlreadyExists(err) {
			return target, err
		}
	}
	return target, nil
}

func (b *bench) ByID(context.Context, string) (ocispec.Descriptor, error) {
	return ocispec.Descriptor{}, errdefs.ErrNotFound
}

func (b *bench) Unpack(context.Context, ocispec.Descriptor) error {
	return errors.New("the layers that the build has left were not found")
}

func (b *bench) Built(_ ocispec.Descriptor, names []string) {
	for _, n := range names {
		b.named <- n
	}
}

// bareBench is a bench without a client.
func bareBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{root: t.TempDir()}
	var err error
	b.store, err = store.Open(context.Background(), store.Config{
		Root: filepath.Join(b.root, "images"),
		Warn: func(err error) { t.Errorf("warned: %v", err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	b.named, b.wrote = make(chan string, 100), make(chan string, 100)
	b.builder, err = build.New(build.Config{
		Root:  filepath.Join(b.root, "build"),
		Store: b.store,
		Registries: func(domain string) ([]docker.RegistryHost, error) {
			return []docker.RegistryHost{{
				Client: &http.Client{Transport: noRegistry{}}, Host: domain, Scheme: "https", Path: "/v2",
				Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve,
			}}, nil
		},
		Steps: func(context.Context) (build.Steps, error) {
			return build.Steps{Executor: noSteps{}, Networks: map[pb.NetMode]network.Provider{}, Wrote: func(dir string) error {
				b.wrote <- dir
				return nil
			}}, nil
		},
		Images: b,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.stop(t) })
	return b
}

// connect makes the client, which opens the builder.
func (b *bench) connect(t *testing.T) {
	t.Helper()
	var err error
	b.client, err = bkclient.New(context.Background(), "",
		bkclient.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			mine, theirs := net.Pipe()
			go b.builder.ServeConn(context.Background(), theirs)
			return mine, nil
		}),
		bkclient.WithSessionDialer(func(_ context.Context, _ string, meta map[string][]string) (net.Conn, error) {
			mine, theirs := net.Pipe()
			go b.builder.ServeSession(context.Background(), theirs, meta)
			return mine, nil
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.client.Close() })
}

func (b *bench) stop(t *testing.T) {
	if err := b.builder.Close(); err != nil {
		t.Error(err)
	}
	if err := b.store.Close(); err != nil {
		t.Error(err)
	}
}

// outcome is what became of a build.
type outcome struct {
	digest string
	cached int // steps that were not done again
	steps  int
}

// build builds the Dockerfile over files, with the exporter moby.
func (b *bench) build(t *testing.T, dockerfile string, files map[string]string, name string, attrs map[string]string) (outcome, error) {
	t.Helper()
	dir := t.TempDir()
	write := func(path, text string) {
		if err := os.WriteFile(filepath.Join(dir, path), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("Dockerfile", dockerfile)
	for path, text := range files {
		write(path, text)
	}
	local, err := fsutil.NewFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	export := map[string]string{"name": name}
	for k, v := range attrs {
		export[k] = v
	}
	var out outcome
	status := make(chan *bkclient.SolveStatus)
	read := make(chan struct{})
	go func() {
		defer close(read)
		for s := range status {
			for _, v := range s.Vertexes {
				if v.Completed != nil {
					out.steps++
					if v.Cached {
						out.cached++
					}
				}
			}
		}
	}()
	res, err := b.client.Solve(context.Background(), nil, bkclient.SolveOpt{
		Frontend:      "dockerfile.v0",
		FrontendAttrs: map[string]string{"filename": "Dockerfile", "image-resolve-mode": "local"},
		LocalMounts:   map[string]fsutil.FS{"context": local, "dockerfile": local},
		Exports:       []bkclient.ExportEntry{{Type: build.ExporterMoby, Attrs: export}},
	}, status)
	<-read
	if err != nil {
		return out, err
	}
	out.digest = res.ExporterResponse["containerimage.digest"]
	return out, nil
}

func (b *bench) manifest(t *testing.T, name string) (images.Image, ocispec.Manifest) {
	t.Helper()
	ctx := b.store.Context(context.Background())
	image, err := b.store.Images.Get(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	blob, err := content.ReadBlob(ctx, b.store.Content, image.Target)
	if err != nil {
		t.Fatal(err)
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(blob, &m); err != nil {
		t.Fatal(err)
	}
	return image, m
}

// lower gives the directories in which the layers of an image are, as a container needs
// them.
func (b *bench) lower(t *testing.T, image images.Image) []string {
	t.Helper()
	ctx := b.store.Context(context.Background())
	diffIDs, err := image.RootFS(ctx, b.store.Content, platforms.Default())
	if err != nil {
		t.Fatal(err)
	}
	mounts, err := b.store.Snapshots.View(ctx, "view", identity.ChainID(diffIDs).String())
	if err != nil {
		t.Fatal(err)
	}
	defer b.store.Snapshots.Remove(ctx, "view")
	dirs, err := b.store.LowerDirs(mounts)
	if err != nil {
		t.Fatal(err)
	}
	return dirs
}

const twoLayers = "# syntax=docker/dockerfile:1.7\nFROM scratch\nCOPY a /a\nCOPY <<EOT /b\nthe second\nEOT\nLABEL x=y\n"

func TestBuildMakesAnImage(t *testing.T) {
	b := newBench(t)
	out, err := b.build(t, twoLayers, map[string]string{"a": "the first"}, "it/self", nil)
	if err != nil {
		t.Fatal(err)
	}
	image, m := b.manifest(t, "docker.io/it/self:latest")
	if image.Target.Digest.String() != out.digest {
		t.Errorf("the client is told of %s, the store has %s", out.digest, image.Target.Digest)
	}
	if name := <-b.named; name != "docker.io/it/self:latest" {
		t.Errorf("named %q", name)
	}
	if len(m.Layers) != 2 {
		t.Fatalf("layers %v", m.Layers)
	}
	for _, l := range m.Layers {
		if l.MediaType != ocispec.MediaTypeImageLayer && l.MediaType != images.MediaTypeDockerSchema2Layer {
			t.Errorf("a layer that stays here is a %s", l.MediaType)
		}
	}
	info, err := b.store.Content.Info(b.store.Context(context.Background()), image.Target.Digest)
	if err != nil {
		t.Fatal(err)
	}
	views := b.lower(t, image)
	for i, file := range []string{"b", "a"} { // topmost first
		if len(views) != 2 {
			t.Fatalf("layers in %v", views)
		}
		if _, err := os.Stat(filepath.Join(views[i], file)); err != nil {
			t.Errorf("layer %d: %v", i, err)
		}
	}
	marked := false
	for k := range info.Labels {
		marked = marked || strings.HasPrefix(k, "moby/build.ref.")
	}
	if !marked {
		t.Errorf("nothing says which build made the image: %v", info.Labels)
	}
}

// What an image has unpacked is what a build upon it starts from, and the other way
// round: no layer is on the disk twice.
func TestLayersAreShared(t *testing.T) {
	b := newBench(t)
	if _, err := b.build(t, twoLayers, map[string]string{"a": "the first"}, "base", nil); err != nil {
		t.Fatal(err)
	}
	base, _ := b.manifest(t, "docker.io/library/base:latest")
	// Nothing but the image is left of the first build.
	if err := b.client.Prune(context.Background(), nil, bkclient.PruneAll); err != nil {
		t.Fatal(err)
	}
	if err := b.store.GC(b.store.Context(context.Background())); err != nil {
		t.Fatal(err)
	}
	below := b.lower(t, base)
	if _, err := b.build(t, "FROM base\nCOPY c /c\n", map[string]string{"c": "the third"}, "upon", nil); err != nil {
		t.Fatal(err)
	}
	upon, _ := b.manifest(t, "docker.io/library/upon:latest")
	if dirs := b.lower(t, upon); len(dirs) != 3 || !slices.Equal(dirs[1:], below) {
		t.Errorf("the image lies in %v, that upon it in %v", below, dirs)
	}
}

// Layers that are made anew for the export are not those that the build has left.
func TestRewrittenLayersAreUnpacked(t *testing.T) {
	b := newBench(t)
	_, err := b.build(t, "FROM scratch\nCOPY a /\n", map[string]string{"a": ""}, "x", map[string]string{"rewrite-timestamp": "true", "source-date-epoch": "1700000000"})
	if err == nil || !strings.Contains(err.Error(), "were not found") {
		t.Errorf("error %v", err)
	}
}

func TestCacheOutlivesImageAndCollector(t *testing.T) {
	b := newBench(t)
	files := map[string]string{"a": "the first"}
	first, err := b.build(t, twoLayers, files, "x", nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx := b.store.Context(context.Background())
	if err := b.store.Images.Delete(ctx, "docker.io/library/x:latest"); err != nil {
		t.Fatal(err)
	}
	if err := b.store.GC(ctx); err != nil {
		t.Fatal(err)
	}
	second, err := b.build(t, twoLayers, files, "x", nil)
	if err != nil {
		t.Fatal(err)
	}
	if first.digest != second.digest {
		t.Errorf("the same build made %s and %s", first.digest, second.digest)
	}
	if second.cached < 2 {
		t.Errorf("only %d of %d steps came from the cache", second.cached, second.steps)
	}
}

func TestImageWithoutNameIsDangling(t *testing.T) {
	b := newBench(t)
	out, err := b.build(t, "FROM scratch\nCOPY a /\n", map[string]string{"a": ""}, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	b.manifest(t, "moby-dangling@"+out.digest)
}

func TestNamesAreChecked(t *testing.T) {
	b := newBench(t)
	var done sync.WaitGroup // BuildKit's client waits for the log of a build that never began
	for _, name := range []string{"Upper", "a@sha256:" + strings.Repeat("0", 64), "a:b:c", "good,Bad"} {
		done.Go(func() {
			if _, err := b.build(t, "FROM scratch\nCOPY a /\n", map[string]string{"a": ""}, name, nil); err == nil || !strings.Contains(err.Error(), "invalid image name") {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	done.Wait()
}

func TestForeignFrontendIsAskedForAtItsRegistry(t *testing.T) {
	b := newBench(t)
	for _, syntax := range []string{"docker/dockerfile:master", "docker/dockerfile:1.7@sha256:" + strings.Repeat("1", 64), "example.com/docker/dockerfile:1"} {
		_, err := b.build(t, "# syntax="+syntax+"\nFROM scratch\n", nil, "x", nil)
		if err == nil || !strings.Contains(err.Error(), "no registry was expected to be asked") {
			t.Errorf("%s: %v", syntax, err)
		}
	}
}

func TestClosedBuilderRefuses(t *testing.T) {
	b := bareBench(t)
	if err := b.builder.Close(); err != nil {
		t.Fatal(err)
	}
	if err := b.builder.Open(); err == nil || !strings.Contains(err.Error(), "shutting down") {
		t.Errorf("opened after Close: %v", err)
	}
}

// TestOpenThatFailedIsTriedAgain: what a failed try has opened is closed, and keeps nobody out.
func TestOpenThatFailedIsTriedAgain(t *testing.T) {
	b := bareBench(t)
	away := filepath.Join(b.root, "away")
	if err := os.Rename(b.store.Root(), away); err != nil {
		t.Fatal(err)
	}
	if err := b.builder.Open(); err == nil {
		t.Fatal("it was opened without its store")
	}
	b.connect(t)
	if _, err := b.client.ListWorkers(t.Context()); err == nil || !strings.Contains(err.Error(), "open the build cache in "+b.root) {
		t.Errorf("a client is not told why the builder does not open: %v", err)
	}
	if err := os.Rename(away, b.store.Root()); err != nil {
		t.Fatal(err)
	}
	opened := make(chan error, 1)
	go func() { opened <- b.builder.Open() }()
	select {
	case err := <-opened:
		if err != nil {
			t.Errorf("it does not open any more: %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("it waits for what the failed try has left open")
	}
}

func TestNothingIsOpenedBeforeTheFirstUse(t *testing.T) {
	b := bareBench(t)
	if _, err := os.Stat(filepath.Join(b.root, "build")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the build cache is there before any build: %v", err)
	}
}
