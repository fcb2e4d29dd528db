package cgroup

import (
	"encoding/binary"
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
// count as one. The channel is closed when stop is, when a group that had processes is removed, and on v2 already when
// its last process has ended. Without a memory controller the channel only closes.
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
			n, err := events.Read(buf)
			if err != nil {
				return
			}
			happened, goOn := alive(buf[:n])
			if happened {
				select {
				case out <- struct{}{}:
				default:
				}
			}
			if !goOn {
				return
			}
		}
	}()
	return out, nil
}

// watchV1 asks the kernel to count its out-of-memory notices in an eventfd. It counts there once more when the group is
// removed.
func (g *Group) watchV1() (*os.File, func(event []byte) (happened, alive bool), error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, nil, err
	}
	events := os.NewFile(uintptr(fd), "oom events")
	dir, ok := g.controller("memory")
	if !ok {
		return events, func([]byte) (bool, bool) { return false, true }, nil
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
	return events, func([]byte) (bool, bool) {
		alive := exists(dir)
		return alive, alive
	}, nil
}

// watchV2 is told of every change of memory.events: those that are not about running out of memory are passed over. The
// kernel does not tell of a group's removal, but that its last process has ended.
func (g *Group) watchV2() (*os.File, func(event []byte) (happened, alive bool), error) {
	dir := g.in(g.h.unified)
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, nil, err
	}
	events := os.NewFile(uintptr(fd), "oom events")
	before, populated, changes := oomCount(dir), false, -1
	for _, name := range []string{"cgroup.events", "memory.events"} {
		wd, err := unix.InotifyAddWatch(fd, filepath.Join(dir, name), unix.IN_MODIFY)
		if name == "cgroup.events" {
			changes = wd
		}
		if err != nil && (name != "memory.events" || !errors.Is(err, unix.ENOENT) || !exists(dir)) {
			events.Close()
			return nil, nil, err
		}
	}
	check := func(event []byte) (happened, alive bool) {
		populated = populated || concerns(event, changes) // it may have ended before this was read
		now := oomCount(dir)
		happened = now > before
		before = now
		n, err := readKey(dir, "cgroup.events", "populated")
		alive = err == nil && (n == 1 || !populated)
		populated = populated || n == 1
		return happened, alive
	}
	check(nil) // processes may have been there before
	return events, check, nil
}

// concerns tells whether one of inotify's events is about the watch wd.
func concerns(events []byte, wd int) bool {
	for len(events) >= unix.SizeofInotifyEvent {
		if int(int32(binary.NativeEndian.Uint32(events))) == wd {
			return true
		}
		const nameLen = 12 // the last field of the header
		events = events[min(len(events), unix.SizeofInotifyEvent+int(binary.NativeEndian.Uint32(events[nameLen:]))):]
	}
	return false
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
