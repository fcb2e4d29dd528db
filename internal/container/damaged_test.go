package container_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/network"
)

// damages are what may have become of a file, by what they are called.
var damages = map[string]func(t *testing.T, path string){
	"empty":        func(t *testing.T, path string) { write(t, path, "") },
	"cut short":    func(t *testing.T, path string) { write(t, path, `{"Layout":1`) },
	"blanks":       func(t *testing.T, path string) { write(t, path, strings.Repeat(" ", 8192)) },
	"another type": func(t *testing.T, path string) { write(t, path, `{"Layout":"1"}`) },
	"null":         func(t *testing.T, path string) { write(t, path, "null") },
	"another's": func(t *testing.T, path string) {
		write(t, path, fmt.Sprintf(`{"Layout":1,"ID":%q,"Config":{},"HostConfig":{}}`, id("2")))
	},
	"a directory":     func(t *testing.T, path string) { must(t, os.MkdirAll(filepath.Join(path, "in it"), 0o700)) },
	"a dangling link": func(t *testing.T, path string) { must(t, os.Symlink("nowhere", path)) },
	"missing":         func(t *testing.T, path string) {},
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(content), 0o600))
}

// A container whose record cannot be read keeps no other from anything: it is there, says what to do, can be removed, and
// is whole again with its record.
func TestContainerWithoutItsRecord(t *testing.T) {
	for what, damage := range damages {
		t.Run(what, func(t *testing.T) {
			root := t.TempDir()
			s := open(t, root)
			add(t, s, id("2"), "sound")
			c := add(t, s, id("1"), "broken")
			must(t, c.SetState(func(st *container.State) {
				st.Status, st.ExitCode, st.Sandbox = api.StateExited, 3, &network.Sandbox{Name: "broken"}
			}))
			write(t, c.Path(id("1")+container.LogSuffix), "")
			path := c.Path("config.json")
			whole, err := os.ReadFile(path)
			must(t, err)
			must(t, os.Remove(path))
			damage(t, path)

			s = open(t, root)
			if c, err := s.Find("sound"); err != nil || c.Load().Whole() != nil {
				t.Errorf("the other one: %v", err)
			}
			c, err = s.Find("broken")
			must(t, err)
			r := c.Load()
			if r.ID != id("1") || r.State.ExitCode != 3 || r.LogPath == "" || r.Config == nil || r.HostConfig == nil {
				t.Errorf("%+v", r)
			}
			for _, want := range []string{"broken", path, "put a copy of that file back", filepath.Join(c.Dir(), "upper")} {
				if err := r.Whole(); !errdefs.IsConflict(err) || !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in %v", want, err)
				}
			}
			if w := s.Warnings(); len(w) != 1 || !strings.Contains(w[0], path) {
				t.Errorf("warnings: %q", w)
			}
			if err := s.Rename(c, "other"); !errdefs.IsConflict(err) {
				t.Errorf("a rename: %v", err)
			}
			if err := s.Redefine(c, func(*container.Definition) {}); !errdefs.IsConflict(err) {
				t.Errorf("another definition: %v", err)
			}
			must(t, c.SetState(func(st *container.State) { st.ExitCode = 4 }))

			must(t, os.RemoveAll(path))
			write(t, path, string(whole))
			s = open(t, root)
			if c, err := s.Find("broken"); err != nil || c.Load().Whole() != nil || c.Load().State.ExitCode != 4 || len(s.Warnings()) > 0 {
				t.Errorf("with its record: %+v %v %q", c, err, s.Warnings())
			}

			must(t, os.Remove(path))
			damage(t, path)
			s = open(t, root)
			c, err = s.Find(id("1"))
			must(t, err)
			trash, err := s.Remove(c, true)
			must(t, err)
			must(t, container.EmptyTrash(trash))
			if s = open(t, root); len(s.All()) != 1 || len(s.Warnings()) > 0 {
				t.Errorf("after its removal: %d containers, %q", len(s.All()), s.Warnings())
			}
		})
	}
}

// One of a name that another has by now, or whose state cannot be read either, gets one of its own.
func TestNamesOfContainersWithoutTheirRecords(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	one, two, three := add(t, s, id("1"), "one"), add(t, s, id("2"), "two"), add(t, s, id("3"), "three")
	must(t, one.SetState(func(st *container.State) { st.Sandbox = &network.Sandbox{Name: "two"} }))
	write(t, one.Path("config.json"), "")
	must(t, os.Mkdir(three.Path("state.json"), 0o700))
	write(t, three.Path("config.json"), "")
	content, err := os.ReadFile(two.Path("config.json"))
	must(t, err)
	must(t, os.Mkdir(s.DirOf(id("4")), 0o700))
	write(t, filepath.Join(s.DirOf(id("4")), "config.json"), strings.Replace(string(content), id("2"), id("4"), 1))

	s = open(t, root)
	for ref, want := range map[string]string{"two": id("2"), "damaged_100000000000": id("1"), "damaged_300000000000": id("3"), "damaged_400000000000": id("4")} {
		if c, err := s.Find(ref); err != nil || c.ID() != want || (c.Load().Whole() == nil) != (ref == "two") {
			t.Errorf("%s: %+v %v", ref, c, err)
		}
	}
	if c, err := s.Find(id("3")); err != nil || c.Load().State.Status != api.StateExited || c.Load().State.ExitCode != container.LostCode {
		t.Errorf("without a state, too: %+v %v", c, err)
	}
	if w := strings.Join(s.Warnings(), "\n"); !strings.Contains(w, `has the name "two", too: rename or remove the other one`) {
		t.Error(w)
	}
}

// What is not a container's is left alone, and told; a record of a later layout is the only one that is refused.
func TestOpenMeetsWhatIsNoContainers(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"lost+found", "ABC"} {
		must(t, os.Mkdir(filepath.Join(root, dir), 0o700))
	}
	write(t, filepath.Join(root, id("5")), "")
	s := open(t, root)
	if w := s.Warnings(); len(w) != 3 || len(s.All()) > 0 {
		t.Errorf("%q, %d containers", w, len(s.All()))
	}
	must(t, os.Mkdir(filepath.Join(root, id("1")), 0o700))
	write(t, filepath.Join(root, id("1"), "config.json"), fmt.Sprintf(`{"Layout":%d,"ID":%q,"Config":{},"HostConfig":{}}`, container.Layout+1, id("1")))
	if _, err := container.Open(root); err == nil || !strings.Contains(err.Error(), id("1")) || !strings.Contains(err.Error(), "start a newer engine") {
		t.Error(err)
	}
}

// A writable layer that cannot be looked into may hold a user's files: its container is not taken for one that was never
// made, and deleted.
func TestWritableLayerThatCannotBeRead(t *testing.T) {
	root := t.TempDir()
	must(t, os.Mkdir(filepath.Join(root, id("1")), 0o700))
	write(t, filepath.Join(root, id("1"), "upper"), "no directory")
	open(t, root)
	if _, err := os.Stat(filepath.Join(root, id("1"), "upper")); err != nil {
		t.Errorf("it was deleted: %v", err)
	}
}
