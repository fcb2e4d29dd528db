package kernel

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
)

// BootID returns the kernel's random id of the current boot.
func BootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// A Stat is what /proc/PID/stat says of a process.
type Stat struct {
	Name            string
	State           byte // R, S, D, Z (has ended, and its parent has not collected it) …
	Parent, Session int
	Exiting         bool   // it has begun to end
	Start           uint64 // clock ticks since boot; with the boot id it tells a process from a later one with its PID
}

// StatOf reads the Stat of process pid. One that is gone (collected) is errdefs.ErrNotFound.
func StatOf(pid int) (Stat, error) {
	b, err := readStat(pid)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return Stat{}, failure.NotFound("no process has the id %d", pid)
	}
	if err != nil {
		return Stat{}, fmt.Errorf("status of process %d: %w", pid, err)
	}
	return parseStat(string(b))
}

// StartTime is when process pid was started, in clock ticks since the boot (Stat.Start): with the boot's id and the pid
// it names a process for good.
func StartTime(pid int) (uint64, error) {
	s, err := StatOf(pid)
	return s.Start, err
}

// Exiting says whether process pid has begun to end, or is gone: from then on none of its namespaces' other processes
// lives long, though the pid is still there.
func Exiting(pid int) bool {
	s, err := StatOf(pid)
	return s.Exiting || errdefs.IsNotFound(err)
}

// readStat reads a process's status in one go, by system calls: every start of a container waits for it, and package os
// would take three times as many.
func readStat(pid int) ([]byte, error) {
	path := "/proc/" + strconv.Itoa(pid) + "/stat"
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	b := make([]byte, 1024) // 52 numbers and a short name
	for {
		n, err := unix.Read(fd, b)
		if err == nil {
			return b[:n], nil
		}
		if err != unix.EINTR {
			return nil, &os.PathError{Op: "read", Path: path, Err: err}
		}
	}
}

// parseStat reads fields 2, 3, 4, 6, 9 and 22. The second is the command's name in parentheses, which may hold anything,
// spaces and parentheses too: what follows the last one is counted.
func parseStat(stat string) (Stat, error) {
	begin, end := strings.IndexByte(stat, '('), strings.LastIndexByte(stat, ')')
	if begin < 0 || end < begin {
		return Stat{}, fmt.Errorf("malformed process status %q", stat)
	}
	fields := strings.Fields(stat[end+1:])
	const state, parent, session, flags, start = 3 - 3, 4 - 3, 6 - 3, 9 - 3, 22 - 3 // fields[0] is the third
	if len(fields) <= start {
		return Stat{}, fmt.Errorf("process status has only %d fields", len(fields)+2)
	}
	s := Stat{Name: stat[begin+1 : end], State: fields[state][0]}
	var err error
	number := func(field int) uint64 {
		n, e := strconv.ParseUint(fields[field], 10, 64)
		if e != nil && err == nil {
			err = fmt.Errorf("process status: %w", e)
		}
		return n
	}
	const exiting = 0x4 // PF_EXITING
	s.Parent, s.Session, s.Exiting, s.Start = int(number(parent)), int(number(session)), number(flags)&exiting != 0, number(start)
	return s, err
}
