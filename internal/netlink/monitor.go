package netlink

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Monitor receives the notifications of a netlink multicast group.
type Monitor struct {
	f *os.File
}

// ErrOverrun is returned by Monitor.Next when notifications were lost because they
// came faster than they were read.
var ErrOverrun = errors.New("netlink notifications were lost")

// NewMonitor subscribes to one group, such as unix.NFNLGRP_NFTABLES of protocol
// unix.NETLINK_NETFILTER, in the calling thread's network namespace.
func NewMonitor(protocol int, group int) (*Monitor, error) {
	fd, err := open(protocol, 1<<(group-1))
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("netlink monitor: %w", err)
	}
	// A big transaction of somebody else's notifies once per rule and element.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1<<20)
	return &Monitor{f: os.NewFile(uintptr(fd), "netlink-monitor")}, nil
}

// Next waits for a datagram and calls each for its messages, with their type and
// payload. It returns os.ErrClosed after Close and ErrOverrun when some were lost;
// after the latter it can be called again.
func (m *Monitor) Next(each func(typ uint16, body []byte)) error {
	buf := make([]byte, 64<<10)
	n, err := m.f.Read(buf)
	if errors.Is(err, unix.ENOBUFS) {
		return ErrOverrun
	}
	if err != nil {
		return err
	}
	_, err = walk(buf[:n], func(h unix.NlMsghdr, body []byte) (bool, error) {
		each(h.Type, body)
		return false, nil
	})
	return err
}

// Close ends the subscription and a waiting Next.
func (m *Monitor) Close() error { return m.f.Close() }
