package solve

import (
	"context"
	"errors"
	"io"
	gofs "io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tonistiigi/fsutil"
)

// faulty is a directory whose files fail: at open, or after some bytes.
type faulty struct {
	fsutil.FS
	open, read error
}

func (f faulty) Open(name string) (io.ReadCloser, error) {
	if f.open != nil {
		return nil, &os.PathError{Op: "open", Path: "/dir/" + name, Err: f.open}
	}
	return io.NopCloser(io.MultiReader(strings.NewReader("some"), failing{&os.PathError{Op: "read", Path: "/dir/" + name, Err: f.read}})), nil
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func (f faulty) Walk(context.Context, string, gofs.WalkDirFunc) error { return nil }

// TestFileThatCannotBeRead: it ends the build with its name, and is never read to its end.
func TestFileThatCannotBeRead(t *testing.T) {
	for _, c := range []struct {
		fs   faulty
		want string
	}{
		{faulty{open: syscall.EACCES}, "open /dir/f: permission denied: make it readable, or leave it out"},
		{faulty{open: syscall.ENOENT}, "open /dir/f: no such file or directory: it was changed while it was sent"},
		{faulty{read: syscall.EIO}, "read /dir/f: input/output error: make it readable"},
	} {
		ctx, fail := context.WithCancelCause(t.Context())
		f, err := pieces{whole{c.fs, fail}}.Open("f")
		if err != nil {
			t.Fatalf("%v: who sends takes it for an empty file", err)
		}
		_, err = io.ReadAll(f)
		if cause := context.Cause(ctx); cause == nil || err == nil || !strings.Contains(cause.Error(), c.want) {
			t.Errorf("read: %v; the build: %v, not %q", err, cause, c.want)
		}
	}
}

// TestFileThatBecomesShorter: what was cut off while it was read is told, what grew or stayed as it was is not.
func TestFileThatBecomesShorter(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for _, c := range []struct {
		to   int64
		want string
	}{{50, path + ": it became shorter"}, {0, path + ": it became shorter"}, {100, ""}, {200, ""}} {
		if err := os.WriteFile(path, make([]byte, 100), 0o600); err != nil {
			t.Fatal(err)
		}
		fs, err := fsutil.NewFS(dir)
		if err != nil {
			t.Fatal(err)
		}
		ctx, fail := context.WithCancelCause(t.Context())
		f, err := whole{fs, fail}.Open("f")
		if err == nil {
			_, err = io.ReadFull(f, make([]byte, 10))
		}
		if err == nil {
			err = os.Truncate(path, c.to)
		}
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.ReadAll(f)
		var bad *FileError
		if cause := context.Cause(ctx); errors.As(cause, &bad) != (c.want != "") || (err != nil) != (c.want != "") || cause != nil && !strings.Contains(cause.Error(), c.want) {
			t.Errorf("cut to %d: read: %v; the build: %v", c.to, err, cause)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}
