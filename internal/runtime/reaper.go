package runtime

import (
	"os"
	"os/signal"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A reaper collects the orphans that the kernel hands to the engine as a subreaper (or as PID 1) and that no one in the
// engine waits for: processes of containers that share the host's PID namespace, and those whose keeper was killed.
//
// Every child that the engine waits for is collected within microseconds of its end, so a zombie that is still there
// after patience is no one's. That keeps the reaper from taking a child of os/exec, or of any library, from its parent.
//
// SIGCHLD tells it to look. That costs more than it seems: every end of a keeper would interrupt a thread of the engine
// and wake two goroutines, just when somebody waits for what comes after that end. So once told it has the kernel drop
// the signal until it has looked.
type reaper struct {
	sig  chan os.Signal
	quit chan struct{}
	over chan struct{} // closed when run has returned

	patience time.Duration
}

const patience = 2 * time.Second

func startReaper(patience time.Duration) *reaper {
	r := &reaper{sig: make(chan os.Signal, 1), quit: make(chan struct{}), over: make(chan struct{}), patience: patience}
	signal.Notify(r.sig, syscall.SIGCHLD)
	go r.run()
	return r
}

func (r *reaper) stop() {
	close(r.quit)
	<-r.over
	signal.Stop(r.sig)
}

func (r *reaper) run() {
	defer close(r.over)
	told := func() {} // lets SIGCHLD be told again
	defer func() { told() }()
	var retry <-chan time.Time
	seen := 0 // the zombie that was there at the last look
	for {
		select {
		case <-r.quit:
			return
		case <-r.sig:
			if retry == nil {
				told = dropSignal(syscall.SIGCHLD)
				retry = time.After(r.patience)
			}
		case <-retry:
			retry = nil
			told() // before the look: what ends from now on is told
			for {
				pid := zombie()
				if pid == 0 {
					seen = 0
					break
				}
				if pid != seen {
					seen = pid
					retry = time.After(r.patience)
					break
				}
				unix.Wait4(pid, nil, unix.WNOHANG|unix.WALL, nil)
				seen = 0
			}
		}
	}
}

// dropSignal has the kernel drop a signal that it drops by default, until restore: package signal would go on taking
// it. Children stay to be waited for, which they would not if it was ignored. If it cannot be had the signal is taken
// as before.
func dropSignal(sig syscall.Signal) (restore func()) {
	type action [4]uintptr // struct sigaction as the kernel has it: handler, flags, restorer, mask
	set := func(next, old *action) bool {
		_, _, errno := syscall.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(next)), uintptr(unsafe.Pointer(old)), 8, 0, 0)
		return errno == 0
	}
	var byDefault, own action
	if !set(&byDefault, &own) || own == byDefault { // the latter: another Runtime of this process drops it already
		return func() {}
	}
	return func() { set(&own, nil) }
}

// zombie returns the PID of some ended child that has not been collected, 0 without one.
func zombie() int {
	var si struct {
		signo, errno, code, pad, pid int32
		rest                         [108]byte
	}
	_, _, errno := syscall.Syscall6(unix.SYS_WAITID, unix.P_ALL, 0, uintptr(unsafe.Pointer(&si)), unix.WEXITED|unix.WNOHANG|unix.WNOWAIT|unix.WALL, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(si.pid)
}
