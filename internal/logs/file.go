package logs

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"slices"
)

// logFile is one file of a log that is being read.
type logFile struct {
	f        *os.File
	src      io.ReadSeeker // f, or the part of it that is asked for
	end      int64         // the end of that part, -1 for the end of the file
	size     int64         // when it was opened
	ino      uint64
	modified int64 // Unix nanoseconds
	current  bool
	kept     bool         // by a Bell, which closes it
	z        *gzip.Reader // nil for a plain file

	buf     []byte // lent, or allocated at the first read
	rest    []byte // the unfinished line, a part of buf
	skip    int    // lines of a compressed file that are not wanted
	tooLong bool   // the rest of an overlong line is being skipped
	offset  int64  // where the next line begins, uncompressed; right after seekTo or restart only
}

// openFiles opens the log's files, the oldest first. A rotation meanwhile only
// moves files to higher numbers and they are opened in that order, so none is
// missed, but some may be met twice or out of order: then it is tried again,
// and, should the log rotate faster than it can be opened, put in order by the
// files' first lines.
func openFiles(path string) ([]*logFile, error) {
	for attempt := 0; ; attempt++ {
		files, err := openOnce(path)
		if err == nil && !currentIs(path, files) {
			if attempt < 3 {
				closeFiles(files)
				continue
			}
			files, err = inOrder(files)
		}
		if err != nil {
			return nil, fmt.Errorf("open the log: %w", err)
		}
		return files, nil
	}
}

func closeFiles(files []*logFile) {
	for _, f := range files {
		f.close()
	}
}

// openOnce opens all files there are, the oldest first.
func openOnce(path string) (files []*logFile, err error) {
	defer func() {
		if err != nil {
			closeFiles(files)
			files = nil
		}
	}()
	found, err := filesAt(path)
	if err != nil {
		return nil, err
	}
	oldest := 0
	for _, name := range found {
		oldest = max(oldest, fileAge(path, name))
	}
	for i, missing := 0, 0; i <= oldest || missing < 2; i++ {
		f, err := openAged(path, i)
		if err != nil {
			return files, err
		}
		if f == nil { // no output yet, or between two steps of a rotation
			missing++
			continue
		}
		missing = 0
		same := false
		if len(files) > 0 {
			if same, err = files[0].same(f); err != nil {
				f.close()
				return files, err
			}
		}
		if same {
			f.close()
			continue
		}
		files = append([]*logFile{f}, files...)
	}
	return files, nil
}

// currentIs says whether the youngest of the files is the current one.
func currentIs(path string, files []*logFile) bool {
	st, err := os.Stat(path)
	if err != nil {
		return len(files) == 0 || !files[len(files)-1].current
	}
	return len(files) > 0 && files[len(files)-1].ino == inode(st)
}

// inOrder sorts files by their first lines and drops repeated ones. One without
// a line is the current one.
func inOrder(files []*logFile) ([]*logFile, error) {
	first := map[*logFile]int64{}
	for _, f := range files {
		at, err := f.firstTime()
		if err != nil {
			closeFiles(files)
			return nil, err
		}
		if at == 0 {
			at = math.MaxInt64
		}
		first[f] = at
	}
	slices.SortStableFunc(files, func(a, b *logFile) int { return cmp.Compare(first[a], first[b]) })
	kept := files[:0]
	for _, f := range files {
		if len(kept) > 0 && first[kept[len(kept)-1]] == first[f] {
			f.close()
			continue
		}
		kept = append(kept, f)
	}
	return kept, nil
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

// openOne opens a file, nil if nothing of it can be read.
func openOne(name string, current bool) (*logFile, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", name)
	}
	l := &logFile{f: f, src: f, end: -1, current: current}
	if err == nil && bytes.HasSuffix([]byte(name), []byte(gzSuffix)) {
		if l.z, err = gzip.NewReader(f); err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, gzip.ErrHeader) {
			// Compressing waits for no disk: this is what a power failure may leave.
			_ = f.Close()
			return nil, nil
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	l.ino, l.modified, l.size = inode(st), st.ModTime().UnixNano(), st.Size()
	return l, nil
}

// same says whether two files that were opened one after the other hold the same
// lines: they are one file, or one is the other's compressed form, which keeps
// its time.
func (l *logFile) same(o *logFile) (bool, error) {
	if l.ino == o.ino {
		return true, nil
	}
	if (l.z == nil) == (o.z == nil) || l.modified != o.modified {
		return false, nil
	}
	a, err := l.firstTime()
	if err != nil {
		return false, err
	}
	b, err := o.firstTime()
	return a == b, err
}

// cut ends the file at a position; what is written behind it is not read.
func (l *logFile) cut(end int64) {
	if l.z == nil {
		l.src, l.end = io.NewSectionReader(l.f, 0, end), end
	}
}

func (l *logFile) close() {
	if !l.kept {
		_ = l.f.Close()
	}
}

func (l *logFile) reader() io.Reader {
	if l.z != nil {
		return l.z
	}
	return l.src
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
		l.offset += int64(n)
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
		l.offset += int64(len(line)) + 1
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
	l.rest, l.offset, l.tooLong = nil, 0, false
	if _, err := l.src.Seek(0, io.SeekStart); err != nil {
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
	end := st.Size()
	if l.end >= 0 {
		end = min(end, l.end)
	}
	buf := make([]byte, min(end, 64<<10))
	start := int64(-1) // where the wanted lines begin
	found := -1        // the newline of the last line does not begin another
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
	if _, err := l.src.Seek(start, io.SeekStart); err != nil {
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
