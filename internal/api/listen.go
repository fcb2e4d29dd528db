package api

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// socketMode lets root and the socket's group talk to the engine, which is as
// much as being root.
const socketMode = 0o660

// probeTimeout bounds the question whether someone serves an existing socket.
const probeTimeout = 2 * time.Second

// Listen makes a Unix socket at path with mode 0660 and group gid (-1 leaves
// the group as it is). A socket that nobody serves any more is taken over; one
// that is served, or another kind of file, is an error. The socket appears under
// its path complete, never with other permissions. Its directory is made if it
// is missing. Closing the listener removes the socket, unless another engine
// has put its own in the place.
func Listen(path string, gid int) (net.Listener, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", path, err)
	}
	if err := vacant(path); err != nil {
		return nil, err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", path, err)
	}
	private, err := os.MkdirTemp(dir, ".listen-")
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", path, err)
	}
	defer os.RemoveAll(private)
	ln, err := bindIn(private)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", path, err)
	}
	made := filepath.Join(private, socketName)
	err = errors.Join(os.Chown(made, -1, gid), os.Chmod(made, socketMode))
	var info fs.FileInfo
	if err == nil {
		info, err = os.Lstat(made)
	}
	if err == nil {
		err = os.Rename(made, path)
	}
	if err != nil {
		ln.Close()
		return nil, fmt.Errorf("cannot listen on %s: %w", path, err)
	}
	return &socket{UnixListener: ln, path: path, info: info}, nil
}

const socketName = "s"

// bindIn makes a listening socket in a directory. It goes through the
// directory's descriptor, since a socket's path must be shorter than 108 bytes.
func bindIn(dir string) (*net.UnixListener, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	name := fmt.Sprintf("/proc/self/fd/%d/%s", fd, socketName)
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	if err != nil {
		return nil, err
	}
	ln.SetUnlinkOnClose(false) // it is called differently by then
	return ln, nil
}

// vacant checks that a socket may be made at path: nothing is there, or a socket
// that nobody serves.
func vacant(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot listen on %s: %w", path, err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("cannot listen on %s: it exists and is not a socket; remove it or choose another path with --host", path)
	}
	conn, err := net.DialTimeout("unix", path, probeTimeout)
	if err == nil {
		conn.Close()
		return fmt.Errorf("cannot listen on %s: another engine serves it; stop that one or choose another path with --host", path)
	}
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("cannot listen on %s: cannot tell whether another engine serves it: %w", path, err)
}

// socket is a listener that removes its own file only.
type socket struct {
	*net.UnixListener
	path string
	info fs.FileInfo
	once sync.Once
}

func (s *socket) Close() error {
	err := s.UnixListener.Close()
	s.once.Do(func() {
		if now, statErr := os.Lstat(s.path); statErr == nil && os.SameFile(now, s.info) {
			err = errors.Join(err, os.Remove(s.path))
		}
	})
	return err
}

// Addr is the path that clients connect to.
func (s *socket) Addr() net.Addr { return &net.UnixAddr{Name: s.path, Net: "unix"} }
