package keeper

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"unsafe"

	"github.com/cleatlabs/cleat/internal/kernel"
	"golang.org/x/sys/unix"
)

// ErrGone says that a recorded keeper does not exist any more.
var ErrGone = errors.New("the keeper is gone")

// Open returns a pidfd of the keeper in r after making sure that it is that keeper and no later process with its PID:
// same boot, same start time, and the record's status file at StatusFD. It is ErrGone if there is no such process.
func Open(r Record, status *os.File) (int, error) {
	if !known(r.Layout) {
		return -1, fmt.Errorf("process %s was started by an engine whose keepers have layout %d; this engine knows up to %d", r.ID, r.Layout, LayoutVersion)
	}
	if err := SameBoot(r); err != nil {
		return -1, err
	}
	return openVerified(r.KeeperPID, r.KeeperStart, status)
}

// SameBoot is ErrGone if the machine was restarted since r was written.
func SameBoot(r Record) error {
	boot, err := kernel.BootID()
	if err != nil {
		return err
	}
	if boot != r.BootID {
		return fmt.Errorf("the machine was restarted: %w", ErrGone)
	}
	return nil
}

// openVerified opens the keeper with the PID; start 0 is not compared.
func openVerified(pid int, start uint64, status *os.File) (int, error) {
	pidfd, err := OpenProcess(pid, start)
	if err != nil {
		return -1, err
	}
	if err := holdsStatus(pid, status); err != nil {
		unix.Close(pidfd)
		return -1, err
	}
	// The checks were by number: they hold only if the process still is the one that the pidfd names.
	if Exited(pidfd) {
		unix.Close(pidfd)
		return -1, ErrGone
	}
	return pidfd, nil
}

// OpenUnrecorded is Open for a keeper whose record was never written (the engine was killed while it started): the
// status file alone names and proves it.
func OpenUnrecorded(status *os.File) (pidfd int, s State, err error) {
	if s, err = ReadStatus(status); err != nil {
		return -1, s, err
	}
	if s.KeeperPID <= 0 {
		return -1, s, ErrGone
	}
	pidfd, err = openVerified(s.KeeperPID, 0, status)
	return pidfd, s, err
}

// StatusOf opens the status file of r: that in its directory or, where that was deleted, the one that its keeper holds.
// It is fs.ErrNotExist where there is neither.
func StatusOf(r Record) (*os.File, error) {
	f, err := OpenStatus(r.Dir)
	if !errors.Is(err, fs.ErrNotExist) || r.KeeperStart == 0 {
		return f, err
	}
	pidfd, kerr := OpenProcess(r.KeeperPID, r.KeeperStart)
	if kerr != nil {
		return nil, err
	}
	defer unix.Close(pidfd)
	// Another open file than the keeper's own, as the locks are by open file.
	held, kerr := unix.Open(fmt.Sprintf("/proc/%d/fd/%d", r.KeeperPID, StatusFD), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if kerr != nil {
		return nil, err
	}
	if f = os.NewFile(uintptr(held), filepath.Join(r.Dir, statusName)); Exited(pidfd) {
		f.Close()
		return nil, err
	}
	return f, nil
}

// holdsStatus checks that the process has the status file at StatusFD.
func holdsStatus(pid int, status *os.File) error {
	var mine, its unix.Stat_t
	if err := unix.Fstat(int(status.Fd()), &mine); err != nil {
		return fmt.Errorf("status file: %w", err)
	}
	err := unix.Stat("/proc/"+strconv.Itoa(pid)+"/fd/"+strconv.Itoa(StatusFD), &its)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) || err == nil && (mine.Dev != its.Dev || mine.Ino != its.Ino) {
		return ErrGone
	}
	if err != nil {
		return fmt.Errorf("descriptors of keeper %d: %w", pid, err)
	}
	return nil
}

