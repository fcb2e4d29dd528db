package network

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// poolLock lets one engine of a host at a time choose subnets and make the links that
// show others what it chose: of two that looked at the host's routes in the same instant,
// both would take the first free subnet. It is an abstract socket, whose names belong to
// the network namespace, as routes do, and which the kernel drops with the process, in
// whatever way that ends. It is safe for concurrent use; the zero value is ready.
type poolLock struct{ mu sync.Mutex }

const poolLockName = "@cleat-network-pools"

// poolPatience is how long another engine may keep this one waiting: it takes some
// milliseconds, and one that hangs must not stop the others.
const poolPatience = 5 * time.Second

// errNoEngine: anybody may take a name, but only for an engine is it waited.
var errNoEngine = errors.New("not held by an engine")

// lock waits for its turn, and returns what ends it.
func (l *poolLock) lock(ctx context.Context) (unlock func(), err error) {
	l.mu.Lock()
	limit, cancel := context.WithTimeout(ctx, poolPatience)
	defer cancel()
	for {
		fd, err := listenAt(poolLockName)
		if err == nil {
			return func() { unix.Close(fd); l.mu.Unlock() }, nil
		}
		if errors.Is(err, unix.EADDRINUSE) {
			err = awaitEnd(limit, poolLockName)
		}
		if errors.Is(err, errNoEngine) || limit.Err() != nil && ctx.Err() == nil {
			return l.mu.Unlock, nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			l.mu.Unlock()
			return nil, fmt.Errorf("wait for other engines that choose subnets: %w", err)
		}
	}
}

// listenAt makes a listening socket of that name.
func listenAt(name string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err = unix.Bind(fd, &unix.SockaddrUnix{Name: name}); err == nil {
		const waiting = 64
		err = unix.Listen(fd, waiting)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// awaitEnd waits until the socket that listens at a name is gone: nobody accepts there,
// so what has connected is hung up then.
func awaitEnd(ctx context.Context, name string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	switch err = unix.Connect(fd, &unix.SockaddrUnix{Name: name}); {
	case errors.Is(err, unix.ECONNREFUSED):
		return nil // it has just gone, or does not listen yet
	case errors.Is(err, unix.EAGAIN): // as many wait as can
		select {
		case <-ctx.Done():
		case <-time.After(time.Millisecond):
		}
		return nil
	case err != nil:
		return err
	}
	if cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil && int(cred.Uid) != unix.Geteuid() {
		return errNoEngine
	}
	for ctx.Err() == nil {
		const look = 100 // ms, for ctx's sake
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd)}}, look)
		if n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
			return nil // hung up, if not an error that the next try shows
		}
	}
	return ctx.Err()
}
