package volume_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/mount"
	"github.com/cleatlabs/cleat/internal/volume"
	"github.com/cleatlabs/cleat/test/expect"
)

// quotaDirs names directories on filesystems with project quota, separated by colons,
// for machines where the test cannot make its own.
const quotaDirs = "CLEAT_TEST_QUOTA_DIRS"

// loopMount makes a filesystem in a file and mounts it.
func loopMount(t *testing.T, megabytes int64, options string, mkfs ...string) (string, error) {
	t.Helper()
	image, dir := filepath.Join(t.TempDir(), "image"), t.TempDir()
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, megabytes<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(mkfs[0], append(mkfs[1:], image)...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", mkfs, err, out)
	}
	device := loopDevice(t, image)
	parsed, err := mount.ParseOptions(options)
	if err != nil {
		t.Fatal(err)
	}
	if err := mount.At(device.Name(), dir, strings.TrimPrefix(filepath.Base(mkfs[0]), "mkfs."), parsed); err != nil {
		return "", err
	}
	t.Cleanup(func() {
		if err := mount.UnmountAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir, nil
}

// loopDevice gives a block device of the file, which goes when nobody uses it.
func loopDevice(t *testing.T, image string) *os.File {
	t.Helper()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	file, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for range 100 {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			t.Fatal(err)
		}
		device, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		err = unix.IoctlLoopConfigure(int(device.Fd()), &unix.LoopConfig{Fd: uint32(file.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}})
		if err == nil {
			t.Cleanup(func() { device.Close() })
			return device
		}
		device.Close()
		if !errors.Is(err, unix.EBUSY) { // somebody else was quicker
			t.Fatal(err)
		}
	}
	t.Fatal("no loop device is free")
	return nil
}

// writeAsUser writes without the capability to exceed quotas, and returns how much
// could be written.
func writeAsUser(t *testing.T, path string, size int) (int, error) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		return 0, err // XFS makes no file any more where there is no room for it
	}
	defer f.Close()
	type result struct {
		n   int
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends without its capability
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var caps [2]unix.CapUserData
		err := unix.Capget(&header, &caps[0])
		caps[0].Effective &^= 1 << unix.CAP_SYS_RESOURCE
		if err == nil {
			err = unix.Capset(&header, &caps[0])
		}
		sum := 0
		for err == nil && sum < size {
			var n int
			n, err = unix.Write(int(f.Fd()), make([]byte, 64<<10))
			sum += max(n, 0)
		}
		done <- result{sum, err}
	}()
	r := <-done
	return r.n, r.err
}

func TestSizeIsLimited(t *testing.T) {
	dirs := strings.FieldsFunc(os.Getenv(quotaDirs), func(r rune) bool { return r == ':' })
	if len(dirs) == 0 {
		dir, err := loopMount(t, 64, "prjquota", "mkfs.ext4", "-q", "-O", "quota,project", "-E", "quotatype=prjquota")
		if err != nil {
			t.Logf("this kernel mounts no ext4 with project quota (%v): only that a size is refused is tested here", err)
		} else {
			dirs = []string{dir}
		}
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) { sizeIsLimited(t, filepath.Join(dir, "volumes")) })
	}
	s := open(t, t.TempDir())
	if _, err := create(s, volume.Request{Name: "vol", Options: map[string]string{"size": "4m"}}); !errdefs.IsNotImplemented(err) ||
		!strings.Contains(err.Error(), "create vol: quota size requested but no quota support: the filesystem of ") || !strings.Contains(err.Error(), "prjquota") {
		t.Errorf("without quota: %v", err)
	}
	for _, size := range []string{"much", "-1", "0"} {
		if _, err := create(s, volume.Request{Name: "vol", Options: map[string]string{"size": size}}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("size %s: %v", size, err)
		}
	}
	if got := names(t, s, nil); len(got) > 0 {
		t.Errorf("refused volumes are there: %v", got)
	}
}

