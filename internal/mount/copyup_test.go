package mount_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/mount"
)

// image makes a directory to copy from, and a place for the volume.
func image(t *testing.T) (root int, rootDir, volume string) {
	t.Helper()
	base := t.TempDir()
	rootDir, volume = mkdir(t, base, "root"), mkdir(t, base, "volume", "_data")
	return open(t, rootDir), rootDir, volume
}

func stat(t *testing.T, path string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return st
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestCopyUpKeepsEverything(t *testing.T) {
	root, dir, volume := image(t)
	src := mkdir(t, dir, "var/lib/db")
	old := unix.Timespec{Sec: 1234567890, Nsec: 5}
	write(t, src+"/file", "content")
	must(t, os.Chown(src+"/file", 101, 102))
	must(t, os.Chmod(src+"/file", 0o640|os.ModeSetuid))
	// Not every filesystem that tests run on has both kinds.
	noted := unix.Setxattr(src+"/file", "user.note", []byte("x\x00y"), 0) == nil
	must(t, unix.Setxattr(src+"/file", "security.capability", []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 0))
	must(t, os.Link(src+"/file", mkdir(t, src, "sub")+"/hard"))
	must(t, os.Symlink("/etc/passwd", src+"/link"))
	must(t, os.Symlink("nowhere", src+"/dangling"))
	must(t, os.Lchown(src+"/link", 7, 8))
	must(t, unix.Mkfifo(src+"/pipe", 0o622))
	must(t, unix.Mknod(src+"/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	l, err := net.Listen("unix", src+"/sock")
	must(t, err)
	defer l.Close()
	must(t, os.WriteFile(src+"/empty", nil, 0))
	must(t, os.Chmod(src+"/sub", 0o1777))
	must(t, os.Chown(src, 999, 998))
	must(t, os.Chmod(src, 0o700))
	for _, p := range []string{"/file", "/sub", "/link", "/pipe", ""} {
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, src+p, []unix.Timespec{old, old}, unix.AT_SYMLINK_NOFOLLOW))
	}

	must(t, mount.CopyUp(root, "/var/lib/db", volume))

	for _, p := range []string{"", "/file", "/sub", "/sub/hard", "/link", "/dangling", "/pipe", "/null", "/sock", "/empty"} {
		a, b := stat(t, src+p), stat(t, volume+p)
		if a.Mode != b.Mode || a.Uid != b.Uid || a.Gid != b.Gid || a.Rdev != b.Rdev || a.Size != b.Size && a.Mode&unix.S_IFMT != unix.S_IFDIR {
			t.Errorf("%q: %o %d:%d rdev %d size %d became %o %d:%d rdev %d size %d", p, a.Mode, a.Uid, a.Gid, a.Rdev, a.Size, b.Mode, b.Uid, b.Gid, b.Rdev, b.Size)
		}
		if a.Mtim != b.Mtim {
			t.Errorf("%q: mtime %v became %v", p, a.Mtim, b.Mtim)
		}
	}
	if b, _ := os.ReadFile(volume + "/file"); string(b) != "content" {
		t.Errorf("content %q", b)
	}
	if stat(t, volume+"/file").Ino != stat(t, volume+"/sub/hard").Ino {
		t.Error("a hard link became a file of its own")
	}
	if target, _ := os.Readlink(volume + "/link"); target != "/etc/passwd" {
		t.Errorf("link to %q", target)
	}
	buf := make([]byte, 64)
	if n, err := unix.Getxattr(volume+"/file", "user.note", buf); noted && (err != nil || string(buf[:n]) != "x\x00y") {
		t.Errorf("user.note: %q, %v", buf[:max(n, 0)], err)
	}
	if n, err := unix.Getxattr(volume+"/file", "security.capability", buf); err != nil || n != 20 {
		t.Errorf("security.capability: %d bytes, %v", n, err)
	}
	noRemains(t, volume)
}

// noRemains checks that only the volume's directory is in its parent.
func noRemains(t *testing.T, volume string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(volume))
	if err != nil || len(entries) != 1 {
		t.Errorf("beside the volume: %v, %v", entries, err)
	}
}

func TestCopyUpKeepsHoles(t *testing.T) {
	root, dir, volume := image(t)
	f, err := os.Create(dir + "/sparse")
	must(t, err)
	_, err = f.WriteAt([]byte("middle"), 512<<20)
	must(t, err)
	must(t, f.Truncate(1<<30))
	f.Close()
	must(t, os.WriteFile(dir+"/hole", nil, 0o600))
	must(t, os.Truncate(dir+"/hole", 1<<30))
	must(t, mount.CopyUp(root, "/", volume))
	for _, name := range []string{"/sparse", "/hole"} {
		st := stat(t, volume+name)
		if st.Size != 1<<30 || st.Blocks*512 > 1<<20 {
			t.Errorf("%s: %d bytes in %d blocks", name, st.Size, st.Blocks)
		}
	}
	g, err := os.Open(volume + "/sparse")
	must(t, err)
	defer g.Close()
	buf := make([]byte, 8)
	if _, err := g.ReadAt(buf, 512<<20-1); err != nil || string(buf) != "\x00middle\x00" {
		t.Errorf("content %q, %v", buf, err)
	}
}

