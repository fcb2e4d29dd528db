package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
)

// freezeWait bounds how long Freeze waits for processes to stand still: one in an uninterruptible sleep may take long.
const freezeWait = 2 * time.Second

// Freeze stops all processes of the group and returns when they stand still. If they do not within two seconds, the group
// is thawed again and the error is errdefs.ErrUnavailable.
func (g *Group) Freeze() error {
	if err := g.setFrozen(true); err != nil {
		return fmt.Errorf("freezing control group %s: %w", g.path, err)
	}
	deadline := time.Now().Add(freezeWait)
	pause := 20 * time.Microsecond
	for try := 1; ; try++ {
		frozen, err := g.still()
		if frozen || err != nil {
			return err
		}
		if err := g.nudge(try); err != nil {
			return err
		}
		left := time.Until(deadline)
		if left <= 0 {
			return errors.Join(failure.Unavailable("the processes of control group %s do not stand still: one of them is waiting for a device or a network filesystem", g.path), g.Thaw())
		}
		g.waitEmpty(min(pause, 10*time.Millisecond, left))
		pause *= 2
	}
}

// nudge helps v1's freezer, which may wait for ever for a process that waits for a frozen one: now and then it lets
// them all go on for a moment.
func (g *Group) nudge(try int) error {
	const every = 20
	if g.h.mode == "v2" || try%every != 0 {
		return nil
	}
	return errors.Join(g.setFrozen(false), g.setFrozen(true))
}

// Thaw lets frozen processes go on.
func (g *Group) Thaw() error {
	if err := g.setFrozen(false); err != nil {
		return fmt.Errorf("thawing control group %s: %w", g.path, err)
	}
	return nil
}

// Frozen reports whether the group was frozen (the processes may still be on their way there).
func (g *Group) Frozen() (bool, error) {
	if g.h.mode == "v2" {
		s, err := readString(g.in(g.h.unified), "cgroup.freeze")
		return s == "1", g.gone(err)
	}
	dir, ok := g.controller("freezer")
	if !ok {
		return false, nil
	}
	s, err := readString(dir, "freezer.state")
	return s != "THAWED" && err == nil, g.gone(err)
}

// Frozen is Group.Frozen of the group at path, without a look whether it is there: an exec asks twice.
func (h *Hierarchy) Frozen(path string) (bool, error) {
	if err := CheckPath(path); err != nil {
		return false, err
	}
	return (&Group{h: h, path: path, dir: -1}).Frozen()
}

// OOMKills is Group.OOMKills of the group at path, without a look whether it is there.
func (h *Hierarchy) OOMKills(path string) (uint64, error) {
	if err := CheckPath(path); err != nil {
		return 0, err
	}
	return (&Group{h: h, path: path, dir: -1}).OOMKills()
}

func (g *Group) setFrozen(frozen bool) error {
	if g.h.mode == "v2" {
		value := "0"
		if frozen {
			value = "1"
		}
		return g.gone(writeFile(g.in(g.h.unified), "cgroup.freeze", value))
	}
	dir, ok := g.controller("freezer")
	if !ok {
		return failure.NotImplemented("the host has no freezer control group: mount it to pause containers")
	}
	value := "THAWED"
	if frozen {
		value = "FROZEN"
	}
	return g.gone(writeFile(dir, "freezer.state", value))
}

// still reports whether every process has been stopped.
func (g *Group) still() (bool, error) {
	if g.h.mode == "v2" {
		n, err := readKey(g.in(g.h.unified), "cgroup.events", "frozen")
		return n == 1, g.gone(err)
	}
	dir, _ := g.controller("freezer")
	s, err := readString(dir, "freezer.state")
	return s == "FROZEN", g.gone(err)
}

// gone turns the error of a group that was removed into errdefs.ErrNotFound.
func (g *Group) gone(err error) error {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return failure.NotFound("control group %s is gone: %w", g.path, err)
	}
	return err
}

