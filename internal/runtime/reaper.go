package runtime

import (
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"unsafe"
)

// A reaper collects the orphans that the kernel hands to the engine as a subreaper (or as PID 1) and that no one in the engine waits for:
// processes of containers that share the host's PID namespace, and those whose keeper was killed.
//
// Every child that the engine waits for is collected within microseconds of its end, so a zombie that is still there after patience is no
// one's. That keeps the reaper from taking a child of os/exec, or of any library, from its parent.
type reaper struct {
	sig  chan os.Signal
	quit chan struct{}
}

const patience = 2 * time.Second

func startReaper() *reaper {
	r := &reaper{sig: make(chan os.Signal, 1), quit: make(chan struct{})}
	signal.Notify(r.sig, syscall.SIGCHLD)
	go r.run()
	return r
}

func (r *reaper) stop() {
	signal.Stop(r.sig)
	close(r.quit)
}

func (r *reaper) run() {
	var retry <-chan time.Time
	seen := 0 // the zombie that was there at the last look
	for {
		select {
		case <-r.quit:
			return
		case <-r.sig:
			if retry == nil {
				retry = time.After(patience)
			}
		case <-retry:
			retry = nil
			for {
				pid := zombie()
				if pid == 0 {
					seen = 0
					break
				}
				if pid != seen {
					seen = pid
					retry = time.After(patience)
					break
				}
				unix.Wait4(pid, nil, unix.WNOHANG|unix.WALL, nil)
				seen = 0
			}
		}
	}
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
