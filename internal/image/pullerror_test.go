package image_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/containerd/errdefs"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/image"
	"github.com/cleatlabs/cleat/internal/registryclient"
)

func TestPullErrorsSayWhatToDoAndLeaveNothing(t *testing.T) {
	down := freeAddr(t)
	answer := func(status int, body string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			w.WriteHeader(status)
			io.WriteString(w, body)
			return true
		}
	}
	onBlobs := func(f func(http.ResponseWriter, *http.Request) bool) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") && f(w, r)
		}
	}
	cases := []struct {
		name      string
		ref       string // %s is the registry
		tag       string
		platform  string
		intercept func(http.ResponseWriter, *http.Request) bool
		class     func(error) bool
		text      string
	}{
		{name: "upper case", ref: "Ubuntu", class: errdefs.IsInvalidArgument, text: "invalid reference format: repository name (library/Ubuntu) must be lowercase"},
		{name: "no name", ref: "%s/a b", class: errdefs.IsInvalidArgument, text: "invalid reference format"},
		{name: "bad tag", ref: "%s/lab/x", tag: "a/b", class: errdefs.IsInvalidArgument, text: "invalid"},
		{name: "bad platform", ref: "%s/lab/x:1", platform: "a/b/c/d", class: errdefs.IsInvalidArgument, text: "invalid platform"},
		{name: "unknown tag", ref: "%s/lab/x:nope", class: errdefs.IsNotFound, text: "manifest for %s/lab/x:nope not found: manifest unknown"},
		{name: "unknown repository", ref: "%s/lab/none:1", class: errdefs.IsNotFound, text: "pull access denied for %s/lab/none, repository does not exist or may require 'docker login'"},
		{name: "unknown repository and every tag", ref: "%s/lab/none", class: errdefs.IsNotFound, text: "pull access denied for %s/lab/none, repository does not exist or may require 'docker login'"},
		{name: "unknown digest", ref: "%s/lab/x@sha256:" + strings.Repeat("0", 64), class: errdefs.IsNotFound, text: "not found: manifest unknown"},
		{name: "other platform and one manifest", ref: "%s/lab/x:1", platform: "linux/s390x", class: errdefs.IsNotFound, text: "no matching manifest for linux/s390x"},
		{name: "other platform and index", ref: "%s/lab/multi:1", platform: "linux/s390x", class: errdefs.IsNotFound, text: "no matching manifest for linux/s390x in the manifest list entries"},
		{name: "denied", ref: "%s/lab/x:1", intercept: answer(403, `{"errors":[{"code":"DENIED","message":"no"}]}`), class: errdefs.IsNotFound, text: "pull access denied for %s/lab/x, repository does not exist or may require 'docker login': denied:"},
		{name: "unauthorized", ref: "%s/lab/x:1", intercept: answer(401, ``), class: errdefs.IsNotFound, text: "pull access denied for %s/lab/x"},
		{name: "rate limit", ref: "%s/lab/x:1", intercept: answer(429, `{"errors":[{"message":"slow down"}]}`), class: errdefs.IsUnavailable, text: "toomanyrequests"},
		{name: "broken registry", ref: "%s/lab/x:1", intercept: answer(500, ``), class: errdefs.IsUnavailable, text: "the fault is on the registry's side"},
		{name: "not a registry", ref: "%s/lab/x:1", intercept: answer(200, "<html>hello</html>"), class: errdefs.IsInvalidArgument, text: "is not an image"},
		{name: "manifest of 100 MB", ref: "%s/lab/x:1", intercept: func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/manifests/") {
				return false
			}
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			w.Header().Set("Docker-Content-Digest", "sha256:"+strings.Repeat("1", 64))
			w.Header().Set("Content-Length", "100000000")
			return true
		}, class: errdefs.IsInvalidArgument, text: "has 100000000 bytes, and none of an image has more than"},
		{name: "no HTTP", ref: "%s/lab/x:1", intercept: func(w http.ResponseWriter, _ *http.Request) bool {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return false
			}
			defer conn.Close()
			fmt.Fprint(conn, "220 hello, this is a mail server\r\n")
			return true
		}, class: errdefs.IsUnavailable, text: "what answers there is no registry: malformed HTTP"},
		{name: "schema version 1", ref: "%s/lab/x:1", intercept: func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Content-Type", "application/vnd.docker.distribution.manifest.v1+prettyjws")
			w.Header().Set("Docker-Content-Digest", "sha256:"+strings.Repeat("1", 64))
			w.Header().Set("Content-Length", "100")
			return true
		}, class: errdefs.IsInvalidArgument, text: "schema version 1, which is no longer supported"},
		{name: "artifact that is no image", ref: "%s/lab/x:1", intercept: func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/manifests/") {
				return false
			}
			manifest := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.cncf.helm.config.v1+json","digest":"sha256:` + strings.Repeat("1", 64) + `","size":2},"layers":[]}`
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			w.Header().Set("Docker-Content-Digest", digest.FromString(manifest).String())
			w.Header().Set("Content-Length", fmt.Sprint(len(manifest)))
			io.WriteString(w, manifest)
			return true
		}, class: errdefs.IsInvalidArgument, text: "this is not a container image: its config is of the type \"application/vnd.cncf.helm.config.v1+json\""},
		{name: "registry down", ref: down + "/lab/x:1", class: errdefs.IsUnavailable, text: "cannot reach the registry at " + down + ": connection refused"},
		{name: "layer missing", ref: "%s/lab/x:1", intercept: onBlobs(answer(404, ``)), class: errdefs.IsNotFound, text: "lacks a part of it"},
		{name: "blob cut short", ref: "%s/lab/x:1", intercept: onBlobs(func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Content-Length", "100")
			w.Write(make([]byte, 100))
			return true
		}), class: errdefs.IsUnavailable, text: "sent only a part of"},
		{name: "layer of another digest", ref: "%s/lab/x:1", intercept: onBlobs(sameLength), text: "does not match the digest"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			reg, b := newRegistry(t), newBench(t)
			img := imageOf(t, "amd64", layerOf(t, entry{"a", noise(200_000)}), layerOf(t, entry{"b", noise(1000)}))
			reg.push(t, "lab/x:1", img)
			reg.pushIndex(t, "lab/multi:1", mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}}))
			reg.intercept(c.intercept)
			_, err := b.tryPull(context.Background(), image.PullRequest{Ref: strings.ReplaceAll(c.ref, "%s", reg.addr), Tag: c.tag, Platform: c.platform})
			if want := strings.ReplaceAll(c.text, "%s", reg.addr); err == nil || !strings.Contains(err.Error(), want) {
				t.Fatalf("error %v, want one with %q", err, want)
			}
			if c.class != nil && !c.class(err) {
				t.Errorf("%v is of another class", err)
			}
			for _, bad := range []string{"\n", ": not found", ": invalid argument", ": unavailable", ": failed precondition"} {
				if strings.Contains(err.Error(), bad) && !strings.Contains(err.Error(), "not found: manifest unknown") {
					t.Errorf("the text is not for people: %q", err)
				}
			}
			b.mustBeEmpty(t)
		})
	}
}

