// Package netlink speaks to the kernel's netlink families in batches: many requests
// in one datagram, every one acknowledged.
//
// It holds the rtnetlink messages that connecting a container takes (links,
// addresses, routes), the making of network namespaces, and the plain socket that
// other families are built on. An error names the object that it is about and is a
// *Error, which unwraps to the kernel's errno.
package netlink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// Error is the kernel's answer to one message of a batch.
type Error struct {
	Object string // what the message was about
	Text   string // the kernel's own explanation, often empty
	Errno  unix.Errno
}

func (e *Error) Error() string {
	if e.Text != "" {
		return fmt.Sprintf("%s: %s (%s)", e.Object, e.Errno.Error(), e.Text)
	}
	return fmt.Sprintf("%s: %s", e.Object, e.Errno.Error())
}

func (e *Error) Unwrap() error { return e.Errno }

// Conn is a netlink socket for requests. Its methods are safe for concurrent use;
// each request has the socket for itself. A Conn belongs to the network namespace
// in which it was dialled, also when another namespace's thread uses it.
type Conn struct {
	mu  sync.Mutex
	fd  int
	seq uint32
	buf []byte

	sent, received int64 // bytes
}

// Traffic is how many bytes were sent and received: what requests cost does not grow with
// what else there is, and a test can tell.
func (c *Conn) Traffic() (sent, received int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sent, c.received
}

// Dial opens a socket of a netlink protocol such as unix.NETLINK_ROUTE in the
// calling thread's network namespace.
func Dial(protocol int) (*Conn, error) {
	fd, err := open(protocol, 0)
	if err != nil {
		return nil, err
	}
	// Both make answers shorter and clearer; kernels that lack them still answer.
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	if protocol == unix.NETLINK_ROUTE {
		// Lists are made of what is asked for instead of everything.
		_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	}
	return &Conn{fd: fd, buf: make([]byte, 8<<10)}, nil
}

func open(protocol int, groups uint32) (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return -1, fmt.Errorf("open netlink socket of protocol %d: %w", protocol, err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("bind netlink socket of protocol %d: %w", protocol, err)
	}
	return fd, nil
}

// Close closes the socket. Later requests fail.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return nil
	}
	err := unix.Close(c.fd)
	c.fd = -1
	return err
}

// Do sends all messages in one datagram and waits for the answer to each. The
// kernel works through rtnetlink messages one by one, so those behind a failed one
// have been carried out all the same; the error is that of the first failed one.
func (c *Conn) Do(msgs ...*Message) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := c.seq + 1
	for _, m := range msgs {
		m.addFlags(unix.NLM_F_ACK)
	}
	if err := c.send(msgs); err != nil {
		return err
	}
	return c.acks(msgs, first, len(msgs))
}

// DoBatch sends an nfnetlink transaction: begin, the messages, end. The kernel
// carries out all of it or nothing. The error is the first one that the kernel
// reports. There must be at least one message.
func (c *Conn) DoBatch(begin, end *Message, msgs ...*Message) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]*Message, 0, len(msgs)+2)
	all = append(append(append(all, begin), msgs...), end)
	first := c.seq + 1
	// Answers are delivered after the commit. One acknowledgement is enough, and
	// with one per message a big transaction would overflow the receive buffer. (The
	// end marker itself is not acknowledged by kernels before 6.10.)
	msgs[len(msgs)-1].addFlags(unix.NLM_F_ACK)
	if err := c.send(all); err != nil {
		return err
	}
	return c.commit(all, first)
}

// Query sends one request that is answered by exactly one message (no dump) and
// returns that message's payload, fixed header included.
func (c *Conn) Query(m *Message) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.send([]*Message{m}); err != nil {
		return nil, err
	}
	var reply []byte
	err := c.receive(c.seq, func(h unix.NlMsghdr, body []byte) (bool, error) {
		if h.Type == unix.NLMSG_ERROR {
			return true, answer(body, h.Flags, m.object)
		}
		reply = append(reply, body...)
		return true, nil
	})
	return reply, err
}

// dumpBuffer is as much as the kernel puts into one piece of a dump, if there is room: a change between two of them
// interrupts it.
const dumpBuffer = 32 << 10

// Dump sends one dump request and calls each for every message of the answer, with
// the message's type and its payload, fixed header included. each must not keep the
// payload. A dump that the kernel marks as interrupted by a change is reported as
// unix.EINTR after it has been delivered.
func (c *Conn) Dump(m *Message, each func(typ uint16, body []byte) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.buf) < dumpBuffer {
		c.buf = make([]byte, dumpBuffer)
	}
	m.addFlags(unix.NLM_F_DUMP)
	if err := c.send([]*Message{m}); err != nil {
		return err
	}
	var failed error
	var interrupted bool
	err := c.receive(c.seq, func(h unix.NlMsghdr, body []byte) (bool, error) {
		interrupted = interrupted || h.Flags&unix.NLM_F_DUMP_INTR != 0
		switch h.Type {
		case unix.NLMSG_DONE:
			return true, nil
		case unix.NLMSG_ERROR:
			return true, answer(body, h.Flags, m.object)
		}
		if failed == nil {
			failed = each(h.Type, body)
		}
		return false, nil
	})
	switch {
	case err != nil:
		return err
	case failed != nil:
		return failed
	case interrupted:
		return &Error{Object: m.object, Errno: unix.EINTR}
	}
	return nil
}

