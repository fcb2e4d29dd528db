package launch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// A nursery is a parked process that makes others: a copy of something so small costs a fifth of a fork of the engine
// with its execve, during which one of the engine's processors would do nothing else. They are the engine's children as
// if it had made them.
type nursery struct {
	process *Parked
	answers *os.File // its socket: whoever waits for an answer holds no processor
}

// openNursery executes the stub for one.
func (s *Stub) openNursery() (*nursery, error) {
	k, err := s.parkNew("nursery")
	if err != nil {
		return nil, err
	}
	fd, err := unix.FcntlInt(uintptr(k.socket), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		k.Close()
		return nil, fmt.Errorf("parking a keeper: %w", err)
	}
	return &nursery{k, os.NewFile(uintptr(fd), "keepers' nursery")}, nil
}

func (n *nursery) close() {
	n.answers.Close()
	n.process.Close()
}

// make asks for count processes at once, and then for their numbers. After an error, which may come with some, the
// nursery is of no use any more.
func (n *nursery) make(count int) ([]*Parked, error) {
	var sockets []int
	var err error
	for range count {
		var socket int
		if socket, err = n.ask(); err != nil {
			break
		}
		sockets = append(sockets, socket)
	}
	var made []*Parked
	for _, socket := range sockets {
		if err != nil {
			unix.Close(socket) // which ends the process, if there is one
			continue
		}
		k := &Parked{socket: socket}
		if k.pid, k.pidfd, err = n.answer(); err == nil {
			made = append(made, k)
		} else {
			unix.Close(socket)
		}
	}
	return made, err
}

// ask returns the engine's end of the new process's socket.
func (n *nursery) ask() (int, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(pair[1])
	for {
		// The byte is the first of what the process already has for its title.
		err := unix.Sendmsg(n.process.socket, []byte("c"), unix.UnixRights(pair[1]), nil, unix.MSG_NOSIGNAL)
		if err == nil {
			return pair[0], nil
		}
		if err != unix.EINTR {
			unix.Close(pair[0])
			return -1, err
		}
	}
}

func (n *nursery) answer() (pid, pidfd int, err error) {
	var b [8]byte
	got, err := n.answers.Read(b[:])
	if err != nil {
		return -1, -1, err
	}
	if got != len(b) {
		return -1, -1, io.ErrUnexpectedEOF
	}
	if pid = int(int64(binary.NativeEndian.Uint64(b[:]))); pid <= 0 {
		return -1, -1, syscall.Errno(-pid)
	}
	// The number is the process's until the engine, its parent, has collected it.
	pidfd, err = unix.PidfdOpen(pid, 0)
	return pid, pidfd, err
}

// Park starts processes that wait for their programs: count of them, or fewer with an error. Use each up with StartIn,
// or Close it.
func (s *Stub) Park(count int) (made []*Parked, err error) {
	s.parking.Lock()
	defer s.parking.Unlock()
	if s.nursery == nil {
		if s.nursery, err = s.openNursery(); err != nil {
			return nil, err
		}
	}
	made, err = s.nursery.make(count)
	if err == nil {
		return made, nil
	}
	// Somebody has killed it, or it cannot have more processes: the engine may.
	s.nursery.close()
	s.nursery = nil
	for len(made) < count {
		k, perr := s.parkNew("spare")
		if perr != nil {
			return made, errors.Join(err, perr)
		}
		made = append(made, k)
	}
	return made, nil
}
