package follow

import (
	"bytes"
	"context"
	"io"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/client/compose/show"
	"github.com/cleatlabs/cleat/client/connect"
)

// Tail shows the log of a container, over its restarts and those of the engine, each line once: the engine gives every
// line with the time at which it came, and what was shown last is where the next connection goes on.
type Tail struct {
	API            *client.Client
	ID             string
	TTY            bool
	Stdout, Stderr *show.Lines
	Attach         bool // a log that cannot be read is no error: what comes from now on is shown

	mu     sync.Mutex // held by who shows
	stream io.ReadCloser
	kept   bool      // the engine keeps what is shown
	stamps bool      // the times are shown, too
	opened time.Time // when the first stream was

	last string // the time of the line that was shown last, "" before the first
	same int    // how many lines of that time were shown
	skip int    // how many of them the present stream is going to tell again
}

// Open opens the log with these options, or where the last stream has ended. Follow shows it.
func (t *Tail) Open(ctx context.Context, o client.ContainerLogsOptions) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.open(ctx, o)
}

// End is the time from which on a log that nobody writes to has nothing yet, "" for an empty one. That of the container's
// end is earlier than those of its last lines, which the engine reads when it gets to it.
func (t *Tail) End(ctx context.Context) (string, error) {
	stream, err := t.API.ContainerLogs(ctx, t.ID, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Timestamps: true, Tail: "1"})
	if err != nil {
		return "", err
	}
	defer stream.Close()
	var last lastStamp
	if t.TTY {
		var entry []byte
		entry, err = io.ReadAll(io.LimitReader(stream, int64(stampLength)))
		_, _ = last.Write(entry)
	} else {
		_, err = stdcopy.StdCopy(&last, &last, stream)
	}
	if err != nil || last.at.IsZero() {
		return "", err
	}
	return last.at.Add(1).Format(time.RFC3339Nano), nil
}

// lastStamp keeps the time of the last entry that is written to it.
type lastStamp struct{ at time.Time }

// Write implements io.Writer.
func (l *lastStamp) Write(p []byte) (int, error) {
	stamp, _, _ := bytes.Cut(p, []byte(" "))
	if at, err := time.Parse(time.RFC3339Nano, string(stamp)); err == nil {
		l.at = at
	}
	return len(p), nil
}

// OpenOutput opens what the container says from now on, for a log that cannot be read.
func (t *Tail) OpenOutput(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.attach(ctx)
}

func (t *Tail) attach(ctx context.Context) error {
	stream, err := t.API.ContainerAttach(ctx, t.ID, client.ContainerAttachOptions{Stream: true, Stdout: true, Stderr: true})
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, stream.Close) // a connection that was taken over does not end with ctx by itself
	t.stream = attachment{stream.Reader, func() { stop(); stream.Close() }}
	return nil
}

// attachment is the output of an attached container.
type attachment struct {
	io.Reader
	close func()
}

// Close implements io.Closer.
func (a attachment) Close() error {
	a.close()
	return nil
}

func (t *Tail) open(ctx context.Context, o client.ContainerLogsOptions) error {
	t.stamps = o.Timestamps
	o.ShowStdout, o.ShowStderr, o.Timestamps = true, true, true
	switch {
	case t.last != "":
		o.Since, o.Tail = t.last, "all"
	case t.opened.IsZero():
		t.opened = time.Now()
	case o.Tail == "0": // nothing has come since
		o.Since, o.Tail = t.opened.Format(time.RFC3339Nano), "all"
	}
	t.skip = t.same
	stream, err := t.API.ContainerLogs(ctx, t.ID, o)
	if t.kept = err == nil; t.kept {
		t.stream = entries{stream}
		return nil
	}
	if t.Attach && !Broken(err) && ctx.Err() == nil {
		return t.attachRunning(ctx)
	}
	return err
}

// attachRunning opens what a container says as long as it runs: one that has ended before would be silent until somebody
// starts it.
func (t *Tail) attachRunning(ctx context.Context) error {
	if err := t.attach(ctx); err != nil {
		return err
	}
	found, err := connect.Container(ctx, t.API, t.ID)
	if err != nil {
		_ = t.stream.Close()
		t.stream = nil
		return err
	}
	if s := found.State; !s.Running || s.Restarting {
		_ = t.stream.Close()
		t.stream = io.NopCloser(bytes.NewReader(nil))
	}
	return nil
}

// entries is a stream whose lines begin with their times.
type entries struct{ io.ReadCloser }