// sameLength answers with as many bytes as were asked for, but others.
func sameLength(w http.ResponseWriter, r *http.Request) bool {
	head, err := http.Head("http://" + r.Host + r.URL.Path)
	if err != nil {
		return false
	}
	io.CopyN(w, zeros{}, head.ContentLength)
	return true
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestPullOnAFullDisk(t *testing.T) {
	root := filepath.Join(t.TempDir(), "small")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("small", root, "tmpfs", 0, "size=3m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(root, unix.MNT_DETACH) })
	reg, b := newRegistry(t), open(t, filepath.Join(root, "store"), registryclient.Config{})
	ref := reg.push(t, "lab/big:1", imageOf(t, "amd64", layerOf(t, entry{"a", noise(100)}), layerOf(t, entry{"b", noise(8 << 20)})))
	b.mayWarn.Store(true)
	lines, err := b.tryPull(context.Background(), image.PullRequest{Ref: ref})
	if err == nil || !strings.Contains(err.Error(), "no space left on device") || !strings.Contains(err.Error(), root) {
		t.Fatalf("error %v", err)
	}
	if all := strings.Join(lines, "\n"); strings.Contains(all, "Retrying") {
		t.Errorf("the layer is fetched again, for which there is no more space:\n%s", all)
	}
	b.mustBeEmpty(t)
	small := reg.push(t, "lab/small:1", imageOf(t, "amd64", layerOf(t, entry{"a", noise(100)})))
	b.pull(t, small)
}

func TestPullIsCancelledAtEveryStep(t *testing.T) {
	reg := newRegistry(t)
	img := imageOf(t, "amd64", layerOf(t, entry{"a", noise(300_000)}), layerOf(t, entry{"b", noise(300_000)}), layerOf(t, entry{"c", noise(300_000)}))
	ref := reg.push(t, "lab/x:1", img)
	all, err := newBench(t).tryPull(context.Background(), image.PullRequest{Ref: ref})
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t)
	for step := 0; step < len(all)-2; step++ {
		ctx, cancel := context.WithCancel(context.Background())
		n := 0
		err := b.images.Pull(ctx, image.PullRequest{Ref: ref}, func(jsonstream.Message) {
			if n++; n == step+1 {
				cancel()
			}
		})
		cancel()
		if err == nil { // fewer messages this time
			if _, err := b.images.Remove(context.Background(), ref, image.RemoveOptions{}, nil); err != nil {
				t.Fatal(err)
			}
		} else if !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled at step %d: %v", step, err)
		}
		b.mustBeEmpty(t)
	}
	b.pull(t, ref)
}

