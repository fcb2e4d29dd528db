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
		{faulty{read: syscall.EIO}, "read /dir/f: input/output error: make it readable"},
	} {
		ctx, fail := context.WithCancelCause(t.Context())
		f, err := pieces{whole{c.fs, fail, nil}}.Open("f")
		if err != nil {
			t.Fatalf("%v: who sends takes it for an empty file", err)
		}
		_, err = io.ReadAll(f)
		if cause := context.Cause(ctx); cause == nil || err == nil || !strings.Contains(cause.Error(), c.want) {
			t.Errorf("read: %v; the build: %v, not %q", err, cause, c.want)
		}
	}
}

// TestFileThatChanges: what is gone or was cut off while it was read is warned of, once, and ends nothing; what grew or
// stayed as it was is not.
func TestFileThatChanges(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for _, c := range []struct {
		to   int64 // its size after 10 bytes were read; below 0, it is removed before
		want string
	}{{50, path}, {0, path}, {100, ""}, {200, ""}, {-1, "f"}} {
		if err := os.WriteFile(path, make([]byte, 100), 0o600); err != nil {
			t.Fatal(err)
		}
		fs, err := fsutil.NewFS(dir)
		if err != nil {
			t.Fatal(err)
		}
		ctx, fail := context.WithCancelCause(t.Context())
		var warned []string
		w := whole{fs, fail, func(text string) { warned = append(warned, text) }}
		if c.to < 0 {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Open("f"); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a file that is gone: %v", err)
			}
		} else if err := readAcross(w, func() error { return os.Truncate(path, c.to) }); err != nil {
			t.Errorf("cut to %d: %v", c.to, err)
		}
		if told := strings.Join(warned, "\n"); ctx.Err() != nil || (c.want == "") != (told == "") || !strings.Contains(told, c.want+": build again") && c.want != "" || len(warned) > 1 {
			t.Errorf("cut to %d: %q warned of; the build: %v", c.to, warned, context.Cause(ctx))
		}
		fail(nil)
	}
}

// readAcross reads f, and changes it meanwhile.
func readAcross(w whole, change func() error) error {
	f, err := w.Open("f")
	if err != nil {
		return err
	}
	_, err = io.ReadFull(f, make([]byte, 10))
	if err == nil {
		err = change()
	}
	if err == nil {
		_, err = io.ReadAll(f)
	}
	return errors.Join(err, f.Close())
}
