package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/cleatlabs/cleat/internal/failure"
)

// protocolGRPC is what clients ask to change to for gRPC on a connection of the API.
const protocolGRPC = "h2c"

// headerSessionID carries a session's id.
const headerSessionID = "X-Docker-Expose-Session-Uuid"

// isGRPC reports whether a request is a call of BuildKit's API, which newer clients make
// on the API's socket itself.
func isGRPC(r *http.Request) bool {
	return r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc")
}

// buildGRPC makes the connection one of BuildKit's API.
func (h *Handler) buildGRPC(ctx context.Context, w http.ResponseWriter, q *request) error {
	ctx, conn, done, err := h.takeOver(ctx, w, q)
	if err != nil {
		return err
	}
	defer done()
	return h.deps.Builds.ServeConn(ctx, conn)
}

// buildSession makes the connection one on which the client serves the engine: its
// files, secrets and credentials.
func (h *Handler) buildSession(ctx context.Context, w http.ResponseWriter, q *request) error {
	id := q.Header.Get(headerSessionID)
	if id == "" {
		return failure.Invalid("the request has no session id (%s)", headerSessionID)
	}
	if h.deps.Builds.HasSession(id) {
		return failure.Conflict("session %s already exists", id)
	}
	ctx, conn, done, err := h.takeOver(ctx, w, q)
	if err != nil {
		return err
	}
	defer done()
	return h.deps.Builds.ServeSession(ctx, conn, q.Header)
}

// takeOver takes the connection over for gRPC. The context ends when the engine shuts down; done must be called.
func (h *Handler) takeOver(ctx context.Context, w http.ResponseWriter, q *request) (context.Context, net.Conn, func(), error) {
	switch proto := q.Header.Get("Upgrade"); proto {
	case protocolGRPC:
	case "":
		return nil, nil, nil, failure.Invalid("no upgrade proto in request")
	default:
		return nil, nil, nil, failure.Invalid("protocol %s not supported", proto)
	}
	head := "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: " + protocolGRPC + "\r\n\r\n"
	h.sessions.Add(1)
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		h.sessions.Done()
		return nil, nil, nil, fmt.Errorf("cannot take over the connection: %w", err)
	}
	// net/http takes a client's half-close for its going away.
	ctx, cancel := h.streamContext(context.WithoutCancel(ctx), w)
	done := func() {
		cancel()
		conn.Close()
		h.sessions.Done()
	}
	if _, err := io.WriteString(conn, head); err != nil {
		done()
		return nil, nil, nil, err
	}
	return ctx, withHead(conn, buffered.Reader), done, nil
}

// withHead gives conn the bytes that came with the request.
func withHead(conn net.Conn, r *bufio.Reader) net.Conn {
	if r.Buffered() == 0 {
		return conn
	}
	return &headedConn{Conn: conn, head: io.LimitReader(r, int64(r.Buffered()))}
}

type headedConn struct {
	net.Conn
	head io.Reader // nil when it was read
}

func (c *headedConn) Read(p []byte) (int, error) {
	if c.head != nil {
		n, err := c.head.Read(p)
		if n > 0 || !errors.Is(err, io.EOF) {
			return n, err
		}
		c.head = nil
	}
	return c.Conn.Read(p)
}
