package api

import (
	"context"
	"fmt"
	"net/http"
	"strconv"

	"github.com/moby/moby/api/types/container"
	"golang.org/x/net/websocket"

	"github.com/cleatlabs/cleat/internal/engine"
	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/logs"
	"github.com/cleatlabs/cleat/internal/stdio"
)

func (h *Handler) containerAttach(ctx context.Context, w http.ResponseWriter, q *request) error {
	opts := attachOptions(q)
	attached, err := h.deps.Streams.Attach(context.WithoutCancel(ctx), q.param("id"), opts)
	if err != nil {
		return err
	}
	defer attached.Close()
	ctx, s, err := h.upgrade(ctx, w, q, attached.TTY)
	if err != nil {
		return err
	}
	defer h.finish(s)
	return attached.Run(ctx, s.streams(attached.TTY, opts.Stdin, opts.Stdout, opts.Stderr))
}

func attachOptions(q *request) engine.AttachOptions {
	return engine.AttachOptions{
		Stdin:      q.boolean("stdin"),
		Stdout:     q.boolean("stdout"),
		Stderr:     q.boolean("stderr"),
		Stream:     q.boolean("stream"),
		Logs:       q.boolean("logs"),
		DetachKeys: q.query.Get("detachKeys"),
	}
}

// containerAttachWebsocket is attach in WebSocket frames. Output is never
// multiplexed: a client that wants to tell the streams apart opens two.
func (h *Handler) containerAttachWebsocket(ctx context.Context, w http.ResponseWriter, q *request) error {
	opts := attachOptions(q)
	if q.version.below(42) {
		opts.Stdin, opts.Stdout, opts.Stderr = true, true, true
	}
	attached, err := h.deps.Streams.Attach(ctx, q.param("id"), opts)
	if err != nil {
		return err
	}
	defer attached.Close()
	h.sessions.Add(1)
	defer h.sessions.Done()
	ctx, cancel := h.streamContext(ctx, w)
	defer cancel()

	var failed error
	server := websocket.Server{Handler: func(conn *websocket.Conn) {
		if q.version.from(28) {
			conn.PayloadType = websocket.BinaryFrame
		}
		client := engine.StreamIO{}
		in := &websocketInput{conn: conn, gone: cancel}
		if opts.Stdin {
			client.Stdin = in
		} else {
			go in.discard()
		}
		if opts.Stdout {
			client.Stdout = conn
		}
		if opts.Stderr && !attached.TTY {
			client.Stderr = conn
		}
		failed = attached.Run(ctx, client)
		// A client that has gone needs no goodbye.
		_ = conn.WriteClose(websocketNormalClosure)
	}}
	// It hijacks the connection, and closes it when the handler returns.
	server.ServeHTTP(w, q.Request)
	return failed
}

// websocketNormalClosure is the status of a close frame without a fault.
const websocketNormalClosure = 1000

// websocketInput ends the session when the client closes: there is no
// half-close in this protocol.
type websocketInput struct {
	conn *websocket.Conn
	gone context.CancelFunc
}

func (in *websocketInput) Read(p []byte) (int, error) {
	n, err := in.conn.Read(p)
	if err != nil {
		in.gone()
	}
	return n, err
}

// discard answers the client's control frames until it closes.
func (in *websocketInput) discard() {
	buf := make([]byte, 512)
	for {
		if _, err := in.Read(buf); err != nil {
			return
		}
	}
}

func (h *Handler) execCreate(ctx context.Context, w http.ResponseWriter, q *request) error {
	var req container.ExecCreateRequest
	if err := readJSON(q.Request, &req); err != nil {
		return err
	}
	if len(req.Cmd) == 0 {
		return failure.Invalid("No exec command specified")
	}
	if q.version.below(42) {
		req.ConsoleSize = nil
	}
	id, err := h.deps.Execs.ExecCreate(ctx, q.param("id"), req)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, container.ExecCreateResponse{ID: id})
}

