package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

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
	last, err := empty(d, "")
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

// Strip is EmptyTrash but for the directory itself, its record, and what the directory
// keep, which a container has, is without its content: that much a new container's
// directory can begin with (see Reuse). After an error EmptyTrash still has to be called.
func Strip(dir, keep string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	left, err := empty(d, keep)
	if err == nil && (len(left) != 1 || left[0].Name() != configFile) {
		err = fmt.Errorf("%s: %w", dir, errors.ErrUnsupported)
	}
	return err
}

// Reuse readies a stripped directory as Prepare readies a new one, but for what that
// waits for. errors.ErrUnsupported is one whose record was changed in its time.
func Reuse(dir string) error { return record.PrepareAgain(filepath.Join(dir, configFile)) }

// empty deletes what is in the directory d, except what names a container's volumes, which it returns, and the directory
// keep itself.
func empty(d *os.File, keep string) (left []fs.DirEntry, err error) {
	entries, err := d.ReadDir(-1)
	for _, e := range entries {
		switch name := e.Name(); {
		case name == configFile || name == intentFile:
			left = append(left, e)
		case name == keep:
			err = errors.Join(err, emptyKept(int(d.Fd()), filepath.Join(d.Name(), keep)))
		case !deleted(int(d.Fd()), e):
			err = errors.Join(err, os.RemoveAll(filepath.Join(d.Name(), name)))
		}
	}
	return left, err
}

// emptyKept deletes what the kernel leaves in the work directory of an overlay, and finds that it was all.
func emptyKept(fd int, path string) error {
	name := filepath.Base(path)
	if err := unix.Unlinkat(fd, filepath.Join(name, name), unix.AT_REMOVEDIR); err != nil && err != unix.ENOENT {
		return err
	}
	entries, err := os.ReadDir(path)
	if err == nil && len(entries) > 0 {
		err = fmt.Errorf("%s: %w", path, errors.ErrUnsupported)
	}
	return err
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
