package api

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// hangupWatcher tells when the peer of a connection has closed both directions.
// Reading cannot tell that from a half-close, which only ends stdin. All
// connections share one epoll instance, which itself is waited for by Go's
// poller: no thread is held.
type hangupWatcher struct {
	epoll *os.File
	raw   syscall.RawConn
	done  chan struct{}

	mu      sync.Mutex
	next    int32
	watched map[int32]func() // by the number in the epoll event
}

func newHangupWatcher() (*hangupWatcher, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("epoll: %w", err)
	}
	w := &hangupWatcher{
		epoll:   os.NewFile(uintptr(fd), "epoll"),
		done:    make(chan struct{}),
		watched: map[int32]func(){},
	}
	if w.raw, err = w.epoll.SyscallConn(); err != nil {
		w.epoll.Close()
		return nil, fmt.Errorf("epoll: %w", err)
	}
	go w.run()
	return w, nil
}

// watch calls gone once when the peer of conn has gone. forget must be called
// before conn is closed; gone is not called after it has returned. A connection
// that cannot be watched is not: its end then shows when it is written to.
func (w *hangupWatcher) watch(conn net.Conn, gone func()) (forget func()) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return func() {}
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return func() {}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next++
	number := w.next
	w.watched[number] = gone
	event := unix.EpollEvent{Events: unix.EPOLLONESHOT, Fd: number} // EPOLLHUP is always reported
	control := func(op int) error {
		var failed error
		err := raw.Control(func(fd uintptr) {
			_ = w.raw.Control(func(epfd uintptr) { failed = unix.EpollCtl(int(epfd), op, int(fd), &event) })
		})
		return errors.Join(err, failed)
	}
	if control(unix.EPOLL_CTL_ADD) != nil {
		delete(w.watched, number)
		return func() {}
	}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.watched, number)
		// A connection that is closed already has left the set by itself.
		_ = control(unix.EPOLL_CTL_DEL)
	}
}

func (w *hangupWatcher) run() {
	defer close(w.done)
	var events [16]unix.EpollEvent
	for {
		var count int
		err := w.raw.Read(func(fd uintptr) bool {
			n, err := unix.EpollWait(int(fd), events[:], 0)
			count = max(n, 0)
			return count > 0 || err != nil && !errors.Is(err, unix.EINTR)
		})
		if err != nil {
			return // closed
		}
		w.mu.Lock()
		for _, event := range events[:count] {
			if gone := w.watched[event.Fd]; gone != nil {
				delete(w.watched, event.Fd)
				gone()
			}
		}
		w.mu.Unlock()
	}
}

func (w *hangupWatcher) close() {
	w.epoll.Close()
	<-w.done
}
