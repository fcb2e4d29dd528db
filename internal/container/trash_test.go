package container_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cleatlabs/cleat/internal/container"
)

// used is the directory of a container that was removed: what is in it (a slash at the end is a directory) besides its
// record, which was prepared.
func used(t *testing.T, names ...string) string {
	t.Helper()
	s := open(t, t.TempDir())
	n := id("a")
	if err := os.Mkdir(s.DirOf(n), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := container.Prepare([]string{s.DirOf(n)}); err != nil {
		t.Fatal(err)
	}
	c, err := s.Add(&container.Record{Definition: container.Definition{ID: n, Name: "n"}}, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		path := c.Path(name)
		if name[len(name)-1] == '/' {
			err = os.MkdirAll(path, 0o700)
		} else if err = os.MkdirAll(filepath.Dir(path), 0o700); err == nil {
			err = os.WriteFile(path, []byte("content"), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	dir, err := s.Remove(c, false)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func list(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if rel, _ := filepath.Rel(dir, path); rel != "." {
			names = append(names, rel)
		}
		return err
	})
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return names
}

func TestEmptyTrash(t *testing.T) {
	for name, files := range map[string][]string{
		"nothing else":         nil,
		"never started":        {"upper/", "work/", "hosts"},
		"ended":                {"upper/", "work/work/", "state.json", "hosts"},
		"with a layer":         {"upper/a/b/c", "work/work/incompat/volatile/", "log"},
		"names of its own":     {"upper/upper/upper/", "volumes.json", "work/work/work"},
		"with a file of names": {"upper/x", "hostname"},
	} {
		dir := used(t, files...)
		if err := os.Symlink("/", filepath.Join(dir, "link")); err != nil {
			t.Fatal(err)
		}
		if err := container.EmptyTrash(dir); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if left := list(t, dir); len(left) > 0 {
			t.Errorf("%s: left: %v", name, left)
		}
		if err := container.EmptyTrash(dir); err != nil {
			t.Errorf("%s, again: %v", name, err)
		}
	}
	if _, err := os.Stat("/proc"); err != nil {
		t.Error("what a link led to is gone")
	}
}

func TestStripAndReuse(t *testing.T) {
	dir := used(t, "upper/etc/passwd", "work/work/", "state.json", "hosts", "n-json.log")
	if err := container.Strip(dir, "work"); err != nil {
		t.Fatal(err)
	}
	if left := list(t, dir); !slices.Equal(left, []string{"config.json", "work"}) {
		t.Errorf("stripped: %v", left)
	}
	if err := container.Reuse(dir); err != nil {
		t.Fatal(err)
	}
	if left := list(t, dir); !slices.Equal(left, []string{".tmp-config.json", "work"}) {
		t.Errorf("to be used again: %v", left)
	}
	// The next container's record is its own.
	s := open(t, t.TempDir())
	if err := os.Rename(dir, s.DirOf(id("b"))); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Add(&container.Record{Definition: container.Definition{ID: id("b"), Name: "next"}}, true); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(s.DirOf(id("b")), "config.json"))
	if err != nil || len(b) < 8<<10 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

// What is not as every container's is not used again, and is still there for EmptyTrash.
func TestStripRefuses(t *testing.T) {
	for name, files := range map[string][]string{
		"volumes that are to go with it":        {"work/", "volumes.json"},
		"something in the work directory":       {"work/index/"},
		"something in what the kernel has left": {"work/work/incompat/"},
	} {
		dir := used(t, files...)
		if err := container.Strip(dir, "work"); err == nil {
			t.Errorf("%s: stripped", name)
		}
		if err := container.EmptyTrash(dir); err != nil || len(list(t, dir)) > 0 {
			t.Errorf("%s: %v, left: %v", name, err, list(t, dir))
		}
	}
	dir := used(t, "work/")
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte("{}"), 0o600); err != nil { // as an update does
		t.Fatal(err)
	}
	if err := container.Reuse(dir); err == nil {
		t.Error("a record that was written anew is taken for a prepared one")
	}
}