// Kill sends SIGKILL to every process of the group and of the groups inside it, also to those that are forked
// meanwhile, and thaws a frozen group so that they die. It does not wait for them to be gone. A group that is gone is
// no error.
func (g *Group) Kill() error {
	if g.h.unified != "" {
		err := writeFile(g.in(g.h.unified), "cgroup.kill", "1")
		if g.h.mode == "v2" {
			if errors.Is(err, os.ErrNotExist) {
				err = nil
			}
			return errors.Join(err, ignoreNotExist(writeFile(g.in(g.h.unified), "cgroup.freeze", "0")))
		}
		// On a hybrid host processes may be in the v1 hierarchies alone: those are looked through, whatever happened here.
	}
	return g.killV1()
}

func ignoreNotExist(err error) error {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// killV1 kills round by round until a round meets no process that it has not seen before: one that has the signal
// pending cannot fork any more. From the third round on the group is frozen meanwhile: something in it forks faster
// than the list is read.
func (g *Group) killV1() error {
	const rounds, patience = 100, 2
	_, freezer := g.h.tree("freezer")
	seen := map[int]bool{}
	for round := range rounds {
		if freezer && round >= patience {
			if err := ignoreNotExist(g.setFrozen(true)); err != nil {
				return fmt.Errorf("freezing control group %s: %w", g.path, err)
			}
		}
		fresh, err := g.killRound(seen)
		if freezer { // nothing dies before it is thawed
			err = errors.Join(err, ignoreNotExist(g.setFrozen(false)))
		}
		if err != nil || fresh == 0 {
			return err
		}
	}
	return failure.Unavailable("the processes of control group %s fork faster than they can be killed", g.path)
}

// killRound signals every process and returns how many of them seen did not hold yet.
func (g *Group) killRound(seen map[int]bool) (fresh int, err error) {
	pids, err := g.Procs()
	if err != nil {
		return 0, err
	}
	for _, pid := range pids {
		if !seen[pid] {
			fresh++
			seen[pid] = true
		}
		if err := g.killProcess(pid); err != nil {
			return fresh, err
		}
	}
	return fresh, nil
}

// killProcess makes sure that it is still the group's process that it kills: a process id may have been given to
// another one since the list was read, but not between opening a pidfd and asking for that process's group.
func (g *Group) killProcess(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("killing process %d of control group %s: %w", pid, g.path, err)
	}
	defer unix.Close(fd)
	if !g.holds(pid) {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("killing process %d of control group %s: %w", pid, g.path, err)
	}
	return nil
}

// holds reports whether the process is in the group or below it, in any hierarchy.
func (g *Group) holds(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		// "4:memory:/path": the path may have a prefix where the hierarchy is not mounted from its root.
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(parts) == 3 && strings.Contains(parts[2]+"/", g.path+"/") {
			return true
		}
	}
	return false
}

// Procs lists the ids of the processes in the group and in the groups inside it. A group that is gone has none.
func (g *Group) Procs() ([]int, error) {
	return procsBelow(g.in(g.h.primary()))
}

func procsBelow(dir string) ([]int, error) {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil // a group of threads: the group that it divides has told of their processes
	}
	if err != nil {
		return nil, ignoreNotExist(err)
	}
	var pids []int
	for line := range strings.Lines(string(b)) {
		pid, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil {
			return nil, fmt.Errorf("%s/cgroup.procs: %w", dir, err)
		}
		pids = append(pids, pid)
	}
	children, err := childDirs(dir)
	if ignoreNotExist(err) != nil {
		return pids, err
	}
	for _, c := range children {
		more, err := procsBelow(c)
		if err != nil {
			return pids, err
		}
		pids = append(pids, more...)
	}
	return pids, nil
}

// OpenKill opens the file of the group at path, which is made if it is missing, that kills all processes in it and in
// the groups below it when "1" is written. It is -1 where the kernel has none: without a unified hierarchy.
func (h *Hierarchy) OpenKill(path string) (int, error) {
	if err := CheckPath(path); err != nil {
		return -1, err
	}
	if h.unified == "" {
		return -1, nil
	}
	if _, err := h.prepareParent(path); err != nil {
		return -1, err
	}
	fd, err := openFile(filepath.Join(h.unified, path, "cgroup.kill"), unix.O_WRONLY)
	if err != nil {
		return -1, fmt.Errorf("control group %s: %w", path, err)
	}
	return fd, nil
}
