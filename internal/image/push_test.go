package image_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	cranename "github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/moby/moby/api/types/jsonstream"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/internal/image"
)

// tryPush pushes and gives the messages as [bench.tryPull] does, and what was for programs.
func (b *bench) tryPush(ctx context.Context, req image.PushRequest) (lines []string, aux string, err error) {
	err = b.images.Push(ctx, req, func(m jsonstream.Message) {
		if m.Aux != nil {
			aux += string(*m.Aux)
			return
		}
		line := m.Status
		if m.ID != "" {
			line = m.ID + ": " + line
		}
		lines = append(lines, line)
	})
	return lines, aux, err
}

// mustPush pushes a name and gives what the registry has under it then.
func (b *bench) mustPush(t *testing.T, ref, platform string) (*remote.Descriptor, string) {
	t.Helper()
	lines, aux, err := b.tryPush(context.Background(), image.PushRequest{Ref: ref, Platform: platform})
	if err != nil {
		t.Fatalf("%v: %v", lines, err)
	}
	parsed, err := cranename.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	desc, err := remote.Get(parsed)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(lines[len(lines)-1], ": digest: "+desc.Digest.String()+" size: ") {
		t.Errorf("the registry has %s, but it says %q", desc.Digest, lines[len(lines)-1])
	}
	return desc, aux
}

// threePlatforms is an index of images for amd64, arm64 and s390x.
func threePlatforms(t *testing.T) v1.ImageIndex {
	index := v1.ImageIndex(empty.Index)
	for _, arch := range []string{"amd64", "arm64", "s390x"} {
		img := imageOf(t, arch, layerOf(t, entry{arch, noise(1000)}))
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}})
	}
	return index
}

// TestPushOfAPart sends, of an index that is partly here, what is here.
func TestPushOfAPart(t *testing.T) {
	from, to := newRegistry(t), newRegistry(t)
	ref := from.pushIndex(t, "lab/multi:1", threePlatforms(t))
	b := newBench(t)
	target := to.addr + "/lab/part:1"
	pull := func(platform string) {
		t.Helper()
		if _, err := b.tryPull(context.Background(), image.PullRequest{Ref: ref, Platform: platform}); err != nil {
			t.Fatal(err)
		}
		if err := b.images.Tag(context.Background(), ref, to.addr+"/lab/part", "1"); err != nil {
			t.Fatal(err)
		}
	}
	architectures := func(desc *remote.Descriptor) string {
		index, err := desc.ImageIndex()
		if err != nil {
			t.Fatal(err)
		}
		m, err := index.IndexManifest()
		if err != nil {
			t.Fatal(err)
		}
		var list []string
		for _, d := range m.Manifests {
			if _, err := index.Image(d.Digest); err != nil {
				t.Errorf("%s: %v", d.Digest, err)
			}
			list = append(list, d.Platform.Architecture)
		}
		return strings.Join(list, " ")
	}
	pull("linux/arm64")
	desc, aux := b.mustPush(t, target, "")
	if img, err := desc.Image(); err != nil || !strings.Contains(aux, `"manifestPushedInsteadOfIndex":true`) {
		t.Errorf("one platform: %v, %v, %s", img, err, aux)
	}
	pull("linux/amd64")
	desc, aux = b.mustPush(t, target, "")
	if got := architectures(desc); got != "amd64 arm64" || !strings.Contains(aux, `"manifestPushedInsteadOfIndex":true`) {
		t.Errorf("two platforms: %q, %s", got, aux)
	}
	if r, err := b.images.Inspect(context.Background(), target, ""); err != nil || !strings.Contains(strings.Join(r.RepoDigests, " "), "lab/part@"+desc.Digest.String()) {
		t.Errorf("the image has the digests %v, %v", r.RepoDigests, err)
	}
	desc, aux = b.mustPush(t, target, "linux/arm64")
	if img, err := desc.Image(); err != nil || strings.Contains(aux, "manifestPushedInsteadOfIndex") {
		t.Errorf("a chosen platform: %v, %v, %s", img, err, aux)
	}
	pull("linux/s390x")
	desc, aux = b.mustPush(t, target, "")
	if got := architectures(desc); got != "amd64 arm64 s390x" || strings.Contains(aux, "manifestPushedInsteadOfIndex") || desc.Digest.String() != b.resolve(t, ref).ID.String() {
		t.Errorf("all platforms: %q, %s, %s", got, desc.Digest, aux)
	}
	_, _, err := b.tryPush(context.Background(), image.PushRequest{Ref: target, Platform: "linux/riscv64"})
	if !errdefs.IsNotFound(err) {
		t.Errorf("%v", err)
	}
}

