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

// NewMonitor subscribes to groups, such as unix.NFNLGRP_NFTABLES of protocol
// unix.NETLINK_NETFILTER, in the calling thread's network namespace.
func NewMonitor(protocol int, groups ...int) (*Monitor, error) {
	var mask uint32
	for _, g := range groups {
		mask |= 1 << (g - 1)
	}
	fd, err := open(protocol, mask)
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
	program := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: typeAt}}
	for i, t := range types {
		program = append(program, jumpIfType(t, len(types)-i, 0))
	}
	return m.attach(append(program, nothing, everything))
}

// OnlyLosses is Only for links that are deleted or set down and for addresses that are taken away.
func (m *Monitor) OnlyLosses() error {
	const flagsAt, changedAt = unix.SizeofNlMsghdr + 8, unix.SizeofNlMsghdr + 12
	word := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	has := func(flag uint32, over, otherwise uint8) unix.SockFilter {
		k := binary.BigEndian.Uint32(binary.NativeEndian.AppendUint32(nil, flag))
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, Jt: over, Jf: otherwise, K: k}
	}
	return m.attach([]unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: typeAt},
		jumpIfType(unix.RTM_DELLINK, 8, 0),
		jumpIfType(unix.RTM_DELADDR, 7, 0),
		jumpIfType(unix.RTM_NEWLINK, 0, 5),
		word(changedAt),
		has(allFlags, 3, 0), // of a link that is new
		has(unix.IFF_UP, 0, 2),
		word(flagsAt),
		has(unix.IFF_UP, 0, 1),
		nothing,
		everything,
	})
}

// allFlags is a flag that there is not: it has changed only where all are said to have.
const allFlags = 1 << 31

// Parts of filters.
const typeAt = 4 // in a message's header

var (
	nothing    = unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0}
	everything = unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff}
)

// jumpIfType passes over some instructions if the type that was loaded is this one, and over others if it is not.
func jumpIfType(t uint16, over, otherwise int) unix.SockFilter {
	// The filter's numbers are big-endian, netlink's the machine's.
	k := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, t))
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: uint8(over), Jf: uint8(otherwise), K: uint32(k)}
}

func (m *Monitor) attach(program []unix.SockFilter) error {
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
