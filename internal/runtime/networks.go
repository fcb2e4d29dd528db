package runtime

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cleatlabs/cleat/internal/kernel"
	"github.com/cleatlabs/cleat/internal/supervise"
	"golang.org/x/sys/unix"
)

const (
	// spareNetworks bounds what lies idle.
	spareNetworks = 8
	// quietTime is longer than a short-lived container takes with what its client does before the next one: of
	// containers that follow each other, each third finds some being made, and several at once, instead of each finding
	// one in the middle of its start.
	quietTime = 8 * time.Millisecond
)

// newNetworks keeps a few empty network namespaces, set up as a container's own, because making one is the longest
// single step of a start without a network. They are nameless: when the engine ends, they go with their descriptors.
func newNetworks() *supervise.Reserve[int] {
	return supervise.NewReserve(spareNetworks, spareNetworks, quietTime, makeNetworks, func(fd int) { unix.Close(fd) })
}

// makeNetworks makes namespaces. Where it fails, a start makes its own, or meets the same and reports it.
func makeNetworks(n int, put func(int)) {
	made := make(chan int)
	// The thread is in none of the engine's namespaces any more.
	go kernel.OnThrowawayThread(func() {
		defer close(made)
		for range n {
			fd, err := emptyNetwork()
			if err != nil {
				return
			}
			made <- fd
		}
	})
	for fd := range made {
		put(fd)
	}
}

// emptyNetwork moves the calling thread into a new network namespace.
func emptyNetwork() (int, error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return -1, fmt.Errorf("network namespace: %w", err)
	}
	if err := raiseLoopback(); err != nil {
		return -1, fmt.Errorf("loopback of a network namespace: %w", err)
	}
	for key, value := range networkSysctls {
		// What is below /proc/sys/net is that of the thread which opens it.
		err := os.WriteFile("/proc/sys/"+sysctlFile(key), []byte(value), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) { // a kernel without IPv4 ping sockets
			return -1, fmt.Errorf("sysctl %s of a network namespace: %w", key, err)
		}
	}
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("network namespace: %w", err)
	}
	return fd, nil
}

func raiseLoopback() error {
	sock, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(sock)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING | unix.IFF_LOOPBACK)
	return unix.IoctlIfreq(sock, unix.SIOCSIFFLAGS, req)
}
