package plugin_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cleatlabs/cleat/internal/plugin"
)

// serve answers on a socket as a plugin does, each call with the JSON that answers
// has for it.
func serve(t *testing.T, socket string, answers map[string]string) (calls func() []string) {
	t.Helper()
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	log := make(chan string, 100)
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		log <- strings.TrimPrefix(r.URL.Path, "/") + string(body)
		answer, ok := answers[strings.TrimPrefix(r.URL.Path, "/")]
		switch {
		case !ok:
			http.NotFound(w, r)
		case answer == "hang":
			<-r.Context().Done()
		case answer == "endless":
			for r.Context().Err() == nil {
				if _, err := fmt.Fprint(w, strings.Repeat(" ", 1<<20)); err != nil {
					return
				}
			}
		default:
			fmt.Fprint(w, answer)
		}
	})
	server := &http.Server{Handler: mux}
	go func() { _ = server.Serve(ln) }()
	t.Cleanup(func() { _ = server.Close() })
	return func() (all []string) {
		for {
			select {
			case c := <-log:
				all = append(all, c)
			default:
				return all
			}
		}
	}
}

const activated = `{"Implements": ["VolumeDriver"]}`

func registry(dir string) *plugin.Registry { return registryWithin(dir, time.Minute) }

// registryWithin does not wait longer than slow for calls that do something.
func registryWithin(dir string, slow time.Duration) *plugin.Registry {
	return plugin.New(plugin.Config{Sockets: dir, Specs: []string{filepath.Join(dir, "specs")}, Quick: time.Minute, Slow: slow})
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestPluginsAreFound(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"plain", "deep/deep", "hidden"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		serve(t, filepath.Join(dir, name+".sock"), map[string]string{"Plugin.Activate": activated})
	}
	serve(t, filepath.Join(dir, "other.sock"), map[string]string{"Plugin.Activate": `{"Implements": ["NetworkDriver"]}`})
	write(t, filepath.Join(dir, "specs", "spec.spec"), "unix://"+dir+"/hidden.sock\n")
	write(t, filepath.Join(dir, "specs", "json", "json.json"), `{"Name": "json", "Addr": "unix://`+dir+`/hidden.sock"}`)
	write(t, filepath.Join(dir, "specs", "bad.spec"), "ftp://example.org/")
	write(t, filepath.Join(dir, "specs", "worse.json"), "{")
	r := registry(dir)
	if got := r.Names(); !slices.Equal(got, []string{"bad", "deep", "hidden", "json", "other", "plain", "spec", "worse"}) {
		t.Error(got)
	}
	for _, name := range []string{"plain", "deep", "spec", "json"} {
		if _, err := r.Driver(t.Context(), name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, want := range map[string]string{
		"none": `plugin "none" not found`, "../plain": `plugin "../plain" not found`, "": "not found", "other": "is not a volume driver",
		"bad": "neither unix:///PATH nor tcp://HOST:PORT", "worse": "unexpected end of JSON",
	} {
		if _, err := r.Driver(t.Context(), name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if got := plugin.New(plugin.Config{Sockets: "/nosuch"}).Names(); len(got) > 0 {
		t.Error(got)
	}
}

func TestCallsAndAnswers(t *testing.T) {
	dir := t.TempDir()
	calls := serve(t, filepath.Join(dir, "p.sock"), map[string]string{
		"Plugin.Activate": activated, "VolumeDriver.Create": `{"Err": ""}`, "VolumeDriver.Remove": `{}`,
		"VolumeDriver.Mount": `{"Mountpoint": "/mnt/v/"}`, "VolumeDriver.Unmount": `{}`, "VolumeDriver.Path": `{"Mountpoint": ""}`,
		"VolumeDriver.Get":          `{"Volume": {"Name": "v", "Mountpoint": "/mnt/v", "CreatedAt": "2024-05-06T07:08:09Z", "Status": {"a": 1}}}`,
		"VolumeDriver.List":         `{"Volumes": [{"Name": "v", "CreatedAt": "yesterday"}, {"Name": "../x"}, null]}`,
		"VolumeDriver.Capabilities": `{"Capabilities": {"Scope": "Global"}}`,
	})
	d, err := registry(dir).Driver(t.Context(), "p")
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	if err := d.Create(ctx, "v", map[string]string{"a": "b"}); err != nil {
		t.Error(err)
	}
	if path, err := d.Mount(ctx, "v", "c1"); err != nil || path != "/mnt/v" {
		t.Error(path, err)
	}
	if path, err := d.Path(ctx, "v"); err != nil || path != "" {
		t.Error(path, err)
	}
	if v, err := d.Get(ctx, "v"); err != nil || v.Mountpoint != "/mnt/v" || v.CreatedAt.Year() != 2024 || v.Status["a"] != 1.0 {
		t.Error(v, err)
	}
	if list, err := d.List(ctx); err != nil || len(list) != 1 || list[0].Name != "v" {
		t.Error(list, err)
	}
	if got := d.Scope(ctx); got != "global" {
		t.Error(got)
	}
	if err := d.Unmount(ctx, "v", "c1"); err != nil {
		t.Error(err)
	}
	if err := d.Remove(ctx, "v"); err != nil {
		t.Error(err)
	}
	want := []string{
		`Plugin.Activate`, `VolumeDriver.Create{"Name":"v","Opts":{"a":"b"}}`, `VolumeDriver.Mount{"ID":"c1","Name":"v"}`, `VolumeDriver.Path{"Name":"v"}`,
		`VolumeDriver.Get{"Name":"v"}`, `VolumeDriver.List{}`, `VolumeDriver.Capabilities`, `VolumeDriver.Unmount{"ID":"c1","Name":"v"}`, `VolumeDriver.Remove{"Name":"v"}`,
	}
	if got := calls(); !slices.Equal(got, want) {
		t.Errorf("calls %q", got)
	}
}

func TestHostileAnswers(t *testing.T) {
	for answer, want := range map[string]string{
		"hang":                           "no answer within 300ms",
		"endless":                        "VolumeDriver.Mount: ", // too large, or too late
		"not json":                       "the answer cannot be read",
		`{"Mountpoint": 5}`:              "the answer cannot be read",
		`{"Mountpoint": ""}`:             "is not the path of a volume",
		`{"Mountpoint": "relative"}`:     "is not the path of a volume",
		`{"Mountpoint": "/"}`:            "is not the path of a volume",
		`{"Mountpoint": "/a/../.."}`:     "is not the path of a volume",
		`{"Mountpoint": "/a\u0000b"}`:    "is not the path of a volume",
		`{"Err": "no \u001b[31mroom\n"}`: "VolumeDriver.Mount: no [31mroom",
	} {
		dir := t.TempDir()
		serve(t, filepath.Join(dir, "p.sock"), map[string]string{"Plugin.Activate": activated, "VolumeDriver.Mount": answer})
		slow := time.Minute
		if answer == "hang" {
			slow = 300 * time.Millisecond
		}
		d, err := registryWithin(dir, slow).Driver(t.Context(), "p")
		if err != nil {
			t.Fatal(err)
		}
		path, err := d.Mount(t.Context(), "v", "c1")
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%s: %q, %v", answer, path, err)
		}
		if strings.Contains(answer, "Err") == errdefs.IsUnavailable(err) {
			t.Errorf("%s: class of %v", answer, err)
		}
	}
	dir := t.TempDir()
	serve(t, filepath.Join(dir, "p.sock"), map[string]string{
		"Plugin.Activate": activated, "VolumeDriver.Get": `{"Volume": {"Name": "another"}}`, "VolumeDriver.List": `{"Err": "` + strings.Repeat("x", 1<<20) + `"}`,
	})
	d, err := registry(dir).Driver(t.Context(), "p")
	if err != nil {
		t.Fatal(err)
	}
	if v, err := d.Get(t.Context(), "v"); err == nil {
		t.Errorf("asked for v, got %v", v)
	}
	if _, err := d.List(t.Context()); err == nil || len(err.Error()) > 5000 {
		t.Error("an error of any length is passed on")
	}
	if err := d.Create(t.Context(), "v", nil); err == nil || !strings.Contains(err.Error(), "404") {
		t.Error(err)
	}
	if got := d.Scope(t.Context()); got != "local" {
		t.Error(got)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.Remove(gone, "v"); err == nil {
		t.Error("a call goes on without its client")
	}
}

func FuzzSpec(f *testing.F) {
	for _, s := range []string{"unix:///run/x.sock", "tcp://127.0.0.1:1", "", "http://[::1", `{"Addr": "unix:///x", "TLSConfig": {"CAFile": "/etc/passwd"}}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "specs", "a.spec"), s)
		write(t, filepath.Join(dir, "specs", "b.json"), s)
		if json.Valid([]byte(s)) && len(s) > 1000 {
			t.Skip()
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // nothing is called
		for _, name := range []string{"a", "b"} {
			if d, err := registry(dir).Driver(ctx, name); err == nil {
				t.Errorf("%q: %v", s, d)
			}
		}
	})
}
