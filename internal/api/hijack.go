package api

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/engine"
	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/stdio"
)

// A session is a connection that has become a raw stream in both directions.
//
//   - Bytes that came with the request are the first of stdin.
//   - A half-close by the client ends stdin and nothing else; a close ends the
//     session.
//   - The connection is closed after all output was sent, and so that the
//     client sees an end of file, not a reset: output first, then our half,
//     then what the client still sends is thrown away until it closes.
type session struct {
	conn net.Conn
	in   io.Reader // what arrived with the request, then the connection
	// reading tells that the engine takes input: it will see its end too.
	reading atomic.Bool
	ended   atomic.Bool
	eof     chan struct{} // closed when the client has ended its input
	eofed   sync.Once
	cancel  context.CancelFunc
	forget  func()
	hasty   bool // the client takes a wait's answer for the end of the output
}

// Bounds on a client that does not do its part of closing.
const (
	stdinGrace = 5 * time.Second  // to take the input that a client left behind
	closeGrace = 10 * time.Second // for the client to close its side
)

// upgrade takes over the connection and answers 101 or, to clients that do not
// ask for an upgrade, 200. The returned context ends when the client goes or
// the engine shuts down.
func (h *Handler) upgrade(ctx context.Context, w http.ResponseWriter, q *request, tty bool) (context.Context, *session, error) {
	_, wanted := q.Header["Upgrade"]
	media := mediaRaw
	if wanted && !tty && q.version.from(42) {
		media = mediaMultiplexed
	}
	var head strings.Builder
	if wanted {
		head.WriteString("HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n")
	} else {
		head.WriteString("HTTP/1.1 200 OK\r\n")
	}
	w.Header().Set("Content-Type", media)
	if err := w.Header().Write(&head); err != nil {
		return nil, nil, err
	}
	head.WriteString("\r\n")

	if err := skipOptions(q.Request); err != nil {
		return nil, nil, err
	}
	h.sessions.Add(1)
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		h.sessions.Done()
		return nil, nil, fmt.Errorf("cannot take over the connection: %w", err)
	}
	s := &session{conn: conn, in: buf.Reader, eof: make(chan struct{}), hasty: hasty(q.Header)}
	// net/http takes a client's half-close for its going away.
	ctx, s.cancel = h.streamContext(context.WithoutCancel(ctx), w)
	s.forget = h.hangup.watch(conn, func() { go s.gone() })
	if _, err := io.WriteString(conn, head.String()); err != nil {
		s.cancel() // the client has gone before it was served
	}
	// It reads the answer's head through a buffer and then goes on beside it, so that output
	// which came together with the head is lost to it (docker/api/client.py,
	// _get_raw_response_socket). An engine's usual speed hides that.
	if pythonSDK(q.Header.Get("User-Agent")) {
		s.awaitTaken(ctx)
	}
	return ctx, s, nil
}

// longestOptions is the size in bytes up to which a body is taken for options.
const longestOptions = 64 << 10

// skipOptions reads a body that the request declares: dockerode and what is built on it
// send the parameters of an attach, a pull or a wait a second time there, as JSON, and it
// is no input for the container. A longer one is input from a client that says how much it will send.
func skipOptions(r *http.Request) error {
	if r.ContentLength <= 0 || r.ContentLength > longestOptions {
		return nil
	}
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return failure.Invalid("the body of the request ended before its end: %w", err)
	}
	return nil
}

// pythonSDK reports whether a User-Agent is that of Docker's Python SDK: as it is, in
// docker-compose 1 ("docker-compose/1.29.2 docker-py/5.0.3 …"), or in Ansible's collection,
// which has a copy.
func pythonSDK(agent string) bool {
	return strings.HasPrefix(agent, "docker-sdk-python/") || strings.HasPrefix(agent, "ansible-community.docker") || strings.Contains(agent, "docker-py/")
}

// hasty reports whether a request is from a program that names itself nowhere, as those
// on Node's http module with dockerode are. Its run() attaches, waits, and hands over
// what has come by then; of two connections that are ready, Node may read the later first.
func hasty(header http.Header) bool { return header.Get("User-Agent") == "" }

// takingPatience bounds the wait for a client that does not read what it was sent.
const takingPatience = 2 * time.Second

// awaitTaken waits until the client has read all that was written so far. Only
// a Unix socket tells.
func (s *session) awaitTaken(ctx context.Context) {
	conn, ok := s.conn.(*net.UnixConn)
	if !ok {
		return
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	const interval = 100 * time.Microsecond
	for end := time.Now().Add(takingPatience); ctx.Err() == nil && time.Now().Before(end); time.Sleep(interval) {
		left := 0
		// The kernel counts what the peer has not taken yet; it has no event for that.
		if raw.Control(func(fd uintptr) { left, err = unix.IoctlGetInt(int(fd), unix.TIOCOUTQ) }) != nil || err != nil || left == 0 {
			return
		}
	}
}

// gone ends the session of a client that has left, but first lets the input
// that it sent be taken.
func (s *session) gone() {
	if !s.reading.Load() && !s.unread() {
		s.cancel()
		return
	}
	timer := time.NewTimer(stdinGrace)
	defer timer.Stop()
	select {
	case <-s.eof:
	case <-timer.C:
	}
	s.cancel()
}

// unread reports whether the connection holds input that nobody has taken.
func (s *session) unread() bool {
	sc, ok := s.conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	waiting := 0
	// A connection that was closed meanwhile holds nothing.
	_ = raw.Control(func(fd uintptr) { waiting, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	return waiting > 0
}

// Read gives stdin. It must not be used by more than one goroutine at a time.
func (s *session) Read(p []byte) (int, error) {
	s.reading.Store(true)
	if s.ended.Load() {
		return 0, io.EOF
	}
	n, err := s.in.Read(p)
	if err != nil {
		s.noMoreInput()
		if s.ended.Load() {
			err = io.EOF
		}
	}
	return n, err
}

func (s *session) noMoreInput() { s.eofed.Do(func() { close(s.eof) }) }

// streams is the client's side of the session. Without a TTY both outputs share
// the connection in frames.
func (s *session) streams(tty, stdin, stdout, stderr bool) engine.StreamIO {
	var client engine.StreamIO
	if stdin {
		client.Stdin = s
	} else {
		s.noMoreInput()
	}
	if stdout {
		client.Stdout = s.conn
		if !tty {
			client.Stdout = stdio.NewMuxWriter(s.conn, stdio.Stdout)
		}
	}
	if stderr && !tty {
		client.Stderr = stdio.NewMuxWriter(s.conn, stdio.Stderr)
	}
	if s.hasty {
		client.Sent = s.awaitTaken
	}
	return client
}

// finish closes the connection after the session's end.
func (h *Handler) finish(s *session) {
	defer h.sessions.Done()
	defer s.conn.Close()
	defer s.forget()
	defer s.cancel()
	// Whoever still reads stdin is woken and sees its end.
	s.ended.Store(true)
	s.noMoreInput()
	_ = s.conn.SetReadDeadline(time.Unix(1, 0))
	if half, ok := s.conn.(interface{ CloseWrite() error }); !ok || half.CloseWrite() != nil {
		return
	}
	// On a Unix socket, closing over unread input makes the client's next read
	// fail with a reset.
	deadline := time.Now().Add(closeGrace)
	if h.closing.Err() != nil {
		deadline = time.Now()
	}
	_ = s.conn.SetReadDeadline(deadline)
	stop := context.AfterFunc(h.closing, func() { _ = s.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	_, _ = io.Copy(io.Discard, s.conn)
}
