package container_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/record"
)

// What names the volumes of a removed container is there until all else of it has gone.
func TestTrashThatWillNotGo(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "trash")
	busy, names := filepath.Join(dir, "upper"), filepath.Join(dir, "config.json")
	if err := os.MkdirAll(busy, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(names, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", busy, "tmpfs", 0, ""); err != nil {
		t.Skipf("only root can mount what is in the way: %v", err)
	}
	mounted := true
	defer func() {
		if mounted {
			_ = unix.Unmount(busy, unix.MNT_DETACH)
		}
	}()
	if err := container.EmptyTrash(dir); err == nil {
		t.Error("a mount was deleted")
	}
	if _, err := os.Stat(names); err != nil {
		t.Errorf("what names the volumes went first: %v", err)
	}
	if err := unix.Unmount(busy, 0); err != nil {
		t.Fatal(err)
	}
	mounted = false
	if err := container.EmptyTrash(dir); err != nil {
		t.Errorf("taken up again: %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
}

// names lists what is in dir.
func names(t *testing.T, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func TestRecycle(t *testing.T) {
	for name, c := range map[string]struct {
		more     string // a file in the directory
		prepared bool
		want     bool
	}{
		"as most":                  {prepared: true, want: true},
		"a log":                    {more: "c-json.log", prepared: true, want: true},
		"files of the container's": {more: "upper/file", prepared: true},
		"the kernel's":             {more: "work/work/#1", prepared: true},
		"other directories":        {more: "mounts/x", prepared: true},
		"defined again":            {},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			dir := filepath.Join(root, "removed")
			for _, d := range []string{"upper", "work/work"} {
				if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			write := record.WriteDurable
			if c.prepared {
				write = record.WritePrepared
				if err := container.Prepare([]string{dir}); err != nil {
					t.Fatal(err)
				}
			}
			if err := write(filepath.Join(dir, "config.json"), []byte("{}"), 0o600); err != nil {
				t.Fatal(err)
			}
			files := []string{"hosts", "state.json", "mark"}
			if c.more != "" {
				files = append(files, c.more)
			}
			for _, f := range files {
				path := filepath.Join(dir, f)
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, nil, 0o644)); err != nil {
					t.Fatal(err)
				}
			}
			if got := container.Recycle(dir, "work", "mark"); got != c.want {
				t.Fatalf("%v, with %v in it", got, names(t, dir))
			}
			if c.want {
				if left := names(t, dir); !slices.Equal(left, []string{".tmp-config.json", "mark", "work"}) || len(names(t, filepath.Join(dir, "work"))) != 0 {
					t.Errorf("left: %v", left)
				}
				if err := container.Settle(root, []string{dir}); err != nil {
					t.Error(err)
				}
			}
			if err := container.EmptyTrash(dir); err != nil {
				t.Error(err)
			}
			if left := names(t, root); len(left) != 0 {
				t.Errorf("left of what was emptied: %v", left)
			}
		})
	}
}
