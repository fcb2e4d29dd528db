package launch

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// A Parked is a process that has executed the stub ahead of its program, for which it waits at a socket: what a start
// spends on fork and execve is paid before anybody waits for it. It holds nothing but that socket, and ends when the
// engine does, in whatever way.
type Parked struct {
	pid    int
	pidfd  int
	socket int
}

const (
	// titleLength is the room for a parked process's arguments, with the last NUL: the stub has the number, too.
	titleLength = 78
	// maxPassed is how many descriptors one message can hand over.
	maxPassed = 253
)

// parkNew executes the stub in a process that waits, and is shown as kind until it has its program.
func (s *Stub) parkNew(kind string) (*Parked, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("parking a keeper: %w", err)
	}
	defer unix.Close(pair[1])
	args := []string{"cleat-keeper", kind}
	for room := titleLength - len("cleat-keeper..") - len(kind); room > 0; room-- {
		args = append(args, "")
	}
	its := uintptr(pair[1])
	k := &Parked{socket: pair[0]}
	if k.pid, k.pidfd, err = s.forkExec(args, []uintptr{its, its, its, its}); err != nil {
		unix.Close(k.socket)
		return nil, fmt.Errorf("parking a keeper: %w", err)
	}
	return k, nil
}

// PID is the process's.
func (k *Parked) PID() int { return k.pid }

// Close ends the process. It is meant for one that is not used, or not any more.
func (k *Parked) Close() {
	unix.Close(k.socket)
	unix.PidfdSendSignal(k.pidfd, unix.SIGKILL, nil, 0)
	for unix.Waitid(unix.P_PIDFD, k.pidfd, nil, unix.WEXITED|unix.WALL, nil) == unix.EINTR {
	}
	unix.Close(k.pidfd)
}

// hand gives the process its name, its descriptors and its program; false if it cannot take them. Unused numbers get
// the program's descriptor, which the header has the stub close.
func (k *Parked) hand(name string, stdio [3]int, program, report int, files []int) bool {
	passed := len(files) + 1 + len(stdio) + 1
	if len(name) >= titleLength || passed > maxPassed {
		return false
	}
	var title [titleLength]byte
	copy(title[:], name)
	fds := append(make([]int, 0, passed), report)
	for i, fd := range files {
		if fd < 0 {
			if fd = program; FirstFD+i >= closableFDs {
				return false
			}
		}
		fds = append(fds, fd)
	}
	fds = append(append(fds, stdio[:]...), program)
	for {
		err := unix.Sendmsg(k.socket, title[:], unix.UnixRights(fds...), nil, unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return err == nil
		}
	}
}

// closableFDs bounds the descriptors that the header's set can name.
const closableFDs = 64

// unusedFDs is the set of numbers below closableFDs that the files leave out.
func unusedFDs(files []int) (set uint64) {
	for i, fd := range files {
		if n := FirstFD + i; fd < 0 && n < closableFDs {
			set |= 1 << n
		}
	}
	return set
}
