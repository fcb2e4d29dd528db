package logs

import (
	"io"
	"math"
	"os"
	"time"
)

// follow reads what is written until live is closed, until passes or ctx ends.
func (r *reader) follow(live <-chan struct{}) error {
	var deadline <-chan time.Time
	if r.until != math.MaxInt64 {
		t := time.NewTimer(time.Until(r.o.Until))
		defer t.Stop()
		deadline = t.C
	}
	for over := false; ; {
		if err := r.catchUp(); err != nil {
			return err
		}
		if over {
			return nil
		}
		if err := r.flush(); err != nil {
			return err
		}
		select {
		case <-r.changed:
		case <-live:
			over = true // what was written before is read in one last round
		case <-deadline:
			over = true
		case <-r.ctx.Done():
			return r.ctx.Err()
		}
	}
}

// catchUp reads to the end of the newest file.
func (r *reader) catchUp() error {
	for {
		if len(r.files) == 0 {
			// All of them: what was written first may have been rotated away
			// since the last look, when there was no file.
			files, err := openFiles(r.path)
			if err != nil || len(files) == 0 {
				return err
			}
			r.files = files
			if err := r.drainOlder(); err != nil {
				return err
			}
		}
		// Looked at before reading: if it was replaced by then, the reading
		// below sees the old file's last line.
		moved := r.replaced(r.files[0])
		if err := r.drain(r.files[0]); err != nil {
			return err
		}
		if err := r.rewound(r.files[0]); err != nil {
			return err
		}
		if !moved {
			return nil
		}
		if err := r.switchFile(); err != nil {
			return err
		}
	}
}

// replaced says whether f is the current file no more.
func (r *reader) replaced(f *logFile) bool {
	st, err := os.Stat(r.path)
	return err == nil && inode(st) != f.ino
}

// rewound starts at the beginning again if the file was emptied under us: a
// rotation with max-file=1, or an administrator's truncate.
func (r *reader) rewound(f *logFile) error {
	st, err := f.f.Stat()
	if err != nil {
		return err
	}
	at, err := f.f.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	if st.Size() >= at {
		return nil
	}
	f.rest = nil
	if _, err := f.f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return r.drain(f)
}

// switchFile goes on with the file that came after the one just read. If that
// is found under an old name, its successors are those with lower numbers; if
// it was compressed or removed meanwhile, they are the files with younger lines.
func (r *reader) switchFile() error {
	old := r.files[0]
	files, err := openFiles(r.path)
	if err != nil {
		return err
	}
	next, err := r.successor(files, old)
	closeFiles(files[:next])
	old.close()
	r.files = files[next:]
	if err != nil {
		return err
	}
	return r.drainOlder()
}

// successor is the index of the file that came after old, len(files) if there
// is none yet.
func (r *reader) successor(files []*logFile, old *logFile) (int, error) {
	for i, f := range files {
		if f.ino == old.ino {
			return i + 1, nil
		}
	}
	for i, f := range files {
		first, err := f.firstTime()
		if err != nil {
			return len(files), err
		}
		if first > r.last {
			return i, nil
		}
	}
	// Only the current file can be without a line.
	return max(0, len(files)-1), nil
}
