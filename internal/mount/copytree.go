package mount

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/continuity/sysx"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
)

// maxDepth bounds the nesting of directories: each level holds two descriptors.
const maxDepth = 1000

// copier copies one tree. Every step is relative to an open directory and follows no link.
type copier struct {
	ctx   context.Context
	root  *os.File         // of the copy
	links map[inode]string // files with several names: where below root the first of them is
	path  []string         // the directory that it is in, for links and errors
	done  Copied
}

// Copied says what a copy consists of.
type Copied struct {
	Bytes  int64 // of the files' sizes, holes included
	Shared int64 // of them, those that the filesystem shares between original and copy
}

// CopyTree copies what the directory src holds into the directory dst, which gets the attributes of src, too: content
// with its holes, ownership, modes, times, extended attributes, hard links, symbolic links, pipes, sockets and devices.
// Content is shared between the two where the filesystem can (reflink). Links are never followed. It ends with ctx;
// what it has made until an error is the caller's to remove.
func CopyTree(ctx context.Context, src, dst string) (Copied, error) {
	from, err := openNoFollow(unix.AT_FDCWD, src)
	if err != nil {
		return Copied{}, err
	}
	defer from.Close()
	to, err := openNoFollow(unix.AT_FDCWD, dst)
	if err != nil {
		return Copied{}, err
	}
	defer to.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(from.Fd()), &st); err != nil {
		return Copied{}, &os.PathError{Op: "stat", Path: src, Err: err}
	}
	c := copier{ctx: ctx, root: to, links: map[inode]string{}}
	if err := c.directory(from, to); err != nil {
		return c.done, err
	}
	return c.done, copyAttributes(int(from.Fd()), int(to.Fd()), &st, false)
}

type inode struct{ dev, ino uint64 }

// copyTree copies what the directory src holds into the directory dst.
func copyTree(src, dst *os.File) error {
	c := copier{ctx: context.Background(), root: dst, links: map[inode]string{}}
	return c.directory(src, dst)
}

func (c *copier) directory(src, dst *os.File) error {
	if len(c.path) > maxDepth {
		return failure.Invalid("directories are nested more than %d deep", maxDepth)
	}
	names, err := src.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		if err := c.entry(int(src.Fd()), int(dst.Fd()), name); err != nil {
			var deeper *os.PathError
			if errors.As(err, &deeper) {
				return err // names the file already
			}
			return &os.PathError{Op: "copy", Path: filepath.Join(append(c.path, name)...), Err: err}
		}
	}
	return nil
}

