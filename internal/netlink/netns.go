package netlink

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// threadNS names the calling thread's network namespace; /proc/self would name the
// main thread's.
const threadNS = "/proc/thread-self/ns/net"

// CurrentNS opens the calling thread's network namespace.
func CurrentNS() (int, error) {
	fd, err := unix.Open(threadNS, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", threadNS, err)
	}
	return fd, nil
}

// NewNS makes a network namespace, calls inside on a thread that is in it, and
// returns a file descriptor of it. home is the namespace that the thread goes back
// to; a thread that cannot go back ends instead of serving other goroutines.
// inside must not start goroutines that rely on the namespace.
func NewNS(home int, inside func() error) (int, error) {
	return onThread(home, func() (int, error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return -1, fmt.Errorf("make network namespace: %w", err)
		}
		fd, err := CurrentNS()
		if err != nil {
			return -1, err
		}
		if err := inside(); err != nil {
			unix.Close(fd)
			return -1, err
		}
		return fd, nil
	})
}

// InNS calls f on a thread that is in the network namespace ns; home is as for
// NewNS.
func InNS(home, ns int, f func() error) error {
	_, err := onThread(home, func() (int, error) {
		if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
			return -1, fmt.Errorf("enter network namespace: %w", err)
		}
		return -1, f()
	})
	return err
}

func onThread(home int, f func() (int, error)) (int, error) {
	type result struct {
		fd  int
		err error
	}
	done := make(chan result, 1)
	// The goroutine of its own is what lets a thread die with it.
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The main thread stays where it is: /proc/self shows its namespaces, and it
			// cannot end. While it is held here, the next goroutine gets another one.
			fd, err := onThread(home, f)
			runtime.UnlockOSThread()
			done <- result{fd, err}
			return
		}
		fd, err := f()
		if unix.Setns(home, unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- result{fd, err}
	}()
	r := <-done
	return r.fd, r.err
}
