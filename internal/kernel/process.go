package kernel

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

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

// StartTime returns when process pid started, in clock ticks since boot: field 22 of /proc/PID/stat. Together with the
// boot id it tells a process from a later one that was given the same pid. A process that is gone (reaped) is
// errdefs.ErrNotFound.
func StartTime(pid int) (uint64, error) {
	b, err := readStat(pid)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return 0, failure.NotFound("no process has the id %d", pid)
	}
	if err != nil {
		return 0, fmt.Errorf("start time of process %d: %w", pid, err)
	}
	return parseStartTime(string(b))
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

// parseStartTime reads field 22. The second field is the command's name in parentheses, which may hold anything, spaces
// and parentheses too: what follows the last one is counted.
func parseStartTime(stat string) (uint64, error) {
	i := strings.LastIndexByte(stat, ')')
	if i < 0 {
		return 0, fmt.Errorf("malformed process status %q", stat)
	}
	fields := strings.Fields(stat[i+1:]) // fields[0] is the third field
	const startTime = 22 - 3
	if len(fields) <= startTime {
		return 0, fmt.Errorf("process status has only %d fields", len(fields)+2)
	}
	t, err := strconv.ParseUint(fields[startTime], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("start time in the process status: %w", err)
	}
	return t, nil
}

// Exiting says whether process pid has begun to end, or is gone: from then on none of its namespaces' other processes
// lives long, though the pid is still there.
func Exiting(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH)
	}
	const flags, exiting = 9 - 3, 0x4 // PF_EXITING
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) <= flags {
		return false
	}
	n, err := strconv.ParseUint(fields[flags], 10, 64)
	return err == nil && n&exiting != 0
}
