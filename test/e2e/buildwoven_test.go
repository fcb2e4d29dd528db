package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	cranename "github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/cleatlabs/cleat/test/harness"
)

// TestWhatIsBuiltIsOnTheDiskOnce holds that a layer's archive is not written beside its files, and that it is there all
// the same: for a registry, for an archive, for another engine, after a restart, without the build cache.
func TestWhatIsBuiltIsOnTheDiskOnce(t *testing.T) {
	reg := harness.StartRegistry(t)
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	blobs := filepath.Join(e.DataRoot, "images", "content")
	before := bytesBelow(t, blobs)
	const size = 3_000_000
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "large"), []byte(strings.Repeat("0123456789abcde\n", size/16)), 0o644); err != nil {
		t.Fatal(err)
	}
	dockerfile := "FROM busybox\nCOPY large /src/large\nRUN cp /src/large /copy && ln /copy /link && chmod 600 /copy\nRUN echo >>/src/large\nCMD cat /src/large /link | wc -c\n"
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(dockerfile), 0o644); err != nil {
		t.Fatal(err)
	}
	image := reg.Addr + "/woven/app:v1"
	if r := e.Cleat(t, "build", "-q", "-t", image, dir); r.Code != 0 {
		t.Fatalf("%s", r)
	}
	if more := bytesBelow(t, blobs) - before; more > size/10 {
		t.Errorf("layers of %d bytes have made the blobs %d bytes larger", 3*size, more)
	}
	e.OK(t, "cleat", "builder", "prune", "-af")
	e.Stop(t)
	e.Run(t)
	pushedDigest(t, e.Do(t, "docker", "", "push", image))
	ref, err := cranename.ParseReference(image)
	if err != nil {
		t.Fatal(err)
	}
	img, err := remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}
	wholeImage(t, img)
	archive := filepath.Join(dir, "saved.tar")
	e.OK(t, "cleat", "save", "-o", archive, image)
	there := harness.Start(t, harness.Options{})
	there.OK(t, "cleat", "load", "-q", "-i", archive)
	if got := strings.TrimSpace(there.OK(t, "cleat", "run", "--rm", image)); got != "6000001" {
		t.Errorf("elsewhere its files have %s bytes", got)
	}
	e.OK(t, "cleat", "rmi", image)
	e.OK(t, "cleat", "system", "prune", "-af")
	harness.Eventually(t, func() (bool, string) {
		left, _ := filepath.Glob(filepath.Join(blobs, "woven", "*"))
		return len(left) == 0, fmt.Sprint("left: ", left)
	})
}

// bytesBelow is what the files below a directory take on the disk. What goes meanwhile takes nothing.
func bytesBelow(t *testing.T, dir string) (n int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		var st fs.FileInfo
		if err == nil && !d.IsDir() {
			if st, err = d.Info(); err == nil {
				n += st.Size()
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
