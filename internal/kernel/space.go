package kernel

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Space is what a filesystem has left for the engine.
type Space struct {
	Bytes  uint64
	Inodes uint64 // as many files can be made; meaningless if Counted is false
	// Counted says that the filesystem has a number of inodes that can run out. Btrfs and others make them as needed.
	Counted bool
}

// SpaceOf asks for the space that is left on the filesystem of a path, which must exist.
func SpaceOf(path string) (Space, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return Space{}, fmt.Errorf("space of the filesystem of %s: %w", path, err)
	}
	return Space{Bytes: st.Bavail * uint64(st.Bsize), Inodes: st.Ffree, Counted: st.Files > 0}, nil
}

// NoInodes says that no file can be made, or at most those that came free since.
func (s Space) NoInodes() bool { return s.Counted && s.Inodes <= fewInodes }

// ErrNoInodes says that a filesystem has bytes left and can hold no more files nevertheless.
var ErrNoInodes = errors.New("no inodes are left, without which no file can be made (`df -i` shows it)")

// fewInodes is how many may come free between the error and the question.
const fewInodes = 8

// NoSpace adds to the error of a write or of making a file in dir that it is not bytes which are missing, as the kernel's
// words ("no space left on device") have everybody think, if so. It is to be asked before anything is cleaned up.
func NoSpace(err error, dir string) error {
	if !errors.Is(err, unix.ENOSPC) || errors.Is(err, ErrNoInodes) {
		return err
	}
	space, failed := SpaceOf(dir)
	if failed != nil || !space.NoInodes() || space.Bytes == 0 {
		return err
	}
	return fmt.Errorf("%w: %w", ErrNoInodes, err)
}
