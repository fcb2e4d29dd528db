package runtime

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/keeper"
	"github.com/cleatlabs/cleat/internal/kernel"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// ErrNotRunning is answered for a process that has exited.
var ErrNotRunning = failure.New(errdefs.ErrFailedPrecondition, "the process is not running")

// Status is how a process ended.
type Status struct {
	Code       int // 128+signal for signals
	Signal     int // 0 unless a signal ended it
	FinishedAt time.Time
	Reason     string // why Code is not what the process returned; "" if it is
}

// codeUnknown is the exit code of a process whose real one nobody knows.
const codeUnknown = 255

// A Process is a started or adopted process. Its methods may be called concurrently.
type Process struct {
	rec    keeper.Record
	status *os.File

	stdin, stdout, stderr, console *os.File

	held []*os.File // what the keeper holds, of an adopted process

	done chan struct{}
	end  Status // valid once done is closed

	mu         sync.Mutex
	pidfd      int // of the process; −1 once it has ended
	mounts     int // its mount namespace; −1 is none (see holdMounts)
	network    int // its network namespace, if it is a spare one; −1 is none
	watch      *os.File
	detached   bool
	released   bool
	identified bool // rec has the start times
	adopted    bool // an earlier engine has started it
}

// ID is that of the container or the exec.
func (p *Process) ID() string { return p.rec.ID }

// PID is the process's, in the engine's PID namespace.
func (p *Process) PID() int { return p.rec.PID }

// LivePID is PID, or 0 once the process has ended: the number may be another's by then, after a reboot above all, and what
// is looked up by it, as a network namespace, the host's.
func (p *Process) LivePID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pidfd < 0 || keeper.Exited(p.pidfd) {
		return 0
	}
	return p.rec.PID
}

// Record is what a later engine needs to adopt the process.
func (p *Process) Record() keeper.Record {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.identified {
		p.identify()
	}
	return p.rec
}

// identify reads the start times. A process that has ended meanwhile is told by its status file alone.
func (p *Process) identify() {
	p.identified = true
	if p.pidfd < 0 {
		return
	}
	if p.rec.KeeperStart == 0 {
		p.rec.KeeperStart, _ = kernel.StartTime(p.rec.KeeperPID)
	}
	if t, err := kernel.StartTime(p.rec.PID); err == nil && !keeper.Exited(p.pidfd) {
		p.rec.PIDStart = t
	}
}

// Stdin is the write end of the process's stdin, or nil.
func (p *Process) Stdin() *os.File { return p.stdin }

// CloseStdin gives the process its end of file. Where the keeper holds stdin open over the clients that come and go, it
// does nothing.
func (p *Process) CloseStdin() error {
	if p.stdin == nil || p.rec.StdinOpen {
		return nil
	}
	if err := p.stdin.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("closing stdin: %w", err)
	}
	return nil
}

// Stdout is the read end of the process's stdout, nil with a terminal.
func (p *Process) Stdout() *os.File { return p.stdout }

// Stderr is the read end of the process's stderr, nil with a terminal.
func (p *Process) Stderr() *os.File { return p.stderr }

// Console is the terminal's master, nil without one.
func (p *Process) Console() *os.File { return p.console }

// TakeHeld hands over copies of what the keeper of an adopted process holds (Spec.Held): the same open files. The
// caller closes them. It is nil for a process that this engine has started, and where the keeper is gone. Call it
// before others know the Process.
func (p *Process) TakeHeld() []*os.File {
	held := p.held
	p.held = nil
	return held
}

// Done is closed when the process has ended and Status is known. It stays open after Detach.
func (p *Process) Done() <-chan struct{} { return p.done }

// Status is how the process ended; the zero Status before Done.
func (p *Process) Status() Status {
	select {
	case <-p.done:
		return p.end
	default:
		return Status{}
	}
}

