package stdio

import (
	"bytes"
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	// punchStep is how much of a busy journal is given back at a time.
	punchStep = 256 << 10
	// windowSize is how much of a terminal's journal is mapped at a time: an
	// unfinished line and what one read may add, several times over.
	windowSize = 64 << 10
	// ttyRead is the most that one read takes from a terminal (the line
	// discipline's own buffer has this size).
	ttyRead  = 4 << 10
	pageSize = 4 << 10
)

// journal is a file on tmpfs through which a stream's bytes pass. Positions
// only grow; what is in the log is freed by punching holes, so that no crash
// can find a journal whose positions mean something else.
type journal struct {
	fd        int
	path      string
	size      atomic.Int64 // where the next byte goes; written by the stream's goroutine only
	committed int64        // where the first byte that is not in the log lies
	punched   int64

	// Terminals only: the mapped part of the file.
	window    []byte
	base      int64 // file position of window[0]
	allocated int64 // pages below are there, so that a full tmpfs is an error before the read
}

// openJournal opens or makes a journal; reset empties a left-over one, whose
// positions nobody knows.
func openJournal(path string, reset bool) (*journal, error) {
	flags := unix.O_RDWR | unix.O_CREAT | unix.O_CLOEXEC | unix.O_NOFOLLOW
	if reset {
		flags |= unix.O_TRUNC
	}
	fd, err := openRetry(path, flags)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("stat %s: %w", path, err)
	}
	j := &journal{fd: fd, path: path}
	j.size.Store(st.Size)
	return j, nil
}

func (j *journal) pending() int { return int(j.size.Load() - j.committed) }

// splice moves up to limit bytes from a pipe to the end of the journal. The
// kernel removes from the pipe exactly what it adds to the file's size, also
// when the process is killed in the middle.
func (j *journal) splice(pipe, limit int) (int, error) {
	off := j.size.Load()
	n, err := unix.Splice(pipe, nil, j.fd, &off, limit, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
	if n > 0 {
		j.size.Add(n)
		return int(n), nil
	}
	return 0, err
}

// read takes up to limit bytes from a terminal. They land in the shared
// mapping, hence in the file, at the moment they leave the terminal. The file's
// content behind size is zero, which is how recover finds the end: only NUL
// bytes at the very end of the last read before a SIGKILL can be missed.
func (j *journal) read(tty, limit int) (int, error) {
	limit = min(limit, ttyRead)
	if err := j.reserve(limit); err != nil {
		return 0, err
	}
	at := int(j.size.Load() - j.base)
	n, err := unix.Read(tty, j.window[at:at+limit])
	if n > 0 {
		j.size.Add(int64(n))
		return n, nil
	}
	return 0, err
}

// reserve makes sure that n bytes at size are mapped and allocated.
func (j *journal) reserve(n int) error {
	size := j.size.Load()
	end := size + int64(n)
	if j.window == nil || end > j.base+int64(len(j.window)) {
		if err := j.mapAt(j.committed &^ (pageSize - 1)); err != nil {
			return err
		}
	}
	if end > j.allocated {
		if err := unix.Fallocate(j.fd, unix.FALLOC_FL_KEEP_SIZE, size, int64(n)); err != nil {
			return fmt.Errorf("allocate %s: %w", j.path, err)
		}
		j.allocated = (end + pageSize - 1) &^ (pageSize - 1)
	}
	return nil
}

func (j *journal) mapAt(base int64) error {
	j.unmap()
	if err := unix.Ftruncate(j.fd, base+windowSize); err != nil {
		return fmt.Errorf("extend %s: %w", j.path, err)
	}
	m, err := unix.Mmap(j.fd, base, windowSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map %s: %w", j.path, err)
	}
	j.window, j.base = m, base
	return nil
}

func (j *journal) unmap() {
	if j.window != nil {
		_ = unix.Munmap(j.window)
		j.window = nil
	}
}

// recoverEnd finds where the content of a terminal's journal ends, given where
// its uncommitted part begins.
func (j *journal) recoverEnd() error {
	end := j.committed
	buf := make([]byte, windowSize)
	for at := j.committed; at < j.size.Load(); {
		n, err := unix.Pread(j.fd, buf, at)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", j.path, err)
		}
		if n == 0 {
			break
		}
		if used := len(bytes.TrimRight(buf[:n], "\x00")); used > 0 {
			end = at + int64(used)
		}
		at += int64(n)
	}
	j.size.Store(end)
	return nil
}

// readAt fills b with the journal's bytes from position at.
func (j *journal) readAt(b []byte, at int64) error {
	if j.window != nil && at >= j.base {
		copy(b, j.window[at-j.base:])
		return nil
	}
	return j.readFile(b, at)
}

// readFile is readAt without the mapping, which only the stream's goroutine may
// look at.
func (j *journal) readFile(b []byte, at int64) error {
	for len(b) > 0 {
		n, err := unix.Pread(j.fd, b, at)
		if err == unix.EINTR {
			continue
		}
		if err == nil && n == 0 {
			err = unix.ENODATA
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", j.path, err)
		}
		b = b[n:]
		at += int64(n)
	}
	return nil
}

// release frees what is in the log, if that is at least step bytes. It only
// saves memory: a failure changes nothing, so it is not reported.
func (j *journal) release(step int64) {
	end := j.committed &^ (pageSize - 1)
	if end-j.punched < max(step, pageSize) {
		return
	}
	if unix.Fallocate(j.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, j.punched, end-j.punched) == nil {
		j.punched = end
	}
}

func (j *journal) close() {
	j.unmap()
	_ = unix.Close(j.fd)
}
