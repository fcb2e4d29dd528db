package launch

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Failure is an operation that ended a program.
type Failure struct {
	Index int
	Call  string // name of the system call
	What  string // its object
	Errno syscall.Errno
}

func (f *Failure) Error() string {
	s := f.Call
	if f.What != "" {
		s += " " + f.What
	}
	return s + ": " + f.Errno.Error()
}

// Unwrap is the errno.
func (f *Failure) Unwrap() error { return f.Errno }

// A Child is a started program.
type Child struct {
	PID     int // of the process that the stub became
	PIDFD   int // owned by the caller
	program *Program
	report  *os.File
}

// Start runs the program in a new process named name, whose descriptors are stdio as 0 to 2 and files from FirstFD on. It returns when the
// stub has been executed; Await tells how the program fared.
func (s *Stub) Start(p *Program, name string, stdio [3]int, files []int) (*Child, error) {
	code, err := p.Encode()
	if err != nil {
		return nil, err
	}
	binary.LittleEndian.PutUint64(code[32:], uint64(FirstFD+len(files)))
	mem, err := programFile(code)
	if err != nil {
		return nil, fmt.Errorf("passing the launch program: %w", err)
	}
	defer unix.Close(mem)
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("making the report pipe: %w", err)
	}
	defer unix.Close(pipe[1])
	if err := unix.SetNonblock(pipe[0], true); err != nil {
		unix.Close(pipe[0])
		return nil, err
	}
	report := os.NewFile(uintptr(pipe[0]), "report")

	all := make([]uintptr, 0, FirstFD+len(files))
	for _, fd := range stdio {
		all = append(all, uintptr(fd))
	}
	all = append(all, uintptr(mem), uintptr(pipe[1]))
	for _, fd := range files {
		all = append(all, uintptr(fd))
	}
	exe, done, err := s.outOfReach(all)
	if err != nil {
		report.Close()
		return nil, err
	}
	defer done()
	pidfd := -1
	pid, err := syscall.ForkExec("/proc/self/fd/"+strconv.Itoa(exe), []string{name}, &syscall.ProcAttr{
		Dir: "/", Env: []string{}, Files: all, Sys: &syscall.SysProcAttr{PidFD: &pidfd, Setsid: true},
	})
	if err != nil {
		report.Close()
		return nil, fmt.Errorf("starting the keeper: %w", err)
	}
	if pidfd < 0 {
		if pidfd, err = unix.PidfdOpen(pid, 0); err != nil {
			unix.Kill(pid, unix.SIGKILL)
			unix.Wait4(pid, nil, 0, nil)
			report.Close()
			return nil, fmt.Errorf("pidfd_open: %w", err)
		}
	}
	return &Child{PID: pid, PIDFD: pidfd, program: p, report: report}, nil
}

// outOfReach returns a descriptor of the executable that ForkExec does not overwrite in the child before it executes it: it moves the given
// descriptors to numbers from 0 on, some of them by way of the numbers after the highest.
func (s *Stub) outOfReach(given []uintptr) (int, func(), error) {
	highest := len(given)
	for _, fd := range given {
		if n := int(int32(fd)); n > highest {
			highest = n
		}
	}
	free := highest + len(given) + 2
	if s.fd >= free || s.fd >= len(given) && s.fd < highest {
		return s.fd, func() {}, nil
	}
	fd, err := unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, free)
	if err != nil {
		return -1, nil, fmt.Errorf("a start that needs descriptor %d (is RLIMIT_NOFILE too low?): %w", free, err)
	}
	return fd, func() { unix.Close(fd) }, nil
}

// programFile is a memfd with the program. It needs no seals: each process maps it privately, and only the engine can write to it, which
// never does again.
func programFile(code []byte) (int, error) {
	const noexecSeal = 0x8 // MFD_NOEXEC_SEAL, since 6.3
	fd, err := unix.MemfdCreate("cleat-launch", unix.MFD_CLOEXEC|noexecSeal)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.MemfdCreate("cleat-launch", unix.MFD_CLOEXEC)
	}
	if err != nil {
		return -1, err
	}
	for off := 0; off < len(code); {
		n, err := unix.Pwrite(fd, code[off:], int64(off))
		if err != nil {
			unix.Close(fd)
			return -1, err
		}
		off += n
	}
	return fd, nil
}

// Report is what a program has said.
type Report struct {
	PID     int  // of ReportPID; 0 without one
	Reached bool // ReportReached was passed
}

// Await returns when every process of the program has executed its last program, has closed ReportFD or has ended. The error is a *Failure
// if an operation failed, or ctx's. Await may be called once.
func (c *Child) Await(ctx context.Context) (Report, error) {
	defer c.report.Close()
	if ctx.Done() != nil {
		stop := context.AfterFunc(ctx, func() { c.report.SetReadDeadline(time.Unix(1, 0)) })
		defer stop()
	}
	var r Report
	var failure *Failure
	for {
		var m [msgSize]byte
		_, err := io.ReadFull(c.report, m[:])
		switch {
		case err == io.EOF && failure != nil:
			return r, failure
		case err == io.EOF:
			return r, nil
		case err != nil && ctx.Err() != nil:
			return r, context.Cause(ctx)
		case err != nil:
			return r, fmt.Errorf("reading the launch report: %w", err)
		}
		a, b := binary.LittleEndian.Uint64(m[8:]), binary.LittleEndian.Uint64(m[16:])
		switch binary.LittleEndian.Uint64(m[:]) {
		case msgPID:
			r.PID = int(a)
		case msgReached:
			r.Reached = true
		case msgFailure:
			if failure == nil {
				failure = c.program.failure(int(a), syscall.Errno(b))
			}
		}
	}
}

func (p *Program) failure(index int, errno syscall.Errno) *Failure {
	f := &Failure{Index: index, Errno: errno, Call: "launch program"}
	if index < len(p.ops) {
		f.Call, f.What = opName(p.ops[index].nr), p.what[index]
	}
	return f
}
