package container

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/record"
)

// EmptyTrash deletes what Remove has put aside. What names the volumes goes last,
// so that an interrupted deletion can be taken up again.
//
// Most directories of containers hold a handful of files and empty directories. These
// are deleted as what they are, relative to their directory; what is full, or will not
// go, is left to os.RemoveAll, which tries each name as a file and then as a directory.
func EmptyTrash(dir string) error {
	d, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	entries, err := d.ReadDir(-1)
	var last []fs.DirEntry
	for _, e := range entries {
		if e.Name() == configFile || e.Name() == intentFile {
			last = append(last, e)
			continue
		}
		if !deleted(int(d.Fd()), e) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	if err != nil {
		return err
	}
	for _, e := range last {
		deleted(int(d.Fd()), e)
	}
	if unix.Rmdir(dir) == nil {
		return nil
	}
	return os.RemoveAll(dir)
}

// Recycle makes of what Remove has put aside a directory as Prepare leaves it, with nothing
// in it but what is called as one of keep: a file, or a directory whose only content an empty
// one of its own name may be. It reports false where that cannot be; what is left is for
// EmptyTrash. The volumes that went with the container are deleted already. Settle comes
// before it is used.
func Recycle(dir string, keep ...string) bool {
	d, err := os.Open(dir)
	if err != nil {
		return false
	}
	defer d.Close()
	entries, err := d.ReadDir(-1)
	if err != nil {
		return false
	}
	fd := int(d.Fd())
	for _, e := range entries {
		name := e.Name()
		switch kept := slices.Contains(keep, name); {
		case name == configFile || kept && !e.IsDir():
		case kept:
			err := unix.Unlinkat(fd, filepath.Join(name, name), unix.AT_REMOVEDIR)
			if err != nil && err != unix.ENOENT {
				return false
			}
		case !deleted(fd, e):
			return false
		}
	}
	ok, err := record.Retire(filepath.Join(dir, configFile))
	return ok && err == nil
}

// deleted deletes an entry of the directory fd. It reports false where that has not worked, be it that a directory is
// not empty: one may hold an empty one of its own name, as the kernel leaves the work directory of an overlay.
func deleted(fd int, e fs.DirEntry) bool {
	name := e.Name()
	if !e.IsDir() {
		return unix.Unlinkat(fd, name, 0) == nil
	}
	err := unix.Unlinkat(fd, name, unix.AT_REMOVEDIR)
	if err == unix.ENOTEMPTY && unix.Unlinkat(fd, filepath.Join(name, name), unix.AT_REMOVEDIR) == nil {
		err = unix.Unlinkat(fd, name, unix.AT_REMOVEDIR)
	}
	return err == nil
}