func (m *Message) addFlags(flags uint16) {
	binary.NativeEndian.PutUint16(m.b[6:], binary.NativeEndian.Uint16(m.b[6:])|flags)
}

func (c *Conn) send(msgs []*Message) error {
	if c.fd < 0 {
		return fmt.Errorf("%s: netlink socket is closed", msgs[0].object)
	}
	size := 0
	for _, m := range msgs {
		size += len(m.b)
	}
	out := make([]byte, 0, size)
	for _, m := range msgs {
		c.seq++
		binary.NativeEndian.PutUint32(m.b, uint32(len(m.b)))
		binary.NativeEndian.PutUint32(m.b[8:], c.seq)
		out = append(out, m.b...)
	}
	// The default send buffer holds a datagram of about 200 KiB.
	if size > 128<<10 {
		if err := unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 2*size); err != nil {
			return fmt.Errorf("%s: enlarge netlink send buffer to %d bytes: %w", msgs[0].object, 2*size, err)
		}
	}
	for {
		err := unix.Sendto(c.fd, out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if err == nil {
			c.sent += int64(len(out))
			return nil
		}
		if !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("%s: send %d bytes to the kernel: %w", msgs[0].object, len(out), err)
		}
	}
}

// acks waits for one acknowledgement for each of msgs, whose sequence numbers start
// with first.
func (c *Conn) acks(msgs []*Message, first uint32, want int) error {
	var failed error
	got := 0
	err := c.read(func(h unix.NlMsghdr, body []byte) (bool, error) {
		i := int(h.Seq - first)
		if h.Type != unix.NLMSG_ERROR || i < 0 || i >= len(msgs) {
			return false, nil
		}
		got++
		if err := answer(body, h.Flags, msgs[i].object); err != nil && failed == nil {
			failed = err
		}
		return got == want, nil
	})
	if err != nil {
		return err
	}
	return failed
}

// commit waits for the outcome of a transaction. A refused one is answered with one
// error per refused message; a following request ignores what is left of them by
// their sequence numbers.
func (c *Conn) commit(msgs []*Message, first uint32) error {
	return c.read(func(h unix.NlMsghdr, body []byte) (bool, error) {
		i := int(h.Seq - first)
		if h.Type != unix.NLMSG_ERROR || i < 0 || i >= len(msgs) {
			return false, nil
		}
		return true, answer(body, h.Flags, msgs[i].object)
	})
}

func (c *Conn) receive(seq uint32, each func(unix.NlMsghdr, []byte) (bool, error)) error {
	return c.read(func(h unix.NlMsghdr, body []byte) (bool, error) {
		if h.Seq != seq {
			return false, nil
		}
		return each(h, body)
	})
}

// read hands messages to each until that says done or fails.
func (c *Conn) read(each func(unix.NlMsghdr, []byte) (bool, error)) error {
	for {
		n, _, flags, _, err := unix.Recvmsg(c.fd, c.buf, nil, unix.MSG_PEEK|unix.MSG_TRUNC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err == nil && flags&unix.MSG_TRUNC != 0 && n > len(c.buf) {
			c.buf = make([]byte, n)
			continue
		}
		if err == nil {
			n, _, err = unix.Recvfrom(c.fd, c.buf, 0)
		}
		if err != nil {
			return fmt.Errorf("receive from the kernel: %w", err)
		}
		c.received += int64(n)
		done, err := walk(c.buf[:n], each)
		if done || err != nil {
			return err
		}
	}
}

func walk(b []byte, each func(unix.NlMsghdr, []byte) (bool, error)) (bool, error) {
	for len(b) >= headerLen {
		h := unix.NlMsghdr{
			Len:   binary.NativeEndian.Uint32(b),
			Type:  binary.NativeEndian.Uint16(b[4:]),
			Flags: binary.NativeEndian.Uint16(b[6:]),
			Seq:   binary.NativeEndian.Uint32(b[8:]),
			Pid:   binary.NativeEndian.Uint32(b[12:]),
		}
		n := int(h.Len)
		if n < headerLen || n > len(b) {
			return false, fmt.Errorf("netlink: message of %d bytes in %d", n, len(b))
		}
		if done, err := each(h, b[headerLen:n]); done || err != nil {
			return true, err
		}
		next := (n + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1)
		if next > len(b) {
			break
		}
		b = b[next:]
	}
	return false, nil
}

// answer turns the payload of an NLMSG_ERROR into an error, nil for an
// acknowledgement.
func answer(body []byte, flags uint16, object string) error {
	if len(body) < 4 {
		return &Error{Object: object, Errno: unix.EPROTO}
	}
	code := int32(binary.NativeEndian.Uint32(body))
	if code == 0 {
		return nil
	}
	e := &Error{Object: object, Errno: unix.Errno(-code)}
	const ackTLVs = 0x200 // NLM_F_ACK_TLVS
	const capped = 0x100  // NLM_F_CAPPED: the request's payload is left out
	if flags&ackTLVs == 0 || len(body) < 4+headerLen {
		return e
	}
	skip := 4 + headerLen
	if flags&capped == 0 {
		skip = 4 + int(binary.NativeEndian.Uint32(body[4:]))
	}
	if skip > len(body) {
		return e
	}
	attrs, err := ParseAttrs(body[skip:])
	if err != nil {
		return e
	}
	for _, a := range attrs {
		if a.Type == 1 { // NLMSGERR_ATTR_MSG
			e.Text = a.Str()
		}
	}
	return e
}
