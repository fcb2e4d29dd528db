package registryserver_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/cleatlabs/cleat/registryserver"
)

// TestCollect: what only deleted images had goes, and what an upload left that was broken off; what another image has
// in common with them stays. Nothing is collected while the directory is served.
func TestCollectNothing(t *testing.T) {
	if freed, err := registryserver.Collect(context.Background(), t.TempDir()); err != nil || freed != 0 {
		t.Errorf("of a registry that nothing was pushed to: %d, %v", freed, err)
	}
}

func TestCollect(t *testing.T) {
	data := t.TempDir()
	addr, end := serve(t, registryserver.Config{Data: data})
	in := func(addr, ref string) name.Reference {
		t.Helper()
		parsed, err := name.ParseReference(addr + "/" + ref)
		if err != nil {
			t.Fatal(err)
		}
		return parsed
	}
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	image := func(layers ...v1.Layer) v1.Image {
		t.Helper()
		made, err := mutate.AppendLayers(empty.Image, layers...)
		ok(err)
		return made
	}
	layer := func() v1.Layer {
		t.Helper()
		l, err := random.Layer(100_000, types.DockerLayer)
		ok(err)
		return l
	}
	common, only := layer(), layer()
	kept := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: image(common)}, mutate.IndexAddendum{Add: image(layer())})
	gone := image(common, only)
	ok(remote.WriteIndex(in(addr, "a/kept:1"), kept))
	ok(remote.Write(in(addr, "a/gone:1"), gone))
	digest, err := gone.Digest()
	ok(err)
	ok(remote.Delete(in(addr, "a/gone@"+digest.String())))
	resp, err := http.Post("http://"+addr+"/v2/a/kept/blobs/uploads/", "", nil)
	ok(err)
	resp.Body.Close()
	upload, err := http.NewRequest(http.MethodPatch, resp.Header.Get("Location"), strings.NewReader(strings.Repeat("x", 50_000)))
	ok(err)
	resp, err = http.DefaultClient.Do(upload)
	ok(err)
	resp.Body.Close()

	if _, err := registryserver.Collect(context.Background(), data); err == nil || !strings.Contains(err.Error(), "a registry serves "+data) {
		t.Errorf("while it is served: %v", err)
	}
	ok(end())
	freed, err := registryserver.Collect(context.Background(), data)
	if err != nil || freed < 150_000 || freed > 160_000 {
		t.Errorf("freed %d bytes, %v", freed, err)
	}
	if freed, err := registryserver.Collect(context.Background(), data); err != nil || freed != 0 {
		t.Errorf("freed %d bytes once more, %v", freed, err)
	}

	addr, _ = serve(t, registryserver.Config{Data: data})
	index, err := remote.Index(in(addr, "a/kept:1"))
	ok(err)
	if err := validate.Index(index); err != nil {
		t.Errorf("what was kept: %v", err)
	}
	ok(remote.Write(in(addr, "a/gone:1"), gone))
	again, err := remote.Image(in(addr, "a/gone:1"))
	ok(err)
	if err := validate.Image(again); err != nil {
		t.Errorf("what was pushed again: %v", err)
	}
}
