package logs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/cleatlabs/cleat/internal/stdio"
)

// Line is a line of a log, or a piece of a long one, as a Cursor finds it.
type Line struct {
	Stream stdio.Stream
	Time   time.Time
	Text   []byte // without its newline; valid until the Cursor is used again
	// Part counts the pieces of a long line from 1, 0 for a whole line; Last is the
	// piece with its end.
	Part int
	Last bool
	// End is where the log goes on after the line.
	End Position
}

// Cursor reads a log from a Position on, in order and over rotations, for whoever
// sends it. It is used by one goroutine, which says when there may be more.
type Cursor struct {
	path string
	pool *stdio.Pool
	at   Position
	f    *logFile // being read, nil before the first output
	lent *[]byte  // f's buffer
	rec  record
	got  []Line
	// turns counts the log's rotations, nil where nobody does; turn is what it was when f
	// was the current file.
	turns *atomic.Uint64
	turn  uint64
	// lost is told once of lines that were rotated away before they were read.
	lost func()
}

// NewCursor reads the log of c from p on. lost is called when lines may be missing
// between what was read and what is read next.
func NewCursor(c Config, p Position, lost func()) *Cursor {
	pool := c.Pool
	if pool == nil {
		pool = new(stdio.Pool)
	}
	return &Cursor{path: c.Path, pool: pool, at: p, turns: c.Turns, lost: lost}
}

// Move tells that the log's files were renamed; path is that of the newest, as Config.Path.
func (c *Cursor) Move(path string) { c.path = path }

// Seek goes on from p, which the Cursor has returned before.
func (c *Cursor) Seek(p Position) {
	c.Rest()
	c.drop()
	c.at = p
}

// At is the position behind the last line returned.
func (c *Cursor) At() Position { return c.at }

// Close gives up the files.
func (c *Cursor) Close() {
	c.Rest()
	c.drop()
}

func (c *Cursor) drop() {
	if c.f != nil {
		c.f.close()
		c.f = nil
	}
}

// Rest gives the buffers back while there is nothing to read. What Next returned is
// not valid any more.
func (c *Cursor) Rest() {
	c.got, c.rec = nil, record{} // their texts lie in the buffer
	if c.f == nil || c.lent == nil {
		return
	}
	c.f.rest = slices.Clone(c.f.rest)
	c.f.buf = nil
	c.pool.Put(c.lent)
	c.lent = nil
}

// Next returns the next lines, as many as one read finds; none means that all that
// was written has been returned. Lines that cannot be decoded are passed over.
func (c *Cursor) Next() ([]Line, error) {
	for {
		if c.f == nil {
			if found, err := c.open(); err != nil || !found {
				return nil, err
			}
		}
		// Looked at before reading: if it was replaced by then, the reading below sees
		// the old file's last line.
		moved := c.moved()
		lines, err := c.read()
		if len(lines) > 0 || err != nil {
			return lines, err
		}
		if err := c.emptied(); err != nil {
			return nil, err
		}
		if c.f == nil {
			continue
		}
		if !moved {
			return nil, nil
		}
		if on, err := c.advance(); err != nil || !on {
			return nil, err
		}
	}
}

// moved says whether the file being read is the current one no more.
func (c *Cursor) moved() bool {
	st, err := os.Stat(c.path)
	return err == nil && inode(st) != c.f.ino
}

// read returns the lines of the next piece of the file, none at its present end.
func (c *Cursor) read() ([]Line, error) {
	if c.f.buf == nil {
		c.lent = c.pool.Get()
		c.f.buf = *c.lent
		if len(c.f.rest) > len(c.f.buf) {
			c.f.buf = make([]byte, 2*len(c.f.rest))
		}
	}
	for {
		c.got = c.got[:0]
		start := c.f.offset
		err := c.f.next(func(line []byte) error {
			if decode(line, &c.rec) {
				c.take(start)
			}
			start = c.f.offset
			return nil
		})
		c.at.Offset = c.f.offset
		switch {
		case err == io.EOF:
			return nil, nil
		case err != nil:
			return nil, fmt.Errorf("read the log: %w", err)
		case len(c.got) > 0:
			return c.got, nil
		}
	}
}

// take adds the line that was decoded, which began at start.
func (c *Cursor) take(start int64) {
	r, p := &c.rec, &c.at
	if start == 0 {
		p.First = r.nano
	}
	i := int(r.stream) - 1
	text := r.text
	whole := len(text) > 0 && text[len(text)-1] == '\n'
	if whole {
		text = text[:len(text)-1]
	}
	if p.Open[i] != r.nano { // the pieces of one line share its time
		p.Open[i], p.Parts[i] = 0, 0
	}
	l := Line{Stream: r.stream, Time: time.Unix(0, r.nano), Text: text}
	if !whole || p.Parts[i] > 0 {
		p.Parts[i]++
		l.Part, l.Last = int(p.Parts[i]), whole
		p.Open[i] = r.nano
	}
	if whole {
		p.Open[i], p.Parts[i] = 0, 0
	}
	p.Lines++
	p.Offset = c.f.offset
	l.End = *p
	c.got = append(c.got, l)
}

