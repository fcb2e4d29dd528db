package network

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// sysctls reads and writes settings below /proc/sys/net, which are those of the calling
// thread's network namespace. It does so by an instance of procfs of its own, which it
// replaces now and then: the kernel keeps the directory entries of all namespaces under
// the same names in one chain, which each look at /proc/sys/net would have to walk along
// on a host with a thousand containers. It is safe for concurrent use; the zero value
// is ready.
type sysctls struct {
	mu   sync.Mutex
	root int // 0: none yet; -1: there cannot be one
	uses int

	attempts attempts
}

// sysctlUses is how many files are opened by one instance.
const sysctlUses = 256

// open opens a file, whose path begins with /proc/.
func (p *sysctls) open(path string, flags int) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.uses++; p.root >= 0 && (p.root == 0 || p.uses > sysctlUses) {
		p.renew()
	}
	if p.root < 0 {
		return openPath(unix.AT_FDCWD, path, flags)
	}
	return openPath(p.root, strings.TrimPrefix(path, "/proc/"), flags)
}

func openPath(dir int, path string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(dir, path, flags|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// renew takes another instance. Where the engine may not have one, as in a container with
// a masked /proc, the host's does. The caller holds mu.
func (p *sysctls) renew() {
	p.close()
	p.root, p.uses = -1, 0
	conf, err := unix.Fsopen("proc", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return
	}
	defer unix.Close(conf)
	if unix.FsconfigCreate(conf) != nil {
		return
	}
	const attrs = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	if fd, err := unix.Fsmount(conf, unix.FSMOUNT_CLOEXEC, attrs); err == nil {
		p.root = fd
	}
}

func (p *sysctls) close() {
	if p.root > 0 {
		unix.Close(p.root)
		p.root = 0
	}
}

func (p *sysctls) shut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.close()
	p.attempts.close()
}

func (p *sysctls) write(path, value string) error {
	fd, err := p.open(path, unix.O_WRONLY)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(value)); err != nil {
		return &fs.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}

func (p *sysctls) read(path string) (string, error) {
	fd, err := p.open(path, unix.O_RDONLY)
	if err != nil {
		return "", &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	b := make([]byte, 256) // more than any of them has
	n, err := unix.Read(fd, b)
	if err != nil {
		return "", &fs.PathError{Op: "read", Path: path, Err: err}
	}
	return strings.TrimSpace(string(b[:n])), nil
}

// set writes only what differs: where /proc/sys is read-only but already right, as in a
// container, all is well.
func (p *sysctls) set(s hostSysctl) error {
	have, err := p.read(s.path)
	if s.optional && errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil || have == s.value {
		return err
	}
	return p.write(s.path, s.value)
}
