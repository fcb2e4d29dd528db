package runtime

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/keeper"
	"github.com/cleatlabs/cleat/internal/kernel"
	"golang.org/x/sys/unix"
)

// killKeeper ends a keeper and its process: the process first, so that the keeper ends by itself; a keeper whose
// process cannot die (it is frozen) is killed. The child of an exec's keeper makes the process as a further child: it
// is looked for until the keeper has none.
func killKeeper(pidfd int, status *os.File) {
	for end := time.Now().Add(abandonPatience); !keeper.Exited(pidfd); {
		for _, child := range childrenOf(pidfd, status) {
			if err := unix.PidfdSendSignal(child, unix.SIGKILL, nil, 0); err == nil {
				awaitExit(child, time.Until(end))
			}
			unix.Close(child)
		}
		if !awaitExit(pidfd, time.Millisecond) && time.Now().After(end) {
			unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
			awaitExit(pidfd, abandonPatience)
			break
		}
	}
	keeper.Reap(pidfd)
}

// childrenOf opens the children of a keeper. The list is by number; a child stays the keeper's until the keeper
// collects it, so one whose parent still is the keeper after it was opened is the right one.
func childrenOf(pidfd int, status *os.File) []int {
	s, err := keeper.ReadStatus(status)
	if err != nil || s.KeeperPID <= 0 {
		return nil
	}
	var list []int
	for _, pid := range keeper.Children(s.KeeperPID) {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		if now, err := kernel.StatOf(pid); err != nil || now.Parent != s.KeeperPID || keeper.Exited(pidfd) {
			unix.Close(fd)
			continue
		}
		list = append(list, fd)
	}
	return list
}

// awaitExit waits for the process of a pidfd; false after the time.
func awaitExit(pidfd int, d time.Duration) bool {
	end := time.Now().Add(d)
	p := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for {
		left := time.Until(end)
		if left < 0 {
			return keeper.Exited(pidfd)
		}
		n, err := unix.Poll(p, int(left.Milliseconds())+1)
		if n == 1 {
			return true
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return false
		}
	}
}

// clearStale removes the directory of a process that is not running any more.
func (r *Runtime) clearStale(dir string) error {
	status, err := keeper.OpenStatus(dir)
	if err == nil {
		defer status.Close()
		pidfd, _, err := keeper.OpenUnrecorded(status)
		if err == nil {
			unix.Close(pidfd)
			return failure.Conflict("%s is running already", filepath.Base(dir))
		}
	}
	return removeDir(dir)
}

// Sweep removes what is not in keep: processes that an engine was killed in the middle of starting, with their keepers,
// and the directories of ended ones. It is meant for an engine's start, before anything is started.
func (r *Runtime) Sweep(keep []keeper.Record) {
	known := map[string]bool{r.anchor: true, r.private: true}
	for _, k := range keep {
		known[filepath.Clean(k.Dir)] = true
	}
	entries, err := os.ReadDir(r.c.Dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		dir := filepath.Join(r.c.Dir, e.Name())
		if !e.IsDir() || known[dir] {
			continue
		}
		r.sweepDir(dir)
	}
}

func (r *Runtime) sweepDir(dir string) {
	if status, err := keeper.OpenStatus(dir); err == nil {
		sweepKeeper(status)
		status.Close()
	}
	os.RemoveAll(dir)
}

// sweepKeeper ends the keeper of a status file. One that has only just been forked goes on to its PID first: before it
// has a child there is nothing to name it by.
func sweepKeeper(status *os.File) {
	for end := time.Now().Add(abandonPatience); time.Now().Before(end); time.Sleep(100 * time.Microsecond) {
		if pidfd, _, err := keeper.OpenUnrecorded(status); err == nil {
			killKeeper(pidfd, status)
			unix.Close(pidfd)
			return
		}
		if alive, err := keeper.Occupied(status); err != nil || !alive {
			return
		}
	}
}
