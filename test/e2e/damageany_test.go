package e2e

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// damages are what may have become of a file.
var damages = []struct {
	what string
	do   func(path string, whole []byte) error
}{
	{"empty", func(path string, _ []byte) error { return os.WriteFile(path, nil, 0o600) }},
	{"cut short", func(path string, whole []byte) error { return os.WriteFile(path, whole[:len(whole)/8], 0o600) }},
	{"overwritten", func(path string, whole []byte) error {
		return os.WriteFile(path, bytes.Repeat([]byte("\x9bgarbage"), len(whole)/8+1), 0o600)
	}},
	{"a directory", func(path string, _ []byte) error { return os.MkdirAll(filepath.Join(path, "in it"), 0o700) }},
	{"a dangling link", func(path string, _ []byte) error { return os.Symlink("nowhere", path) }},
	{"missing", func(string, []byte) error { return nil }},
}

// vital is what the engine says that it does not start without, as all that it has depends on it.
var vital = []string{"engine-id", "images/meta.db", "images/snapshots/metadata.db"}

// enginesFiles lists the files below root that are not users' own.
func enginesFiles(t *testing.T, root string) (found []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(root, path)
		switch {
		case d.IsDir() && (slices.Contains([]string{"upper", "_data", "spare", "tmp", "reserve"}, d.Name()) || name == "images/content" || name == "images/snapshots/snapshots"):
			return fs.SkipDir
		case d.Type().IsRegular() && !slices.Contains(vital, name):
			found = append(found, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestDamageOfAllButOne: whatever becomes of the files of everything else while no engine runs, the next one starts, has
// the container that is sound, says what is out of order, and can do all that does not need it. Nothing of it is deleted.
func TestDamageOfAllButOne(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	e.OK(t, "cleat", "network", "create", "net")
	e.OK(t, "cleat", "volume", "create", "vol")
	sound := e.OK(t, "cleat", "run", "-d", "--name", "sound", "-p", "127.0.0.1:0:80", "busybox", "sleep", "1000")
	pid := func() string { return e.OK(t, "cleat", "inspect", "-f", "{{.State.Pid}} {{.State.Status}}", "sound") }
	before := pid()
	for _, d := range damages {
		t.Run(d.what, func(t *testing.T) {
			broken := e.OK(t, "cleat", "run", "-d", "--name", "broken", "--network", "net", "-v", "vol:/vol", "-v", "/anonymous", "--health-cmd", "true",
				"busybox", "sh", "-c", "test -s /kept || echo kept > /kept; exec sleep 1000")
			e.OK(t, "cleat", "run", "--name", "ended", "busybox", "true")
			harness.Eventually(t, func() (bool, string) {
				return e.Cleat(t, "exec", "broken", "test", "-s", "/kept").Code == 0, "the file is not written"
			})
			e.Kill()
			undo := damageAll(t, e, sound, d.do)
			e.Run(t)
			if now := pid(); now != before {
				t.Errorf("the container that is sound was %s, and is %s", before, now)
			}
			record := filepath.Join(e.DataRoot, "containers", broken, "config.json")
			for _, told := range []string{e.Cleat(t, "info").String(), e.Log(), e.OK(t, "cleat", "inspect", "-f", "{{.State.Error}}", broken)} {
				if !strings.Contains(told, record) {
					t.Errorf("%s is not told in %s", record, told)
				}
			}
			e.OK(t, "cleat", "run", "--rm", "-v", "/v", "busybox", "true")
			for _, verb := range [][]string{{"start", broken}, {"restart", broken}, {"exec", broken, "true"}, {"update", "--memory", "64m", broken}, {"rename", broken, "other"},
				{"cp", broken + ":/kept", "-"}, {"commit", broken}, {"volume", "prune", "-f"}, {"image", "prune", "-f"}} {
				if r := e.Cleat(t, verb...); r.Code == 0 || !strings.Contains(r.String(), "put a copy of that file back") {
					t.Errorf("%q: %s", verb, r)
				}
			}
			e.OK(t, "cleat", "ps", "-a", "-s")
			e.OK(t, "cleat", "system", "df")
			e.OK(t, "cleat", "container", "prune", "-f")
			if kept, err := os.ReadFile(filepath.Join(e.DataRoot, "containers", broken, "upper", "kept")); string(kept) != "kept\n" {
				t.Errorf("what the container had written: %q %v", kept, err)
			}

			e.Kill()
			undo()
			e.Run(t)
			if now := pid(); now != before {
				t.Errorf("with all files there, the container that is sound was %s, and is %s", before, now)
			}
			harness.Eventually(t, func() (bool, string) {
				r := e.Cleat(t, "start", "broken")
				return r.Code == 0, r.String()
			})
			if out := e.OK(t, "cleat", "exec", "broken", "cat", "/kept"); out != "kept" {
				t.Errorf("with its files: %q", out)
			}
			e.OK(t, "cleat", "rm", "-f", "-v", "broken", "ended")
		})
	}
}

// damageAll does so with all files but those of the vital ones and the container spared, and returns what undoes it.
func damageAll(t *testing.T, e *harness.Engine, spared string, do func(path string, whole []byte) error) (undo func()) {
	t.Helper()
	type file struct {
		path  string
		whole []byte
		mode  os.FileMode
	}
	var all []file
	for _, path := range append(enginesFiles(t, e.DataRoot), enginesFiles(t, e.ExecRoot)...) {
		if strings.Contains(path, spared) || strings.Contains(path, "/.removed-") || filepath.Base(path) == "engine.lock" {
			continue
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, file{path, whole, info.Mode().Perm()})
		if err := errors.Join(os.Remove(path), do(path, whole)); err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		t.Helper()
		for _, f := range all {
			if strings.HasPrefix(f.path, e.ExecRoot) {
				continue // of what has ended by now
			}
			if _, err := os.Stat(filepath.Dir(f.path)); err != nil { // what was sent, or cleared away
				continue
			}
			if err := errors.Join(os.RemoveAll(f.path), os.WriteFile(f.path, f.whole, f.mode)); err != nil {
				t.Fatal(err)
			}
		}
	}
}