func (h *Handler) execStart(ctx context.Context, w http.ResponseWriter, q *request) error {
	var req container.ExecStartRequest
	if err := readJSON(q.Request, &req); err != nil {
		return err
	}
	opts := engine.ExecStartOptions{Detach: req.Detach, ConsoleSize: req.ConsoleSize}
	if q.version.below(42) || !req.Tty {
		opts.ConsoleSize = nil
	}
	started, err := h.deps.Execs.ExecStart(context.WithoutCancel(ctx), q.param("id"), opts)
	if err != nil {
		return err
	}
	if started == nil {
		w.WriteHeader(http.StatusOK)
		return nil
	}
	// The start says whether its client expects frames, whatever the exec was
	// created with: clients that ask for a TTY only here (Ansible's module) read
	// what comes as it is, and standard output alone, as from dockerd.
	ctx, s, err := h.upgrade(ctx, w, q, req.Tty)
	if err != nil {
		started.Close()
		return err
	}
	defer h.finish(s)
	return started.Run(ctx, s.streams(req.Tty, true, true, true))
}

func (h *Handler) execInspect(ctx context.Context, w http.ResponseWriter, q *request) error {
	inspected, err := h.deps.Execs.ExecInspect(ctx, q.param("id"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, inspected)
}

func (h *Handler) execResize(ctx context.Context, w http.ResponseWriter, q *request) error {
	rows, cols, err := terminalSize(q)
	if err != nil {
		return err
	}
	ctx, cancel := h.streamContext(ctx, w) // it may wait for a start
	defer cancel()
	if err := h.deps.Execs.ExecResize(ctx, q.param("id"), rows, cols); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (h *Handler) containerLogs(ctx context.Context, w http.ResponseWriter, q *request) error {
	opts, err := logOptions(q)
	if err != nil {
		return err
	}
	out := newLogAnswer(w, &h.buffers, connOf(q.Request))
	opts.Flush, opts.Ready = out.flush, out.ready
	ctx, cancel := h.streamContext(ctx, w)
	defer cancel()
	session, err := h.deps.Streams.Logs(ctx, q.param("id"), opts)
	if err != nil {
		return err
	}
	out.framed = !session.TTY
	media := mediaRaw
	if out.framed && q.version.from(42) {
		media = mediaMultiplexed
	}
	w.Header().Set("Content-Type", media)
	w.WriteHeader(http.StatusOK)
	if err := out.flush(); err != nil {
		return err
	}

	err = session.Run(ctx, out.line)
	if err != nil && ctx.Err() == nil {
		// The status is sent: the fault goes where clients look for the engine's.
		_ = out.line(systemStream, fmt.Appendf(nil, "Error grabbing logs: %v\n", err))
	}
	// What was read before an error still belongs to the client.
	_ = out.flush()
	if err != nil && ctx.Err() != nil && !opts.Follow {
		// It is to see that there was more: a log that is not followed has an end.
		h.log.Debug("a log was cut short", "error", err)
		panic(http.ErrAbortHandler)
	}
	return err
}

// systemStream is the stream of frames that carry an error of the engine.
const systemStream stdio.Stream = 3

func logOptions(q *request) (logs.ReadOptions, error) {
	opts := logs.ReadOptions{
		Tail:       -1,
		Follow:     q.boolean("follow"),
		Stdout:     q.boolean("stdout"),
		Stderr:     q.boolean("stderr"),
		Timestamps: q.boolean("timestamps"),
		Details:    q.boolean("details"),
	}
	if !opts.Stdout && !opts.Stderr {
		return opts, failure.Invalid("Bad parameters: you must choose at least one stream")
	}
	// A number limits the lines; anything else, such as "all", does not.
	if n, err := strconv.Atoi(q.query.Get("tail")); err == nil && n >= 0 {
		opts.Tail = n
	}
	var err error
	if opts.Since, err = parseTimestamp("since", zeroIsNone(q.query.Get("since"))); err != nil {
		return opts, err
	}
	opts.Until, err = parseTimestamp("until", zeroIsNone(q.query.Get("until")))
	return opts, err
}

// zeroIsNone makes the documented default of since and until no bound.
func zeroIsNone(text string) string {
	if text == "0" {
		return ""
	}
	return text
}
