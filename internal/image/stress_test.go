package image_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/cleatlabs/cleat/internal/image"
)

// TestEverythingAtOnce pulls, uses and removes images that share layers, with a
// collector that never rests. Layers under a hold are always there.
func TestEverythingAtOnce(t *testing.T) {
	reg, b := newRegistry(t), newBench(t)
	base := layerOf(t, entry{"base", noise(200_000)})
	const images, users, rounds = 3, 3, 6
	refs := make([]string, images)
	for i := range refs {
		refs[i] = reg.push(t, fmt.Sprintf("lab/x:%d", i), imageOf(t, "amd64", base, layerOf(t, entry{"own", fmt.Sprint(i)})))
	}
	ctx := context.Background()
	quit := make(chan struct{})
	var collector, wg sync.WaitGroup
	collector.Go(func() {
		for {
			select {
			case <-quit:
				return
			default:
			}
			if err := b.store.GC(ctx); err != nil {
				t.Error(err)
				return
			}
			if err := b.images.ReleaseUnused(ctx, func(string) bool { return false }); err != nil {
				t.Error(err)
				return
			}
			if _, err := b.images.List(ctx, image.ListRequest{SharedSize: true}, nil); err != nil && !errdefs.IsNotFound(err) {
				t.Error(err)
				return
			}
		}
	})
	for u := range users {
		wg.Go(func() {
			for r := range rounds {
				ref := refs[(u+r)%images]
				if _, err := b.tryPull(ctx, image.PullRequest{Ref: ref}); err != nil {
					t.Errorf("pull: %v", err)
					return
				}
				useImage(t, b, ref)
				if _, err := b.images.Remove(ctx, ref, image.RemoveOptions{}, nil); err != nil && !errdefs.IsNotFound(err) {
					t.Errorf("remove: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	close(quit)
	collector.Wait()
	if err := b.images.ReleaseUnused(ctx, func(string) bool { return false }); err != nil {
		t.Fatal(err)
	}
	b.mustBeEmpty(t)
}

// useImage does what the making of a container does. Somebody else may have removed the
// image, before; not during.
func useImage(t *testing.T, b *bench, ref string) {
	ctx := context.Background()
	img, err := b.images.Resolve(ctx, ref, "")
	if errdefs.IsNotFound(err) {
		return
	}
	if err != nil {
		t.Errorf("resolve: %v", err)
		return
	}
	release := b.images.Hold(img.ID)
	defer release()
	dirs, err := b.images.Lower(ctx, img)
	if errdefs.IsNotFound(err) {
		return
	}
	if err != nil {
		t.Errorf("lower: %v", err)
		return
	}
	for _, d := range dirs {
		if _, err := os.Stat(d); err != nil {
			t.Errorf("a layer in use is not there: %v", err)
		}
	}
}

// TestSaveWhileRemoved: an archive has the whole image, or there is none.
func TestSaveWhileRemoved(t *testing.T) {
	b := newBench(t)
	ctx := context.Background()
	archive := ociArchive(t, "docker.io/lab/x:1", imageOf(t, "amd64", layerOf(t, entry{"a", "a"})))
	quit := make(chan struct{})
	var other sync.WaitGroup
	other.Go(func() {
		for {
			select {
			case <-quit:
				return
			default:
			}
			if _, err := b.load(archive, image.LoadOptions{}); err != nil {
				t.Error(err)
				return
			}
			if _, err := b.images.Remove(ctx, "lab/x:1", image.RemoveOptions{}, nil); err != nil {
				t.Error(err)
				return
			}
			if err := b.store.GC(ctx); err != nil {
				t.Error(err)
				return
			}
		}
	})
	saved, broken := 0, 0
	for range 600 {
		found, err := b.images.Save(ctx, []string{"lab/x:1"}, nil)
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			t.Error(err)
			break
		}
		var out bytes.Buffer
		err = found.Write(ctx, &out)
		found.Close()
		if blobs := countBlobs(t, &out); err != nil || blobs != 3 {
			t.Logf("%d blobs, %v", blobs, err)
			broken++
		}
		saved++
	}
	close(quit)
	other.Wait()
	if broken > 0 {
		t.Errorf("%d of %d archives are not whole", broken, saved)
	}
}

// countBlobs counts the blobs of an image archive.
func countBlobs(t *testing.T, r io.Reader) (n int) {
	t.Helper()
	for archive := tar.NewReader(r); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return n
		}
		if err != nil {
			t.Log(err)
			return n
		}
		if strings.HasPrefix(h.Name, "blobs/") && h.Typeflag == tar.TypeReg {
			n++
		}
	}
}

// TestTagByIDWhileAnotherNameGoes: the image is there all the time, whichever of its names are.
func TestTagByIDWhileAnotherNameGoes(t *testing.T) {
	b := newBench(t)
	ctx := context.Background()
	if _, err := b.load(ociArchive(t, "docker.io/lab/stays:1", imageOf(t, "amd64", layerOf(t, entry{"a", "a"}))), image.LoadOptions{}); err != nil {
		t.Fatal(err)
	}
	id := b.resolve(t, "lab/stays:1").ID.String()
	quit := make(chan struct{})
	var other sync.WaitGroup
	other.Go(func() {
		for {
			select {
			case <-quit:
				return
			default:
			}
			if err := b.images.Tag(ctx, "lab/stays:1", "lab/goes", "1"); err != nil {
				t.Error(err)
			}
			if _, err := b.images.Remove(ctx, "lab/goes:1", image.RemoveOptions{}, nil); err != nil {
				t.Error(err)
			}
		}
	})
	for range 300 {
		if err := b.images.Tag(ctx, id, "lab/new", "1"); err != nil {
			t.Error(err)
			break
		}
	}
	close(quit)
	other.Wait()
}