func TestPullsOfTheSameImageShareTheWork(t *testing.T) {
	reg, b := newRegistry(t), newBench(t)
	img := imageOf(t, "amd64", layerOf(t, entry{"a", noise(500_000)}), layerOf(t, entry{"b", noise(500_000)}))
	ref := reg.push(t, "lab/x:1", img)
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			lines, err := b.tryPull(context.Background(), image.PullRequest{Ref: ref})
			if err != nil {
				t.Error(err)
				return
			}
			if last := lines[len(lines)-1]; !strings.HasPrefix(last, "Status: ") {
				t.Errorf("the last message is %q", last)
			}
		})
	}
	wg.Wait()
	if n := reg.count("/blobs/"); n != 3 {
		t.Errorf("%d blobs were fetched for six pulls, want 3", n)
	}
	b.lower(t, b.resolve(t, ref))
	if c := b.contents(t); c.ingests != 0 || c.leases != 1 || c.layers != 3 || c.names != 1 {
		t.Errorf("the store holds %+v", c)
	}
}

func TestPullThatIsCancelledDoesNotHarmItsTwin(t *testing.T) {
	reg, b := newRegistry(t), newBench(t)
	ref := reg.push(t, "lab/x:1", imageOf(t, "amd64", layerOf(t, entry{"a", noise(2 << 20)}), layerOf(t, entry{"b", noise(2 << 20)})))
	ctx, cancel := context.WithCancel(context.Background())
	started := make(chan struct{})
	var once sync.Once
	reg.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/blobs/") {
			once.Do(func() { close(started) })
		}
		return false
	})
	var wg sync.WaitGroup
	wg.Go(func() { b.tryPull(ctx, image.PullRequest{Ref: ref}) })
	<-started
	wg.Go(func() {
		if _, err := b.tryPull(context.Background(), image.PullRequest{Ref: ref}); err != nil {
			t.Errorf("the twin failed: %v", err)
		}
	})
	cancel()
	wg.Wait()
	b.lower(t, b.resolve(t, ref))
	if c := b.contents(t); c.ingests != 0 || c.leases != 1 {
		t.Errorf("the store holds %+v", c)
	}
}

