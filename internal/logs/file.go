package logs

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// logFile is one file of a log that is being read.
type logFile struct {
	f        *os.File
	ino      uint64
	modified int64 // Unix nanoseconds
	current  bool
	z        *gzip.Reader // nil for a plain file

	buf     []byte // allocated at the first read
	rest    []byte // the unfinished line, a part of buf
	skip    int    // lines of a compressed file that are not wanted
	tooLong bool   // the rest of an overlong line is being skipped
}

// openFiles opens the log's files, the oldest first. A rotation meanwhile moves
// files to higher numbers: the youngest are opened first, so none is missed,
// and one that is met twice is left out.
func openFiles(path string) ([]*logFile, error) {
	var files []*logFile
	fail := func(err error) ([]*logFile, error) {
		for _, f := range files {
			f.close()
		}
		return nil, fmt.Errorf("open the log: %w", err)
	}
	found, _, err := scanFiles(path)
	if err != nil {
		return nil, err
	}
	oldest := 1 // one more than what is there: a rotation may come in between
	for _, name := range found {
		oldest = max(oldest, fileAge(path, name)+1)
	}
	for i := range oldest + 1 {
		f, err := openAged(path, i)
		if err != nil {
			return fail(err)
		}
		if f == nil {
			continue // no output yet, or between two steps of a rotation
		}
		if len(files) > 0 && files[0].ino == f.ino {
			f.close()
			continue
		}
		files = append([]*logFile{f}, files...)
	}
	return files, nil
}

// openAged opens the i-th old file (0 is the current one), plain or compressed;
// nil if there is none.
func openAged(path string, i int) (*logFile, error) {
	names := []string{path}
	if i > 0 {
		// The plain one again at last: it may have been renamed in between.
		plain := rotatedName(path, i, false)
		names = []string{plain, rotatedName(path, i, true), plain}
	}
	for _, name := range names {
		f, err := openOne(name, i == 0)
		if !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
	}
	return nil, nil
}

func openOne(name string, current bool) (*logFile, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", name)
	}
	l := &logFile{f: f, current: current}
	if err == nil && bytes.HasSuffix([]byte(name), []byte(gzSuffix)) {
		l.z, err = gzip.NewReader(f)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	l.ino, l.modified = inode(st), st.ModTime().UnixNano()
	return l, nil
}

func (l *logFile) close() { _ = l.f.Close() }

func (l *logFile) reader() io.Reader {
	if l.z != nil {
		return l.z
	}
	return l.f
}

// next reads a piece of the file and calls handle for each whole line. It
// returns io.EOF at the present end; an unfinished line waits for the next
// call.
func (l *logFile) next(handle func([]byte) error) error {
	if l.buf == nil {
		l.buf = make([]byte, readSize)
	}
	n := copy(l.buf, l.rest)
	if n == len(l.buf) {
		l.grow()
	}
	if l.tooLong {
		n = 0
	}
	m, err := l.reader().Read(l.buf[n:])
	if l.z != nil && errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF // cut short by a crash of whoever compressed it
	}
	l.rest = l.buf[:n+m]
	if m == 0 {
		if err == nil {
			err = io.ErrNoProgress
		}
		return err
	}
	rest, herr := splitLines(l.rest, func(line []byte) error {
		switch {
		case l.tooLong:
			l.tooLong = false
			return nil
		case l.skip > 0:
			l.skip--
			return nil
		}
		return handle(line)
	})
	l.rest = rest
	return herr
}

// grow makes room for a line that is longer than the buffer, within reason.
func (l *logFile) grow() {
	if len(l.buf) >= maxRecord {
		l.tooLong = true
		return
	}
	bigger := make([]byte, 2*len(l.buf))
	copy(bigger, l.buf)
	l.buf = bigger
}

// firstTime is the time of the file's first line, 0 if it has none. The file is
// at its beginning before and after.
func (l *logFile) firstTime() (int64, error) {
	var rec record
	for {
		err := l.next(func(line []byte) error {
			if decode(line, &rec) {
				return errEnough
			}
			return nil
		})
		if err == io.EOF || err == errEnough {
			return rec.nano, l.restart()
		}
		if err != nil {
			return 0, err
		}
	}
}

func (l *logFile) restart() error {
	l.rest = nil
	if _, err := l.f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if l.z != nil {
		return l.z.Reset(l.f)
	}
	return nil
}

// seekLast positions the file before its last n lines and returns how many of
// them it has.
func (l *logFile) seekLast(ctx context.Context, n int) (int, error) {
	if l.z != nil {
		return l.seekLastCompressed(ctx, n)
	}
	st, err := l.f.Stat()
	if err != nil {
		return 0, err
	}
	buf := make([]byte, min(st.Size(), 64<<10))
	start := int64(-1) // where the wanted lines begin
	end := st.Size()
	found := -1 // the newline of the last line does not begin another
	for at := end; at > 0 && start < 0; {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		size := min(at, int64(len(buf)))
		at -= size
		if _, err := io.ReadFull(io.NewSectionReader(l.f, at, size), buf[:size]); err != nil {
			return 0, fmt.Errorf("read the log: %w", err)
		}
		for b := buf[:size]; ; {
			i := bytes.LastIndexByte(b, '\n')
			if i < 0 {
				break
			}
			if found++; found == n {
				start = at + int64(i) + 1
				break
			}
			b = b[:i]
		}
	}
	if start >= 0 {
		found = n
	} else {
		start = 0
		found++ // the first line has no newline before it
	}
	if _, err := l.f.Seek(start, io.SeekStart); err != nil {
		return 0, err
	}
	return found, nil
}

// seekLastCompressed counts the lines and begins anew.
func (l *logFile) seekLastCompressed(ctx context.Context, n int) (int, error) {
	if n == 0 {
		return 0, nil
	}
	lines := 0
	for {
		err := l.next(func([]byte) error { lines++; return ctx.Err() })
		if err == io.EOF {
			break
		}
		if err != nil {
			return 0, err
		}
	}
	if err := l.restart(); err != nil {
		return 0, err
	}
	l.skip = max(0, lines-n)
	return min(lines, n), nil
}
