// Package rootpath resolves the paths of a container: always inside the container's root, always by file descriptor, so
// that no symbolic link in an image or a volume, nor a process that changes it meanwhile, can lead outside. It also looks
// up users and groups in the container's own files, which are as little to be trusted.
//
// A root is any open directory (a detached mount, /proc/PID/root, an O_PATH descriptor). All descriptors returned are
// close-on-exec and belong to the caller.
package rootpath

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
)

// IsBelow says whether a clean path is a directory's or lies below it, by the text alone.
func IsBelow(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// Open opens path inside the root, which symbolic links and ".." cannot leave; the magic links of /proc are refused.
// flags are those of open(2), mode counts with O_CREAT and O_TMPFILE only. Errors are *os.PathError.
func Open(rootFD int, path string, flags int, mode uint32) (int, error) {
	if path == "" {
		path = "."
	}
	how := unix.OpenHow{
		Flags:   uint64(flags) | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	if flags&(unix.O_CREAT|unix.O_TMPFILE&^unix.O_DIRECTORY) != 0 {
		how.Mode = uint64(mode)
	}
	// EAGAIN: something was renamed while the kernel walked over a ".."; it gives up rather than guess.
	const attempts = 128
	for i := 0; ; i++ {
		fd, err := unix.Openat2(rootFD, path, &how)
		if err == nil {
			return fd, nil
		}
		if i < attempts && (errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN)) {
			continue
		}
		return -1, &os.PathError{Op: "open in container", Path: path, Err: err}
	}
}

// Unfit says whether err tells of a path inside a root at which there can be nothing, or not what was asked for: one below
// a file, through a circle of links, of a name that is too long. Only who chose the path or the image can help it.
func Unfit(err error) bool {
	var e *os.PathError
	if !errors.As(err, &e) || !strings.HasSuffix(e.Op, " in container") {
		return false
	}
	return slices.Contains([]error{unix.ENOTDIR, unix.EISDIR, unix.ELOOP, unix.ENAMETOOLONG}, e.Err)
}

// ReadFile reads the regular file path inside the root. One of more than max bytes, and anything that is not a regular
// file (a pipe would block, a device may do anything), is errdefs.ErrInvalidArgument.
func ReadFile(rootFD int, path string, max int64) ([]byte, error) {
	at, err := Open(rootFD, path, unix.O_PATH, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(at)
	var st unix.Stat_t
	if err := unix.Fstat(at, &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, failure.Invalid("%s in the container is not a regular file", path)
	}
	if st.Size > max {
		return nil, tooLarge(path, max)
	}
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(at), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%s in the container: %w", path, err)
	}
	defer unix.Close(fd)
	b, err := readAll(fd, make([]byte, 0, st.Size+1), max)
	if err != nil {
		return nil, fmt.Errorf("%s in the container: %w", path, err)
	}
	if int64(len(b)) > max {
		return nil, tooLarge(path, max)
	}
	return b, nil
}

// readAll appends what fd holds to b, up to one byte more than max. It reads by system calls: every exec waits for it,
// and a regular file is nothing for the poller.
func readAll(fd int, b []byte, max int64) ([]byte, error) {
	for int64(len(b)) <= max {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := unix.Read(fd, b[len(b):cap(b)])
		switch {
		case err == unix.EINTR:
		case err != nil:
			return b, err
		case n == 0:
			return b, nil
		default:
			b = b[:len(b)+n]
		}
	}
	return b, nil
}

func tooLarge(path string, max int64) error {
	return failure.Invalid("%s in the container is larger than %d bytes", path, max)
}
