package mount_test

import (
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/mount"
)

// tmpfs mounts one at dir and detaches it after the test.
func tmpfs(t *testing.T, dir string) {
	t.Helper()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
}

func open(t *testing.T, path string) int {
	t.Helper()
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func TestBindRecursion(t *testing.T) {
	base := t.TempDir()
	src, dst := mkdir(t, base, "src"), mkdir(t, base, "dst")
	tmpfs(t, mkdir(t, src, "inner"))
	write(t, src+"/inner/f", "below")
	for _, recursive := range []bool{true, false} {
		for name, bind := range map[string]func() (int, error){
			"path": func() (int, error) { return mount.Bind(src, recursive) },
			"fd":   func() (int, error) { return mount.BindFD(open(t, src), recursive) },
		} {
			fd, err := bind()
			if err != nil {
				t.Fatal(err)
			}
			if err := mount.Attach(fd, open(t, dst)); err != nil {
				t.Fatal(err)
			}
			unix.Close(fd)
			_, err = os.Stat(dst + "/inner/f")
			if (err == nil) != recursive {
				t.Errorf("%s, recursive %v: stat of a file on an inner mount: %v", name, recursive, err)
			}
			if err := mount.UnmountAll(dst); err != nil {
				t.Error(err)
			}
			if is, err := mount.IsMountpoint(dst); is || err != nil {
				t.Errorf("still mounted: %v, %v", is, err)
			}
		}
	}
}

func TestBindOfAFile(t *testing.T) {
	base := t.TempDir()
	write(t, base+"/a", "from a")
	write(t, base+"/b", "")
	fd, err := mount.Bind(base+"/a", false)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := mount.Attach(fd, open(t, base+"/b")); err != nil {
		t.Fatal(err)
	}
	defer mount.UnmountAll(base)
	if b, _ := os.ReadFile(base + "/b"); string(b) != "from a" {
		t.Errorf("b holds %q", b)
	}
	if is, err := mount.IsMountpoint(base + "/b"); !is || err != nil {
		t.Errorf("IsMountpoint = %v, %v", is, err)
	}
	if is, err := mount.IsMountpoint(base + "/a"); is || err != nil {
		t.Errorf("the source is said to be a mount point: %v, %v", is, err)
	}
}

func TestBindErrors(t *testing.T) {
	if _, err := mount.Bind(t.TempDir()+"/none", true); !errors.Is(err, unix.ENOENT) {
		t.Errorf("missing source: %v", err)
	}
	if _, err := mount.BindFD(-1, true); !errors.Is(err, unix.EBADF) {
		t.Errorf("bad descriptor: %v", err)
	}
	if _, err := mount.IsMountpoint(t.TempDir() + "/none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing path: %v", err)
	}
}

func TestSetAttrReadOnly(t *testing.T) {
	for _, recursive := range []bool{true, false} {
		base := t.TempDir()
		src, dst := mkdir(t, base, "src"), mkdir(t, base, "dst")
		tmpfs(t, mkdir(t, src, "inner"))
		fd, err := mount.Bind(src, true)
		if err != nil {
			t.Fatal(err)
		}
		if err := mount.SetAttr(fd, mount.Attr{Set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOEXEC, Propagation: "rprivate", Recursive: recursive}); err != nil {
			t.Fatal(err)
		}
		if err := mount.Attach(fd, open(t, dst)); err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
		if err := os.WriteFile(dst+"/f", nil, 0o600); !errors.Is(err, unix.EROFS) {
			t.Errorf("recursive %v: write: %v", recursive, err)
		}
		err = os.WriteFile(dst+"/inner/f", nil, 0o600)
		if got := errors.Is(err, unix.EROFS); got != recursive {
			t.Errorf("recursive %v: write to an inner mount: %v", recursive, err)
		}
		if err := os.WriteFile(src+"/f", nil, 0o600); err != nil {
			t.Errorf("the source became read-only, too: %v", err)
		}
		if err := mount.UnmountAll(dst); err != nil {
			t.Error(err)
		}
	}
}

func TestSetAttrPropagationNames(t *testing.T) {
	fd, err := mount.Bind(t.TempDir(), false)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for _, name := range []string{"", "private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable"} {
		if err := mount.SetAttr(fd, mount.Attr{Propagation: name}); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"r", "rr", "Private", "rrshared", "x"} {
		if err := mount.SetAttr(fd, mount.Attr{Propagation: name}); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestUnmountAllTakesStacksAndOddNames(t *testing.T) {
	base := t.TempDir()
	at := mkdir(t, base, "a b\n\\c")
	tmpfs(t, at)
	tmpfs(t, at)
	tmpfs(t, mkdir(t, at, "deep"))
	other := mkdir(t, base, "a b\n\\c-not")
	tmpfs(t, other)
	if points, err := mount.Below(at); err != nil || !slices.Equal(points, []string{at + "/deep", at, at}) {
		t.Errorf("Below = %q, %v", points, err)
	}
	if err := mount.UnmountAll(at); err != nil {
		t.Fatal(err)
	}
	if points, err := mount.Below(base); err != nil || !slices.Equal(points, []string{other}) {
		t.Errorf("left %q, %v", points, err)
	}
	for _, p := range []string{"", "/", "//"} {
		if err := mount.UnmountAll(p); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("UnmountAll(%q): %v", p, err)
		}
	}
}
