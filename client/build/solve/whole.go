package solve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	bkclient "github.com/moby/buildkit/client"
	"github.com/tonistiigi/fsutil"
)

// whole is a directory of which a file that cannot be read ends the build. What is sent for it says nothing of errors: to
// the engine such a file would be an empty one, and so it would be in the image.
type whole struct {
	fsutil.FS
	fail context.CancelCauseFunc // of the build
}

// FileError says that a file of a build could not be sent as it is.
type FileError struct{ Err error }

func (e *FileError) Error() string {
	way := "make it readable, or leave it out by .dockerignore"
	if errors.Is(e.Err, os.ErrNotExist) || errors.Is(e.Err, errShorter) {
		way = "it was changed while it was sent, build again when that has ended"
	}
	return fmt.Sprintf("a file of the build cannot be sent: %v: %s", e.Err, way)
}

func (e *FileError) Unwrap() error { return e.Err }

var errShorter = errors.New("it became shorter while it was read")

// serveWhole makes all that a build reads of this machine whole, and sent in pieces.
func serveWhole(so *bkclient.SolveOpt, fail context.CancelCauseFunc) {
	for name, fs := range so.LocalMounts {
		so.LocalMounts[name] = pieces{whole{fs, fail}}
	}
}

func (w whole) Open(name string) (io.ReadCloser, error) {
	f, err := w.FS.Open(name)
	if err != nil {
		err = &FileError{err}
		w.fail(err)
		return broken{err}, nil // an error of this is taken for an empty file
	}
	r := &wholeReader{ReadCloser: f, fail: w.fail}
	r.before, _ = r.size()
	return r, nil
}

// broken is a file that cannot be read.
type broken struct{ err error }

func (b broken) Read([]byte) (int, error) { return 0, b.err }
func (b broken) Close() error             { return nil }

type wholeReader struct {
	io.ReadCloser
	fail         context.CancelCauseFunc
	before, read int64 // bytes
}

func (r *wholeReader) Read(b []byte) (int, error) {
	n, err := r.ReadCloser.Read(b)
	r.read += int64(n)
	if err == io.EOF && r.read < r.before { // some filesystems have files that end before their size
		if now, ok := r.size(); ok && now < r.before {
			err = errShorter
			if f, ok := r.ReadCloser.(*os.File); ok {
				err = &os.PathError{Op: "read", Path: f.Name(), Err: err}
			}
		}
	}
	if err != nil && err != io.EOF {
		err = &FileError{err}
		r.fail(err)
	}
	return n, err
}

// size is that of a file of this machine.
func (r *wholeReader) size() (int64, bool) {
	f, ok := r.ReadCloser.(*os.File)
	if !ok {
		return 0, false
	}
	st, err := f.Stat()
	if err != nil {
		return 0, false
	}
	return st.Size(), true
}