func TestPushOfWhatIsNotThere(t *testing.T) {
	reg := newRegistry(t)
	ref := reg.push(t, "lab/x:1", imageOf(t, "amd64", layerOf(t, entry{"a", noise(1000)})))
	b := newBench(t)
	b.pull(t, ref)
	// A blob is gone, as after a fault of the disk.
	ctx := b.store.Context(context.Background())
	v := b.resolve(t, ref)
	var m ocispec.Manifest
	blob, err := content.ReadBlob(ctx, b.store.Content, v.Manifest)
	if err == nil {
		err = json.Unmarshal(blob, &m)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := b.store.Content.Delete(ctx, m.Layers[0].Digest); err != nil {
		t.Fatal(err)
	}
	if err := b.images.Tag(ctx, ref, reg.addr+"/lab/y", "1"); err != nil {
		t.Fatal(err)
	}
	_, aux, err := b.tryPush(context.Background(), image.PushRequest{Ref: reg.addr + "/lab/y:1"})
	if !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "not all content is here; pull it again") || !strings.Contains(aux, `"contentMissing":true`) {
		t.Errorf("%v, %s", err, aux)
	}
	for ref, class := range map[string]func(error) bool{"UPPER": errdefs.IsInvalidArgument, ref + "@" + v.ID.String(): errdefs.IsInvalidArgument, "none": errdefs.IsNotFound, reg.addr + "/lab/x:2": errdefs.IsNotFound} {
		if _, _, err := b.tryPush(context.Background(), image.PushRequest{Ref: ref}); !class(err) {
			t.Errorf("%s: %v", ref, err)
		}
	}
}

// TestCompressedOnce: a layer made here is compressed at the first push, the result goes
// with the layer, and every registry gets the same.
func TestCompressedOnce(t *testing.T) {
	one, two := newRegistry(t), newRegistry(t)
	b := newBench(t)
	ctx := context.Background()
	_, _, err := b.images.Make(ctx, image.MakeRequest{Repo: one.addr + "/made", Tag: "1", Layer: func(_ context.Context, w io.Writer) (bool, error) {
		rc, err := layerOf(t, entry{"a", strings.Repeat("compress me ", 100_000)}).Uncompressed()
		if err == nil {
			_, err = io.Copy(w, rc)
		}
		return false, err
	}})
	if err != nil {
		t.Fatal(err)
	}
	before := b.contents(t)
	desc, _ := b.mustPush(t, one.addr+"/made:1", "")
	if c := b.contents(t); c.blobs != before.blobs+1 || c.ingests != 0 || c.leases != 0 {
		t.Errorf("after a push: %+v, before %+v", c, before)
	}
	if err := b.images.Tag(ctx, one.addr+"/made:1", two.addr+"/made", "1"); err != nil {
		t.Fatal(err)
	}
	again, _ := b.mustPush(t, two.addr+"/made:1", "")
	if again.Digest != desc.Digest {
		t.Errorf("%s at one registry, %s at the other", desc.Digest, again.Digest)
	}
	if c := b.contents(t); c.blobs != before.blobs+1 {
		t.Errorf("after two pushes: %+v", c)
	}
	if err := b.store.GC(ctx); err != nil {
		t.Fatal(err)
	}
	if c := b.contents(t); c.blobs != before.blobs+1 {
		t.Errorf("after a collection: %+v", c)
	}
	if _, err := b.images.Remove(ctx, b.resolve(t, two.addr+"/made:1").ID.String(), image.RemoveOptions{Force: true}, nil); err != nil {
		t.Fatal(err)
	}
	b.mustBeEmpty(t)
}

