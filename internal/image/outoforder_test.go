package image_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/internal/image"
)

// TestImageOutOfOrder: an image that the engine does not take, which a build can make, is listed and can be removed, and
// keeps nobody from seeing the others.
func TestImageOutOfOrder(t *testing.T) {
	b := newBench(t)
	if _, err := b.load(saved(t, "sound:1", imageOf(t, "amd64", layerOf(t, entry{"a", "text"}))), image.LoadOptions{}); err != nil {
		t.Fatal(err)
	}
	ctx := b.store.Context(t.Context())
	lease, err := b.store.Leases.Create(ctx, leases.WithRandomID())
	if err != nil {
		t.Fatal(err)
	}
	ctx = leases.WithLease(ctx, lease.ID)
	put := func(mediaType string, v any, labels map[string]string) ocispec.Descriptor {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(text), Size: int64(len(text))}
		if err := content.WriteBlob(ctx, b.store.Content, d.Digest.String(), bytes.NewReader(text), d, content.WithLabels(labels)); err != nil {
			t.Fatal(err)
		}
		return d
	}
	config := put(ocispec.MediaTypeImageConfig, ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}, History: make([]ocispec.History, 10_001)}, nil)
	manifest := put(ocispec.MediaTypeImageManifest, ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config},
		map[string]string{"containerd.io/gc.ref.content.config": config.Digest.String()})
	if _, err := b.store.Images.Create(ctx, images.Image{Name: "docker.io/library/long:1", Target: manifest}); err != nil {
		t.Fatal(err)
	}
	if err := b.store.Leases.Delete(ctx, lease); err != nil {
		t.Fatal(err)
	}
	list, err := b.images.List(t.Context(), image.ListRequest{SharedSize: true, Manifests: true}, nil)
	if err != nil || len(list) != 2 {
		t.Fatalf("%d images: %v", len(list), err)
	}
	if _, _, err := b.images.DiskUsage(t.Context(), nil); err != nil {
		t.Error(err)
	}
	if _, err := b.images.Inspect(t.Context(), "long:1", ""); err == nil || !strings.Contains(err.Error(), "a history of 10001 steps") {
		t.Errorf("what is the matter with it: %v", err)
	}
	if _, err := b.images.Remove(t.Context(), "long:1", image.RemoveOptions{}, nil); err != nil {
		t.Error(err)
	}
	if list, err := b.images.List(t.Context(), image.ListRequest{}, nil); err != nil || len(list) != 1 {
		t.Errorf("%d images after its removal: %v", len(list), err)
	}
}
