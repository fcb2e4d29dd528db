package api

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"syscall"

	"golang.org/x/sys/unix"
)

// connKey is the key of a request's connection among its context's values.
type connKey struct{}

// withConn notes the connection that requests come by. It is for http.Server.ConnContext.
func withConn(ctx context.Context, conn net.Conn) context.Context {
	if secured, ok := conn.(*tls.Conn); ok {
		conn = secured.NetConn()
	}
	return context.WithValue(ctx, connKey{}, conn)
}

// outlet is a connection towards a client that may not read.
type outlet struct{ raw syscall.RawConn }

// connOf is the connection of a request that has it to itself, nil if it cannot be
// asked for its room.
func connOf(r *http.Request) *outlet {
	conn, ok := r.Context().Value(connKey{}).(syscall.Conn)
	if !ok || r.ProtoMajor != 1 {
		return nil
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil
	}
	return &outlet{raw}
}

// await waits until the kernel has room for a large piece of output (three quarters of
// a Unix socket's buffer, a third of a TCP connection's), and so for a client that does
// not read. It ends when the client goes, which the next write then tells, and with
// the connection's write deadline.
func (o *outlet) await() error {
	return o.raw.Write(func(fd uintptr) bool {
		room := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		for {
			n, err := unix.Poll(room, 0)
			if !errors.Is(err, unix.EINTR) {
				return n > 0 || err != nil
			}
		}
	})
}