// entry copies one file of any type.
func (c *copier) entry(src, dst int, name string) error {
	from, err := unix.Openat(src, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return err
	}
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFDIR && st.Nlink > 1 {
		if done, err := c.link(&st, dst, name); done || err != nil {
			return err
		}
	}
	switch kind {
	case unix.S_IFDIR:
		err = c.subdirectory(from, dst, name)
	case unix.S_IFREG:
		err = c.file(from, dst, name, st.Size)
	case unix.S_IFLNK:
		err = copyLink(from, dst, name)
	default:
		err = unix.Mknodat(dst, name, kind|0o600, int(st.Rdev))
	}
	if err != nil {
		return err
	}
	to, err := unix.Openat(dst, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(to)
	return copyAttributes(from, to, &st, false)
}

// link makes another name for a file that was copied under an earlier one; the first time it notes the name.
func (c *copier) link(st *unix.Stat_t, dst int, name string) (done bool, err error) {
	key := inode{uint64(st.Dev), st.Ino}
	first, seen := c.links[key]
	if !seen {
		c.links[key] = filepath.Join(append(c.path, name)...)
		return false, nil
	}
	fd, err := unix.Openat2(int(c.root.Fd()), first, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
	if errors.Is(err, unix.ELOOP) { // the file is itself a symbolic link: those are copied one by one
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	return true, unix.Linkat(fd, "", dst, name, unix.AT_EMPTY_PATH)
}

func (c *copier) subdirectory(from, dst int, name string) error {
	if err := unix.Mkdirat(dst, name, 0o700); err != nil {
		return err
	}
	return c.inside(from, dst, name, c.directory)
}

// inside opens a directory and its copy in dst for visit, while the path says that name is where the copier is.
func (c *copier) inside(from, dst int, name string, visit func(in, out *os.File) error) error {
	in, err := openNoFollow(from, ".")
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := openNoFollow(dst, name)
	if err != nil {
		return err
	}
	defer out.Close()
	c.path = append(c.path, name)
	defer func() { c.path = c.path[:len(c.path)-1] }()
	return visit(in, out)
}

func copyLink(from, dst int, name string) error {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(from, "", buf)
	if err != nil {
		return err
	}
	return unix.Symlinkat(string(buf[:n]), dst, name)
}

// throughProc names an open file, of whatever type, to calls that take only paths.
func throughProc(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// file copies content. A filesystem that can share it between files does; else the holes stay holes.
func (c *copier) file(from, dst int, name string, size int64) error {
	in, err := os.Open(throughProc(from)) // from is known to be a regular file
	if err != nil {
		return err
	}
	defer in.Close()
	fd, err := unix.Openat(dst, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	out := os.NewFile(uintptr(fd), name)
	err = c.content(in, out, size)
	return errors.Join(err, out.Close())
}

func (c *copier) content(in, out *os.File, size int64) error {
	if size == 0 {
		return nil
	}
	c.done.Bytes += size
	if unix.IoctlFileClone(int(out.Fd()), int(in.Fd())) == nil {
		c.done.Shared += size
		return nil
	}
	if err := out.Truncate(size); err != nil {
		return err
	}
	for at := int64(0); at < size; {
		data, hole, err := nextData(in, at, size)
		if err != nil {
			return err
		}
		for at = data; at < hole; {
			if err := c.ctx.Err(); err != nil {
				return err
			}
			n := min(hole-at, copyChunk)
			if err := copyRange(in, out, at, n); err != nil {
				return err
			}
			at += n
		}
	}
	return nil
}

// copyChunk is how much is copied before anyone looks whether it is still wanted.
const copyChunk = 64 << 20

func copyRange(in, out *os.File, at, n int64) error {
	if _, err := in.Seek(at, io.SeekStart); err != nil {
		return err
	}
	if _, err := out.Seek(at, io.SeekStart); err != nil {
		return err
	}
	_, err := io.CopyN(out, in, n) // copy_file_range where it works
	if errors.Is(err, io.EOF) {
		return nil // it was cut short meanwhile
	}
	return err
}

// copyAttributes gives the file to, open as O_PATH at least, what belongs to from besides its content. Each step undoes
// part of what a later one sets: a new owner clears set-id bits and capabilities, and everything changes the times. A
// file that had others before loses the extended attributes that from has not.
func copyAttributes(from, to int, st *unix.Stat_t, hadOthers bool) error {
	if err := unix.Fchownat(to, "", int(st.Uid), int(st.Gid), unix.AT_EMPTY_PATH); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Chmod(throughProc(to), st.Mode&0o7777); err != nil {
			return err
		}
	}
	if hadOthers {
		if err := dropXattrs(throughProc(from), throughProc(to)); err != nil {
			return err
		}
	}
	if err := copyXattrs(throughProc(from), throughProc(to)); err != nil {
		return err
	}
	return unix.UtimesNanoAt(to, "", []unix.Timespec{st.Atim, st.Mtim}, unix.AT_EMPTY_PATH)
}

// copyXattrs copies extended attributes, but for overlay's own and for SELinux's label, which the policy gives. One
// that the volume's filesystem cannot hold is left out.
func copyXattrs(from, to string) error {
	names, err := xattrNames(from)
	if err != nil {
		return err
	}
	for _, attr := range names {
		value, err := sysx.Getxattr(from, attr)
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return err
		}
		if err := unix.Setxattr(to, attr, value, 0); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			return err
		}
	}
	return nil
}

// dropXattrs removes from a file those that another has not.
func dropXattrs(from, to string) error {
	stale, err := xattrNames(to)
	if err != nil || len(stale) == 0 {
		return err
	}
	names, err := xattrNames(from)
	if err != nil {
		return err
	}
	for _, attr := range stale {
		if slices.Contains(names, attr) {
			continue
		}
		if err := unix.Removexattr(to, attr); err != nil && !errors.Is(err, unix.ENODATA) {
			return err
		}
	}
	return nil
}

// xattrNames lists the extended attributes of a file that are copied: none where the
// filesystem has no attributes.
func xattrNames(path string) ([]string, error) {
	names, err := sysx.Listxattr(path)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	return slices.DeleteFunc(names, func(attr string) bool {
		return attr == "security.selinux" || strings.HasPrefix(attr, "trusted.overlay.")
	}), err
}