func TestCopyUpOnlyIntoAnEmptyDirectory(t *testing.T) {
	root, dir, volume := image(t)
	write(t, mkdir(t, dir, "data")+"/f", "image")
	write(t, volume+"/mine", "user")
	before := stat(t, volume)
	must(t, mount.CopyUp(root, "/data", volume))
	if _, err := os.Lstat(volume + "/f"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("copied into a volume that was in use: %v", err)
	}
	if after := stat(t, volume); after.Mtim != before.Mtim || after.Mode != before.Mode {
		t.Error("the directory's attributes changed")
	}
}

func TestCopyUpOfNothing(t *testing.T) {
	root, dir, volume := image(t)
	must(t, mount.CopyUp(root, "/missing/dir", volume))
	mkdir(t, dir, "empty")
	must(t, os.Chown(dir+"/empty", 70, 70))
	must(t, mount.CopyUp(root, "/empty", volume))
	if st := stat(t, volume); st.Uid != 70 {
		t.Errorf("the volume belongs to %d: an empty source gives its owner, too", st.Uid)
	}
	write(t, dir+"/file", "")
	if err := mount.CopyUp(root, "/file", volume); !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), "/file") {
		t.Errorf("from a file: %v", err)
	}
	if err := mount.CopyUp(root, "/empty", volume+"/none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("to nowhere: %v", err)
	}
}

func TestCopyUpStaysInTheRoot(t *testing.T) {
	root, dir, volume := image(t)
	secret := mkdir(t, filepath.Dir(dir), "secret")
	write(t, secret+"/key", "x")
	must(t, os.Symlink("../secret", dir+"/up"))
	must(t, os.Symlink(secret, dir+"/abs"))
	for _, p := range []string{"/up", "/abs", "/../secret"} {
		must(t, mount.CopyUp(root, p, volume))
		if entries, _ := os.ReadDir(volume); len(entries) != 0 {
			t.Fatalf("%s: copied %v from outside", p, entries)
		}
	}
	// The volume's directory being a link must not lead elsewhere either.
	link := filepath.Join(filepath.Dir(volume), "link")
	must(t, os.Symlink(secret, link))
	if err := mount.CopyUp(root, "/", link); err == nil {
		t.Error("followed a link in the place of the volume")
	}
}

func TestCopyUpAfterACrash(t *testing.T) {
	root, dir, volume := image(t)
	src := mkdir(t, dir, "d")
	for i := range 10 {
		write(t, fmt.Sprintf("%s/f%d", src, i), "x")
	}
	parent := filepath.Dir(volume)
	t.Run("while copying", func(t *testing.T) {
		write(t, mkdir(t, parent, "._data.copy-up")+"/f1", "torn")
		must(t, mount.CopyUp(root, "/d", volume))
		if b, _ := os.ReadFile(volume + "/f1"); string(b) != "x" {
			t.Errorf("f1 holds %q", b)
		}
		noRemains(t, volume)
	})
	t.Run("while moving", func(t *testing.T) {
		must(t, os.Mkdir(parent+"/._data.copied-up", 0o700))
		for i := range 5 {
			must(t, os.Rename(fmt.Sprintf("%s/f%d", volume, i), fmt.Sprintf("%s/._data.copied-up/f%d", parent, i)))
		}
		must(t, mount.CopyUp(root, "/d", volume))
		if entries, _ := os.ReadDir(volume); len(entries) != 10 {
			t.Errorf("holds %v", entries)
		}
		noRemains(t, volume)
	})
}

// A volume with a mount or a quota of its own is filled in place; half a copy must not count as one.
func TestCopyUpKilledInAMountPoint(t *testing.T) {
	const dirs, files = 40, 100
	if at := os.Getenv("CLEAT_TEST_COPY_UP"); at != "" {
		root, volume, _ := strings.Cut(at, ":")
		must(t, mount.CopyUp(open(t, root), "/d", volume))
		return
	}
	root, dir, volume := image(t)
	for d := range dirs {
		sub := mkdir(t, dir, fmt.Sprintf("d/%d", d))
		for f := range files {
			write(t, fmt.Sprintf("%s/%d", sub, f), "x")
		}
	}
	must(t, unix.Mount("tmpfs", volume, "tmpfs", 0, ""))
	t.Cleanup(func() { must(t, unix.Unmount(volume, unix.MNT_DETACH)) })
	child := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	child.Env = append(os.Environ(), "CLEAT_TEST_COPY_UP="+dir+":"+volume)
	must(t, child.Start())
	for empty := true; empty; {
		entries, err := os.ReadDir(volume)
		must(t, err)
		empty = len(entries) == 0
	}
	must(t, child.Process.Kill())
	_ = child.Wait()

	must(t, mount.CopyUp(root, "/d", volume))
	for d := range dirs {
		if entries, _ := os.ReadDir(fmt.Sprintf("%s/%d", volume, d)); len(entries) != files {
			t.Fatalf("directory %d has %d files", d, len(entries))
		}
	}
	if entries, _ := os.ReadDir(volume); len(entries) != dirs {
		t.Errorf("holds %v", entries)
	}
	noRemains(t, volume)
}

// So is one that was complete, but not all in its place yet.
func TestCopyUpKilledWhileMovingInAMountPoint(t *testing.T) {
	root, dir, volume := image(t)
	write(t, mkdir(t, dir, "d")+"/first", "x")
	write(t, dir+"/d/second", "x")
	must(t, unix.Mount("tmpfs", volume, "tmpfs", 0, ""))
	t.Cleanup(func() { must(t, unix.Unmount(volume, unix.MNT_DETACH)) })
	must(t, os.Symlink(".copy-up-X", filepath.Dir(volume)+"/._data.copy-up-in"))
	write(t, volume+"/first", "x")
	write(t, mkdir(t, volume, ".copy-up-X.complete")+"/second", "x")
	must(t, mount.CopyUp(root, "/d", volume))
	if entries, _ := os.ReadDir(volume); len(entries) != 2 {
		t.Errorf("holds %v", entries)
	}
	noRemains(t, volume)
}

func TestCopyUpKeepsWhatWasMadeMeanwhile(t *testing.T) {
	root, _, volume := image(t)
	staged := filepath.Dir(volume) + "/._data.copied-up"
	for _, name := range []string{"/both/image", "/only/image"} {
		write(t, mkdir(t, staged, filepath.Dir(name))+"/image", "x")
	}
	write(t, mkdir(t, volume, "both")+"/mine", "user")
	must(t, mount.CopyUp(root, "/", volume))
	for name, want := range map[string]bool{"/both/mine": true, "/both/image": false, "/only/image": true} {
		if _, err := os.Stat(volume + name); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	noRemains(t, volume)
}

func TestCopyUpErrorLeavesNothing(t *testing.T) {
	for _, kind := range []string{"directory", "mount point"} {
		t.Run(kind, func(t *testing.T) {
			root, dir, volume := image(t)
			small := filepath.Dir(volume)
			if kind == "mount point" {
				small = volume
			}
			must(t, unix.Mount("tmpfs", small, "tmpfs", 0, "size=64k"))
			defer unix.Unmount(small, unix.MNT_DETACH)
			must(t, os.MkdirAll(volume, 0o755))
			write(t, mkdir(t, dir, "d/sub")+"/first", "x")
			write(t, dir+"/d/big", strings.Repeat("x", 1<<20))
			err := mount.CopyUp(root, "/d", volume)
			if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "big") {
				t.Errorf("full disk: %v", err)
			}
			if entries, _ := os.ReadDir(volume); len(entries) != 0 {
				t.Errorf("left %v", entries)
			}
			if kind == "directory" {
				noRemains(t, volume)
			}
			must(t, os.Remove(dir+"/d/big"))
			must(t, mount.CopyUp(root, "/d", volume))
			if _, err := os.Stat(volume + "/sub/first"); err != nil {
				t.Errorf("second try: %v", err)
			}
		})
	}
}

func TestCopyUpFromAnOverlay(t *testing.T) {
	base := t.TempDir()
	lower, upper := mkdir(t, base, "lower/d"), mkdir(t, base, "upper")
	write(t, lower+"/a", "a")
	must(t, os.Link(lower+"/a", lower+"/b"))
	write(t, lower+"/gone", "")
	o := mount.Overlay{Lower: []string{base + "/lower"}, Upper: upper, Work: mkdir(t, base, "work")}
	root, err := o.Mount(features(t))
	must(t, err)
	defer unix.Close(root)
	must(t, unix.Unlinkat(root, "d/gone", 0))
	volume := mkdir(t, base, "v/_data")
	must(t, mount.CopyUp(root, "d", volume))
	if stat(t, volume+"/a").Ino != stat(t, volume+"/b").Ino {
		t.Error("hard link lost")
	}
	if entries, _ := os.ReadDir(volume); len(entries) != 2 {
		t.Errorf("holds %v", entries)
	}
	names := make([]byte, 1024)
	if n, err := unix.Listxattr(volume, names); err != nil || strings.Contains(string(names[:n]), "overlay") {
		t.Errorf("overlay's attributes were copied: %q, %v", names[:n], err)
	}
}

func TestCopyUpOfDeepAndWideTrees(t *testing.T) {
	root, dir, volume := image(t)
	deep := mkdir(t, dir, "src", strings.Repeat("d/", 400))
	write(t, deep+"/bottom", "x")
	for i := range 3000 {
		write(t, fmt.Sprintf("%s/src/f%d", dir, i), "")
	}
	start := time.Now()
	must(t, mount.CopyUp(root, "/src", volume))
	t.Logf("3,000 files and 400 levels in %v", time.Since(start))
	if _, err := os.Stat(volume + "/" + strings.Repeat("d/", 400) + "bottom"); err != nil {
		t.Error(err)
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil || len(fds) > 60 {
		t.Errorf("%d descriptors are open, %v", len(fds), err)
	}
}
