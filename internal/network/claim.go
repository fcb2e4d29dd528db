package network

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
)

// claimBridge makes this process the one engine that works with a bridge: two would
// take each other's containers for leftovers. The claim is an abstract socket, whose
// names belong to the network namespace, as bridges do, and which the kernel drops
// with the process, in whatever way that ends.
func claimBridge(bridge string) (fd int, err error) {
	addr := &unix.SockaddrUnix{Name: "@cleat-network-" + bridge}
	fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("claim bridge %q: %w", bridge, err)
	}
	err = unix.Bind(fd, addr)
	if err == nil {
		err = unix.Listen(fd, 1)
	}
	if err == nil {
		return fd, nil
	}
	unix.Close(fd)
	if errors.Is(err, unix.EADDRINUSE) {
		return -1, failure.Conflict("bridge %q is in use by another engine%s: give each engine bridges of its own, with --bridge NAME and, for networks, the option "+optBridgeName, bridge, claimant(addr))
	}
	return -1, fmt.Errorf("claim bridge %q: %w", bridge, err)
}

// claimant is " (pid N)", as far as it can be found out.
func claimant(addr unix.Sockaddr) string {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, addr); err != nil {
		return ""
	}
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return ""
	}
	return fmt.Sprintf(" (pid %d)", cred.Pid)
}
