package api

import (
	"context"
	"encoding/binary"
	"io"
	"net/http"

	"github.com/cleatlabs/cleat/internal/stdio"
)

// logBuffer is how many bytes of log lines are gathered into one write.
const logBuffer = 64 << 10

// logAnswer writes the lines of a log to a client, in frames if there are two streams. It
// holds a buffer only while there are lines in it: many clients follow logs that are
// silent, and some do not read what they asked for.
type logAnswer struct {
	w       io.Writer
	flusher http.Flusher
	framed  bool
	conn    *outlet // nil: one whose room nobody tells
	behind  bool    // something was sent since the room was asked for

	pool *stdio.Pool
	lent *[]byte
	buf  []byte
}

func newLogAnswer(w http.ResponseWriter, pool *stdio.Pool, conn *outlet) *logAnswer {
	a := &logAnswer{w: w, pool: pool, conn: conn}
	a.flusher, _ = w.(http.Flusher)
	return a
}

// line adds a line of a stream.
func (a *logAnswer) line(stream stdio.Stream, line []byte) error {
	if a.lent == nil {
		a.lent = a.pool.Get()
		a.buf = (*a.lent)[:0]
	}
	if a.framed {
		a.buf = append(a.buf, byte(stream), 0, 0, 0)
		a.buf = binary.BigEndian.AppendUint32(a.buf, uint32(len(line)))
	}
	a.buf = append(a.buf, line...)
	if len(a.buf) < logBuffer {
		return nil
	}
	return a.send()
}

func (a *logAnswer) send() error {
	if a.lent == nil {
		return nil
	}
	_, err := a.w.Write(a.buf)
	a.pool.Put(a.lent)
	a.lent, a.buf, a.behind = nil, nil, true
	return err
}

// flush sends what was gathered.
func (a *logAnswer) flush() error {
	err := a.send()
	if a.flusher != nil {
		a.flusher.Flush()
	}
	return err
}

// ready waits until the connection has room for more, if something was sent.
func (a *logAnswer) ready(ctx context.Context) error {
	if a.conn == nil || !a.behind {
		return ctx.Err()
	}
	a.behind = false
	return a.conn.await()
}
