package logs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/stdio"
)

const (
	// readSize is how much of a file is read at a time: larger pieces were not faster, and their lines fit into the
	// buffer of a socket that has room.
	readSize = 64 << 10
	// maxRecord is the longest line of a log file that is read: MaxLine with
	// every byte escaped, and room for attributes. Longer ones are skipped.
	maxRecord = 1 << 20
)

// errEnough ends reading at until or at the mark.
var errEnough = errors.New("all that was asked for is read")

// Read hands the stored lines to emit, oldest first, and with Follow those that
// are being written until the container has exited: live is closed when its
// last output is in the log, and nil if it is not running. It returns ctx's
// error when ctx ends first, and emit's when that fails. Lines that cannot be
// decoded are skipped.
func Read(ctx context.Context, c Config, o ReadOptions, live <-chan struct{}, emit func(Entry) error) error {
	if err := Validate(c.Driver, c.Opts); err != nil {
		return err
	}
	if c.Driver == driverNone {
		return failure.NotImplemented("configured logging driver does not support reading")
	}
	r := &reader{ctx: ctx, path: c.Path, o: o, bell: c.Bell, emit: emit, since: math.MinInt64, until: math.MaxInt64, pool: c.Pool}
	if r.pool == nil {
		r.pool = new(stdio.Pool)
	}
	if r.bell == nil {
		r.bell = new(Bell) // which nobody rings
	}
	if !o.Since.IsZero() {
		r.since = o.Since.UnixNano()
	}
	if !o.Until.IsZero() {
		r.until = o.Until.UnixNano()
	}
	defer r.close()
	err := r.read(live)
	if errors.Is(err, errEnough) {
		err = nil
	}
	return errors.Join(err, r.flush())
}

// reader carries one Read.
type reader struct {
	ctx          context.Context
	path         string
	o            ReadOptions
	bell         *Bell
	emit         func(Entry) error
	since, until int64

	pool  *stdio.Pool
	lent  *[]byte    // what the file that is being drained reads into
	files []*logFile // still to read, the oldest first
	last  int64      // time of the last line that was read
	stamp stamp
	rec   record
	line  []byte
	place *follower // nil unless it follows
	here  bool      // the last of files is the one at which place is
}

func (r *reader) close() {
	closeFiles(r.files)
	if r.place != nil {
		r.place.stop()
	}
}

func (r *reader) flush() error {
	if r.o.Flush == nil {
		return nil
	}
	return r.o.Flush()
}

func (r *reader) read(live <-chan struct{}) error {
	if r.o.Follow && live != nil {
		return r.readAndFollow(live)
	}
	var err error
	if r.files, err = openFiles(r.path); err != nil {
		return err
	}
	// The log as it is now: a tail must not run after a busy container.
	for _, f := range r.files {
		f.cut(f.size)
	}
	r.cutAtMark()
	if err := r.seekTail(); err != nil {
		return err
	}
	return r.drainAll(0)
}

func (r *reader) readAndFollow(live <-chan struct{}) error {
	// Before the first look at the files, so that no change is missed.
	r.place = r.bell.listen()
	var err error
	if r.files, err = r.openToFollow(); err != nil {
		return err
	}
	if err := r.seekTail(); err != nil {
		return err
	}
	left := 0
	if r.here {
		left = 1
	}
	if err := r.drainAll(left); err != nil {
		return err
	}
	return r.follow(live)
}

// cutAtMark forgets what lies behind o.To.
func (r *reader) cutAtMark() {
	if r.o.To.File == 0 {
		return
	}
	for i, f := range r.files {
		if f.ino != r.o.To.File || f.z != nil {
			continue
		}
		f.cut(r.o.To.Offset)
		closeFiles(r.files[i+1:])
		r.files = r.files[:i+1]
		return
	}
}

// seekTail positions the files so that o.Tail lines of all streams follow.
func (r *reader) seekTail() error {
	if r.o.Tail < 0 {
		return nil
	}
	left := r.o.Tail
	for i, f := range slices.Backward(r.files) {
		n, err := f.seekLast(r.ctx, left)
		if err != nil {
			return err
		}
		if left -= n; left > 0 || i == 0 {
			continue
		}
		// Older files are not wanted, also if this one began just here.
		closeFiles(r.files[:i])
		r.files = r.files[i:]
		return nil
	}
	return nil
}