// Signal sends a signal to the process. It is ErrNotRunning once that has ended.
func (p *Process) Signal(sig int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pidfd < 0 {
		return ErrNotRunning
	}
	err := unix.PidfdSendSignal(p.pidfd, syscall.Signal(sig), nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return ErrNotRunning
	}
	if err != nil {
		return fmt.Errorf("sending signal %d to process %d: %w", sig, p.rec.PID, err)
	}
	if sig == int(unix.SIGKILL) {
		p.wakeKeeper()
	}
	return nil
}

// wakeKeeper lets a keeper go on that somebody has stopped: it would collect no process, which was killed in vain then.
// p.mu is held.
func (p *Process) wakeKeeper() {
	if p.watch == nil {
		return
	}
	if c, err := p.watch.SyscallConn(); err == nil {
		_ = c.Control(func(fd uintptr) { _ = unix.PidfdSendSignal(int(fd), unix.SIGCONT, nil, 0) })
	}
}

// KillGroup kills the process with its process group: an exec's process leads one, which is what it has started and has
// not moved away.
func (p *Process) KillGroup() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pidfd < 0 || keeper.Exited(p.pidfd) {
		return ErrNotRunning
	}
	err := unix.PidfdSendSignal(p.pidfd, unix.SIGKILL, nil, pidfdSignalProcessGroup)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.9
		err = unix.Kill(-p.rec.PID, unix.SIGKILL)
	}
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("killing process group %d: %w", p.rec.PID, err)
	}
	return nil
}

// pidfdSignalProcessGroup is PIDFD_SIGNAL_PROCESS_GROUP.
const pidfdSignalProcessGroup = 1 << 2

// Resize sets the terminal's size in characters. A process without one has no size, and
// to set it changes nothing, as with runc: web consoles do so whatever they are attached to.
func (p *Process) Resize(rows, cols uint16) error {
	if p.console == nil {
		return nil
	}
	return resize(p.console, rows, cols)
}

func resize(console *os.File, rows, cols uint16) error {
	c, err := console.SyscallConn()
	if err == nil {
		cerr := c.Control(func(fd uintptr) {
			err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
		})
		err = errors.Join(err, cerr)
	}
	if err != nil {
		return fmt.Errorf("resizing the terminal: %w", err)
	}
	return nil
}

// holdMounts keeps the process's mount namespace beyond its end, until LetMountsGo. Taking some forty mounts down waits
// for all processors of the machine; without this the process would do it at its end, and everybody who waits for the
// end with it. A process that has ended meanwhile has done so already.
func (p *Process) holdMounts() {
	if p.pidfd < 0 {
		return
	}
	const getMountNamespace = 0xff03 // PIDFD_GET_MNT_NAMESPACE, since Linux 6.11
	fd, _, errno := syscall.Syscall(unix.SYS_IOCTL, uintptr(p.pidfd), getMountNamespace, 0)
	if errno == 0 {
		p.mounts = int(fd)
		return
	}
	if errno == unix.ESRCH {
		return
	}
	own, err := unix.Open(fmt.Sprintf("/proc/%d/ns/mnt", p.rec.PID), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	if keeper.Exited(p.pidfd) {
		unix.Close(own) // it may be another process's by now
		return
	}
	p.mounts = own
}

// Release frees what an ended process leaves: its descriptors and the keeper's directory. Its mounts stay until
// LetMountsGo. It is idempotent.
func (p *Process) Release() error {
	select {
	case <-p.done:
	default:
		return failure.Conflict("process %s is still running", p.rec.ID)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.released {
		return nil
	}
	p.closeFiles()
	if err := removeDir(p.rec.Dir); err != nil {
		return err
	}
	p.released = true
	return nil
}

// Detach closes the engine's descriptors and leaves the process running for a later Adopt.
func (p *Process) Detach() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.identified {
		p.identify()
	}
	p.detached = true
	// The lock first: a keeper whose process ends from now on saves the output that we shall not read.
	if p.status != nil {
		p.status.Close()
	}
	p.closeFiles()
	p.letMounts()
	if p.watch != nil {
		p.watch.Close()
	}
	p.closePidfd()
}

func (p *Process) closeFiles() {
	for _, f := range append([]*os.File{p.stdin, p.stdout, p.stderr, p.console, p.status}, p.held...) {
		if f != nil {
			f.Close()
		}
	}
}

// LetMountsGo ends the hold on a container's mounts, and on an empty network namespace, which the kernel then takes
// down if the process has ended. It is idempotent.
func (p *Process) LetMountsGo() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.letMounts()
}

