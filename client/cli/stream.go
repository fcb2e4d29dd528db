package cli

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/client/term"
)

// attachment says which streams are wanted and how they are treated.
type attachment struct {
	stdin, stdout, stderr, tty bool
	keys                       []byte
	keySpec                    string
}

// stream joins the user's streams with a container's.
type stream struct {
	app *app
	a   attachment
	h   *hijacked
}

// detachKeys resolves the flag and the user's configuration into the bytes to look
// for, and the notation to tell the engine.
func (a *app) detachKeys(flag string) ([]byte, string, error) {
	if flag == "" {
		flag = a.config().DetachKeys
	}
	keys, err := term.ParseDetachKeys(flag)
	return keys, flag, err
}

func (a *app) attachStream(ctx context.Context, id string, at attachment) (*stream, error) {
	q := url.Values{"stream": {"1"}}
	for name, on := range map[string]bool{"stdin": at.stdin, "stdout": at.stdout, "stderr": at.stderr} {
		if on {
			q.Set(name, "1")
		}
	}
	if at.keySpec != "" {
		q.Set("detachKeys", at.keySpec)
	}
	h, err := a.hijack(ctx, "/containers/"+url.PathEscape(id)+"/attach", q, nil)
	if err != nil {
		return nil, err
	}
	return &stream{app: a, a: at, h: h}, nil
}

// run copies until the container's output ends, the user detaches (term.ErrDetached)
// or ctx ends. The terminal is in raw mode meanwhile and never after. With no output
// attached it returns when the input has ended.
func (s *stream) run(ctx context.Context) error {
	defer func() { _ = s.h.Close() }()
	restore := func() {}
	var in io.Reader
	if s.a.stdin {
		in = s.app.in
		if s.a.tty {
			r, err := s.app.in.Raw()
			if err != nil {
				return fmt.Errorf("unable to set IO streams as raw terminal: %w", err)
			}
			restore = r
			in = term.NewDetachReader(in, s.a.keys)
		}
	}
	defer restore()

	outDone := make(chan error, 1)
	if s.a.stdout || s.a.stderr {
		go func() { outDone <- s.copyOut() }()
	}
	inDone, detached := make(chan struct{}), make(chan error, 1)
	go s.copyIn(in, inDone, detached)
	select {
	case err := <-outDone:
		return err
	case err := <-detached:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-inDone:
	}
	if !s.a.stdout && !s.a.stderr {
		return nil
	}
	select {
	case err := <-outDone:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *stream) copyIn(in io.Reader, done chan<- struct{}, detached chan<- error) {
	if in != nil {
		if _, err := io.Copy(s.h.conn, in); errors.Is(err, term.ErrDetached) {
			detached <- err
			return
		}
	}
	// The other direction ends when the container does, or tells what went wrong.
	_ = s.h.closeWrite()
	close(done)
}

func (s *stream) copyOut() error {
	var out, errOut io.Writer = io.Discard, io.Discard
	if s.a.stdout {
		out = s.app.out
	}
	if s.a.stderr {
		errOut = s.app.err
	}
	if s.a.tty {
		_, err := io.Copy(s.app.out, s.h.r)
		return err
	}
	return demultiplex(out, errOut, s.h.r)
}

// demultiplex splits a stream of frames {1|2, 0, 0, 0, length} into stdout and stderr,
// in their order. Frames of stream 3 carry an error of the engine. What has arrived is
// written in one go, and before more is waited for: a log has millions of small frames.
func demultiplex(out, errOut io.Writer, r *bufio.Reader) error {
	d := demuxer{r: r, out: bufio.NewWriterSize(out, 64<<10), err: bufio.NewWriterSize(errOut, 64<<10)}
	if err := d.run(); err != nil {
		_ = d.flush() // what came before is shown; where that cannot be, err has said so
		return err
	}
	return d.flush()
}

type demuxer struct {
	r        *bufio.Reader
	out, err *bufio.Writer
}

func (d *demuxer) flush() error { return errors.Join(d.out.Flush(), d.err.Flush()) }

func (d *demuxer) run() error {
	const headSize = 8
	for {
		if d.r.Buffered() < headSize {
			if err := d.flush(); err != nil {
				return err
			}
		}
		head, err := d.r.Peek(headSize)
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		stream, n := head[0], int64(binary.BigEndian.Uint32(head[4:]))
		_, _ = d.r.Discard(headSize) // it was there to be peeked at
		w, other := d.out, d.err
		switch stream {
		case 0, 1:
		case 2:
			w, other = d.err, d.out
		case 3:
			msg, err := io.ReadAll(io.LimitReader(d.r, min(n, 1<<20)))
			if err != nil {
				return err
			}
			return fmt.Errorf("error from daemon in stream: %s", msg)
		default:
			return fmt.Errorf("unrecognized stream: %d", stream)
		}
		if err := other.Flush(); err != nil {
			return err
		}
		if err := d.payload(w, n); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

func (d *demuxer) payload(w *bufio.Writer, n int64) error {
	for n > 0 {
		if d.r.Buffered() == 0 {
			if err := w.Flush(); err != nil {
				return err
			}
			if _, err := d.r.Peek(1); err != nil {
				return err
			}
		}
		chunk, err := d.r.Peek(int(min(n, int64(d.r.Buffered()))))
		if err != nil {
			return err
		}
		if _, err := w.Write(chunk); err != nil {
			return err
		}
		_, _ = d.r.Discard(len(chunk))
		n -= int64(len(chunk))
	}
	return nil
}

// resizer tells the engine the terminal's size.
type resizer func(ctx context.Context, rows, cols uint) error

func (a *app) resizeContainer(id string) resizer {
	return func(ctx context.Context, rows, cols uint) error {
		_, err := a.conn.ContainerResize(ctx, id, client.ContainerResizeOptions{Height: rows, Width: cols})
		return err
	}
}

func (a *app) resizeExec(id string) resizer {
	return func(ctx context.Context, rows, cols uint) error {
		_, err := a.conn.ExecResize(ctx, id, client.ExecResizeOptions{Height: rows, Width: cols})
		return err
	}
}

// followSize gives the container's terminal the size of the user's, now and whenever
// it changes, until ctx ends.
func (a *app) followSize(ctx context.Context, resize resizer) {
	if !a.out.IsTerminal() {
		return
	}
	tell := func() error {
		rows, cols := a.out.Size()
		if rows == 0 && cols == 0 {
			return nil
		}
		return resize(ctx, rows, cols)
	}
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	go func() {
		defer signal.Stop(changed)
		err := tell()
		// A process that is just being started may not have its terminal yet.
		for n := 1; err != nil && n <= 10; n++ {
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Duration(n) * 10 * time.Millisecond):
			}
			err = tell()
		}
		if err != nil && ctx.Err() == nil {
			_, _ = fmt.Fprint(a.err, "failed to resize tty, using default size\r\n")
		}
		for {
			select {
			case <-ctx.Done():
				return
			case <-changed:
				_ = tell() // the next change tells again
			}
		}
	}()
}