// OpenProcess returns a pidfd of the process that has the PID and started at start (0: any). It is ErrGone if there is
// none.
func OpenProcess(pid int, start uint64) (int, error) {
	if pid <= 0 {
		return -1, ErrGone
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return -1, ErrGone
	}
	if err != nil {
		return -1, fmt.Errorf("pidfd_open %d: %w", pid, err)
	}
	if start != 0 {
		t, err := kernel.StartTime(pid)
		if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) { // it may well be there
			unix.Close(pidfd)
			return -1, err
		}
		if err != nil || t != start || Exited(pidfd) {
			unix.Close(pidfd)
			return -1, ErrGone
		}
	}
	return pidfd, nil
}

// Exited says whether the process of a pidfd has ended, collected or not. It does not wait.
func Exited(pidfd int) bool {
	p := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(p, 0)
		if err != unix.EINTR {
			return err == nil && n == 1
		}
	}
}

// Fetch copies a descriptor out of the keeper: the same open file, so that a terminal stays the same terminal.
func Fetch(pidfd, fd int, name string) (*os.File, error) {
	n, err := unix.PidfdGetfd(pidfd, fd, 0)
	if err != nil {
		return nil, fmt.Errorf("fetching %s from the keeper: %w", name, err)
	}
	// The open file is shared with the engine that made it, which has already made it non-blocking; be sure.
	if err := unix.SetNonblock(n, true); err != nil {
		unix.Close(n)
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return os.NewFile(uintptr(n), name), nil
}

// ExitInfo asks the kernel for the wait status of a process that has ended, through its pidfd: as its parent (which
// also reaps it), or with PIDFD_GET_INFO (Linux 6.15) if the pidfd was opened before the end. ok is false if neither
// knows.
func ExitInfo(pidfd int) (w unix.WaitStatus, ok bool) {
	if w, ok = Reap(pidfd); ok {
		return w, true
	}
	info := pidfdInfo{Mask: pidfdInfoExit}
	_, _, errno := syscall.Syscall(unix.SYS_IOCTL, uintptr(pidfd), pidfdGetInfo, uintptr(unsafe.Pointer(&info)))
	if errno != 0 || info.Mask&pidfdInfoExit == 0 {
		return 0, false
	}
	return unix.WaitStatus(info.ExitCode), true
}

// Reap collects the process if it is an ended child of the caller.
func Reap(pidfd int) (w unix.WaitStatus, ok bool) {
	var si siginfo
	for {
		_, _, errno := syscall.Syscall6(unix.SYS_WAITID, unix.P_PIDFD, uintptr(pidfd), uintptr(unsafe.Pointer(&si)), unix.WEXITED|unix.WNOHANG|unix.WALL, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 || si.PID == 0 {
			return 0, false
		}
		return si.waitStatus(), true
	}
}

// siginfo is the part of siginfo_t that waitid fills in, on 64-bit systems.
type siginfo struct {
	Signo, Errno, Code int32
	_                  int32
	PID, UID           int32
	Status             int32
	_                  [100]byte
}

const cldExited = 1

func (s *siginfo) waitStatus() unix.WaitStatus {
	if s.Code == cldExited {
		return unix.WaitStatus(s.Status&0xff) << 8
	}
	const cldDumped, coreFlag = 3, 0x80
	w := unix.WaitStatus(s.Status & 0x7f)
	if s.Code == cldDumped {
		w |= coreFlag
	}
	return w
}

// pidfdInfo is struct pidfd_info.
type pidfdInfo struct {
	Mask                                             uint64
	CgroupID                                         uint64
	PID, TGID, PPID                                  uint32
	RUID, RGID, EUID, EGID, SUID, SGID, FSUID, FSGID uint32
	ExitCode                                         int32
}

const (
	pidfdInfoExit = 1 << 3
	pidfdGetInfo  = 0xc040ff0b // _IOWR(0xFF, 11, struct pidfd_info) with the structure's first size, 64 bytes
)
