package runtime

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/cleatlabs/cleat/internal/kernel"
	"golang.org/x/sys/unix"
)

// networks keeps a few empty network namespaces, because making one is the longest single step of a start without a network. They are
// nameless: when the engine ends, in whatever way, they go with their descriptors.
type networks struct {
	ready  chan int
	wanted chan struct{}
	quit   chan struct{}
	ended  chan struct{}
}

const (
	// spareNetworks bounds what lies idle.
	spareNetworks = 4
	// quietTime is a little longer than a short-lived container takes.
	quietTime = 3 * time.Millisecond
)

func newNetworks() *networks {
	n := &networks{ready: make(chan int, spareNetworks), wanted: make(chan struct{}, 1), quit: make(chan struct{}), ended: make(chan struct{})}
	go n.run()
	return n
}

// take returns a namespace that is set up as a container's own, -1 when there is none at hand.
func (n *networks) take() int {
	select {
	case fd := <-n.ready:
		return fd
	default:
		return -1
	}
}

// refill asks for what was taken to be replaced. A start does so at its end, lest it waits for the kernel to do both; the making then waits
// until no start has come for a moment: it would take a processor, and the kernel's network locks, from those and from what they started.
func (n *networks) refill() {
	select {
	case n.wanted <- struct{}{}:
	default:
	}
}

// close ends the making and gives up what is left.
func (n *networks) close() {
	close(n.quit)
	<-n.ended
	for fd := n.take(); fd >= 0; fd = n.take() {
		unix.Close(fd)
	}
}

func (n *networks) run() {
	defer close(n.ended)
	n.fill()
	quiet := time.NewTimer(quietTime)
	defer quiet.Stop()
	for {
		select {
		case <-n.quit:
			return
		case <-n.wanted:
			quiet.Reset(quietTime)
		case <-quiet.C:
			n.fill()
		}
	}
}

// fill makes what is missing. Where it fails, a start makes its own namespace, or meets the same and reports it.
func (n *networks) fill() {
	made := make(chan int)
	// The thread is in none of the engine's namespaces any more.
	go kernel.OnThrowawayThread(func() {
		defer close(made)
		for range cap(n.ready) - len(n.ready) {
			fd, err := emptyNetwork()
			if err != nil {
				return
			}
			made <- fd
		}
	})
	for fd := range made {
		n.ready <- fd // there is room: nobody else puts
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
		err := os.WriteFile("/proc/sys/"+strings.ReplaceAll(key, ".", "/"), []byte(value), 0)
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
