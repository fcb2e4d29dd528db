package logs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/cleatlabs/cleat/internal/stdio"
)

// flushSize is how many encoded bytes are written at a time.
const flushSize = 256 << 10

// writer is the json-file driver. A stdio.Pump calls it from one goroutine at a
// time; Close may come from another.
type writer struct {
	path string
	opts options
	enc  encoder
	pool *stdio.Pool
	bell *Bell // nil where nobody follows

	turns *atomic.Uint64 // of rotations; nil where nobody asks

	mu   sync.Mutex
	f    *os.File // nil until the first output
	size int64
	over bool         // closed
	open [2]int64     // by stream: when the unfinished line in the log began, or 0
	cut  [2][]cutLine // by stream: what was cut off and has not come again yet

	rotated    bool // a file waits for compression until its Mark is recorded
	compressor sync.WaitGroup
}

// Open returns the writer of a log, nil for the driver none. The file itself is
// opened at the first output.
func Open(c Config) (Writer, error) {
	if err := Validate(c.Driver, c.Opts); err != nil {
		return nil, err
	}
	if c.Driver == driverNone {
		return nil, nil
	}
	opts, err := parseOptions(c.Driver, c.Opts)
	if err != nil {
		return nil, err
	}
	attrs, err := renderAttrs(c)
	if err != nil {
		return nil, err
	}
	w := &writer{path: c.Path, opts: opts, enc: encoder{raw: Private(c.Driver), attrs: attrs}, pool: c.Pool, bell: c.Bell, turns: c.Turns}
	if w.pool == nil {
		w.pool = new(stdio.Pool)
	}
	if opts.compress {
		// What was rotated and not compressed before the end of the writer before, or of its engine, is at the next output.
		w.rotated = true
		_ = os.Remove(unfinished(rotatedName(c.Path, 1, false)))
	}
	return w, nil
}

// Append implements stdio.Sink. It ends early where the file is full; the
// rotation then happens at the end of the call, so that what is written never
// lies in two files and a crash before its Mark is recorded can be undone.
func (w *writer) Append(s stdio.Stream, p []byte, t time.Time, last bool) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.ensure(); err != nil {
		return 0, err
	}
	w.startCompression()
	buf := w.pool.Get()
	defer w.pool.Put(buf)
	open, cut := w.open, w.cut
	out, n := w.encode((*buf)[:0], s, p, t.UnixNano(), last)
	if n == 0 {
		return 0, nil
	}
	*buf = out
	if err := w.write(out); err != nil {
		w.open, w.cut = open, cut
		return 0, err
	}
	defer w.bell.ring()
	if w.full(w.size) {
		if err := w.rotate(); err != nil {
			return n, fmt.Errorf("rotate the log %s: %w", w.path, err)
		}
	}
	return n, nil
}

func (w *writer) full(size int64) bool { return w.opts.maxSize > 0 && size >= w.opts.maxSize }

// encode adds the whole lines of p to out, and pieces of MaxLine bytes at most of longer
// ones, until the file or the buffer is full. Lines of one batch get times one
// nanosecond apart, so that they stay in order; the pieces of one line share
// one, as Docker's do.
func (w *writer) encode(out []byte, s stdio.Stream, p []byte, nano int64, last bool) ([]byte, int) {
	begun := &w.open[s-1]
	n := 0
	for n < len(p) {
		if n > 0 && (len(out) >= flushSize || w.full(w.size+int64(len(out)))) {
			break // at least one line, should a rotation have failed
		}
		rest := p[n:]
		at := nano
		if *begun != 0 {
			at = *begun
		}
		i := bytes.IndexByte(rest[:min(len(rest), stdio.MaxLine)], '\n')
		switch {
		case i >= 0:
			out, _ = w.add(out, s, rest[:i], false, at)
			*begun = 0
			n += i + 1
			nano++
			continue
		case len(rest) >= stdio.MaxLine:
			i = pieceEnd(rest)
		case last:
			i = len(rest)
		default:
			return out, n
		}
		out, *begun = w.add(out, s, rest[:i], true, at)
		n += i
	}
	return out, n
}