func TestPullTakesTheAskedPlatformOutOfAnIndex(t *testing.T) {
	reg, b := newRegistry(t), newBench(t)
	amd, arm := imageOf(t, "amd64", layerOf(t, entry{"a", "amd"})), imageOf(t, "arm64", layerOf(t, entry{"a", "arm"}))
	attestation := imageOf(t, "amd64", layerOf(t, entry{"att", "x"}))
	idx := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: arm, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}}},
		mutate.IndexAddendum{Add: amd, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}},
		mutate.IndexAddendum{Add: attestation, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "unknown", Architecture: "unknown"},
			Annotations: map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": digestOf(t, amd)}}})
	ref := reg.pushIndex(t, "lab/multi:1", idx)
	b.pull(t, ref)
	img := b.resolve(t, ref)
	if img.Platform.Architecture != "amd64" || img.ID.String() != digestOf(t, idx) || img.Manifest.Digest.String() != digestOf(t, amd) {
		t.Errorf("resolved to %+v", img)
	}
	ctx := context.Background()
	if _, err := b.images.Resolve(ctx, ref, "linux/arm64"); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "does not provide the specified platform (linux/arm64)") {
		t.Errorf("arm64 before it is pulled: %v", err)
	}
	if _, err := b.tryPull(ctx, image.PullRequest{Ref: ref, Platform: "linux/arm64"}); err != nil {
		t.Fatal(err)
	}
	if err := b.store.GC(ctx); err != nil {
		t.Fatal(err)
	}
	for _, arch := range []string{"amd64", "arm64"} {
		img, err := b.images.Resolve(ctx, ref, "linux/"+arch)
		if err != nil {
			t.Fatal(err)
		}
		dirs := b.lower(t, img)
		if data, _ := os.ReadFile(filepath.Join(dirs[0], "a")); string(data) != arch[:3] {
			t.Errorf("%s has the layer of %s", arch, data)
		}
	}
	list, err := b.images.List(ctx, image.ListRequest{Manifests: true}, nil)
	if err != nil || len(list) != 1 || len(list[0].Manifests) != 3 {
		t.Fatalf("listed %+v, %v", list, err)
	}
	kinds := map[string]int{}
	for _, m := range list[0].Manifests {
		kinds[string(m.Kind)]++
	}
	if kinds["image"] != 2 || kinds["attestation"] != 1 {
		t.Errorf("manifests %v", kinds)
	}
}

// TestPullOfAPlatformThatFails: what such a pull leaves of the other platform, which the index of the image that is here
// holds, is not taken for an image that containers can be made of.
func TestPullOfAPlatformThatFails(t *testing.T) {
	reg, b := newRegistry(t), newBench(t)
	arm := imageOf(t, "arm64", layerOf(t, entry{"a", noise(1000)}), layerOf(t, entry{"b", noise(1000)}))
	ref := reg.pushIndex(t, "lab/multi:1", mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: imageOf(t, "amd64", layerOf(t, entry{"a", "amd"})), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}},
		mutate.IndexAddendum{Add: arm, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64"}}}))
	b.pull(t, ref)
	layers, err := arm.Layers()
	if err != nil {
		t.Fatal(err)
	}
	broken := digestOf(t, layers[1])
	reg.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/blobs/"+broken) {
			return false
		}
		w.WriteHeader(http.StatusNotFound)
		return true
	})
	ctx := context.Background()
	for range 2 {
		if _, err := b.tryPull(ctx, image.PullRequest{Ref: ref, Platform: "linux/arm64"}); err == nil {
			t.Fatal("pulled")
		}
		if err := b.images.Tag(ctx, ref, "lab/again", "1"); err != nil { // what is known of the image is read anew
			t.Fatal(err)
		}
		if err := b.store.GC(ctx); err != nil {
			t.Fatal(err)
		}
		if img, err := b.images.Resolve(ctx, ref, "linux/arm64"); !errdefs.IsNotFound(err) {
			t.Errorf("%+v, %v", img, err)
		}
	}
	reg.intercept(nil)
	if _, err := b.tryPull(ctx, image.PullRequest{Ref: ref, Platform: "linux/arm64"}); err != nil {
		t.Fatal(err)
	}
	img, err := b.images.Resolve(ctx, ref, "linux/arm64")
	if err != nil {
		t.Fatal(err)
	}
	b.lower(t, img)
}

