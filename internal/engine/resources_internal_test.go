package engine

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"
)

// A create refuses such a limit, which most kinds cannot have; a container that has one of an earlier engine goes on, and
// is started again, with what the kernel makes of it.
func TestNegativeLimitOfAnEarlierEngine(t *testing.T) {
	limits, err := rlimits([]*container.Ulimit{{Name: "core", Soft: -5, Hard: -5}})
	if err != nil || len(limits) != 1 || limits[0].Soft != 1<<64-5 || limits[0].Hard != 1<<64-5 {
		t.Errorf("%+v, %v", limits, err)
	}
}

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
