package mount

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/kernel"
	"github.com/cleatlabs/cleat/internal/rootpath"
)

// BindBelow clones the mount tree at subpath, which is resolved inside the directory dir, whatever links are there, as a
// detached mount.
func BindBelow(dir, subpath string, recursive bool) (int, error) {
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("bind %s: %w", dir, err)
	}
	defer unix.Close(root)
	fd, err := rootpath.Open(root, subpath, unix.O_PATH, 0)
	if err != nil {
		return -1, fmt.Errorf("bind %s of %s: %w", subpath, dir, err)
	}
	defer unix.Close(fd)
	return BindFD(fd, recursive)
}

// Subtree clones what lies at subpath inside a detached mount, as BindBelow does for a directory. The mount may be of no
// use afterwards.
func Subtree(tree int, subpath string) (int, error) {
	fd, err := rootpath.Open(tree, subpath, unix.O_PATH, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fd)
	clone, err := BindFD(fd, false)
	if errors.Is(err, unix.EINVAL) {
		return subtreeInNamespace(tree, fd)
	}
	return clone, err
}

// subtreeInNamespace is for kernels before 6.15, which clone only what is mounted in the caller's namespace: the mount is
// attached in one of a thread's own.
func subtreeInNamespace(tree, at int) (clone int, err error) {
	done := make(chan struct{})
	go kernel.OnThrowawayThread(func() {
		defer close(done)
		clone = -1
		if err = unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
			err = fmt.Errorf("unshare: %w", err)
			return
		}
		if err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			err = fmt.Errorf("making a mount namespace private: %w", err)
			return
		}
		// Any directory does that is there for sure.
		if err = unix.MoveMount(tree, "", unix.AT_FDCWD, "/proc", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			err = fmt.Errorf("move_mount: %w", err)
			return
		}
		clone, err = BindFD(at, false)
	})
	<-done
	return clone, err
}
