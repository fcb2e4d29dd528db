// Package mount makes mounts as file descriptors: an overlay of image layers, a clone of a host directory; and fills a new
// volume from an image. Nothing it returns is visible in a directory tree until someone attaches it.
package mount

import (
	"errors"

	"github.com/cleatlabs/cleat/internal/kernel"
)

// Overlay describes the root filesystem of a container.
type Overlay struct {
	Lower       []string // topmost first, absolute
	Upper, Work string   // both empty: a read-only overlay
	Volatile    bool     // no sync: what is lost in a crash is lost
}

// Mount makes the overlay and returns it as a detached mount: a close-on-exec file descriptor.
func (o Overlay) Mount(f kernel.Features) (int, error) {
	return -1, errors.New("mount: not available")
}

// Bind clones the mount tree at path as a detached mount.
func Bind(path string, recursive bool) (int, error) { return -1, errors.New("mount: not available") }

// BindFD clones the mount tree at the file or directory that fd stands for.
func BindFD(fd int, recursive bool) (int, error) { return -1, errors.New("mount: not available") }

// Attr is a change of mount attributes.
type Attr struct {
	Set, Clear  uint64 // unix.MOUNT_ATTR_*
	Propagation string // "" unchanged, else "private", "shared", "slave" or "unbindable"
	Recursive   bool
}

// SetAttr changes the attributes of the mount fd.
func SetAttr(fd int, a Attr) error { return errors.New("mount: not available") }

// Attach puts the detached mount fd over the directory or file that target stands for.
func Attach(fd, target int) error { return errors.New("mount: not available") }

// CopyUp copies the content of the directory srcPath inside the root srcRootFD into the empty directory dstDir.
func CopyUp(srcRootFD int, srcPath, dstDir string) error { return errors.New("mount: not available") }

// IsMountpoint reports whether something is mounted on path itself.
func IsMountpoint(path string) (bool, error) { return false, errors.New("mount: not available") }

// UnmountAll detaches every mount at or below prefix, deepest first.
func UnmountAll(prefix string) error { return errors.New("mount: not available") }