func sizeIsLimited(t *testing.T, root string) {
	// What is left of an engine that was killed has no project for long: the first volume gets the first.
	for _, point := range []string{"volume.create.after-limit", "volume.create.before-rename", "volume.remove.after-rename"} {
		killedAt(t, point, root, "64m")
		s := open(t, root)
		p, err := mount.OpenProject(root, 0x436c0000)
		if err != nil {
			t.Fatal(err)
		}
		// XFS counts what is deleted in its own time.
		files, err := p.Files()
		for end := time.Now().Add(expect.Patience); files != 0 && err == nil && time.Now().Before(end); {
			time.Sleep(10 * time.Millisecond)
			files, err = p.Files()
		}
		if _, err := create(s, volume.Request{Name: "first", Options: sized("4m")}); err != nil {
			t.Fatal(err)
		}
		if _, limit, err := p.Used(); limit != 4<<20 || err != nil {
			t.Errorf("killed at %s: the first project's limit is %d, %v", point, limit, err)
		}
		p.Close()
		if err := s.Remove(ctx, "first", true); err != nil {
			t.Error(err)
		}
	}
	s := open(t, root)
	make4m := func(name string) string {
		t.Helper()
		v, err := create(s, volume.Request{Name: name, Options: map[string]string{"size": "4m"}})
		if err != nil {
			t.Fatal(err)
		}
		return v.Mountpoint
	}
	full := func(path string) {
		t.Helper()
		n, err := writeAsUser(t, path, 8<<20)
		if !errors.Is(err, unix.EDQUOT) && !errors.Is(err, unix.ENOSPC) || n < 3<<20 || n > 4<<20 {
			t.Errorf("%s: wrote %d bytes, %v", path, n, err)
		}
	}
	a, b := make4m("aa"), make4m("bb")
	full(filepath.Join(a, "f"))
	full(filepath.Join(b, "f")) // each has its own
	if _, _, err := s.Snapshot(ctx, "aa", "snap", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Restore(ctx, "aa", "snap"); err != nil { // for a moment there are two of it
		t.Fatal(err)
	}
	if st, err := os.Stat(filepath.Join(a, "f")); err != nil || st.Size() < 3<<20 {
		t.Error(st, err)
	}
	if n, err := writeAsUser(t, filepath.Join(a, "g"), 2<<20); err == nil {
		t.Errorf("after a restore another %d bytes", n)
	}
	v, _, err := s.Clone(ctx, volume.CloneRequest{From: "aa", To: "cc"}, nil)
	if err != nil || v.Options["size"] != "4m" {
		t.Fatal(v, err)
	}
	if n, err := writeAsUser(t, filepath.Join(v.Mountpoint, "g"), 2<<20); err == nil {
		t.Errorf("in a clone another %d bytes", n)
	}
	// A new volume is filled from the image although renames into it are refused.
	image := t.TempDir()
	if err := os.WriteFile(filepath.Join(image, "seed"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(image, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	d := make4m("dd")
	if err := mount.CopyUp(fd, "/", d); err != nil {
		t.Error(err)
	}
	full(filepath.Join(d, "f"))
	// The next engine limits it, too, and what is removed leaves no limit behind.
	s = open(t, root)
	full(filepath.Join(b, "f"))
	for _, name := range []string{"aa", "bb", "cc", "dd"} {
		if err := s.Remove(ctx, name, true); err != nil {
			t.Error(err)
		}
	}
	for id := uint32(0x436c0000); id < 0x436c0008; id++ {
		p, err := mount.OpenProject(root, id)
		if err != nil {
			t.Fatal(err)
		}
		// XFS counts what is deleted in its own time.
		used, limit, err := p.Used()
		for end := time.Now().Add(expect.Patience); used != 0 && err == nil && time.Now().Before(end); {
			time.Sleep(10 * time.Millisecond)
			used, limit, err = p.Used()
		}
		if used != 0 || limit != 0 || err != nil {
			t.Errorf("project %d: %d bytes, limit %d, %v", id, used, limit, err)
		}
		p.Close()
	}
}

// TestClonesShareContent where the filesystem can: a clone takes no space and hardly
// any time.
func TestClonesShareContent(t *testing.T) {
	dir, err := loopMount(t, 400, "", "mkfs.xfs", "-q", "-m", "reflink=1")
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, filepath.Join(dir, "volumes"))
	v, err := create(s, volume.Request{Name: "big"})
	if err != nil {
		t.Fatal(err)
	}
	const size = 100 << 20
	if n, err := writeAsUser(t, filepath.Join(v.Mountpoint, "f"), size); err != nil || n != size {
		t.Fatal(n, err)
	}
	free := func() uint64 {
		var st unix.Statfs_t
		if err := unix.Syncfs(dirFD(t, dir)); err != nil {
			t.Fatal(err)
		}
		if err := unix.Statfs(dir, &st); err != nil {
			t.Fatal(err)
		}
		return st.Bfree * uint64(st.Bsize)
	}
	before := free()
	for i := range 5 {
		_, how, err := s.Clone(ctx, volume.CloneRequest{From: "big", To: fmt.Sprintf("clone-%d", i)}, nil)
		if err != nil || how.Method != "reflink" || how.Bytes != size {
			t.Fatalf("%+v, %v", how, err)
		}
	}
	if _, how, err := s.Snapshot(ctx, "big", "snap", nil); err != nil || how.Method != "reflink" {
		t.Errorf("%+v, %v", how, err)
	}
	if taken := before - free(); taken > 10<<20 {
		t.Errorf("six copies of %d bytes take %d", size, taken)
	}
}

func dirFD(t *testing.T, dir string) int {
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return int(f.Fd())
}
