package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/kernel"
	"github.com/cleatlabs/cleat/internal/stdio"
)

// Handler answers API calls. It implements http.Handler and is safe for
// concurrent use.
type Handler struct {
	deps   Deps
	router *router
	log    *slog.Logger
	server string // the Server header
	hangup *hangupWatcher

	buffers  stdio.Pool // of answers
	listings listings

	// closing ends when the engine shuts down; streams end with it.
	closing  context.Context
	close    context.CancelFunc
	sessions sync.WaitGroup // hijacked connections, which net/http forgets
}

// New returns the door to deps. Close it when it is not served any more.
func New(deps Deps) (*Handler, error) {
	hangup, err := newHangupWatcher()
	if err != nil {
		return nil, fmt.Errorf("cannot watch client connections: %w", err)
	}
	log := deps.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	h := &Handler{
		deps:   deps,
		log:    log,
		server: "Docker/" + deps.ServerVersion + " (linux)",
		hangup: hangup,
	}
	h.closing, h.close = context.WithCancel(context.Background())
	h.router = newRouter(append(h.routes(), h.refusals()...))
	return h, nil
}

// EndStreams ends all streams: attach, exec, logs, events, wait, pull. Other
// calls go on.
func (h *Handler) EndStreams() { h.close() }

// Close ends all streams, waits until the sessions on hijacked connections are
// over, and releases what the handler holds.
func (h *Handler) Close() {
	h.close()
	h.sessions.Wait()
	h.hangup.close()
}

// ServeHTTP answers one call.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	growStack()
	if isGRPC(r) {
		ctx, cancel := h.streamContext(r.Context(), w)
		defer cancel()
		h.deps.Builds.ServeHTTP(w, r.WithContext(ctx))
		return
	}
	header := w.Header()
	header.Set("Api-Version", MaxVersion)
	header.Set("Docker-Experimental", "false")
	header.Set("Ostype", "linux")
	header.Set("Server", h.server)

	out := &answer{ResponseWriter: w}
	defer h.recover(out, r)

	if r.Method == http.MethodOptions {
		out.WriteHeader(http.StatusOK)
		return
	}
	h.log.Debug("API call", "method", r.Method, "path", r.URL.Path)
	text, path := splitVersion(r.URL.EscapedPath())
	handle, params := h.router.find(r.Method, path)
	if handle == nil {
		writeError(out, maxVersion, failure.NotFound("page not found"))
		return
	}
	asked, err := negotiate(text)
	if err == nil {
		err = h.call(out, &request{Request: r, version: asked, unasked: text == "", params: params}, handle)
	}
	if err != nil {
		h.fail(out, r, asked, err)
	}
}

// growStack makes the goroutine's stack as large as most requests need it. It begins with 2 kB and would be copied at
// each doubling, the later the dearer, up to 4 % of the engine's time while it serves short requests. What stays unused
// the garbage collector gives back.
//
//go:noinline
func growStack() {
	var room [12 << 10]byte
	runtime.KeepAlive(&room)
}

func (h *Handler) call(w *answer, q *request, handle handlerFunc) error {
	if q.URL.RawQuery != "" {
		query, err := url.ParseQuery(q.URL.RawQuery)
		if err != nil {
			return failure.Invalid("invalid query: %w", err)
		}
		q.query = query
	}
	return handle(q.Context(), w, q)
}

// fail tells the client of an error, if the answer has not begun yet, and the
// log of those that are the engine's own.
func (h *Handler) fail(w *answer, r *http.Request, asked version, err error) {
	level := slog.LevelDebug
	if statusOf(err) == http.StatusInternalServerError && r.Context().Err() == nil && !isDeparture(err) {
		level = slog.LevelError
	}
	h.log.Log(r.Context(), level, "API call failed", "method", r.Method, "path", r.URL.Path, "error", err)
	if !w.began {
		writeError(w, asked, kernel.NoSpace(err, h.deps.DataRoot))
	}
}

// isDeparture tells whether err only says that the client has gone, or that the
// engine goes.
func isDeparture(err error) bool {
	for _, end := range []error{context.Canceled, os.ErrDeadlineExceeded, syscall.EPIPE, syscall.ECONNRESET, net.ErrClosed, stdio.ErrStopped} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}

// recover keeps a panic in one handler from ending the engine.
func (h *Handler) recover(w *answer, r *http.Request) {
	cause := recover()
	if cause == nil {
		return
	}
	if cause == http.ErrAbortHandler {
		panic(cause)
	}
	h.log.Error("API handler panicked", "method", r.Method, "path", r.URL.Path, "panic", cause, "stack", string(debug.Stack()))
	if w.began {
		// Cutting the answer short is the only way left to tell.
		panic(http.ErrAbortHandler)
	}
	writeError(w, maxVersion, fmt.Errorf("internal error in %s %s: %v (the engine's log has the details)", r.Method, r.URL.Path, cause))
}

// stallGrace is how long a client may take, when the engine ends, to read what is being written to it.
const stallGrace = time.Second

// streamContext is ctx that ends with the engine's shutdown too, which ends writes of the answer to a client that does
// not read as well.
func (h *Handler) streamContext(ctx context.Context, w http.ResponseWriter) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(h.closing, func() {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(stallGrace))
		cancel()
	})
	return ctx, func() {
		stop()
		cancel()
	}
}

// answer remembers whether an answer has begun.
type answer struct {
	http.ResponseWriter
	began bool
}

func (a *answer) WriteHeader(status int) {
	a.began = true
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(p []byte) (int, error) {
	a.began = true
	return a.ResponseWriter.Write(p)
}

// Flush sends what was written. A client that has gone shows at the next write.
func (a *answer) Flush() {
	a.began = true
	_ = http.NewResponseController(a.ResponseWriter).Flush()
}

// Hijack hands the connection over.
func (a *answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buf, err := http.NewResponseController(a.ResponseWriter).Hijack()
	if err == nil {
		a.began = true
	}
	return conn, buf, err
}

// Unwrap lets http.ResponseController reach the rest.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }
