package mount_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/mount"
)

// onDisk is a directory on a filesystem that can be mirrored.
func onDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if !mount.CanMirror(dir) {
		dir, err := os.MkdirTemp("/var/tmp", "mirror")
		must(t, err)
		t.Cleanup(func() { os.RemoveAll(dir) })
		if !mount.CanMirror(dir) {
			t.Fatal("neither the temporary directory nor /var/tmp lies on ext4, XFS, Btrfs or F2FS: set TMPDIR")
		}
		return dir
	}
	return dir
}

// picture is all that there is to be seen of a tree: two equal ones have equal pictures.
func picture(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	names := map[uint64]string{}
	must(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		st := stat(t, p)
		line := fmt.Sprintf("%s %o %d:%d %d %d.%d", rel, st.Mode, st.Uid, st.Gid, st.Rdev, st.Mtim.Sec, st.Mtim.Nsec)
		if !d.IsDir() && st.Nlink > 1 {
			if names[st.Ino] == "" {
				names[st.Ino] = rel
			}
			line += " =" + names[st.Ino]
		}
		switch d.Type() {
		case 0:
			b, err := os.ReadFile(p)
			must(t, err)
			line += fmt.Sprintf(" %d bytes %q", len(b), b[:min(len(b), 40)])
			if len(b) > 40 {
				line += fmt.Sprintf(" sum %x", sum(b))
			}
		case fs.ModeSymlink:
			target, err := os.Readlink(p)
			must(t, err)
			line += " -> " + target
		}
		if d.Type()&fs.ModeSymlink == 0 {
			buf := make([]byte, 100)
			if n, err := unix.Getxattr(p, "user.note", buf); err == nil {
				line += fmt.Sprintf(" note %q", buf[:n])
			}
		}
		out = append(out, line)
		return nil
	}))
	return out
}

func sum(b []byte) (s uint64) {
	for i, c := range b {
		s = s*31 + uint64(c) + uint64(i)
	}
	return s
}

func compareTrees(t *testing.T, src, dst string) {
	t.Helper()
	a, b := picture(t, src), picture(t, dst)
	if slices.Equal(a, b) {
		return
	}
	for _, l := range a {
		if !slices.Contains(b, l) {
			t.Errorf("only the original: %s", l)
		}
	}
	for _, l := range b {
		if !slices.Contains(a, l) {
			t.Errorf("only the copy: %s", l)
		}
	}
}

func newMirror(t *testing.T) (src, dst string, m *mount.Mirror) {
	t.Helper()
	base := onDisk(t)
	src, dst = mkdir(t, base, "src"), mkdir(t, base, "dst")
	m, err := mount.NewMirror(src, dst)
	must(t, err)
	t.Cleanup(func() { m.Close() })
	return src, dst, m
}

// TestMirrorCatchesUp: whatever happens to a tree between two passes, the second makes the copy equal.
func TestMirrorCatchesUp(t *testing.T) {
	src, dst, m := newMirror(t)
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	must(t, os.WriteFile(src+"/big", big, 0o600))
	must(t, os.WriteFile(src+"/gone", []byte("x"), 0o600))
	must(t, os.WriteFile(src+"/type", []byte("x"), 0o600))
	must(t, os.WriteFile(src+"/a", []byte("a"), 0o600))
	must(t, os.Link(src+"/a", src+"/b"))
	must(t, os.Link(src+"/a", mkdir(t, src, "dir/deep")+"/c"))
	must(t, os.WriteFile(src+"/lone", []byte("lone"), 0o600))
	must(t, os.WriteFile(src+"/x1", []byte("1"), 0o600))
	must(t, os.WriteFile(src+"/x2", []byte("2"), 0o600))
	must(t, os.Symlink("here", src+"/link"))
	noted := unix.Setxattr(src+"/lone", "user.note", []byte("old"), 0) == nil
	_, err := m.Follow(context.Background())
	must(t, err)
	compareTrees(t, src, dst)

	f, err := os.OpenFile(src+"/big", os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt([]byte("changed"), 300000)
	must(t, err)
	must(t, f.Truncate(900001))
	must(t, f.Close())
	must(t, os.Remove(src+"/gone"))
	must(t, os.Remove(src+"/type"))
	must(t, os.WriteFile(mkdir(t, src, "type/in")+"/f", []byte("new"), 0o640))
	must(t, os.Remove(src+"/b")) // splits two names of one file
	must(t, os.WriteFile(src+"/b", []byte("b"), 0o600))
	must(t, os.Remove(src+"/x2")) // joins two files under one
	must(t, os.Link(src+"/x1", src+"/x2"))
	must(t, os.Rename(src+"/dir", src+"/moved"))
	must(t, os.Remove(src+"/link"))
	must(t, os.Symlink("there", src+"/link"))
	must(t, os.Chown(src+"/lone", 7, 8))
	if noted {
		must(t, unix.Removexattr(src+"/lone", "user.note"))
	}
	must(t, unix.Mkfifo(src+"/pipe", 0o600))
	must(t, os.Chmod(src, 0o711))
	done, err := m.Finish(context.Background())
	must(t, err)
	compareTrees(t, src, dst)
	if want := int64(900001 + 3 + 1 + 1 + 4 + 1); done.Bytes != want {
		t.Errorf("%d bytes of %d", done.Bytes, want)
	}
}

// TestMirrorLeavesHoles, also where there was content before.
func TestMirrorLeavesHoles(t *testing.T) {
	src, dst, m := newMirror(t)
	f, err := os.Create(src + "/f")
	must(t, err)
	defer f.Close()
	_, err = f.WriteAt(bytes.Repeat([]byte("x"), 8<<20), 0)
	must(t, err)
	_, err = m.Follow(context.Background())
	must(t, err)
	must(t, unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 1<<20, 6<<20))
	must(t, f.Truncate(1<<30))
	_, err = m.Finish(context.Background())
	must(t, err)
	if st := stat(t, dst+"/f"); st.Size != 1<<30 || st.Blocks*512 > 3<<20 {
		t.Errorf("%d bytes in %d blocks", st.Size, st.Blocks)
	}
	g, err := os.Open(dst + "/f")
	must(t, err)
	defer g.Close()
	b := make([]byte, 2)
	for at, want := range map[int64]string{1<<20 - 1: "x\x00", 7<<20 - 1: "\x00x", 8<<20 - 1: "x\x00"} {
		if _, err := g.ReadAt(b, at); err != nil || string(b) != want {
			t.Errorf("at %d: %q, %v", at, b, err)
		}
	}
}

