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
// the engine such a file would be an empty one, and so it would be in the image. A file that others take away or cut off
// meanwhile comes empty or short, as with docker build, and is warned of: programs write in many a build's directory.
type whole struct {
	fsutil.FS
	fail context.CancelCauseFunc // of the build
	warn func(text string)
}

// FileError says that a file of a build could not be sent.
type FileError struct{ Err error }

func (e *FileError) Error() string {
	return fmt.Sprintf("a file of the build cannot be sent: %v: make it readable, or leave it out by .dockerignore", e.Err)
}

func (e *FileError) Unwrap() error { return e.Err }

// serveWhole makes all that a build reads of this machine whole, and sent in pieces.
func serveWhole(so *bkclient.SolveOpt, fail context.CancelCauseFunc, warn func(text string)) {
	for name, fs := range so.LocalMounts {
		so.LocalMounts[name] = pieces{whole{fs, fail, warn}}
	}
}

func (w whole) Open(name string) (io.ReadCloser, error) {
	f, err := w.FS.Open(name)
	switch {
	case errors.Is(err, os.ErrNotExist):
		w.warn(fmt.Sprintf("a file was removed while the build read it, and is empty in the build: %s: build again, or leave it out by .dockerignore", name))
		return nil, err // what sends files takes it for an empty one
	case err != nil:
		err = &FileError{err}
		w.fail(err)
		return broken{err}, nil
	}
	r := &wholeReader{ReadCloser: f, whole: w}
	r.before, _ = r.size()
	return r, nil
}

// broken is a file that cannot be read.
type broken struct{ err error }

func (b broken) Read([]byte) (int, error) { return 0, b.err }
func (b broken) Close() error             { return nil }

type wholeReader struct {
	io.ReadCloser
	whole        whole
	before, read int64 // bytes
}

func (r *wholeReader) Read(b []byte) (int, error) {
	n, err := r.ReadCloser.Read(b)
	r.read += int64(n)
	if err == io.EOF && r.read < r.before { // some filesystems have files that end before their size
		if now, ok := r.size(); ok && now < r.before {
			r.whole.warn(fmt.Sprintf("a file became shorter while the build read it, and may be cut off in the build: %s: build again, or leave it out by .dockerignore", r.ReadCloser.(*os.File).Name()))
			r.before = 0 // told
		}
	}
	if err != nil && err != io.EOF {
		err = &FileError{err}
		r.whole.fail(err)
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
