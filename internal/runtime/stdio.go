package runtime

import (
	"fmt"
	"os"

	"github.com/cleatlabs/cleat/internal/keeper"
	"golang.org/x/sys/unix"
)

// pipeSize is what stdout and stderr hold while no engine reads them; beyond it the writer waits.
const pipeSize = 1 << 20

// streams are the standard streams of a process under construction: the engine's ends, and the child's.
type streams struct {
	stdin, stdout, stderr, console *os.File
	child                          [3]int
	tty                            *terminal
	own                            []int // of child, to close
}

// openStreams makes the pipes, or hands out the terminal.
func openStreams(tty *terminal, stdin bool, null int) (*streams, error) {
	s := &streams{tty: tty, child: [3]int{null, null, null}}
	if tty != nil {
		s.console = tty.master
		s.child = [3]int{tty.slave, tty.slave, tty.slave}
		return s, nil
	}
	err := s.openPipes(stdin)
	if err != nil {
		s.closeAll()
		return nil, fmt.Errorf("making the standard streams: %w", err)
	}
	return s, nil
}

func (s *streams) openPipes(stdin bool) error {
	if stdin {
		r, w, err := pipe()
		if err != nil {
			return err
		}
		s.child[0], s.own = r, append(s.own, r)
		if s.stdin, err = nonblocking(w, "stdin"); err != nil {
			return err
		}
	}
	for i, out := range []**os.File{&s.stdout, &s.stderr} {
		r, w, err := pipe()
		if err != nil {
			return err
		}
		s.child[i+1], s.own = w, append(s.own, w)
		// An unprivileged engine, or one out of its quota, does with the default size.
		unix.FcntlInt(uintptr(r), unix.F_SETPIPE_SZ, pipeSize)
		if *out, err = nonblocking(r, []string{"stdout", "stderr"}[i]); err != nil {
			return err
		}
	}
	return nil
}

func pipe() (r, w int, err error) {
	var p [2]int
	err = unix.Pipe2(p[:], unix.O_CLOEXEC)
	return p[0], p[1], err
}

// nonblocking makes a file whose reads and writes wait in the engine's poller. The two ends of a pipe are different
// open files: the child's end stays blocking.
func nonblocking(fd int, name string) (*os.File, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// holdIn gives the keeper its ends. Stdin is held only if it is to survive the client that is attached to it.
func (s *streams) holdIn(pl *plan, stdin bool) error {
	held := map[int]*os.File{keeper.StdoutFD: s.stdout, keeper.StderrFD: s.stderr}
	if s.console != nil {
		held = map[int]*os.File{keeper.StdoutFD: s.console}
	}
	if stdin {
		held[keeper.StdinFD] = s.stdin
	}
	for number, f := range held {
		fd, err := fdOf(f)
		if err != nil {
			return err
		}
		pl.hold(number, fd)
	}
	return nil
}

// fdOf is f.Fd() without making the file blocking.
func fdOf(f *os.File) (int, error) {
	if f == nil {
		return -1, nil
	}
	c, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	n := -1
	err = c.Control(func(fd uintptr) { n = int(fd) })
	return n, err
}

// closeChild closes what only the child needs, once it has been started.
func (s *streams) closeChild() {
	for _, fd := range s.own {
		unix.Close(fd)
	}
	s.own = nil
	if s.tty != nil {
		s.tty.closeChildSide()
	}
}

func (s *streams) closeAll() {
	s.closeChild()
	for _, f := range []*os.File{s.stdin, s.stdout, s.stderr, s.console} {
		if f != nil {
			f.Close()
		}
	}
}
