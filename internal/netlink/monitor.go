package netlink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Monitor receives the notifications of a netlink multicast group. Its Next is called by one goroutine.
type Monitor struct {
	f   *os.File
	buf []byte
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
	return &Monitor{f: os.NewFile(uintptr(fd), "netlink-monitor"), buf: make([]byte, 64<<10)}, nil
}

// Only has the kernel pass notifications of these types alone. It looks at the first message of each: it is for groups
// whose notifications are one message, as links' are. Each start of a container on a bridge notifies of a dozen changes
// that nobody waits for, and each would wake the engine.
func (m *Monitor) Only(types ...uint16) error {
	const typeAt, all = 4, 0xffffffff
	program := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: typeAt}}
	for i, t := range types {
		// The filter's numbers are big-endian, netlink's the machine's.
		k := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, t))
		program = append(program, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: uint8(len(types) - i), K: uint32(k)})
	}
	program = append(program, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0}, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: all})
	c, err := m.f.SyscallConn()
	if err == nil {
		cerr := c.Control(func(fd uintptr) {
			err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
		})
		err = errors.Join(err, cerr)
	}
	if err != nil {
		return fmt.Errorf("netlink monitor: %w", err)
	}
	return nil
}

// Next waits for a datagram and calls each for its messages, with their type and
// payload, which is each's until it returns. It returns os.ErrClosed after Close and ErrOverrun when some were lost;
// after the latter it can be called again.
func (m *Monitor) Next(each func(typ uint16, body []byte)) error {
	n, err := m.f.Read(m.buf)
	if errors.Is(err, unix.ENOBUFS) {
		return ErrOverrun
	}
	if err != nil {
		return err
	}
	_, err = walk(m.buf[:n], func(h unix.NlMsghdr, body []byte) (bool, error) {
		each(h.Type, body)
		return false, nil
	})
	return err
}

// Pending is Next for all that has come so far: it waits for nothing. What the kernel had told of before the call is
// passed on, as it queues notifications before the change's system call returns.
func (m *Monitor) Pending(each func(typ uint16, body []byte)) error {
	c, err := m.f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = c.Read(func(fd uintptr) bool {
		for failed == nil {
			n, _, rerr := unix.Recvfrom(int(fd), m.buf, unix.MSG_DONTWAIT)
			switch {
			case errors.Is(rerr, unix.EINTR):
			case errors.Is(rerr, unix.EAGAIN):
				return true
			case errors.Is(rerr, unix.ENOBUFS):
				failed = ErrOverrun
			case rerr != nil:
				failed = rerr
			default:
				_, failed = walk(m.buf[:n], func(h unix.NlMsghdr, body []byte) (bool, error) {
					each(h.Type, body)
					return false, nil
				})
			}
		}
		return true
	})
	return errors.Join(err, failed)
}

// Close ends the subscription and a waiting Next.
func (m *Monitor) Close() error { return m.f.Close() }
