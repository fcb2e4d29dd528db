package engine

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// What --device names may be a link, to a node or to a directory of nodes.
func TestDevicesBehindLinks(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "nodes"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mknod(filepath.Join(dir, "nodes", "zero"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5))); err != nil {
		t.Skipf("only root can make what is looked for: %v", err)
	}
	for name, want := range map[string]string{"nodes": "/dev/x/zero", "nodes/zero": "/dev/x"} {
		link := filepath.Join(dir, "link to "+filepath.Base(name))
		if err := os.Symlink(filepath.Join(dir, name), link); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{filepath.Join(dir, name), link} {
			found, err := devicesBelow(path, "/dev/x")
			if err != nil || len(found) != 1 || found[0].Path != want || found[0].Minor != 5 {
				t.Errorf("%s: %+v, %v", path, found, err)
			}
		}
	}
}
