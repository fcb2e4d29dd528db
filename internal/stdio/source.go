package stdio

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ttyDrain bounds what is taken from a terminal that is still open elsewhere
// after its process has exited.
const ttyDrain = 1 << 20

// source is the readable end of a stream, registered with the netpoller.
type source struct {
	f     *os.File
	raw   syscall.RawConn
	owned bool // f is our duplicate
	tty   bool

	nowait bool // draining: the end is where the stream is empty, or
	left   int  // after this many bytes
}

// pollable returns f if the netpoller knows it, else a duplicate that it
// knows. The duplicate shares f's open file description, and so does the
// keeper's descriptor: O_NONBLOCK is set for all of them, which harms nobody,
// as the other end of a pipe has a description of its own.
func pollable(f *os.File) (p *os.File, owned bool, err error) {
	if f.SetDeadline(time.Time{}) == nil {
		return f, false, nil
	}
	conn, err := f.SyscallConn()
	if err != nil {
		return nil, false, fmt.Errorf("%s: %w", f.Name(), err)
	}
	fd := -1
	cerr := conn.Control(func(old uintptr) {
		if fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 3); err == nil {
			err = unix.SetNonblock(fd, true)
		}
	})
	if err = errors.Join(cerr, err); err != nil {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
		return nil, false, fmt.Errorf("duplicate %s: %w", f.Name(), err)
	}
	return os.NewFile(uintptr(fd), f.Name()), true, nil
}

func newSource(f *os.File, tty bool) (*source, error) {
	p, owned, err := pollable(f)
	if err != nil {
		return nil, err
	}
	raw, err := p.SyscallConn()
	if err == nil {
		// A regular file would be "readable" for ever but cannot be polled.
		err = p.SetReadDeadline(time.Time{})
	}
	if err != nil {
		if owned {
			_ = p.Close()
		}
		return nil, fmt.Errorf("%s cannot be waited for: %w", f.Name(), err)
	}
	return &source{f: p, raw: raw, owned: owned, tty: tty}, nil
}

// wake makes a waiting take look at its conditions again.
func (s *source) wake() { _ = s.f.SetReadDeadline(time.Unix(1, 0)) }

func (s *source) close() {
	if s.owned {
		_ = s.f.Close()
		return
	}
	_ = s.f.SetReadDeadline(time.Time{})
}

// take calls op until it does not answer EAGAIN, waiting in between. It returns
// io.EOF at the end of the stream, os.ErrDeadlineExceeded after wake, and
// os.ErrClosed if the file was closed by its owner. limit is the most that op
// may take.
func (s *source) take(limit int, op func(fd, limit int) (int, error)) (int, error) {
	if s.nowait {
		if limit = min(limit, s.left); limit <= 0 {
			return 0, io.EOF
		}
	}
	var n int
	var err error
	rerr := s.raw.Read(func(fd uintptr) bool {
		n, err = op(int(fd), limit)
		for err == unix.EINTR {
			n, err = op(int(fd), limit)
		}
		return err != unix.EAGAIN || s.nowait
	})
	switch {
	case rerr != nil:
		return 0, rerr
	case err == unix.EAGAIN, err == unix.EIO && s.tty, err == nil && n <= 0:
		return 0, io.EOF
	case err != nil:
		return 0, err
	}
	s.left -= n
	return n, nil
}

// drain switches to taking what is there now, without waiting.
func (s *source) drain() {
	_ = s.f.SetReadDeadline(time.Time{})
	if s.nowait {
		return
	}
	s.nowait, s.left = true, ttyDrain
	if s.tty {
		return
	}
	_ = s.raw.Control(func(fd uintptr) {
		if n, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ); err == nil {
			s.left = n
		}
	})
}

// peek waits like take until there is something to read or the end. It knows the end
// of a pipe that is empty: a process that has written nothing costs no files.
func (s *source) peek() error {
	n, err := s.take(1, func(fd, _ int) (int, error) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 0)
		switch {
		case err == nil && n == 0:
			err = unix.EAGAIN
		case err == nil && p[0].Revents&(unix.POLLIN|unix.POLLHUP) == unix.POLLHUP:
			n = 0 // nobody has the other end, and there is nothing left
		}
		return n, err
	})
	s.left += n // nothing was taken
	return err
}