// TestIndexDecidesAboutThePlatform: an index may say of an image that it is for another platform than the config does, as
// that of a program for arm64 that was built on amd64, which `docker manifest annotate` is for.
func TestIndexDecidesAboutThePlatform(t *testing.T) {
	reg, b := newRegistry(t), newBench(t)
	img := imageOf(t, "amd64", layerOf(t, entry{"a", "arm"}))
	ref := reg.pushIndex(t, "lab/annotated:1", mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64"}}}))
	ctx := context.Background()
	if _, err := b.tryPull(ctx, image.PullRequest{Ref: ref, Platform: "linux/arm64"}); err != nil {
		t.Fatal(err)
	}
	if found, err := b.images.Resolve(ctx, ref, "linux/arm64"); err != nil || found.Manifest.Digest.String() != digestOf(t, img) {
		t.Errorf("%+v, %v", found, err)
	}
	alone := reg.push(t, "lab/alone:1", img)
	if _, err := b.tryPull(ctx, image.PullRequest{Ref: alone, Platform: "linux/arm64"}); !errdefs.IsNotFound(err) {
		t.Errorf("an image without an index: %v", err)
	}
}

func TestPullWithoutATagTakesEveryTag(t *testing.T) {
	reg, b := newRegistry(t), newBench(t)
	for _, tag := range []string{"1", "2", "latest"} {
		reg.push(t, "lab/x:"+tag, imageOf(t, "amd64", layerOf(t, entry{"a", tag})))
	}
	b.pull(t, reg.addr+"/lab/x")
	for _, tag := range []string{"1", "2", "latest"} {
		b.lower(t, b.resolve(t, reg.addr+"/lab/x:"+tag))
	}
}

func TestPullMovesATagAndKeepsTheOldImage(t *testing.T) {
	reg, b := newRegistry(t), newBench(t)
	old := imageOf(t, "amd64", layerOf(t, entry{"a", "1"}))
	ref := reg.push(t, "lab/x:1", old)
	b.pull(t, ref)
	reg.push(t, "lab/x:1", imageOf(t, "amd64", layerOf(t, entry{"a", "2"})))
	lines := b.pull(t, ref)
	if last := lines[len(lines)-1]; last != "Status: Downloaded newer image for "+ref {
		t.Errorf("said %q", last)
	}
	if got := b.resolve(t, digestOf(t, old)); got == nil {
		t.Error("the old image is gone")
	}
	// Pulled again by its digest it has a name, and is dangling no more.
	b.pull(t, reg.addr+"/lab/x@"+digestOf(t, old))
	list, err := b.images.List(context.Background(), image.ListRequest{Filters: map[string][]string{"dangling": {"1"}}}, nil)
	if err != nil || len(list) != 0 {
		t.Errorf("dangling: %+v, %v", list, err)
	}
}

func TestPullAsksMirrorsFirstWithoutCredentials(t *testing.T) {
	mirror := newRegistry(t)
	img := imageOf(t, "amd64", layerOf(t, entry{"a", "1"}))
	mirror.push(t, "library/tool:latest", img)
	mirror.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") != "" {
			t.Errorf("credentials were sent to the mirror: %s", r.URL)
		}
		return false
	})
	b := open(t, filepath.Join(t.TempDir(), "store"), registryclient.Config{Mirrors: []string{"http://" + freeAddr(t), "http://" + mirror.addr}})
	_, err := b.tryPull(context.Background(), image.PullRequest{Ref: "tool", Tag: "latest", AuthConfig: &registry.AuthConfig{Username: "u", Password: "p"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := b.resolve(t, "tool").ID.String(); got != digestOf(t, img) {
		t.Errorf("tool is %s", got)
	}
}

// TestPullResumesALayerThatBreaksOff has the registry close the connection in the
// middle of the first layer, twice.
func TestPullResumesALayerThatBreaksOff(t *testing.T) {
	ranges := pullBroken(t, http.StatusPartialContent)
	if want := []string{"", fmt.Sprintf("bytes=%d-", 1<<20), fmt.Sprintf("bytes=%d-", 2<<20)}; !slices.Equal(ranges, want) {
		t.Errorf("asked for %q", ranges)
	}
}

// TestPullBeginsALayerAnew has a registry, or what stands before it, refuse to go on in the middle.
func TestPullBeginsALayerAnew(t *testing.T) {
	ranges := pullBroken(t, http.StatusRequestedRangeNotSatisfiable)
	if len(ranges) < 3 || ranges[1] != fmt.Sprintf("bytes=%d-", 1<<20) || ranges[len(ranges)-1] != "" {
		t.Errorf("asked for %q", ranges)
	}
}

// pullBroken pulls a layer of which the registry gives a megabyte at first. Parts it answers with a status: once with another
// megabyte if that is partial content, and always with that alone otherwise. It returns which parts were asked for.
func pullBroken(t *testing.T, status int) (ranges []string) {
	reg, b := newRegistry(t), newBench(t)
	layer := layerOf(t, entry{"a", noise(3 << 20)})
	ref := reg.push(t, "lab/x:1", imageOf(t, "amd64", layer))
	path := "/blobs/" + digestOf(t, layer)
	var mu sync.Mutex
	reg.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, path) {
			return false
		}
		mu.Lock()
		defer mu.Unlock()
		asked := r.Header.Get("Range")
		ranges = append(ranges, asked)
		partial := status == http.StatusPartialContent
		switch {
		case len(ranges) > 1 && asked != "" && !partial:
			w.WriteHeader(status)
			return true
		case len(ranges) > 2 || len(ranges) > 1 && !partial:
			return false
		}
		rc, err := layer.Compressed()
		if err != nil {
			t.Error(err)
			return true
		}
		defer rc.Close()
		all, _ := io.ReadAll(rc)
		from := 0
		if asked != "" {
			fmt.Sscanf(asked, "bytes=%d-", &from)
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(all)-1, len(all)))
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(all)-from))
		if asked != "" {
			w.WriteHeader(status)
		}
		w.Write(all[from : from+1<<20])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	b.pull(t, ref)
	b.lower(t, b.resolve(t, ref))
	return ranges
}

