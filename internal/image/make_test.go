package image_test

import (
	"archive/tar"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/image"
	"github.com/cleatlabs/cleat/internal/registryclient"
)

// noiseLayer writes a layer of one file that cannot be compressed.
func noiseLayer(size int64) func(context.Context, io.Writer) (bool, error) {
	return func(_ context.Context, w io.Writer) (bool, error) {
		tw := tar.NewWriter(w)
		if err := tw.WriteHeader(&tar.Header{Name: "f", Mode: 0o600, Size: size, Typeflag: tar.TypeReg}); err != nil {
			return false, err
		}
		if _, err := io.CopyN(tw, rand.Reader, size); err != nil {
			return false, err
		}
		return false, tw.Close()
	}
}

func TestMakeLeavesNothingOfAFailure(t *testing.T) {
	b := newBench(t)
	broken := errors.New("the container's disk is broken")
	ctx, cancel := context.WithCancel(t.Context())
	for name, layer := range map[string]func(context.Context, io.Writer) (bool, error){
		"an error": func(ctx context.Context, w io.Writer) (bool, error) {
			io.CopyN(w, rand.Reader, 1<<20)
			return false, broken
		},
		"no tar": func(_ context.Context, w io.Writer) (bool, error) {
			_, err := io.WriteString(w, strings.Repeat("this is no tar stream ", 100))
			return false, err
		},
		"cancelled": func(ctx context.Context, w io.Writer) (bool, error) {
			io.CopyN(w, rand.Reader, 1<<20)
			cancel()
			return false, context.Cause(ctx)
		},
	} {
		with := t.Context()
		if name == "cancelled" {
			with = ctx
		}
		if id, _, err := b.images.Make(with, image.MakeRequest{Repo: "mine/broken", Layer: layer}); err == nil {
			t.Errorf("%s: made %s", name, id)
		} else if name == "an error" && !errors.Is(err, broken) {
			t.Errorf("%v", err)
		}
	}
	if _, _, err := b.images.Make(t.Context(), image.MakeRequest{Repo: "UPPER", Layer: noiseLayer(1)}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("%v", err)
	}
	b.mustBeEmpty(t)
	if _, err := b.images.Resolve(t.Context(), "mine/broken", ""); !errdefs.IsNotFound(err) {
		t.Errorf("%v", err)
	}
}

func TestMakeOnAFullDisk(t *testing.T) {
	root := t.TempDir()
	if err := unix.Mount("small", root, "tmpfs", 0, "size=3m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(root, unix.MNT_DETACH) })
	b := open(t, root+"/store", registryclient.Config{})
	b.mayWarn.Store(true)
	_, _, err := b.images.Make(t.Context(), image.MakeRequest{Repo: "mine/large", Layer: noiseLayer(8 << 20)})
	if err == nil || !strings.Contains(err.Error(), "no space left on device") || !strings.Contains(err.Error(), root) {
		t.Errorf("%v", err)
	}
	b.mayWarn.Store(false)
	// There is room again for one that fits.
	id, name, err := b.images.Make(t.Context(), image.MakeRequest{Repo: "mine/small", Layer: noiseLayer(100 << 10)})
	if err != nil || name != "mine/small:latest" {
		t.Fatalf("%s, %v", name, err)
	}
	img, err := b.images.Resolve(t.Context(), "mine/small", "")
	if err != nil || img.ID != id || len(img.Config.RootFS.DiffIDs) != 1 {
		t.Errorf("%+v, %v", img, err)
	}
	// And an image of the image.
	second, _, err := b.images.Make(t.Context(), image.MakeRequest{Base: img, Comment: "second", Layer: noiseLayer(1000)})
	if err != nil {
		t.Fatal(err)
	}
	img, err = b.images.Resolve(t.Context(), second.String(), "")
	if err != nil || len(img.Config.RootFS.DiffIDs) != 2 || img.Config.History[len(img.Config.History)-1].Comment != "second" {
		t.Errorf("%+v, %v", img, err)
	}
	dirs, err := b.images.Lower(t.Context(), img)
	if err != nil || len(dirs) != 2 {
		t.Errorf("%v, %v", dirs, err)
	}
}

// An image that is removed while another is made of it stays as long as that takes, and what the other has of it, longer.
func TestMakeOfAnImageThatIsRemovedMeanwhile(t *testing.T) {
	b := newBench(t)
	if _, _, err := b.images.Make(t.Context(), image.MakeRequest{Repo: "mine/base", Layer: noiseLayer(1000)}); err != nil {
		t.Fatal(err)
	}
	base, err := b.images.Resolve(t.Context(), "mine/base", "")
	if err != nil {
		t.Fatal(err)
	}
	layer := noiseLayer(1000)
	id, _, err := b.images.Make(t.Context(), image.MakeRequest{Base: base, Layer: func(ctx context.Context, w io.Writer) (bool, error) {
		if _, err := b.images.Remove(t.Context(), "mine/base", image.RemoveOptions{}, nil); err != nil {
			return false, err
		}
		if err := b.store.GC(t.Context()); err != nil {
			return false, err
		}
		return layer(ctx, w)
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.store.GC(t.Context()); err != nil {
		t.Fatal(err)
	}
	made, err := b.images.Resolve(t.Context(), id.String(), "")
	if err != nil {
		t.Fatal(err)
	}
	// All its layers are there: another can be made of it.
	if _, _, err := b.images.Make(t.Context(), image.MakeRequest{Base: made, Layer: layer}); err != nil {
		t.Error(err)
	}
}