// open finds the file of the position and goes there. It reports false while there
// is no log yet.
func (c *Cursor) open() (bool, error) {
	turn := c.turnsNow()
	files, err := openFiles(c.path)
	if err != nil || len(files) == 0 {
		return false, err
	}
	i, err := c.find(files)
	if err != nil {
		closeFiles(files)
		return false, err
	}
	offset := c.at.Offset
	if i < 0 {
		if c.at.First != 0 {
			c.lost()
		}
		i, offset = 0, 0
	}
	if err := c.use(files, i, offset, turn); err != nil {
		return false, err
	}
	return true, nil
}

func (c *Cursor) turnsNow() uint64 {
	if c.turns == nil {
		return 0
	}
	return c.turns.Load()
}

// find is the index of the position's file, -1 if it is not there any more. Of two
// that could be it, the one with its number is, or the older one, as it is better to
// read twice than not at all.
func (c *Cursor) find(files []*logFile) (int, error) {
	found := -1
	for i, f := range files {
		first, err := f.firstTime()
		if err != nil {
			return -1, err
		}
		switch {
		case f.ino == c.at.File && (first == c.at.First || c.at.First == 0):
			return i, nil
		case found < 0 && first != 0 && first == c.at.First:
			found = i
		}
	}
	return found, nil
}

// use reads files[i] from offset on and closes the others. turn is the count of the
// rotations from before they were opened.
func (c *Cursor) use(files []*logFile, i int, offset int64, turn uint64) error {
	c.turn = turn - uint64(len(files)-1-i)
	f := files[i]
	closeFiles(files[:i])
	closeFiles(files[i+1:])
	f.buf, f.rest = nil, nil
	if err := f.seekTo(offset); err != nil {
		f.close()
		return fmt.Errorf("read the log: %w", err)
	}
	first := c.at.First
	if f.offset == 0 {
		first = 0
	}
	c.f = f
	c.at.File, c.at.First, c.at.Offset = f.ino, first, f.offset
	return nil
}

// seekTo goes to where a line begins, or to the file's beginning if none does there:
// the file was emptied, or cut back to before it, and written again.
func (l *logFile) seekTo(offset int64) error {
	if err := l.restart(); err != nil || offset == 0 {
		return err
	}
	var last [1]byte
	if l.z != nil {
		if _, err := io.CopyN(io.Discard, l.z, offset-1); err != nil {
			return ignoreEOF(err, l.restart)
		}
		if _, err := io.ReadFull(l.z, last[:]); err != nil {
			return ignoreEOF(err, l.restart)
		}
	} else if _, err := l.f.ReadAt(last[:], offset-1); err != nil {
		return ignoreEOF(err, l.restart)
	}
	if last[0] != '\n' {
		return l.restart()
	}
	l.offset = offset
	if l.z == nil {
		_, err := l.f.Seek(offset, io.SeekStart)
		return err
	}
	return nil
}

func isEOF(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

func ignoreEOF(err error, otherwise func() error) error {
	if isEOF(err) {
		return otherwise()
	}
	return err
}

// emptied starts again with a file that an administrator has truncated.
func (c *Cursor) emptied() error {
	st, err := c.f.f.Stat()
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	if c.f.z != nil || st.Size() >= c.f.offset {
		return nil
	}
	c.Rest()
	c.drop()
	c.at.Offset, c.at.First = 0, 0
	return nil
}

// advance goes on with the file that came after the one that was read to its end. It
// reports false if there is none yet.
func (c *Cursor) advance() (bool, error) {
	turn := c.turnsNow()
	files, err := openFiles(c.path)
	if err != nil {
		return false, err
	}
	i, err := c.find(files)
	if err != nil {
		closeFiles(files)
		return false, err
	}
	switch {
	case i < 0 && len(files) == 0:
		return false, nil
	case i < 0:
		// It was rotated away after it was read. What came right after it is still there
		// if there have not been more rotations since than there are files; a rotation at
		// this moment counts as one too many.
		if c.turns == nil || c.turnsNow()-c.turn > uint64(len(files)) {
			c.lost()
		}
	case i == len(files)-1:
		closeFiles(files)
		return false, nil
	}
	c.Rest()
	c.drop()
	return true, c.use(files, i+1, 0, turn)
}