// TestPullTriesALayerAgain has the registry fail for a moment in ways that may pass, and
// in one that does not.
func TestPullTriesALayerAgain(t *testing.T) {
	reg, b := newRegistry(t), newBench(t)
	layer := layerOf(t, entry{"a", noise(1 << 10)})
	ref := reg.push(t, "lab/x:1", imageOf(t, "amd64", layer))
	path := "/blobs/" + digestOf(t, layer)
	var status, faults, asked atomic.Int64
	reg.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, path) || asked.Add(1) > faults.Load() {
			return false
		}
		w.WriteHeader(int(status.Load()))
		return true
	})
	status.Store(http.StatusForbidden)
	faults.Store(1)
	if _, err := b.tryPull(context.Background(), image.PullRequest{Ref: ref}); err == nil || asked.Load() != 1 {
		t.Errorf("refused: %v after %d attempts", err, asked.Load())
	}
	status.Store(http.StatusBadGateway)
	b.images.SetMaxDownloadAttempts(1)
	asked.Store(0)
	if _, err := b.tryPull(context.Background(), image.PullRequest{Ref: ref}); err == nil {
		t.Error("one attempt: no error")
	}
	if c := b.contents(t); c.ingests != 0 {
		t.Errorf("left: %+v", c)
	}
	b.images.SetMaxDownloadAttempts(2)
	asked.Store(0)
	lines := b.pull(t, ref)
	if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasSuffix(l, ": Retrying in 1 second") }) {
		t.Errorf("messages %q", lines)
	}
	b.lower(t, b.resolve(t, ref))
}
