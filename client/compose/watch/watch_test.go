package watch

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"golang.org/x/sys/unix"
)

func projectOf(triggers []types.Trigger, build *types.BuildConfig, volumes ...types.ServiceVolumeConfig) *types.Project {
	s := types.ServiceConfig{Name: "web", Develop: &types.DevelopConfig{Watch: triggers}}
	s.Build, s.Volumes = build, volumes
	return &types.Project{Services: types.Services{"web": s}}
}

func TestRulesMatch(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, ".dockerignore"), []byte("# none\nnode_modules\n**/*.tmp\n!keep.tmp\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	rules, err := Rules(projectOf([]types.Trigger{
		{Action: types.WatchActionSync, Path: filepath.Join(dir, "app"), Target: "/srv/app", Ignore: []string{"*.log", "private/"}},
		{Action: types.WatchActionSync, Path: filepath.Join(dir, "conf"), Target: "/conf", Include: []string{"*.conf", "sub/**"}},
		{Action: types.WatchActionSyncRestart, Path: filepath.Join(dir, "one.txt"), Target: "/etc/one.txt"},
		{Action: types.WatchActionSync, Path: dir, Target: "/all", Ignore: []string{"*", "!all.txt"}},
	}, &types.BuildConfig{Context: dir}), func(text string) { t.Error(text) })
	if err != nil || len(rules) != 4 {
		t.Fatalf("%v: %d rules", err, len(rules))
	}
	for _, c := range []struct {
		rule int
		file string
		want string // "" is no match
	}{
		{0, "app/main.go", "/srv/app/main.go"},
		{0, "app/deep/er/main.go", "/srv/app/deep/er/main.go"},
		{0, "app", "/srv/app"},
		{0, "application", ""},
		{0, "app/debug.log", ""},
		{0, "app/deep/debug.log", "/srv/app/deep/debug.log"},
		{0, "app/private/key", ""},
		{0, "app/x.tmp", ""},
		{0, "app/.git/config", ""},
		{0, "app/.main.go.swp", ""},
		{0, "app/main.go~", ""},
		{1, "conf/a.conf", "/conf/a.conf"},
		{1, "conf/a.txt", ""},
		{1, "conf/sub/deep/a.txt", "/conf/sub/deep/a.txt"},
		{2, "one.txt", "/etc/one.txt"},
		{2, "one.txt.bak", ""},
		{3, "anything", "/all/anything"}, // "*" says nothing beside exceptions
		{3, "node_modules/x", ""},
	} {
		got, ok := rules[c.rule].Match(filepath.Join(dir, c.file))
		if got != c.want || ok != (c.want != "") {
			t.Errorf("rule %d, %s: %q, %v, want %q", c.rule, c.file, got, ok, c.want)
		}
	}
}

