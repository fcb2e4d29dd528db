package container

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// Where the filesystem knows the flag, a store's directory has it, also when the
// store is opened again.
func TestDirectoriesAreSpread(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		t.Fatal(err)
	}
	if fs.Type != unix.EXT4_SUPER_MAGIC {
		t.Skipf("%s is not on ext4", dir)
	}
	for range 2 {
		if _, err := Open(dir); err != nil {
			t.Fatal(err)
		}
		if flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS); err != nil || flags&0x20000 == 0 {
			t.Errorf("flags %#x, %v", flags, err)
		}
	}
}
