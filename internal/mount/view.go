package mount

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/kernel"
)

// A View is a tree of mounts that the engine has for itself: in a mount namespace of its own, which no process is in.
// Paths are resolved in it from Root, by descriptor. It goes with its descriptors, so also with an engine that is killed.
type View struct {
	// Root is an O_PATH descriptor of the topmost directory.
	Root int
	ns   int
}

// NewView makes a view of the detached mount root, which stays the caller's to close. arrange mounts what else belongs
// in ([Attach]); it runs on a thread of its own, in the new namespace, must not start goroutines that rely on that, and
// may open the host's paths. anchor is a directory of the host that the view lies over, in its namespace only.
func NewView(root int, anchor string, arrange func() error) (*View, error) {
	v := &View{Root: -1, ns: -1}
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("make mount namespace: %w", err)
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("make mounts private: %w", err)
		}
		if err := unix.MoveMount(root, "", unix.AT_FDCWD, anchor, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("move_mount %s: %w", anchor, err)
		}
		if err := arrange(); err != nil {
			return err
		}
		var err error
		if v.ns, err = unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			return fmt.Errorf("open mount namespace: %w", err)
		}
		v.Root, err = unix.FcntlInt(uintptr(root), unix.F_DUPFD_CLOEXEC, 0)
		return err
	})
	if err != nil {
		v.Close()
		return nil, err
	}
	return v, nil
}

// Close takes the view down.
func (v *View) Close() {
	for _, fd := range []int{v.Root, v.ns} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
	v.Root, v.ns = -1, -1
}

// RootOf opens the root directory of the mount namespace of the process that pidfd stands for: what its processes see,
// whatever their own root directories are. Nothing of the process's files is looked at on the way.
func RootOf(pidfd int) (int, error) {
	return inNamespaceOf(pidfd, func() (int, error) {
		return unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
}

// BareRootOf gives the root filesystem of the mount namespace of the process that pidfd stands for without what is
// mounted on it, as a detached mount.
func BareRootOf(pidfd int) (int, error) {
	return inNamespaceOf(pidfd, func() (int, error) { return openTree(unix.AT_FDCWD, "/", false, 0) })
}

func inNamespaceOf(pidfd int, open func() (int, error)) (int, error) {
	fd := -1
	err := onThread(func() (err error) {
		// A thread whose root and working directory are shared with others cannot enter.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		// The thread's root directory becomes that of the namespace.
		if err := unix.Setns(pidfd, unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("enter mount namespace: %w", err)
		}
		if fd, err = open(); err != nil {
			fd = -1
			return fmt.Errorf("open the root of a mount namespace: %w", err)
		}
		return nil
	})
	return fd, err
}

// onThread runs f on a thread that ends with it.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go kernel.OnThrowawayThread(func() { done <- f() })
	return <-done
}
