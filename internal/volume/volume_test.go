package volume_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/volume"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/volume"
)

var ctx = context.Background()

func open(t *testing.T, root string) *volume.Service {
	t.Helper()
	s, err := volume.Open(volume.Config{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func create(s *volume.Service, r volume.Request) (*api.Volume, error) {
	v, _, err := s.Create(ctx, r)
	return v, err
}

func names(t *testing.T, s *volume.Service, filters map[string][]string) []string {
	t.Helper()
	list, _, err := s.List(ctx, filters)
	if err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, v := range list {
		out = append(out, v.Name)
	}
	return out
}

func TestCreateInspectListSurvivesRestart(t *testing.T) {
	root := filepath.Join(t.TempDir(), "volumes")
	s := open(t, root)
	before := time.Now().Add(-time.Second)
	v, err := create(s, volume.Request{Name: "data", Driver: "local", Labels: map[string]string{"a": "b"}})
	if err != nil {
		t.Fatal(err)
	}
	if v.Name != "data" || v.Driver != "local" || v.Scope != "local" || v.Mountpoint != filepath.Join(root, "data", "_data") || v.Labels["a"] != "b" || v.Status != nil || v.Options != nil {
		t.Errorf("%+v", v)
	}
	if at, err := time.Parse(time.RFC3339, v.CreatedAt); err != nil || at.Before(before.Truncate(time.Second)) {
		t.Errorf("CreatedAt %q, %v", v.CreatedAt, err)
	}
	if st, err := os.Stat(v.Mountpoint); err != nil || st.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v", st, err)
	}
	anonymous, err := create(s, volume.Request{})
	if err != nil || len(anonymous.Name) != 64 || strings.Trim(anonymous.Name, "0123456789abcdef") != "" {
		t.Fatalf("%+v, %v", anonymous, err)
	}
	if _, ok := anonymous.Labels[volume.AnonymousLabel]; !ok {
		t.Error("anonymous volumes are not told apart")
	}
	ephemeral, err := create(s, volume.Request{Name: strings.Repeat("e0", 32), Labels: map[string]string{volume.AnonymousLabel: ""}, Ephemeral: true})
	if _, ok := ephemeral.Labels[volume.AnonymousLabel]; err != nil || !ok {
		t.Fatal(ephemeral, err)
	}
	again, err := create(s, volume.Request{Name: "data", Labels: map[string]string{"c": "d"}})
	if err != nil || again.Labels["a"] != "b" || again.Labels["c"] != "" {
		t.Errorf("second create: %+v, %v", again, err)
	}
	s = open(t, root)
	back, err := s.Inspect(ctx, "data")
	if err != nil || fmt.Sprint(*back) != fmt.Sprint(*v) {
		t.Errorf("after a restart %+v, %v", back, err)
	}
	if got := names(t, s, nil); len(got) != 3 || !slices.IsSorted(got) {
		t.Errorf("list %v", got)
	}
	if len(s.Warnings()) > 0 {
		t.Error(s.Warnings())
	}
}

// Containers of any user reach a volume's data, whatever umask the engine was started with; the data of others cannot be listed.
func TestModesWhateverTheUmask(t *testing.T) {
	defer unix.Umask(unix.Umask(0o077))
	v, err := create(open(t, t.TempDir()), volume.Request{Name: "data"})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{v.Mountpoint: 0o755, filepath.Dir(v.Mountpoint): 0o711} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v %v, want %o", path, st.Mode(), err, want)
		}
	}
}