// TestMirrorSeesMappings: what is written through a mapping that was dirty already when the file was copied.
func TestMirrorSeesMappings(t *testing.T) {
	src, dst, m := newMirror(t)
	f, err := os.Create(src + "/f")
	must(t, err)
	defer f.Close()
	must(t, f.Truncate(1<<20))
	mem, err := unix.Mmap(int(f.Fd()), 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	defer unix.Munmap(mem)
	const tick = 10 * time.Millisecond // of the clock that files' times are of, at most
	m.SetSettling(2 * tick)
	for pass := byte(1); pass < 5; pass++ {
		mem[5000], mem[900000] = pass, pass
		time.Sleep(3 * tick) // so that the pass takes it for settled
		_, err = m.Follow(context.Background())
		must(t, err)
	}
	mem[5000] = 77 // its page was dirty before
	_, err = m.Finish(context.Background())
	must(t, err)
	if b, err := os.ReadFile(dst + "/f"); err != nil || b[5000] != 77 || b[900000] != 4 {
		t.Errorf("%d %d, %v", b[5000], b[900000], err)
	}
}

// TestMirrorSkipsWhatItKnows: a file that has not changed for long is not read again.
func TestMirrorSkipsWhatItKnows(t *testing.T) {
	src, dst, m := newMirror(t)
	must(t, os.WriteFile(src+"/old", bytes.Repeat([]byte("o"), 1<<20), 0o600))
	must(t, os.WriteFile(src+"/new", []byte("n"), 0o600))
	m.SetSettling(0)
	for range 2 { // the clock of times is coarser than this one
		_, err := m.Follow(context.Background())
		must(t, err)
		for before := stat(t, src+"/new").Ctim; stat(t, src+"/new").Ctim == before; {
			must(t, os.Chmod(src+"/new", 0o640))
		}
	}
	done, err := m.Finish(context.Background())
	must(t, err)
	if done.Looked != 1 || done.Bytes != 1<<20+1 {
		t.Errorf("%+v", done)
	}
	compareTrees(t, src, dst)
}

// TestMirrorFollowsWriters: passes while others write, create, rename and remove without end do not fail, and the last
// one, when they stand still, makes an equal copy.
func TestMirrorFollowsWriters(t *testing.T) {
	src, dst, m := newMirror(t)
	var stop atomic.Bool
	done := make(chan error, 3)
	for w := range 3 {
		go func() {
			r := rand.New(rand.NewPCG(uint64(w), 1))
			for !stop.Load() {
				if err := disturb(r, src); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range 30 {
		if _, err := m.Follow(context.Background()); err != nil {
			t.Error(err)
			break
		}
	}
	stop.Store(true)
	for range 3 {
		must(t, <-done)
	}
	_, err := m.Finish(context.Background())
	must(t, err)
	compareTrees(t, src, dst)
}

// disturb does something to one of a few paths; that it is another's just now does not matter.
func disturb(r *rand.Rand, dir string) error {
	at := func() string {
		return filepath.Join(dir, strings.Repeat(fmt.Sprintf("d%d/", r.IntN(3)), r.IntN(3)), fmt.Sprintf("f%d", r.IntN(6)))
	}
	p := at()
	os.MkdirAll(filepath.Dir(p), 0o755)
	switch r.IntN(9) {
	case 0:
		os.Remove(p)
	case 1:
		os.Rename(p, at())
	case 2:
		os.Link(p, at())
	case 3:
		os.Symlink("f1", p)
	case 4:
		os.RemoveAll(filepath.Dir(p) + "/d1")
	case 5:
		os.Truncate(p, int64(r.IntN(1<<20)))
	default:
		if st, err := os.Lstat(p); err == nil && !st.Mode().IsRegular() {
			return nil
		}
		f, err := os.OpenFile(p, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil
		}
		defer f.Close()
		_, err = f.WriteAt(fmt.Appendf(nil, "written %d", r.Uint64()), int64(r.IntN(1<<20)))
		return err
	}
	return os.MkdirAll(dir, 0o755)
}