// pieceEnd is where the first piece of a line of MaxLine bytes or more ends: before a
// character that would be cut in two, as the halves of one are no text that JSON can hold.
func pieceEnd(line []byte) int {
	line = line[:stdio.MaxLine]
	for i := len(line) - 1; i >= len(line)-utf8.UTFMax; i-- {
		if utf8.RuneStart(line[i]) {
			if utf8.FullRune(line[i:]) {
				break
			}
			return i
		}
	}
	return len(line)
}

// write appends b or nothing.
func (w *writer) write(b []byte) error {
	n, err := w.f.Write(b)
	if err == nil {
		w.size += int64(n)
		return nil
	}
	if n > 0 {
		// What did fit is not a whole batch.
		if terr := w.f.Truncate(w.size); terr != nil {
			return fmt.Errorf("write the log: %w", errors.Join(err, terr))
		}
	}
	return fmt.Errorf("write the log: %w", err)
}

// ensure opens the file; w.mu is held.
func (w *writer) ensure() error {
	if w.f != nil {
		return nil
	}
	if w.over {
		return fmt.Errorf("the log %s: %w", w.path, os.ErrClosed)
	}
	f, err := os.OpenFile(w.path, os.O_RDWR|os.O_CREATE|os.O_APPEND|syscall.O_NOFOLLOW, 0o640)
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	size, err := trimTorn(f)
	if err != nil {
		_ = f.Close()
		return fmt.Errorf("open the log: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return fmt.Errorf("open the log: %w", err)
	}
	w.f, w.size = f, size
	w.bell.opened(inode(st))
	return nil
}

// trimTorn cuts a last line without newline, the trace of a power failure or a
// full disk, and returns the size.
func trimTorn(f *os.File) (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	end := st.Size()
	buf := make([]byte, 4<<10)
	for end > 0 {
		n := min(end, int64(len(buf)))
		if _, err := f.ReadAt(buf[:n], end-n); err != nil && err != io.EOF {
			return 0, err
		}
		if i := bytes.LastIndexByte(buf[:n], '\n'); i >= 0 {
			end -= n - int64(i) - 1
			break
		}
		end -= n
	}
	if end < st.Size() {
		return end, f.Truncate(end)
	}
	return end, nil
}

// Mark implements stdio.Sink. The size is asked of the file system, because
// administrators truncate log files under a running engine.
func (w *writer) Mark() (stdio.Mark, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.ensure(); err != nil {
		return stdio.Mark{}, err
	}
	st, err := w.f.Stat()
	if err != nil {
		return stdio.Mark{}, fmt.Errorf("stat the log: %w", err)
	}
	w.size = st.Size()
	return stdio.Mark{File: inode(st), Offset: w.size, Open: w.open}, nil
}

// Rewind implements stdio.Sink. The marked file is the current one, or the last
// rotated one if the engine was killed right after a rotation; what came after
// the mark is only ever in that file. If it is gone (rotated away with
// max-file=1, or deleted by hand) there is nothing to cut.
func (w *writer) Rewind(m stdio.Mark) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open = m.Open
	if m.File == 0 {
		return nil
	}
	for _, path := range []string{w.path, rotatedName(w.path, 1, false)} {
		st, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("rewind the log: %w", err)
		}
		if inode(st) != m.File {
			continue
		}
		if st.Size() > m.Offset {
			if err := w.cutBack(path, st, m.Offset); err != nil {
				return err
			}
		}
		if w.f != nil && path == w.path {
			w.size = min(w.size, m.Offset)
		}
		return nil
	}
	return nil
}

// Close implements Writer. Nothing can be appended afterwards.
func (w *writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	// A file that was rotated just now stays as it is: the end of a container
	// does not wait for its compression.
	w.compressor.Wait()
	if w.f == nil {
		return nil
	}
	w.bell.opened(0)
	err := w.f.Close()
	w.f = nil
	return err
}

func inode(st fs.FileInfo) uint64 {
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		return sys.Ino
	}
	return 0
}
