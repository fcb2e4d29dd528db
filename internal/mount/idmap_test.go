package mount

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSwapMapsEveryID(t *testing.T) {
	for _, s := range []Swap{{0, 0}, {1000, 0}, {0, 1000}, {1, 0}, {5, 6}, {6, 5}, {1000, 2000}, {maxID - 1, 0}} {
		next := 0
		for _, m := range s.mappings() {
			if m.ContainerID != next || m.Size <= 0 {
				t.Fatalf("%+v: %+v", s, s.mappings())
			}
			next += m.Size
			for on, want := range map[uint32]uint32{s.Disk: s.Mounted, s.Mounted: s.Disk, 7: 7} {
				if on == 7 && (s.Disk == 7 || s.Mounted == 7) {
					continue
				}
				if at := int(on) - m.ContainerID; at >= 0 && at < m.Size && m.HostID+at != int(want) {
					t.Errorf("%+v maps %d to %d", s, on, m.HostID+at)
				}
			}
		}
		if next != maxID {
			t.Errorf("%+v maps ids up to %d", s, next)
		}
	}
}

func TestIDMap(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	if err := os.Chown(dir, 1000, 1001); err != nil {
		t.Fatal(err)
	}
	ns, err := UserNamespace(Swap{1000, 0}, Swap{1001, 0})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ns)
	tree, err := Bind(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(tree)
	if err := IDMap(tree, ns, true); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstatat(tree, "", &st, unix.AT_EMPTY_PATH); err != nil || st.Uid != 0 || st.Gid != 0 {
		t.Errorf("the directory belongs to %d:%d, %v", st.Uid, st.Gid, err)
	}
	fd, err := unix.Openat(tree, "new", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	if err := unix.Stat(filepath.Join(dir, "new"), &st); err != nil || st.Uid != 1000 || st.Gid != 1001 {
		t.Errorf("what root makes belongs to %d:%d on the disk, %v", st.Uid, st.Gid, err)
	}
	proc, err := Bind("/proc", false)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(proc)
	if err := IDMap(proc, ns, false); err == nil || !strings.Contains(err.Error(), "leave out idmap") {
		t.Error(err)
	}
	if fd, err := UserNamespace(Swap{maxID, 0}, Swap{}); err == nil {
		unix.Close(fd)
		t.Error("an id that is none is mapped")
	}
}

func TestSubtrees(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "vol", "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"vol/out": "/", "vol/up": "../..", "vol/in": "/sub"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "vol", "sub", "f"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	has := func(tree int, name string) bool {
		var st unix.Stat_t
		return unix.Fstatat(tree, name, &st, 0) == nil
	}
	for path, want := range map[string]string{"sub": "f", "in": "f", "out": "sub", "up": "sub", "up/../sub": "f", "out/sub": "f"} {
		tree, err := BindBelow(filepath.Join(dir, "vol"), path, true)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if !has(tree, want) {
			t.Errorf("%s leads elsewhere", path)
		}
		unix.Close(tree)
	}
	if fd, err := BindBelow(filepath.Join(dir, "vol"), "none", true); err == nil {
		unix.Close(fd)
		t.Error("a path that is not there is bound")
	}
	for _, how := range []func(tree int) (int, error){
		func(tree int) (int, error) { return Subtree(tree, "sub") },
		func(tree int) (int, error) { // as on older kernels
			at, err := unix.Openat(tree, "sub", unix.O_PATH|unix.O_CLOEXEC, 0)
			if err != nil {
				return -1, err
			}
			defer unix.Close(at)
			return subtreeInNamespace(tree, at)
		},
	} {
		tree, err := Bind(filepath.Join(dir, "vol"), false)
		if err != nil {
			t.Fatal(err)
		}
		sub, err := how(tree)
		if err != nil || !has(sub, "f") {
			t.Errorf("%v", err)
		}
		unix.Close(sub)
		unix.Close(tree)
	}
}
