package logs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"time"

	"github.com/cleatlabs/cleat/internal/stdio"
)

// errGivenUp is what reading a rotated file gives that is not kept for followers any more.
var errGivenUp = errors.New("the rotated file is not kept any more")

// lostText is what a follower's reader is told in the place of lines that it has not got.
const lostText = "cleat: lines are missing here: they were written faster than they were read and were rotated away; " +
	"a larger max-size or max-file keeps more\n"

// openToFollow opens what was written until now. The last file is the follower's, if it is there yet.
func (r *reader) openToFollow() ([]*logFile, error) {
	files, err := openFiles(r.path)
	if err != nil {
		return nil, err
	}
	kept := files[:0]
	for _, f := range files {
		where := r.place.place(f)
		if where == behind { // it is met again, in its order
			f.close()
			continue
		}
		kept = append(kept, f)
		r.here = where == here
	}
	return kept, nil
}

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
		case <-r.place.changed:
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
			if found, err := r.openNext(); err != nil || !found {
				return err
			}
		}
		f := r.files[0]
		// Looked at before reading: if it is complete by then, the reading below sees its last line.
		complete := r.place.complete()
		err := r.drain(f)
		if err == nil && !f.kept {
			err = r.rewound(f)
		}
		switch {
		case errors.Is(err, errGivenUp):
			r.files = nil
			continue
		case err != nil || !complete:
			return err
		}
		f.close()
		r.files = nil
		r.place.next()
	}
}

// openNext opens the file that is to be read next. It reports false if that is not there yet.
func (r *reader) openNext() (bool, error) {
	for {
		kept, lost := r.place.file()
		if lost {
			if err := r.tellLost(); err != nil {
				return false, err
			}
		}
		var f *logFile
		var err error
		if kept != nil {
			f, err = openKept(kept)
		} else {
			f, err = openOne(r.path, true)
		}
		switch {
		case errors.Is(err, errGivenUp):
			continue
		case errors.Is(err, fs.ErrNotExist): // no output yet, or between two steps of a rotation, after which the bell rings
			return false, nil
		case err != nil:
			return false, fmt.Errorf("open the log: %w", err)
		case kept == nil && r.place.complete(): // it may be a later one
			f.close()
			continue
		}
		r.files = []*logFile{f}
		return true, nil
	}
}

// openKept reads a rotated file that a Bell keeps, and may give up at any time.
func openKept(kept *os.File) (*logFile, error) {
	st, err := kept.Stat()
	if err != nil {
		return nil, givenUp(err)
	}
	l := &logFile{f: kept, src: io.NewSectionReader(rotatedFile{kept}, 0, st.Size()), end: st.Size(), current: true, kept: true}
	l.ino, l.size = inode(st), st.Size()
	return l, nil
}

// rotatedFile is a file that a Bell keeps.
type rotatedFile struct{ f *os.File }

// ReadAt implements io.ReaderAt.
func (k rotatedFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := k.f.ReadAt(p, off)
	return n, givenUp(err)
}

func givenUp(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return errGivenUp
	}
	return err
}

// tellLost says that lines are missing behind those that were read.
func (r *reader) tellLost() error {
	if r.o.Lost != nil {
		r.o.Lost()
	}
	if !r.o.Stderr {
		return nil
	}
	if r.last == 0 {
		r.last = time.Now().UnixNano()
	}
	r.rec = record{stream: stdio.Stderr, nano: r.last, text: []byte(lostText)}
	return r.hand()
}

// rewound starts at the beginning again if the file was emptied under us by an administrator.
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
