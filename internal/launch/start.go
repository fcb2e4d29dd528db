package launch

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Failure is an operation that ended a program.
type Failure struct {
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
	report  int
}

// Start runs the program in a new process named name, whose descriptors are stdio as 0 to 2 and files from FirstFD on
// (-1 leaves a number unused). It returns when the stub has been executed; Await tells how the program fared.
func (s *Stub) Start(p *Program, name string, stdio [3]int, files []int) (*Child, error) {
	return s.StartIn(nil, p, name, stdio, files)
}

// StartIn is Start in a parked process, which is used up. Without one (nil) the nursery makes one: a fork of the engine
// has copies of all its descriptors until it executes the stub, so that what the engine closes meanwhile stays open, and
// a program that it has just written cannot be executed (ETXTBSY). Where it makes none, or the process has ended or cannot
// be handed so much, that is how a new one is started.
func (s *Stub) StartIn(k *Parked, p *Program, name string, stdio [3]int, files []int) (*Child, error) {
	if k == nil {
		if made, _ := s.Park(1); len(made) > 0 {
			k = made[0]
		}
	}
	code, err := p.Encode()
	if err == nil {
		binary.LittleEndian.PutUint64(code[32:], uint64(FirstFD+len(files)))
		binary.LittleEndian.PutUint64(code[40:], unusedFDs(files))
	}
	mem := -1
	if err == nil {
		if mem, err = programFile(code); err != nil {
			err = fmt.Errorf("passing the launch program: %w", err)
		}
	}
	var pipe [2]int
	if err == nil {
		defer unix.Close(mem)
		if err = unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
			err = fmt.Errorf("making the report pipe: %w", err)
		}
	}
	if err != nil {
		if k != nil {
			k.Close()
		}
		return nil, err
	}
	defer unix.Close(pipe[1])
	c := &Child{program: p, report: pipe[0]}
	if k != nil {
		if k.hand(name, stdio, mem, pipe[1], files) {
			unix.Close(k.socket)
			c.PID, c.PIDFD = k.pid, k.pidfd
			return c, nil
		}
		k.Close()
	}
	all := make([]uintptr, 0, FirstFD+len(files))
	for _, fd := range stdio {
		all = append(all, uintptr(fd))
	}
	all = append(all, uintptr(mem), uintptr(pipe[1]))
	for _, fd := range files {
		all = append(all, uintptr(fd))
	}
	if c.PID, c.PIDFD, err = s.forkExec([]string{name}, all); err != nil {
		unix.Close(c.report)
		return nil, fmt.Errorf("starting the keeper: %w", err)
	}
	return c, nil
}

// forkExec executes the stub with these descriptors.
func (s *Stub) forkExec(argv []string, files []uintptr) (pid, pidfd int, err error) {
	exe, done, err := s.outOfReach(files)
	if err != nil {
		return -1, -1, err
	}
	defer done()
	pidfd = -1
	sys := &syscall.SysProcAttr{PidFD: &pidfd, Setsid: true, UseCgroupFD: s.group >= 0, CgroupFD: max(s.group, 0)}
	attr := &syscall.ProcAttr{Dir: "/", Env: []string{}, Files: files, Sys: sys}
	name := "/proc/self/fd/" + strconv.Itoa(exe)
	if pid, err = syscall.ForkExec(name, argv, attr); err != nil && sys.UseCgroupFD {
		// Somebody has removed the group, or may not enter it: where the engine is does as well.
		sys.UseCgroupFD = false
		pid, err = syscall.ForkExec(name, argv, attr)
	}
	if err != nil {
		return -1, -1, err
	}
	if pidfd < 0 {
		if pidfd, err = unix.PidfdOpen(pid, 0); err != nil {
			unix.Kill(pid, unix.SIGKILL)
			unix.Wait4(pid, nil, 0, nil)
			return -1, -1, fmt.Errorf("pidfd_open: %w", err)
		}
	}
	return pid, pidfd, nil
}

// outOfReach returns a descriptor of the executable that ForkExec does not overwrite in the child before it executes
// it: it moves the given descriptors to numbers from 0 on, some of them by way of the numbers after the highest.
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

// programFile is a memfd with the program. It needs no seals: each process maps it privately, and only the engine can
// write to it, which never does again.
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

// Await returns when every process of the program has executed its last program, has closed ReportFD or has ended. The
// error is a *Failure if an operation failed, or ctx's. Await may be called once.
func (c *Child) Await(ctx context.Context) (Report, error) {
	defer unix.Close(c.report)
	if err := awaitHangup(ctx, c.report); err != nil {
		return Report{}, err
	}
	var r Report
	var failure *Failure
	for {
		var m [msgSize]byte
		n, err := unix.Read(c.report, m[:])
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return r, fmt.Errorf("reading the launch report: %w", err)
		case n < msgSize && failure != nil:
			return r, failure
		case n < msgSize:
			return r, nil
		}
		a, b := binary.LittleEndian.Uint64(m[8:]), binary.LittleEndian.Uint64(m[16:])
		switch binary.LittleEndian.Uint64(m[:]) {
		case msgPID:
			r.PID = int(a)
		case msgReached:
			r.Reached = true
		case msgFailure:
			if failure == nil {
				failure = c.program.failure(a, syscall.Errno(b))
			}
		}
	}
}

// Waits says whether the program is still under way: Await would not return at once. It must not be called after Await
// or Forget.
func (c *Child) Waits() bool {
	fds := []unix.PollFd{{Fd: int32(c.report)}}
	for {
		n, err := unix.Poll(fds, 0)
		if err != unix.EINTR {
			return err == nil && n == 0
		}
	}
}

// Forget is for a program that is given up, in the place of Await.
func (c *Child) Forget() { unix.Close(c.report) }

// awaitHangup waits until nobody has the pipe's other end any more. It waits for that alone, in the kernel: a message
// on the way must not wake the engine, which would take a processor from the process that it waits for; nor is a
// goroutine that the poller wakes as quick.
func awaitHangup(ctx context.Context, pipe int) error {
	fds := []unix.PollFd{{Fd: int32(pipe)}} // of events none: a hangup is always told
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if ctx.Done() != nil {
		wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		if err != nil {
			return fmt.Errorf("waiting for the launch report: %w", err)
		}
		defer unix.Close(wake)
		woken := make(chan struct{})
		stop := context.AfterFunc(ctx, func() {
			defer close(woken)
			unix.Write(wake, binary.NativeEndian.AppendUint64(nil, 1))
		})
		defer func() {
			if !stop() {
				<-woken // it has the descriptor
			}
		}()
		fds = append(fds, unix.PollFd{Fd: int32(wake), Events: unix.POLLIN})
	}
	for {
		_, err := unix.Poll(fds, -1)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("waiting for the launch report: %w", err)
		case fds[0].Revents != 0:
			return nil
		default:
			return context.Cause(ctx)
		}
	}
}

// failure is that of an operation, or of whatever else a report names: what runs in a container may have written it.
func (p *Program) failure(index uint64, errno syscall.Errno) *Failure {
	f := &Failure{Errno: errno, Call: "launch program"}
	if index < uint64(len(p.ops)) {
		f.Call, f.What = opName(p.ops[index].nr), p.what[index]
	}
	return f
}