// drainAll reads all files but the given number of the newest.
func (r *reader) drainAll(left int) error {
	for len(r.files) > left {
		if err := r.drain(r.files[0]); err != nil {
			return err
		}
		r.files[0].close()
		r.files = r.files[1:]
	}
	return nil
}

// drain reads what the file holds now.
func (r *reader) drain(f *logFile) error {
	if !f.current && f.modified < r.since {
		return nil // every line is older
	}
	defer r.giveBack(f)
	for {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		if err := r.awaitTaker(f); err != nil {
			return err
		}
		r.lend(f)
		err := f.next(r.handle)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// awaitTaker lets who takes the lines come after. Nothing is held for one that does
// not, but an unfinished line.
func (r *reader) awaitTaker(f *logFile) error {
	if r.o.Ready == nil {
		return nil
	}
	if err := r.flush(); err != nil {
		return err
	}
	r.giveBack(f)
	return r.o.Ready(r.ctx)
}

// lend gives f a buffer, if it has none.
func (r *reader) lend(f *logFile) {
	switch {
	case f.buf != nil:
	case len(f.rest) >= readSize: // a long line
		f.buf = make([]byte, 2*len(f.rest))
	default:
		r.lent = r.pool.Get()
		f.buf = (*r.lent)[:readSize]
	}
}

// giveBack takes f's buffer away, but for the unfinished line.
func (r *reader) giveBack(f *logFile) {
	f.rest, f.buf = slices.Clone(f.rest), nil
	r.rec = record{} // its text lies in the buffer
	if r.lent != nil {
		r.pool.Put(r.lent)
		r.lent = nil
	}
}

// handle decodes and hands out one line of a file, without its newline.
func (r *reader) handle(line []byte) error {
	rec := &r.rec
	if !decode(line, rec) {
		return nil
	}
	r.last = rec.nano
	switch {
	case rec.nano > r.until:
		return errEnough
	case rec.nano < r.since,
		rec.stream == stdio.Stdout && !r.o.Stdout,
		rec.stream == stdio.Stderr && !r.o.Stderr:
		return nil
	}
	return r.hand()
}

// hand hands out the record.
func (r *reader) hand() error {
	e := Entry{Stream: r.rec.stream, Time: time.Unix(0, r.rec.nano).UTC(), Line: r.rec.text}
	if r.o.Timestamps || r.o.Details {
		r.decorate(&e)
	}
	return r.emit(e)
}

// decorate puts time and attributes before the text.
func (r *reader) decorate(e *Entry) {
	rec := &r.rec
	r.line = r.line[:0]
	if r.o.Timestamps {
		r.line = append(r.stamp.append(r.line, rec.nano, true), ' ')
	}
	if r.o.Details {
		if rec.attrs != nil && json.Unmarshal(rec.attrs, &e.Attrs) != nil {
			e.Attrs = nil // not an object of strings: nobody's attributes
		}
		r.line = append(append(r.line, formatAttrs(e.Attrs)...), ' ')
	}
	r.line = append(r.line, rec.text...)
	e.Line = r.line
}

// formatAttrs is Docker's form of the attributes: sorted key=value pairs,
// escaped as in a URL's query, with commas between.
func formatAttrs(attrs map[string]string) string {
	pairs := make([]string, 0, len(attrs))
	for k, v := range attrs {
		pairs = append(pairs, url.QueryEscape(k)+"="+url.QueryEscape(v))
	}
	slices.Sort(pairs)
	return strings.Join(pairs, ",")
}

// splitLines calls handle for each whole line of b and returns what is left.
func splitLines(b []byte, handle func([]byte) error) ([]byte, error) {
	for {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			return b, nil
		}
		line := b[:i]
		b = b[i+1:]
		if err := handle(line); err != nil {
			return b, err
		}
	}
}