// TestDigestAtTheRegistryIsKept: an image that was made here has another digest at the registry, which stays known where
// the name is given to the very image once more, as by a build that finds everything in its cache.
func TestDigestAtTheRegistryIsKept(t *testing.T) {
	ctx := context.Background()
	b, ref := newBench(t), newRegistry(t).addr+"/lab/made:1"
	id, _, err := b.images.Make(ctx, image.MakeRequest{Repo: strings.TrimSuffix(ref, ":1"), Tag: "1", Layer: noiseLayer(1000)})
	if err != nil {
		t.Fatal(err)
	}
	pushed, _ := b.mustPush(t, ref, "")
	if err := b.images.Tag(ctx, ref, ref, ""); err != nil {
		t.Fatal(err)
	}
	if r, err := b.images.Inspect(ctx, ref, ""); err != nil || len(r.RepoDigests) != 1 || !strings.HasSuffix(r.RepoDigests[0], "@"+pushed.Digest.String()) {
		t.Errorf("%+v, %v", r, err)
	}
	lines := b.pull(t, ref)
	if got := b.resolve(t, ref).ID; got != id || !strings.Contains(strings.Join(lines, "\n"), "Image is up to date") {
		t.Errorf("%s was %s: %q", got, id, lines)
	}
}

// TestCancelledCompression leaves nothing.
func TestCancelledCompression(t *testing.T) {
	reg := newRegistry(t)
	b := newBench(t)
	_, _, err := b.images.Make(context.Background(), image.MakeRequest{Repo: reg.addr + "/made", Tag: "1", Layer: noiseLayer(30_000_000)})
	if err != nil {
		t.Fatal(err)
	}
	before := b.contents(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	err = b.images.Push(ctx, image.PushRequest{Ref: reg.addr + "/made:1"}, func(m jsonstream.Message) {
		if m.Progress != nil && m.Progress.Current > 0 {
			cancel() // the layer is being read
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if c := b.contents(t); c != before {
		t.Errorf("left %+v, before %+v", c, before)
	}
}

// TestManyPushesAtOnce of one new image compress its layer once.
func TestManyPushesAtOnce(t *testing.T) {
	reg := newRegistry(t)
	b := newBench(t)
	_, _, err := b.images.Make(context.Background(), image.MakeRequest{Repo: reg.addr + "/made", Tag: "1", Layer: noiseLayer(2_000_000)})
	if err != nil {
		t.Fatal(err)
	}
	before := b.contents(t)
	var wg sync.WaitGroup
	for i := range 8 {
		repo := reg.addr + "/made" + string(rune('a'+i))
		if err := b.images.Tag(context.Background(), reg.addr+"/made:1", repo, "1"); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			if _, _, err := b.tryPush(context.Background(), image.PushRequest{Ref: repo + ":1"}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if c := b.contents(t); c.blobs != before.blobs+1 || c.leases != 0 || c.ingests != 0 {
		t.Errorf("%+v, before %+v", c, before)
	}
}

// TestFailedPushLeavesTheTag at the registry as it was.
func TestFailedPushLeavesTheTag(t *testing.T) {
	reg := newRegistry(t)
	ref := reg.push(t, "lab/x:1", imageOf(t, "amd64", layerOf(t, entry{"a", noise(1000)})))
	b := newBench(t)
	other := reg.push(t, "lab/y:1", imageOf(t, "amd64", layerOf(t, entry{"b", noise(1000)}), layerOf(t, entry{"c", noise(1000)})))
	b.pull(t, other)
	if err := b.images.Tag(context.Background(), other, reg.addr+"/lab/x", "1"); err != nil {
		t.Fatal(err)
	}
	had := digestAt(t, ref)
	reg.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPost {
			w.WriteHeader(http.StatusForbidden)
			io.WriteString(w, `{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}`)
			return true
		}
		return false
	})
	_, _, err := b.tryPush(context.Background(), image.PushRequest{Ref: ref})
	if !errdefs.IsPermissionDenied(err) || !strings.HasPrefix(err.Error(), "denied: requested access to the resource is denied") {
		t.Errorf("%v", err)
	}
	if got := digestAt(t, ref); got != had {
		t.Errorf("the tag moved to %s", got)
	}
}

func digestAt(t *testing.T, ref string) string {
	t.Helper()
	parsed, err := cranename.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	desc, err := remote.Head(parsed)
	if err != nil {
		t.Fatal(err)
	}
	return desc.Digest.String()
}
