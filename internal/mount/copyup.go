package mount

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/rootpath"
)

// CopyUp fills the empty directory dstDir, a new volume, with what the directory srcPath inside the root srcRootFD
// holds: content with its holes, ownership, modes, times, extended attributes, hard links, symbolic links, pipes,
// sockets and devices. dstDir itself gets the ownership, mode and times of the source. Symbolic links are copied, never
// followed, but for those in srcPath, which stay inside the root.
//
// Where dstDir is not empty, or the source does not exist, nothing is done. A source that is not a directory is
// errdefs.ErrInvalidArgument. An error or a crash leaves dstDir empty, or to be completed by the next call: the copy is
// made beside it, under a name that begins with a dot and dstDir's own, and its entries are then moved. Where dstDir is a
// mount point of its own or has a quota, the copy is made in a directory in it, whose name is noted beside it. Calls for one
// dstDir must not run at the same time.
func CopyUp(srcRootFD int, srcPath, dstDir string) error {
	if err := copyUp(srcRootFD, srcPath, dstDir); err != nil {
		return fmt.Errorf("copying %s of the image to the volume directory %s: %w", srcPath, dstDir, err)
	}
	return nil
}

func copyUp(srcRootFD int, srcPath, dstDir string) error {
	at, err := rootpath.Open(srcRootFD, srcPath, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.ENOTDIR):
		return failure.Invalid("it is not a directory")
	case err != nil:
		return err
	}
	src := os.NewFile(uintptr(at), srcPath)
	defer src.Close()
	dst, err := openNoFollow(unix.AT_FDCWD, dstDir)
	if err != nil {
		return err
	}
	defer dst.Close()

	resumed, err := resume(dst, dstDir)
	if err != nil {
		return err
	}
	if !resumed {
		if empty, err := isEmpty(dst); err != nil || !empty {
			return err
		}
		if err := fill(src, dst, dstDir); err != nil {
			return err
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(at, &st); err != nil {
		return err
	}
	return copyAttributes(at, int(dst.Fd()), &st, false)
}

// stage is where a copy is made before it is moved into the volume.
type stage struct {
	building string // may be incomplete
	complete string // everything that is not in the volume yet
}

// besides is the stage beside a volume, and the link that names the one in it, if there is one.
func besides(dstDir string) (s stage, note string) {
	dir, base := filepath.Split(filepath.Clean(dstDir))
	return stage{building: dir + "." + base + ".copy-up", complete: dir + "." + base + ".copied-up"}, dir + "." + base + ".copy-up-in"
}

func inside(dstDir, name string) stage {
	return stage{building: filepath.Join(dstDir, name), complete: filepath.Join(dstDir, name+".complete")}
}

// resume completes what an engine that was killed had begun to move, and removes what it had not yet copied completely.
func resume(dst *os.File, dstDir string) (moved bool, err error) {
	s, note := besides(dstDir)
	if moved, err = s.resume(dst); err != nil || moved {
		return moved, err
	}
	name, err := os.Readlink(note)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if moved, err = inside(dstDir, filepath.Base(name)).resume(dst); err != nil {
		return false, err
	}
	return moved, os.Remove(note)
}

func (s stage) resume(dst *os.File) (moved bool, err error) {
	if err := os.RemoveAll(s.building); err != nil {
		return false, err
	}
	if _, err := os.Lstat(s.complete); errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return true, s.move(dst)
}

func fill(src, dst *os.File, dstDir string) error {
	s, note := besides(dstDir)
	same, err := sameFilesystem(dst, filepath.Dir(s.building))
	if err != nil {
		return err
	}
	if same && !hasProject(dst) {
		return s.fill(src, dst)
	}
	// Others' entries cannot be renamed into it. No user's directory has this name.
	name := ".copy-up-" + rand.Text()
	if err := os.Symlink(name, note); err != nil {
		return err
	}
	if err := inside(dstDir, name).fill(src, dst); err != nil {
		return err // what could not be moved or removed, the next call finds by the note
	}
	return os.Remove(note)
}

func (s stage) fill(src, dst *os.File) error {
	if err := os.Mkdir(s.building, 0o700); err != nil {
		return err
	}
	err := s.build(src)
	if err == nil {
		err = os.Rename(s.building, s.complete)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(s.building))
	}
	return s.move(dst)
}

func (s stage) build(src *os.File) error {
	tmp, err := openNoFollow(unix.AT_FDCWD, s.building)
	if err != nil {
		return err
	}
	defer tmp.Close()
	return copyTree(src, tmp)
}

// move moves the entries of the complete copy into the volume. What a container that runs with the volume has made there
// meanwhile is its own: it stays, as no later call could move the image's in its place either.
func (s stage) move(dst *os.File) error {
	from, err := openNoFollow(unix.AT_FDCWD, s.complete)
	if err != nil {
		return err
	}
	defer from.Close()
	names, err := from.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		err := rename(from, dst, name)
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return &os.PathError{Op: "rename", Path: name, Err: err}
		}
	}
	return os.RemoveAll(s.complete)
}

// rename moves an entry to where there is none of its name; not every filesystem (NFS) does both in one step.
func rename(from, to *os.File, name string) error {
	err := unix.Renameat2(int(from.Fd()), name, int(to.Fd()), name, unix.RENAME_NOREPLACE)
	if !errors.Is(err, unix.EINVAL) {
		return err
	}
	var st unix.Stat_t
	switch err := unix.Fstatat(int(to.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); {
	case err == nil:
		return unix.EEXIST
	case !errors.Is(err, unix.ENOENT):
		return err
	}
	return unix.Renameat(int(from.Fd()), name, int(to.Fd()), name)
}

func sameFilesystem(dir *os.File, other string) (bool, error) {
	var a, b unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &a); err != nil {
		return false, err
	}
	if err := unix.Stat(other, &b); err != nil {
		return false, &os.PathError{Op: "stat", Path: other, Err: err}
	}
	return a.Dev == b.Dev, nil
}

func isEmpty(dir *os.File) (bool, error) {
	names, err := dir.Readdirnames(1)
	if len(names) > 0 {
		return false, nil
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	return true, nil
}

// openNoFollow opens a directory for reading; the last component of its name is not followed if it is a link.
func openNoFollow(at int, name string) (*os.File, error) {
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}
