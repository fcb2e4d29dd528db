package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/dns"
	"github.com/cleatlabs/cleat/internal/netlink"
)

// dialFrom connects by "udp" or "tcp" from a network namespace. A socket is of the
// namespace that it was made in, whoever uses it later: only its making needs a thread
// there, for some microseconds, in which ns stays open. Closed, as its container has ended, it is context.Canceled.
func dialFrom(ctx context.Context, home int, ns *os.File, network string, to netip.AddrPort) (net.Conn, error) {
	family, kind := unix.AF_INET, unix.SOCK_DGRAM
	if to.Addr().Is6() {
		family = unix.AF_INET6
	}
	if network == "tcp" {
		kind = unix.SOCK_STREAM
	}
	raw, err := ns.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", to, err)
	}
	fd := -1
	var failed error
	ended := raw.Control(func(ns uintptr) {
		failed = netlink.InNS(home, int(ns), func() (err error) {
			fd, err = unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
			return err
		})
	})
	if ended != nil {
		return nil, fmt.Errorf("connect to %s: %w: %w", to, context.Canceled, ended)
	}
	if failed != nil {
		return nil, fmt.Errorf("connect to %s: %w", to, failed)
	}
	dns.HearUnreachable(fd, to.Addr())
	f := os.NewFile(uintptr(fd), network)
	defer f.Close()
	if err := connect(ctx, f, fd, to); err != nil {
		return nil, fmt.Errorf("connect to %s: %w", to, err)
	}
	return net.FileConn(f)
}

// connect connects a non-blocking socket, and waits until it is.
func connect(ctx context.Context, f *os.File, fd int, to netip.AddrPort) error {
	var sa unix.Sockaddr
	if a := to.Addr(); a.Is6() {
		sa = &unix.SockaddrInet6{Port: int(to.Port()), Addr: a.As16()}
	} else {
		sa = &unix.SockaddrInet4{Port: int(to.Port()), Addr: a.As4()}
	}
	err := unix.Connect(fd, sa)
	if !errors.Is(err, unix.EINPROGRESS) {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		var code int
		if code, failed = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR); failed != nil || code != 0 {
			if failed == nil {
				failed = unix.Errno(code)
			}
			return true
		}
		_, failed = unix.Getpeername(int(fd))
		again := errors.Is(failed, unix.ENOTCONN)
		if again {
			failed = nil
		}
		return !again
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.Join(err, failed)
}
