package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// TestSizeOfTheWritableLayer: --storage-opt size, where the data root is on XFS with project quota; elsewhere it is
// refused rather than ignored.
func TestSizeOfTheWritableLayer(t *testing.T) {
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		for opt, want := range map[string]string{
			"size=10m": "--storage-opt is supported only for overlay over xfs with 'pquota' mount option",
			"size=x":   "--storage-opt size=x: invalid size",
			"size=0":   "--storage-opt size=0: invalid size",
			"foo=x":    "Unknown option foo (--storage-opt)",
		} {
			if r := e.Do(t, program, "", "run", "--rm", "--storage-opt", opt, "busybox", "true"); r.Code != 125 || !strings.Contains(r.Stderr, want) {
				t.Errorf("%s", r)
			}
		}
	})
	image, root := filepath.Join(t.TempDir(), "image"), t.TempDir()
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 400<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.xfs", "-q", image).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := exec.Command("mount", "-t", "xfs", "-o", "loop,prjquota", image, root).CombinedOutput(); err != nil {
		t.Logf("this kernel mounts no XFS with project quota (%s): only that a size is refused is tested here", out)
		return
	}
	t.Cleanup(func() {
		harness.Eventually(t, func() (bool, string) { // the kernel lets go of namespaces that had it a moment after their end
			out, err := exec.Command("umount", root).CombinedOutput()
			return err == nil, string(out)
		})
	})
	limited := harness.Start(t, harness.Options{Args: []string{"--data-root", filepath.Join(root, "data")}})
	limited.Load(t, "busybox")
	fill := "dd if=/dev/zero of=/big bs=1M count=40 2>/dev/null; wc -c </big"
	each(t, func(t *testing.T, program string) {
		n := name(t)
		limited.OK(t, program, "create", "--name", n, "--storage-opt", "size=20m", "busybox", "sh", "-c", fill)
		for range 2 {
			if got := limited.OK(t, program, "start", "-a", n); got != "20971520" {
				t.Errorf("%s bytes could be written", got)
			}
		}
		if got := limited.OK(t, program, "run", "--rm", "busybox", "sh", "-c", fill); got != "41943040" {
			t.Errorf("without a limit: %s bytes", got)
		}
		limited.OK(t, program, "rm", n)
	})
}