func (p *Process) letMounts() {
	for _, fd := range []*int{&p.mounts, &p.network} {
		if *fd >= 0 {
			unix.Close(*fd)
			*fd = -1
		}
	}
}

func (p *Process) closePidfd() {
	if p.pidfd >= 0 {
		unix.Close(p.pidfd)
		p.pidfd = -1
	}
}

// supervise waits for the keeper, then for the status. It owns keeperFD.
func (p *Process) supervise(keeperFD int) error {
	if err := p.setWatch(keeperFD, "keeper"); err != nil {
		return err
	}
	go func() {
		if !p.awaitWatched() {
			return
		}
		// Those who wait are told first, by this processor; to collect the keeper has time.
		s, err := keeper.ReadStatus(p.status)
		ended := err == nil && s.Exited
		if ended {
			p.finish(p.statusOf(s))
			runtime.Gosched()
		}
		keeper.Reap(keeperFD)
		p.dropWatch()
		if !ended {
			p.orphaned()
		}
	}()
	return nil
}

// orphaned waits for a process whose keeper was killed.
func (p *Process) orphaned() {
	const lost = "its keeper was killed"
	p.mu.Lock()
	pidfd, err := -1, error(nil)
	if p.pidfd >= 0 {
		pidfd, err = unix.FcntlInt(uintptr(p.pidfd), unix.F_DUPFD_CLOEXEC, 0)
	}
	p.mu.Unlock()
	if pidfd < 0 || err != nil || p.setWatch(pidfd, "process") != nil {
		p.finish(Status{Code: codeUnknown, FinishedAt: time.Now(), Reason: lost + " and the process is gone"})
		return
	}
	if !p.awaitWatched() {
		return
	}
	w, ok := keeper.ExitInfo(pidfd)
	p.dropWatch()
	end := Status{Code: codeUnknown, FinishedAt: time.Now(), Reason: lost + " before the process ended, and this kernel does not tell the exit code"}
	if ok {
		end.Code, end.Signal = keeper.Decode(w)
		end.Reason = ""
	}
	p.finish(end)
}

func (p *Process) finish(s Status) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closePidfd()
	if p.detached {
		return
	}
	p.end = s
	close(p.done)
}

// setWatch makes pidfd, which it owns from now on, what awaitWatched waits for.
func (p *Process) setWatch(pidfd int, name string) error {
	f, err := nonblocking(pidfd, name)
	if err != nil {
		return fmt.Errorf("watching the %s: %w", name, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watch = f
	if p.detached {
		f.Close()
	}
	return nil
}

func (p *Process) dropWatch() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watch.Close()
	p.watch = nil
}

// awaitWatched waits in the engine's poller, without a thread, until the process of the watched pidfd has ended; false
// after Detach.
func (p *Process) awaitWatched() bool {
	p.mu.Lock()
	f := p.watch
	p.mu.Unlock()
	c, err := f.SyscallConn()
	if err != nil {
		return false
	}
	err = c.Read(func(fd uintptr) bool { return keeper.Exited(int(fd)) })
	return err == nil
}

func removeDir(dir string) error {
	// One file, nearly always: cheaper than a walk.
	if unix.Unlink(dir+"/status") == nil && unix.Rmdir(dir) == nil {
		return nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("removing the keeper's directory: %w", err)
	}
	return nil
}
