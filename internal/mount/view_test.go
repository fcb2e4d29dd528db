package mount_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/kernel"
	"github.com/cleatlabs/cleat/internal/mount"
	"github.com/cleatlabs/cleat/internal/rootpath"
)

func TestViewIsItsOwn(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"lower/vol", "upper", "work", "volume"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	os.WriteFile(dir+"/lower/file", []byte("root"), 0o644)
	os.WriteFile(dir+"/volume/inside", []byte("volume"), 0o644)
	features, err := kernel.Probe()
	if err != nil {
		t.Fatal(err)
	}
	root, err := mount.Overlay{Lower: []string{dir + "/lower"}, Upper: dir + "/upper", Work: dir + "/work"}.Mount(features)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	v, err := mount.NewView(root, dir+"/work", func() error {
		tree, err := mount.Bind(dir+"/volume", true)
		if err != nil {
			return err
		}
		defer unix.Close(tree)
		at, err := rootpath.Open(root, "/vol", unix.O_PATH, 0)
		if err != nil {
			return err
		}
		defer unix.Close(at)
		return mount.Attach(tree, at)
	})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"/file": "root", "/vol/inside": "volume"} {
		if b, err := rootpath.ReadFile(v.Root, path, 100); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", path, b, err)
		}
	}
	// Its own mounts: other packages' tests mount beside this one.
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(mounts), dir) {
		t.Errorf("the view shows in the host's mounts (%v):\n%s", err, mounts)
	}
	v.Close()
	if v.Root != -1 {
		t.Error("still open")
	}
}

func TestRootOfAnotherNamespace(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command("sh", "-c", `mount -t tmpfs t "$1" && echo inside >"$1/f" && echo ready && exec cat`, "sh", dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { in.Close(); cmd.Wait() }()
	if _, err := out.Read(make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	pidfd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	root, err := mount.RootOf(pidfd)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	if b, err := rootpath.ReadFile(root, dir+"/f", 100); err != nil || string(b) != "inside\n" {
		t.Errorf("%q, %v", b, err)
	}
	bare, err := mount.BareRootOf(pidfd)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(bare)
	if _, err := rootpath.ReadFile(bare, dir+"/f", 100); !os.IsNotExist(err) {
		t.Errorf("what is mounted on the root shows: %v", err)
	}
	if _, err := os.Stat(dir + "/f"); !os.IsNotExist(err) {
		t.Errorf("the test's own namespace changed: %v", err)
	}
}
