package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
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
// count as one. The channel is closed when stop is, and when the group is removed. Without a memory controller the
// channel only closes.
func (g *Group) WatchOOM(stop <-chan struct{}) (<-chan struct{}, error) {
	watch := g.watchV1
	if g.h.mode == "v2" {
		watch = g.watchV2
	}
	events, alive, err := watch()
	if err != nil {
		return nil, fmt.Errorf("watching control group %s for lack of memory: %w", g.path, g.gone(err))
	}
	out := make(chan struct{}, 1)
	ended := make(chan struct{})
	go func() { // unblocks the read below
		select {
		case <-stop:
		case <-ended:
		}
		events.Close()
	}()
	go func() {
		defer close(out)
		defer close(ended)
		buf := make([]byte, 4096)
		for {
			if _, err := events.Read(buf); err != nil {
				return
			}
			happened, ok := alive()
			if !ok {
				return
			}
			if happened {
				select {
				case out <- struct{}{}:
				default:
				}
			}
		}
	}()
	return out, nil
}

// watchV1 asks the kernel to count its out-of-memory notices in an eventfd. It counts there once more when the group is
// removed.
func (g *Group) watchV1() (*os.File, func() (happened, alive bool), error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, nil, err
	}
	events := os.NewFile(uintptr(fd), "oom events")
	dir, ok := g.controller("memory")
	if !ok {
		return events, func() (bool, bool) { return false, true }, nil
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
	return events, func() (bool, bool) { return true, exists(dir) }, nil
}

// watchV2 is told of every change of memory.events: those that are not about running out of memory are passed over.
func (g *Group) watchV2() (*os.File, func() (happened, alive bool), error) {
	dir := g.in(g.h.unified)
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, nil, err
	}
	events := os.NewFile(uintptr(fd), "oom events")
	before := oomCount(dir)
	_, err = unix.InotifyAddWatch(fd, dir+"/memory.events", unix.IN_MODIFY|unix.IN_DELETE_SELF)
	if err != nil && (!errors.Is(err, unix.ENOENT) || !exists(dir)) {
		events.Close()
		return nil, nil, err
	}
	return events, func() (bool, bool) {
		now := oomCount(dir)
		happened := now > before
		before = now
		return happened, exists(dir + "/memory.events")
	}, nil
}

// oomCount is how often the group ran out of memory: "oom" counts each time, "oom_kill" each process killed for it.
func oomCount(dir string) uint64 {
	oom, _ := readKey(dir, "memory.events", "oom")
	kills, _ := readKey(dir, "memory.events", "oom_kill")
	return oom + kills
}