func TestRulesThatCannotBe(t *testing.T) {
	for name, c := range map[string]struct {
		trigger types.Trigger
		want    string
	}{
		"no build":   {types.Trigger{Action: types.WatchActionRebuild, Path: "/x"}, "without a build context"},
		"no target":  {types.Trigger{Action: types.WatchActionSync, Path: "/x"}, "needs a target"},
		"no command": {types.Trigger{Action: types.WatchActionSyncExec, Path: "/x", Target: "/y"}, "without a command"},
		"no action":  {types.Trigger{Action: "dance", Path: "/x"}, "unknown action"},
		"a pattern":  {types.Trigger{Action: types.WatchActionRestart, Path: "/x", Ignore: []string{"[a"}}, "ignore"},
	} {
		if _, err := Rules(projectOf([]types.Trigger{c.trigger}, nil), nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	warned := 0
	p := projectOf([]types.Trigger{{Action: types.WatchActionSync, Path: "/src/app", Target: "/app"}}, nil, types.ServiceVolumeConfig{Type: "bind", Source: "/src", Target: "/app"})
	if _, err := Rules(p, func(string) { warned++ }); !errors.Is(err, ErrNone) || warned != 1 {
		t.Errorf("what is bind mounted: %v, %d warnings", err, warned)
	}
}

// What happens together is one batch; what is new, also whole trees, and what appears later is seen.
func TestFilesInBatches(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"app/.git", "app/old"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	rules, err := Rules(projectOf([]types.Trigger{
		{Action: types.WatchActionSync, Path: filepath.Join(dir, "app"), Target: "/app"},
		{Action: types.WatchActionRestart, Path: filepath.Join(dir, "later/on")},
	}, nil), nil)
	if err != nil {
		t.Fatal(err)
	}
	var lost []string
	f, err := NewFiles(rules, func(err error) { lost = append(lost, err.Error()) })
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	f.watch = func(path string) error {
		if strings.Contains(path, "many") {
			return unix.ENOSPC
		}
		return f.fs.Add(path)
	}
	ctx, cancel := context.WithCancel(t.Context())
	batches := f.Batches(ctx)
	// see collects until all that is wanted has come, and nothing that is not.
	var seen map[string]bool
	see := func(do func(), want ...string) {
		t.Helper()
		do()
		seen = map[string]bool{}
		limit := time.After(time.Minute)
		for {
			missing := slices.DeleteFunc(slices.Clone(want), func(w string) bool { return seen[w] })
			if len(missing) == 0 {
				return
			}
			select {
			case b := <-batches:
				for _, path := range b {
					rel, err := filepath.Rel(dir, path)
					if err != nil || strings.Contains(rel, ".git") {
						t.Errorf("%s, %v", path, err)
					}
					seen[rel] = true
				}
			case <-limit:
				t.Fatalf("%v did not come", missing)
			}
		}
	}
	write := func(name string) func() {
		return func() {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	see(func() { write("app/.git/index")(); write("app/a")() }, "app/a")
	see(write("app/new/tree/b"), "app/new/tree/b")
	see(write("app/new/tree/c"), "app/new/tree/c")
	see(func() { _ = os.RemoveAll(filepath.Join(dir, "app/new")) }, "app/new")
	see(write("later/on/d"), "later/on/d")
	see(write("later/on/e"), "later/on/e")
	see(write("app/many/f"), "app/many") // its file may come, or not
	gone := func(name string) func() { return func() { _ = os.RemoveAll(filepath.Join(dir, name)) } }
	see(func() { gone("app")(); write("app/again")() }, "app/again") // at once
	see(write("app/and/again"), "app/and/again")
	if see(gone("later"), "later/on"); seen["app/again"] {
		t.Error("what was not changed counts as changed")
	}
	see(write("later/on/g"), "later/on/g") // after a while, with the directory above it
	see(func() { _ = os.Rename(filepath.Join(dir, "app"), filepath.Join(dir, "old")) }, "app")
	see(write("app/h"), "app/h")
	cancel()
	for range batches {
	}
	if len(lost) == 0 || !strings.HasPrefix(lost[0], filepath.Join(dir, "app/many")+" cannot be watched: ") || !strings.Contains(lost[0], "fs.inotify.max_user_watches") {
		t.Errorf("what was not watched: %q", lost)
	}
}

func TestArchive(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("text"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("file", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	var files []Copy
	for _, c := range [][2]string{{file, "/a/twice"}, {dir, "/a/dir"}, {filepath.Join(dir, "link"), "/a/link"}, {filepath.Join(dir, "gone"), "/a/gone"},
		{filepath.Join(file, "in the directory that it was"), "/a/file/gone"}, {file, "/a/file"}, {file, "/a/dir/in"}, {file, "/a/twice"}} {
		files = append(files, Copy{From: c[0], To: c[1]})
	}
	err := Archive(&b, files)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]byte{}
	for r := tar.NewReader(&b); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, twice := got[h.Name]; twice {
			t.Errorf("%s comes twice", h.Name)
		}
		if _, before := got["a/dir/in"]; before && h.Name == "a/dir/" {
			t.Error("a directory comes behind what is in it")
		}
		got[h.Name] = h.Typeflag
		if text, err := io.ReadAll(r); h.Typeflag == tar.TypeReg && (err != nil || string(text) != "text" || h.Mode&0o777 != 0o750) {
			t.Errorf("%s: %q, %o, %v", h.Name, text, h.Mode, err)
		}
	}
	if len(got) != 5 || got["a/dir/"] != tar.TypeDir || got["a/link"] != tar.TypeSymlink || got["a/file"] != tar.TypeReg {
		t.Errorf("%v", got)
	}
}

// A directory that gets another name is watched under that one, with those in it, whatever comes in its place.
func TestFilesOfRenamedDirectories(t *testing.T) {
	dir := t.TempDir()
	app := filepath.Join(dir, "app")
	if err := os.MkdirAll(filepath.Join(app, "old/sub/deep"), 0o755); err != nil {
		t.Fatal(err)
	}
	rules, err := Rules(projectOf([]types.Trigger{{Action: types.WatchActionSync, Path: app, Target: "/app"}}, nil), nil)
	if err != nil {
		t.Fatal(err)
	}
	f, err := NewFiles(rules, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	batches := f.Batches(t.Context())
	see := func(want string, not ...string) {
		t.Helper()
		limit := time.After(time.Minute) // bounds a hang
		for {
			select {
			case b := <-batches:
				for _, n := range not {
					if slices.Contains(b, filepath.Join(app, n)) {
						t.Errorf("%s counts as changed", n)
					}
				}
				if slices.Contains(b, filepath.Join(app, want)) {
					return
				}
			case <-limit:
				t.Fatalf("%s did not come", want)
			}
		}
	}
	from := "old"
	for i := range 4 {
		to := fmt.Sprintf("new%d", i)
		if err := os.Rename(filepath.Join(app, from), filepath.Join(app, to)); err != nil {
			t.Fatal(err)
		}
		see(to)
		for _, file := range []string{"/x", "/sub/x", "/sub/deep/x"} {
			if err := os.WriteFile(filepath.Join(app, to+file), []byte(to), 0o644); err != nil {
				t.Fatal(err)
			}
			see(to+file, from+file)
		}
		if err := os.MkdirAll(filepath.Join(app, from, "sub"), 0o755); err != nil { // another one in its place
			t.Fatal(err)
		}
		see(from + "/sub")
		if err := os.WriteFile(filepath.Join(app, from, "sub/y"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		see(from+"/sub/y", to+"/sub/y")
		from = to
	}
	elsewhere := filepath.Join(dir, "elsewhere")
	if err := os.Rename(filepath.Join(app, from), elsewhere); err != nil {
		t.Fatal(err)
	}
	see(from)
	if err := os.WriteFile(filepath.Join(elsewhere, "sub/x"), []byte("more"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(app, "last"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	see("last", from+"/sub/x")
}
