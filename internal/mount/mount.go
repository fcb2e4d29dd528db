package mount

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/kernel"
)

// Bind clones the mount tree at path, following symbolic links, as a detached close-on-exec mount. Recursive takes
// along what is mounted below path.
func Bind(path string, recursive bool) (int, error) {
	fd, err := openTree(unix.AT_FDCWD, path, recursive, 0)
	if err != nil {
		return -1, fmt.Errorf("bind %s: %w", path, err)
	}
	return fd, nil
}

// BindFD clones the mount tree at the file or directory that fd (O_PATH is enough) stands for.
func BindFD(fd int, recursive bool) (int, error) {
	clone, err := openTree(fd, "", recursive, unix.AT_EMPTY_PATH)
	if err != nil {
		return -1, fmt.Errorf("bind by file descriptor: %w", err)
	}
	return clone, nil
}

func openTree(dir int, path string, recursive bool, flags uint) (fd int, err error) {
	flags |= unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	err = ignoringInterrupts(func() error {
		fd, err = unix.OpenTree(dir, path, flags)
		return err
	})
	return fd, err
}

// Attr is a change of mount attributes.
type Attr struct {
	Set, Clear  uint64 // unix.MOUNT_ATTR_*
	Propagation string // "" unchanged, else private, shared, slave or unbindable; with an r in front for the mounts below, too
	Recursive   bool   // Set and Clear reach the mounts below, too
}

// SetAttr changes the attributes of the mount that fd is the root of.
func SetAttr(fd int, a Attr) error {
	propagation, deep, err := propagationFlag(a.Propagation)
	if err != nil {
		return err
	}
	if propagation != 0 {
		if err := setAttr(fd, &unix.MountAttr{Propagation: propagation}, deep); err != nil {
			return err
		}
	}
	if a.Set|a.Clear == 0 {
		return nil
	}
	return setAttr(fd, &unix.MountAttr{Attr_set: a.Set, Attr_clr: a.Clear}, a.Recursive)
}

func setAttr(fd int, attr *unix.MountAttr, recursive bool) error {
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	if err := unix.MountSetattr(fd, "", flags, attr); err != nil {
		return fmt.Errorf("mount_setattr: %w", err)
	}
	return nil
}

func propagationFlag(name string) (flag uint64, recursive bool, err error) {
	switch strings.TrimPrefix(name, "r") {
	case "private":
		flag = unix.MS_PRIVATE
	case "shared":
		flag = unix.MS_SHARED
	case "slave":
		flag = unix.MS_SLAVE
	case "unbindable":
		flag = unix.MS_UNBINDABLE
	default:
		if name != "" {
			return 0, false, failure.Invalid("unknown mount propagation %q: use private, rprivate, shared, rshared, slave or rslave", name)
		}
	}
	return flag, strings.HasPrefix(name, "r"), nil
}

// Attach puts the detached mount fd over the directory or file that target, an O_PATH descriptor, stands for.
func Attach(fd, target int) error {
	if err := unix.MoveMount(fd, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return fmt.Errorf("move_mount: %w", err)
	}
	return nil
}

// IsMountpoint reports whether something is mounted on path itself. A symbolic link is not followed; a path that does not
// exist is an error (os.ErrNotExist).
func IsMountpoint(path string) (bool, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, 0, &st)
	if err != nil {
		return false, &os.PathError{Op: "statx", Path: path, Err: err}
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}

// Below lists the mount points at or below prefix (an absolute path without symbolic links), deepest first.
func Below(prefix string) ([]string, error) {
	table, err := kernel.MountTable()
	if err != nil {
		return nil, err
	}
	var points []string
	for _, m := range table {
		if m.Point == prefix || strings.HasPrefix(m.Point, strings.TrimSuffix(prefix, "/")+"/") {
			points = append(points, m.Point)
		}
	}
	// Later lines may be mounted on top of earlier ones at the same place: the order of the table reversed undoes them.
	slices.Reverse(points)
	slices.SortStableFunc(points, func(a, b string) int { return strings.Count(b, "/") - strings.Count(a, "/") })
	return points, nil
}

// UnmountAll detaches every mount at or below prefix, deepest first, and goes on after a failure; the error lists all of
// them. A prefix of "/" is refused.
func UnmountAll(prefix string) error {
	if strings.Trim(prefix, "/") == "" {
		return failure.Invalid("refusing to unmount everything below %q", prefix)
	}
	points, err := Below(prefix)
	if err != nil {
		return err
	}
	var failed []error
	for _, p := range points {
		err := unix.Unmount(p, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) { // gone meanwhile
			failed = append(failed, fmt.Errorf("unmount %s: %w", p, err))
		}
	}
	return errors.Join(failed...)
}