func TestRefusals(t *testing.T) {
	s := open(t, t.TempDir())
	if _, err := create(s, volume.Request{Name: "there"}); err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name, driver string
		opts         map[string]string
		class        error
		text         string
	}{
		{"../x", "", nil, errdefs.ErrInvalidArgument, `create ../x: "../x" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path`},
		{"a", "", nil, errdefs.ErrInvalidArgument, "create a: volume name is too short, names should be at least two alphanumeric characters"},
		{".new-x", "", nil, errdefs.ErrInvalidArgument, "invalid characters"},
		{"ab\n", "", nil, errdefs.ErrInvalidArgument, "invalid characters"},
		{strings.Repeat("x", 300), "", nil, errdefs.ErrInvalidArgument, "too long"},
		{"new", "nfs", nil, errdefs.ErrNotFound, `plugin "nfs" not found`},
		{"there", "nfs", nil, errdefs.ErrConflict, "volume name must be unique"},
		{"new", "", map[string]string{"type": "tmpfs"}, errdefs.ErrInvalidArgument, `missing required option: "device"`},
		{"new", "", map[string]string{"device": "/x"}, errdefs.ErrInvalidArgument, `missing required option: "type"`},
		{"new", "", map[string]string{"o": "ro"}, errdefs.ErrInvalidArgument, `missing required option: "device"`},
		{"new", "", map[string]string{"type": "none", "device": "/x", "o": "bind,remount"}, errdefs.ErrInvalidArgument, "remount"},
		{"new", "", map[string]string{"type": "tmpfs", "device": "tmpfs", "size": "1m"}, errdefs.ErrInvalidArgument, "o=size="},
		{"new", "", map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "mode=750\x00"}, errdefs.ErrInvalidArgument, `option "o" holds a zero byte`},
		{"new", "", map[string]string{"colour": "red"}, errdefs.ErrInvalidArgument, `invalid option: "colour"`},
	}
	for _, c := range cases {
		_, err := create(s, volume.Request{Name: c.name, Driver: c.driver, Options: c.opts})
		if !errors.Is(err, c.class) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%q: %v", c.name, err)
		}
	}
	if got := names(t, s, nil); !slices.Equal(got, []string{"there"}) {
		t.Errorf("refused creates left %v", got)
	}
	for _, f := range []map[string][]string{{"colour": {"red"}}, {"dangling": {"maybe"}}, {"dangling": {"true", "false"}}} {
		if _, _, err := s.List(ctx, f); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%v: %v", f, err)
		}
	}
	if _, err := s.Inspect(ctx, "none"); !errdefs.IsNotFound(err) || err.Error() != "get none: no such volume" {
		t.Error(err)
	}
	if _, err := s.Acquire("none", "c1"); !errdefs.IsNotFound(err) {
		t.Error(err)
	}
}

func TestInUse(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	v, err := create(s, volume.Request{Name: "data"})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"c2", "c1", "c1"} {
		if path, err := s.Acquire("data", id); err != nil || path != v.Mountpoint {
			t.Fatal(path, err)
		}
	}
	for _, force := range []bool{false, true} {
		err := s.Remove(ctx, "data", force)
		if !errdefs.IsConflict(err) || err.Error() != "remove data: volume is in use - [c1, c2]" {
			t.Error(err)
		}
	}
	if got := s.References("data"); !slices.Equal(got, []string{"c1", "c2"}) {
		t.Error(got)
	}
	s = open(t, root)
	if err := s.Reconcile(map[string][]string{"data": {"c9"}, "gone": {"c9"}}, nil, false); err != nil {
		t.Fatal(err)
	}
	s.Release("data", "other")
	s.Release("none", "other")
	if err := s.Remove(ctx, "data", false); !errdefs.IsConflict(err) {
		t.Error(err)
	}
	s.Release("data", "c9")
	if err := s.Remove(ctx, "data", false); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(ctx, "data", false); !errdefs.IsNotFound(err) {
		t.Error(err)
	}
	if err := s.Remove(ctx, "data", true); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(root); len(left) > 0 {
		t.Error(left)
	}
}

