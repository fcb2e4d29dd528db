package rootpath

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// MkdirAll makes the directory path inside the root, with its missing parents, and returns an O_PATH descriptor of it.
// What it makes gets perm (whatever the umask is) and belongs to uid and gid (-1: whoever runs the engine); what is
// there stays as it is. A symbolic link whose target is missing gets its target made, inside the root. Something that
// is not a directory on the way is an *os.PathError with ENOTDIR.
func MkdirAll(rootFD int, path string, perm os.FileMode, uid, gid int) (int, error) {
	fd, err := Open(rootFD, path, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err == nil || !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	w := walker{dirs: maker{perm: unixMode(perm), uid: uid, gid: gid}}
	return w.walk(rootFD, path)
}

// CreateFile returns an O_PATH descriptor of the file path inside the root. One that is missing is made empty, with
// perm and owner as in MkdirAll; its missing parents are made with mode 0755 and the same owner. A file of any kind is
// fine (something is to be mounted over it), but a directory is an *os.PathError with EISDIR.
func CreateFile(rootFD int, path string, perm os.FileMode, uid, gid int) (int, error) {
	fd, err := Open(rootFD, path, unix.O_PATH, 0)
	if errors.Is(err, unix.ENOENT) {
		w := walker{
			dirs: maker{perm: 0o755, uid: uid, gid: gid},
			file: &maker{perm: unixMode(perm), uid: uid, gid: gid},
		}
		fd, err = w.walk(rootFD, path)
	}
	if err != nil {
		return -1, err
	}
	if isDir(fd) {
		unix.Close(fd)
		return -1, &os.PathError{Op: "open in container", Path: path, Err: unix.EISDIR}
	}
	return fd, nil
}

// maker says how new files or directories look like.
type maker struct {
	perm     uint32
	uid, gid int
}

// walker goes through a path component by component, by descriptors that were opened without following links, and makes
// what is missing. It resolves links and ".." itself: no step of the kernel's is ever relative to anything but a
// directory that was reached inside the root.
type walker struct {
	dirs maker
	file *maker // the last component, if it is to be a file

	rest  []string // components to come
	stack []int    // the directories from the root to where it stands; the root itself first, not owned
	links int
}

// maxLinks is the kernel's own limit of links in one path.
const maxLinks = 40

func (w *walker) walk(rootFD int, path string) (int, error) {
	w.push(path)
	w.stack = []int{rootFD}
	defer func() { w.unwind(1) }()
	for len(w.rest) > 0 {
		name := w.rest[0]
		w.rest = w.rest[1:]
		if name == ".." {
			w.unwind(max(1, len(w.stack)-1))
			continue
		}
		last := len(w.rest) == 0
		fd, err := w.enter(name, last)
		if err != nil {
			return -1, &os.PathError{Op: "create in container", Path: path, Err: err}
		}
		if fd >= 0 {
			w.stack = append(w.stack, fd)
		}
	}
	fd, err := unix.FcntlInt(uintptr(w.top()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "create in container", Path: path, Err: err}
	}
	return fd, nil
}

// push puts the components of a path in front of those to come.
func (w *walker) push(path string) {
	var parts []string
	for p := range strings.SplitSeq(path, "/") {
		if p != "" && p != "." {
			parts = append(parts, p)
		}
	}
	w.rest = append(parts, w.rest...)
}

func (w *walker) top() int { return w.stack[len(w.stack)-1] }

// unwind closes the directories above the first n.
func (w *walker) unwind(n int) {
	for _, fd := range w.stack[n:] {
		unix.Close(fd)
	}
	w.stack = w.stack[:n]
}

// enter opens one component, and makes it first if it is missing. For a symbolic link it returns -1, with the link's
// target among the components to come.
func (w *walker) enter(name string, last bool) (int, error) {
	// Somebody who makes and removes the name all the time must not hold this up for ever; nor is a directory of his that
	// he removed, in which nothing can be made, to be waited for.
	const attempts = 100
	var failed error
	for range attempts {
		fd, err := unix.Openat(w.top(), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENOENT):
			failed = w.make(name, last && w.file != nil)
			if failed != nil && !errors.Is(failed, unix.EEXIST) && !errors.Is(failed, unix.ENOENT) {
				return -1, failed
			}
			continue
		case err != nil:
			return -1, err
		}
		return w.arrive(fd, last)
	}
	if errors.Is(failed, unix.ENOENT) {
		return -1, failed
	}
	return -1, unix.EAGAIN
}

// arrive looks at what was opened.
func (w *walker) arrive(fd int, last bool) (int, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return -1, err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return fd, nil
	case unix.S_IFLNK:
		defer unix.Close(fd)
		return -1, w.follow(fd)
	}
	if last && w.file != nil {
		return fd, nil
	}
	unix.Close(fd)
	return -1, unix.ENOTDIR
}

func (w *walker) follow(fd int) error {
	if w.links++; w.links > maxLinks {
		return unix.ELOOP
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", buf)
	if err != nil {
		return err
	}
	target := string(buf[:n])
	if strings.HasPrefix(target, "/") {
		w.unwind(1)
	}
	w.push(target)
	return nil
}

// make makes a directory or file called name where the walker stands.
func (w *walker) make(name string, file bool) error {
	if file {
		fd, err := unix.Openat(w.top(), name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, w.file.perm&0o777)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return w.file.dress(fd)
	}
	if err := unix.Mkdirat(w.top(), name, w.dirs.perm&0o777); err != nil {
		return err
	}
	fd, err := unix.Openat(w.top(), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return w.dirs.dress(fd)
}

// dress gives a new file its owner and mode. The owner goes first: changing it clears the set-id bits.
func (m *maker) dress(fd int) error {
	if m.uid >= 0 || m.gid >= 0 {
		if err := unix.Fchown(fd, m.uid, m.gid); err != nil {
			return err
		}
	}
	return unix.Fchmod(fd, m.perm)
}

func isDir(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

func unixMode(perm os.FileMode) uint32 {
	m := uint32(perm.Perm())
	for _, bit := range []struct {
		of   os.FileMode
		unix uint32
	}{{os.ModeSetuid, unix.S_ISUID}, {os.ModeSetgid, unix.S_ISGID}, {os.ModeSticky, unix.S_ISVTX}} {
		if perm&bit.of != 0 {
			m |= bit.unix
		}
	}
	return m
}
