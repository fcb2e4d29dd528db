package logsend

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// userTimeout is how long the kernel waits for an acknowledgement before it gives
	// a connection up: a firewall that has forgotten it says nothing.
	userTimeout = 30 * time.Second
	// keepAlive keeps such firewalls from forgetting, without waking anybody often.
	keepAlive = 5 * time.Minute
)

// errGone is what is found of a connection that the other side has ended.
var errGone = errors.New("the log server has closed the connection")

// link is a connection to a log server and what is known of what went over it.
type link struct {
	conn    net.Conn // what is written to
	wire    *wire
	tcp     bool
	timeout time.Duration // of one write; 0 means none
	marks   []mark        // of what is outstanding, the oldest first
	open    int           // messages in marks
}

// mark says how many messages end at a number of bytes on the wire.
type mark struct {
	end      int64
	messages int
}

// wire counts what is written to a socket, under TLS the encrypted bytes.
type wire struct {
	net.Conn
	raw     syscall.RawConn
	written atomic.Int64
}

func (w *wire) Write(p []byte) (int, error) {
	n, err := w.Conn.Write(p)
	w.written.Add(int64(n))
	return n, err
}

// dialLink connects; a nil config means no TLS.
func dialLink(ctx context.Context, network, address string, config *tls.Config) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	d := net.Dialer{KeepAlive: keepAlive, Control: func(network, _ string, c syscall.RawConn) error {
		if network != "tcp4" && network != "tcp6" {
			return nil
		}
		return c.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds()))
		})
	}}
	conn, err := d.DialContext(ctx, network, address)
	if errors.Is(err, fs.ErrNotExist) {
		// The system's words for it are by what Docker's client takes a start's error for a missing program.
		return nil, fmt.Errorf("dial %s: there is no socket %s", network, address)
	}
	if err != nil {
		return nil, err
	}
	sc, ok := conn.(syscall.Conn)
	if !ok {
		_ = conn.Close()
		return nil, fmt.Errorf("dial %s %s: no socket", network, address)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	_, tcp := conn.(*net.TCPConn)
	l := &link{wire: &wire{Conn: conn, raw: raw}, tcp: tcp, timeout: writeTimeout}
	l.conn = l.wire
	if config == nil {
		return l, nil
	}
	secure := tls.Client(l.wire, withServerName(config, address))
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("TLS handshake with %s: %w", address, err)
	}
	l.conn = secure
	return l, nil
}

func withServerName(config *tls.Config, address string) *tls.Config {
	if config.ServerName != "" {
		return config
	}
	config = config.Clone()
	if host, _, err := net.SplitHostPort(address); err == nil {
		config.ServerName = host
	}
	return config
}

// write sends the bytes of so many messages.
func (l *link) write(p []byte, messages int) error {
	if l.gone() {
		return errGone
	}
	if l.timeout > 0 {
		if err := l.conn.SetWriteDeadline(time.Now().Add(l.timeout)); err != nil {
			return err
		}
	}
	if _, err := l.conn.Write(p); err != nil {
		return err
	}
	if l.tcp && messages > 0 {
		l.marks = append(l.marks, mark{l.wire.written.Load(), messages})
		l.open += messages
	}
	return nil
}

// Outstanding implements Sender. What a unix socket took is in the other side's
// queue already; of TCP the kernel tells what was acknowledged.
func (l *link) Outstanding() (int, error) {
	if l.open == 0 {
		return 0, nil
	}
	queued := 0
	var ioctlErr error
	err := l.wire.raw.Control(func(fd uintptr) { queued, ioctlErr = unix.IoctlGetInt(int(fd), unix.TIOCOUTQ) })
	if err = errors.Join(err, ioctlErr); err != nil {
		return l.open, err
	}
	arrived := l.wire.written.Load() - int64(queued)
	for len(l.marks) > 0 && l.marks[0].end <= arrived {
		l.open -= l.marks[0].messages
		l.marks = l.marks[1:]
	}
	// Looked at after the queue, which a reset empties.
	if l.open > 0 && l.gone() {
		return l.open, errGone
	}
	if len(l.marks) == 0 {
		l.marks = nil
	}
	return l.open, nil
}

// gone says whether the other side has ended the connection, which a write would
// find out only after what it wrote was lost.
func (l *link) gone() bool {
	fds := []unix.PollFd{{Events: unix.POLLRDHUP}}
	err := l.wire.raw.Control(func(fd uintptr) {
		fds[0].Fd = int32(fd)
		for {
			if _, err := unix.Poll(fds, 0); err != unix.EINTR {
				return
			}
		}
	})
	return err != nil || fds[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
}

// refused tells of a datagram that nobody took: the kernel reports it on the
// socket, at once where the server is on this host.
func (l *link) refused() error {
	code := 0
	var sockErr error
	err := l.wire.raw.Control(func(fd uintptr) { code, sockErr = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR) })
	if err = errors.Join(err, sockErr); err != nil {
		return err
	}
	if code != 0 {
		return syscall.Errno(code)
	}
	return nil
}

// Close implements Sender.
func (l *link) Close() error { return l.wire.Close() }

// datagrams sends one datagram for each message that has any. The error of one that
// nobody took comes with a later one: what was sent in the same call does not count then.
func (l *link) datagrams(batch []Message, encode func(m *Message) [][]byte) (int, error) {
	if err := l.conn.SetWriteDeadline(time.Now().Add(l.timeout)); err != nil {
		return 0, err
	}
	for i := range batch {
		for _, p := range encode(&batch[i]) {
			if _, err := l.conn.Write(p); err != nil {
				switch {
				case errors.Is(err, syscall.EMSGSIZE):
					// It never will be sent, and must not keep others from it.
				case errors.Is(err, syscall.ECONNREFUSED):
					return 0, err
				default:
					return i, err
				}
			}
		}
	}
	if err := l.refused(); err != nil {
		return 0, err
	}
	return len(batch), nil
}