func TestFilters(t *testing.T) {
	s := open(t, t.TempDir())
	for name, labels := range map[string]map[string]string{"web-data": {"app": "web"}, "db-data": {"app": "db", "keep": ""}, "cache": nil} {
		if _, err := create(s, volume.Request{Name: name, Labels: labels}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Acquire("cache", "c1"); err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		filters map[string][]string
		want    []string
	}{
		{nil, []string{"cache", "db-data", "web-data"}},
		{map[string][]string{"dangling": {"true"}}, []string{"db-data", "web-data"}},
		{map[string][]string{"dangling": {"0"}}, []string{"cache"}},
		{map[string][]string{"driver": {"local"}}, []string{"cache", "db-data", "web-data"}},
		{map[string][]string{"driver": {"nfs"}}, []string{}},
		{map[string][]string{"name": {"data"}}, []string{"db-data", "web-data"}},
		{map[string][]string{"name": {"^web", "cache"}}, []string{"cache", "web-data"}},
		{map[string][]string{"name": {"("}}, []string{}},
		{map[string][]string{"label": {"app"}}, []string{"db-data", "web-data"}},
		{map[string][]string{"label": {"app=db", "keep"}}, []string{"db-data"}},
		{map[string][]string{"label!": {"keep", "app=web"}}, []string{"cache"}},
		{map[string][]string{"label": {"app"}, "name": {"web"}}, []string{"web-data"}},
	}
	for _, c := range cases {
		if got := names(t, s, c.filters); !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, want %v", c.filters, got, c.want)
		}
	}
}

func TestRemovalStaysInside(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(outside, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, t.TempDir())
	v, err := create(s, volume.Request{Name: "data"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Dir(outside), filepath.Join(v.Mountpoint, "link")); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(ctx, "data", false); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(outside); err != nil {
		t.Error("the removal followed a symbolic link:", err)
	}
}

func TestLeftoversAndForeignDirectories(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{".new-half/_data", ".del-0123/_data/x", "byhand/_data", "byhand/.restore/x", "damaged/_data", "nothing"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{"damaged/volume.json": "{", "metadata.db": "x"} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	made := time.Unix(1_700_000_000, 0)
	if err := os.Chtimes(filepath.Join(root, "byhand/_data"), made, made); err != nil {
		t.Fatal(err)
	}
	s := open(t, root)
	if got := names(t, s, nil); !slices.Equal(got, []string{"byhand", "damaged"}) {
		t.Errorf("volumes %v", got)
	}
	if v, err := s.Inspect(ctx, "byhand"); err != nil || v.CreatedAt != made.UTC().Format(time.RFC3339) {
		t.Errorf("made at %s: %+v %v", made, v, err)
	}
	if left, _ := filepath.Glob(root + "/byhand/.*"); len(left) > 0 {
		t.Errorf("left of a restore: %v", left)
	}
	if w := s.Warnings(); len(w) != 1 || !strings.Contains(w[0], "damaged") {
		t.Errorf("warnings %q", w)
	}
	left, _ := filepath.Glob(root + "/.*")
	if len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

func TestParallelCreateAndRemove(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 60 {
				name := fmt.Sprint("vol", i%3)
				v, err := create(s, volume.Request{Name: name})
				if err != nil || v.Name != name {
					t.Errorf("create: %v", err)
					return
				}
				id := fmt.Sprint(w)
				if _, err := s.Acquire(name, id); err == nil {
					if _, err := os.Stat(v.Mountpoint); err != nil {
						t.Errorf("a volume in use is gone: %v", err)
					}
					s.Release(name, id)
				} else if !errdefs.IsNotFound(err) {
					t.Error(err)
				}
				if err := s.Remove(ctx, name, true); err != nil && !errdefs.IsConflict(err) {
					t.Errorf("remove: %v", err)
				}
			}
		})
	}
	wg.Wait()
	for _, name := range names(t, s, nil) {
		if err := s.Remove(ctx, name, false); err != nil {
			t.Error(err)
		}
	}
	if left, _ := os.ReadDir(root); len(left) > 0 {
		t.Error(left)
	}
}

func FuzzName(f *testing.F) {
	for _, s := range []string{"ok", "../x", ".", "a", "a/b", "\x00", "é"} {
		f.Add(s)
	}
	root := f.TempDir()
	s, err := volume.Open(volume.Config{Root: root})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, name string) {
		v, err := create(s, volume.Request{Name: name})
		if err != nil {
			return
		}
		if filepath.Dir(filepath.Dir(v.Mountpoint)) != root {
			t.Errorf("%q lies at %s", name, v.Mountpoint)
		}
		if err := s.Remove(ctx, v.Name, false); err != nil {
			t.Error(err)
		}
	})
}
