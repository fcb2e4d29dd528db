package operate

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/client/compose/watch"
)

// Of a directory that has become a file what was in it is gone, and the directory is to go from the container before the
// file comes; one that has lost a file stays.
func TestSortOut(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"now-a-file", "still/kept"} {
		if err := errors.Join(os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755), os.WriteFile(filepath.Join(dir, name), nil, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	var files []watch.Copy
	for _, name := range []string{"now-a-file", "now-a-file/sub/one", "still", "still/gone", "still/kept"} {
		files = append(files, watch.Copy{From: filepath.Join(dir, name), To: "/app/" + name})
	}
	there, gone := sortOut(files)
	var to []string
	for _, f := range there {
		to = append(to, f.To)
	}
	got := strings.Join(to, " ") + " - " + fmt.Sprint(portions(gone))
	if want := "/app/now-a-file /app/still /app/still/kept - [[/app/now-a-file /app/still/gone]]"; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

// What keeps a file from being read is told as it is: the client takes it for a connection that has failed.
func TestSyncOfWhatCannotBeRead(t *testing.T) {
	api := answering(t, func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			panic(http.ErrAbortHandler)
		}
	})
	o := &Operator{API: api, Report: &saidSteps{}}
	long := filepath.Join(t.TempDir(), strings.Repeat("x", 300)) // also root cannot
	err := o.Sync(t.Context(), Container{Summary: container.Summary{ID: "web"}}, []watch.Copy{{From: long, To: "/long"}})
	var file *fs.PathError
	if !errors.As(err, &file) || file.Path != long || client.IsErrConnectionFailed(err) {
		t.Error(err)
	}
}

// What is mounted keeps what is in it, whatever is gone from the host.
func TestUnmounted(t *testing.T) {
	c := Container{Summary: container.Summary{Mounts: []container.MountPoint{{Destination: "/app/modules"}, {Destination: "/html"}}}}
	for _, r := range []struct{ target, gone, want string }{
		{"/app", "/app/a /app/modules /app/modules/x /app/modules2/x", "[/app/a /app/modules2/x]"},
		{"/app", "/app", "[]"},
		{"/", "/app /app/modules/x /html/x /b", "[/b]"},
		{"/html", "/html /html/x", "[/html/x]"},
		{"/html/sub", "/html/sub /html/sub/x", "[/html/sub /html/sub/x]"},
	} {
		var files []watch.Copy
		for _, p := range strings.Fields(r.gone) {
			files = append(files, watch.Copy{To: p, Target: r.target})
		}
		if got := fmt.Sprint(unmounted(c, files, strings.Fields(r.gone))); got != r.want {
			t.Errorf("%s: %s are removed of %s, want %s", r.target, got, r.gone, r.want)
		}
	}
}

func TestPortions(t *testing.T) {
	for _, c := range []struct{ paths, want string }{
		{"", "[]"},
		{"/a /b", "[[/a /b]]"},
		{"/", "[]"},
		{"/ /a /b/c", "[[/a /b/c]]"},
		{"/a/b /a-b/c /a /a/b/c /a.b /a", "[[/a /a-b/c /a.b]]"},
		{"/app/lib2 /app/lib/x /app/lib", "[[/app/lib /app/lib2]]"},
	} {
		if got := fmt.Sprint(portions(strings.Fields(c.paths))); got != c.want {
			t.Errorf("%s: %s, want %s", c.paths, got, c.want)
		}
	}
	var many, back []string
	for i := range 50000 {
		many = append(many, fmt.Sprintf("/app/%05d/%s", i, strings.Repeat("x", i%300)))
	}
	for _, some := range portions(many) {
		if n := len(strings.Join(some, " ")); n > mostArguments || n < mostArguments/2 && len(back)+len(some) < len(many) {
			t.Errorf("a command of %d bytes", n)
		}
		back = append(back, some...)
	}
	if !reflect.DeepEqual(back, many) {
		t.Errorf("%d of %d paths", len(back), len(many))
	}
}