// Follow shows what was opened, or else opens it first, until it ends. A connection that breaks is an error that Broken
// knows; the next Follow goes on from there.
func (t *Tail) Follow(ctx context.Context, o client.ContainerLogsOptions) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stream == nil {
		if err := t.open(ctx, o); err != nil {
			return err
		}
	}
	stream := t.stream
	t.stream = nil
	defer stream.Close()
	stdout, stderr := io.Writer(output{t.Stdout}), io.Writer(output{t.Stderr})
	_, stamped := stream.(entries)
	if stamped {
		stdout, stderr = &entryWriter{t: t, to: stdout}, &entryWriter{t: t, to: stderr}
	}
	var err error
	switch {
	case t.TTY && stamped:
		e := &terminalEntries{to: stdout}
		if _, err = io.Copy(e, stream); err == nil {
			err = e.flush()
		}
	case t.TTY:
		_, err = io.Copy(stdout, stream)
	default:
		_, err = stdcopy.StdCopy(stdout, stderr, stream)
	}
	if Broken(err) {
		return err // the rest of a line is to come
	}
	t.Stdout.Flush()
	t.Stderr.Flush()
	return err
}

// OutputError says that what a container says cannot be written here, on a full disk for one: asking the engine again
// helps nobody.
type OutputError struct{ Err error }

func (e *OutputError) Error() string { return e.Err.Error() }

func (e *OutputError) Unwrap() error { return e.Err }

// output tells its errors from those of the stream that is written to it.
type output struct{ to io.Writer }

// Write implements io.Writer.
func (o output) Write(p []byte) (int, error) {
	n, err := o.to.Write(p)
	if err != nil {
		err = &OutputError{err}
	}
	return n, err
}

// Rest shows what a followed log has left out that has ended: a Docker engine may end it before its last line (moby issue
// 43860). A container that there is no more has none.
func (t *Tail) Rest(ctx context.Context, o client.ContainerLogsOptions) error {
	t.mu.Lock()
	kept := t.kept
	t.mu.Unlock()
	if !kept {
		return nil
	}
	o.Follow = false
	err := t.Follow(ctx, o)
	if errdefs.IsNotFound(err) || errdefs.IsConflict(err) {
		return nil
	}
	return err
}

// Opened says whether there is something that Follow shows without opening it.
func (t *Tail) Opened() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.stream != nil
}

// entryWriter is given one entry of the log at a time: a line, or a part of a long one.
type entryWriter struct {
	t      *Tail
	to     io.Writer
	hidden bool // the parts that follow belong to a line that was shown
}

// Write implements io.Writer.
func (w *entryWriter) Write(p []byte) (int, error) {
	stamp, text, found := bytes.Cut(p, []byte(" "))
	if _, err := time.Parse(time.RFC3339Nano, string(stamp)); !found || err != nil {
		if w.hidden {
			w.hidden = !bytes.HasSuffix(p, []byte("\n"))
			return len(p), nil
		}
		return w.to.Write(p) // an error of the engine, or the rest of a line that a terminal's long one was parted from
	}
	w.hidden = w.t.shown(string(stamp))
	if w.hidden {
		w.hidden = !bytes.HasSuffix(p, []byte("\n"))
		return len(p), nil
	}
	if w.t.stamps {
		text = p
	}
	if _, err := w.to.Write(text); err != nil {
		return 0, err
	}
	return len(p), nil
}

// shown says whether the entry of this time was shown already, and takes note of it otherwise.
func (t *Tail) shown(stamp string) bool {
	if t.skip > 0 && stamp == t.last {
		t.skip--
		return true
	}
	t.skip = 0
	if stamp != t.last {
		t.last, t.same = stamp, 0
	}
	t.same++
	return false
}

// Engines part a line that is longer than maxText bytes into entries, each with its time of stampLength bytes; Cleat cuts
// between characters, some bytes earlier.
const (
	maxText     = 16 << 10
	stampLength = len("2006-01-02T15:04:05.000000000Z ")
	longest     = stampLength + maxText
)

// terminalEntries hands on the log of a terminal, which comes without frames, one entry at a time.
type terminalEntries struct {
	to   io.Writer
	rest []byte
}

// Write implements io.Writer.
func (e *terminalEntries) Write(p []byte) (int, error) {
	e.rest = append(e.rest, p...)
	for {
		n := bytes.IndexByte(e.rest, '\n') + 1
		if n > longest+1 || (n == 0 && len(e.rest) >= longest+stampLength) {
			n = e.part()
		}
		if n == 0 {
			return len(p), nil
		}
		if _, err := e.to.Write(e.rest[:n]); err != nil {
			return 0, err
		}
		e.rest = e.rest[n:]
	}
}

// part is how long the first entry is, of a line that was parted.
func (e *terminalEntries) part() int {
	for n := longest; n > longest-utf8.UTFMax; n-- {
		next := e.rest[n:]
		if len(next) < stampLength {
			continue
		}
		if _, err := time.Parse(time.RFC3339Nano+" ", string(next[:stampLength])); err == nil {
			return n
		}
	}
	return longest
}

func (e *terminalEntries) flush() error {
	if len(e.rest) == 0 {
		return nil
	}
	_, err := e.to.Write(e.rest)
	return err
}
