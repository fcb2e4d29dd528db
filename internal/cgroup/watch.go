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
)

// waitEvents waits until the kernel changes cgroup.events (the group became empty, or frozen), or for d.
func waitEvents(dir string, d time.Duration) error {
	fd, err := openFile(filepath.Join(dir, "cgroup.events"), unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var buf [256]byte
	if _, err := unix.Read(fd, buf[:]); err != nil { // changes count from what was read last
		return err
	}
	timeout := unix.NsecToTimespec(int64(d))
	_, err = unix.Ppoll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}, &timeout, nil)
	if errors.Is(err, unix.EINTR) {
		return nil
	}
	return err
}

// WatchOOM sends a value when the group runs out of memory; several at once, or before the receiver took the last one,
// count as one. Nothing is sent without a memory controller. The channel is closed when stop is, which the caller has to
// close: of a group's end the kernel does not always tell.
func (g *Group) WatchOOM(stop <-chan struct{}) (<-chan struct{}, error) {
	watch := g.watchV1
	if g.h.mode == "v2" {
		watch = g.watchV2
	}
	events, happened, err := watch()
	if err != nil {
		return nil, fmt.Errorf("watching control group %s for lack of memory: %w", g.path, g.gone(err))
	}
	out := make(chan struct{}, 1)
	go func() { // unblocks the read below
		<-stop
		events.Close()
	}()
	go func() {
		defer close(out)
		buf := make([]byte, 4096)
		for {
			if _, err := events.Read(buf); err != nil {
				return
			}
			if !happened() {
				continue
			}
			select {
			case out <- struct{}{}:
			default:
			}
		}
	}()
	return out, nil
}

// watchV1 asks the kernel to count its out-of-memory notices in an eventfd. It counts there once more when the group is
// removed.
func (g *Group) watchV1() (events *os.File, happened func() bool, err error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, nil, err
	}
	events = os.NewFile(uintptr(fd), "oom events")
	dir, ok := g.controller("memory")
	if !ok {
		return events, func() bool { return false }, nil
	}
	control, err := openFile(dir+"/memory.oom_control", unix.O_RDONLY)
	if err != nil {
		events.Close()
		return nil, nil, err
	}
	defer unix.Close(control) // the kernel holds on to the group itself
	if err := writeFile(dir, "cgroup.event_control", fmt.Sprintf("%d %d", fd, control)); err != nil {
		events.Close()
		return nil, nil, err
	}
	return events, func() bool { return exists(dir) }, nil
}

// watchV2 is told of every change of memory.events: those that are not about running out of memory are passed over.
func (g *Group) watchV2() (events *os.File, happened func() bool, err error) {
	dir := g.in(g.h.unified)
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, nil, err
	}
	events = os.NewFile(uintptr(fd), "oom events")
	before := oomCount(dir)
	_, err = unix.InotifyAddWatch(fd, filepath.Join(dir, "memory.events"), unix.IN_MODIFY)
	if err != nil && (!errors.Is(err, unix.ENOENT) || !exists(dir)) {
		events.Close()
		return nil, nil, err
	}
	return events, func() bool {
		last := before
		before = oomCount(dir)
		return before > last
	}, nil
}

// oomCount is how often the group ran out of memory: "oom" counts each time, "oom_kill" each process killed for it. Both
// come from one reading: they change together.
func oomCount(dir string) uint64 {
	content, err := readString(dir, "memory.events")
	if err != nil {
		return 0
	}
	var count uint64
	for line := range strings.Lines(content) {
		f := strings.Fields(line)
		if len(f) == 2 && (f[0] == "oom" || f[0] == "oom_kill") {
			if n, err := strconv.ParseUint(f[1], 10, 64); err == nil {
				count += n
			}
		}
	}
	return count
}
