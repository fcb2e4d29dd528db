package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// depot is a volume plugin: each of its volumes is a directory.
type depot struct {
	t      *testing.T
	dir    string // of its volumes
	mu     sync.Mutex
	mounts map[string][]string      // ids, by volume
	broken string                   // what every call but Activate answers as its error
	gates  map[string]chan struct{} // closed once a volume's mounts are to be answered
	stop   func()
}

// newDepot serves the plugin depot in the directory sockets.
func newDepot(t *testing.T, sockets string) *depot {
	d := &depot{t: t, dir: t.TempDir(), mounts: map[string][]string{}}
	d.serve(sockets)
	t.Cleanup(func() { d.stop() })
	return d
}

func (d *depot) serve(sockets string) {
	ln, err := net.Listen("unix", filepath.Join(sockets, "depot.sock"))
	if err != nil {
		d.t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(d.answer)}
	go func() { _ = server.Serve(ln) }()
	d.stop = func() { _ = server.Close() }
}

func (d *depot) path(name string) string { return filepath.Join(d.dir, name) }

func (d *depot) answer(w http.ResponseWriter, r *http.Request) {
	var q struct {
		Name, ID string
		Opts     map[string]string
	}
	_ = json.NewDecoder(r.Body).Decode(&q)
	if gate := d.gate(q.Name); gate != nil && r.URL.Path == "/VolumeDriver.Mount" {
		<-gate
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	out, err := d.call(strings.TrimPrefix(r.URL.Path, "/"), q.Name, q.ID, q.Opts)
	if out == nil {
		out = map[string]any{}
	}
	if err != nil {
		out["Err"] = err.Error()
	}
	_ = json.NewEncoder(w).Encode(out)
}

func (d *depot) call(method, name, id string, opts map[string]string) (map[string]any, error) {
	if method == "Plugin.Activate" {
		return map[string]any{"Implements": []string{"VolumeDriver"}}, nil
	}
	if d.broken != "" {
		return nil, fmt.Errorf("%s", d.broken)
	}
	_, missing := os.Stat(d.path(name))
	describe := func(name string) map[string]any {
		return map[string]any{"Name": name, "Mountpoint": d.path(name), "Status": map[string]any{"mounts": len(d.mounts[name])}}
	}
	switch method {
	case "VolumeDriver.Capabilities":
		return map[string]any{"Capabilities": map[string]any{"Scope": "global"}}, nil
	case "VolumeDriver.List":
		entries, _ := os.ReadDir(d.dir)
		list := []any{}
		for _, e := range entries {
			list = append(list, describe(e.Name()))
		}
		return map[string]any{"Volumes": list}, nil
	case "VolumeDriver.Create":
		if opts["fail"] != "" {
			return nil, fmt.Errorf("no room for %s", name)
		}
		return nil, os.MkdirAll(d.path(name), 0o755)
	}
	if missing != nil {
		return nil, fmt.Errorf("no volume %s", name)
	}
	switch method {
	case "VolumeDriver.Get":
		return map[string]any{"Volume": describe(name)}, nil
	case "VolumeDriver.Mount":
		d.mounts[name] = append(d.mounts[name], id)
		return map[string]any{"Mountpoint": d.path(name)}, nil
	case "VolumeDriver.Unmount":
		d.mounts[name] = slices.DeleteFunc(d.mounts[name], func(s string) bool { return s == id })
		return nil, nil
	case "VolumeDriver.Remove":
		if len(d.mounts[name]) > 0 {
			return nil, fmt.Errorf("volume %s is mounted", name)
		}
		return nil, os.RemoveAll(d.path(name))
	}
	return nil, fmt.Errorf("%s is unknown here", method)
}

func (d *depot) gate(name string) chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.gates[name]
}

// hold has a volume's mounts wait for the call of open, which may come twice.
func (d *depot) hold(name string) (open func()) {
	gate := make(chan struct{})
	d.mu.Lock()
	defer d.mu.Unlock()
	d.gates = map[string]chan struct{}{name: gate}
	return sync.OnceFunc(func() { close(gate) })
}

func (d *depot) users(name string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.mounts[name])
}

func (d *depot) set(broken string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.broken = broken
}

func TestVolumePlugin(t *testing.T) {
	sockets := t.TempDir()
	d := newDepot(t, sockets)
	e := harness.Start(t, harness.Options{Args: []string{"--plugin-dir", sockets}})
	e.Load(t, "busybox")
	if got := e.OK(t, "docker", "info", "-f", "{{.Plugins.Volume}}"); got != "[local depot]" {
		t.Errorf("%q", got)
	}
	each(t, func(t *testing.T, program string) {
		n := name(t)
		remove(t, e, n)
		e.OK(t, program, "volume", "create", "-d", "depot", "--label", "a=b", "-o", "size=huge", n)
		if got := e.OK(t, program, "volume", "inspect", "-f", "{{.Driver}} {{.Scope}} {{.Mountpoint}} {{.Labels.a}} {{.Options.size}} {{.Status.mounts}}", n); got != "depot global "+d.path(n)+" b huge 0" {
			t.Errorf("%q", got)
		}
		e.OK(t, program, "run", "-d", "--name", n, "-v", n+":/d", "--mount", "type=volume,src="+n+"-two,dst=/two,volume-driver=depot", "busybox", "sleep", "600")
		e.OK(t, program, "exec", n, "sh", "-c", "echo data >/d/f")
		if got, err := os.ReadFile(filepath.Join(d.path(n), "f")); err != nil || string(got) != "data\n" {
			t.Errorf("%q, %v", got, err)
		}
		if got := e.OK(t, program, "inspect", "-f", "{{range .Mounts}}{{.Name}} {{.Driver}} {{.Source}}\n{{end}}", n); got != n+" depot "+d.path(n)+"\n"+n+"-two depot "+d.path(n+"-two") {
			t.Errorf("%q", got)
		}
		if d.users(n) != 1 || d.users(n+"-two") != 1 {
			t.Errorf("mounted %d and %d times", d.users(n), d.users(n+"-two"))
		}
		// Another engine finds it in use.
		e.Kill()
		e.Run(t)
		if d.users(n) != 1 {
			t.Errorf("the next engine has it mounted %d times", d.users(n))
		}
		e.OK(t, program, "rm", "-f", n)
		harness.Eventually(t, func() (bool, string) {
			return d.users(n) == 0 && d.users(n+"-two") == 0, "it stays mounted after the last use"
		})
		if got := e.OK(t, program, "volume", "ls", "-q", "--filter", "driver=depot"); got != n+"\n"+n+"-two" {
			t.Errorf("%q", got)
		}
		// What only the plugin knows is found there, too.
		if err := os.Mkdir(d.path(n+"-foreign"), 0o755); err != nil {
			t.Fatal(err)
		}
		if got := e.OK(t, program, "volume", "ls", "--filter", "name=foreign", "--format", "{{.Driver}} {{.Name}}"); got != "depot "+n+"-foreign" {
			t.Errorf("%q", got)
		}
		e.OK(t, program, "run", "--rm", "-v", n+"-foreign:/d", "busybox", "touch", "/d/here")
		if _, err := os.Stat(filepath.Join(d.path(n+"-foreign"), "here")); err != nil {
			t.Error(err)
		}
		for args, want := range map[string]string{
			"volume create -d depot -o fail=1 " + n + "-no": "create " + n + "-no: VolumeDriver.Create: no room for " + n + "-no",
			"volume create -d nosuch " + n + "-no":          `error looking up volume plugin nosuch: plugin "nosuch" not found`,
			"volume create -d local " + n:                   "a volume of this name exists with the driver depot",
		} {
			if r := e.Do(t, program, "", strings.Fields(args)...); r.Code == 0 || !strings.Contains(r.Stderr, want) {
				t.Errorf("%s", r)
			}
		}
		// A plugin is told that nobody has its volume mounted before it is to remove it.
		anonymous := []string{"--mount", "type=volume,dst=/d,volume-driver=depot", "busybox"}
		e.OK(t, program, append(append([]string{"run", "--rm"}, anonymous...), "true")...)
		e.OK(t, program, append(append([]string{"run", "-d", "--name", n + "-anonymous"}, anonymous...), "sleep", "600")...)
		e.OK(t, program, "rm", "-fv", n+"-anonymous")
		harness.Eventually(t, func() (bool, string) {
			left, _ := os.ReadDir(d.dir)
			return len(left) == 3, fmt.Sprintf("volumes in the plugin: %v", left) // those with names
		})
		e.OK(t, program, "volume", "prune", "-af")
		// A plugin that fails harms its own volumes only.
		d.set("out of order")
		if r := e.Do(t, program, "", "run", "--rm", "-v", n+":/d", "busybox", "true"); r.Code != 125 || !strings.Contains(r.Stderr, "error while mounting volume "+n+": VolumeDriver.Mount: out of order") {
			t.Errorf("%s", r)
		}
		if r := e.Do(t, program, "", "volume", "rm", n); r.Code == 0 || !strings.Contains(r.Stderr, "remove "+n+": VolumeDriver.Remove: out of order") {
			t.Errorf("%s", r)
		}
		e.OK(t, program, "volume", "ls")
		if got := e.OK(t, program, "volume", "inspect", "-f", "{{.Name}} {{.Status.error}}", n); got != n+" VolumeDriver.Get: out of order" {
			t.Errorf("%q", got)
		}
		d.set("")
		e.OK(t, program, "volume", "rm", n, n+"-two", n+"-foreign")
		if left, _ := os.ReadDir(d.dir); len(left) > 0 {
			t.Errorf("left in the plugin: %v", left)
		}
	})
	e.OK(t, "cleat", "volume", "create", "-d", "depot", "kept")
	e.OK(t, "docker", "run", "--rm", "-v", "kept:/d", "busybox", "touch", "/d/f")
	e.OK(t, "cleat", "volume", "clone", "kept", "copied")
	if got := e.OK(t, "docker", "run", "--rm", "-v", "copied:/d", "busybox", "ls", "/d"); got != "f" {
		t.Errorf("%q", got)
	}
	harness.Eventually(t, func() (bool, string) { return d.users("kept") == 0, fmt.Sprintf("mounted %d times", d.users("kept")) })
	// A plugin that is gone for good.
	d.stop()
	if r := e.Docker(t, "volume", "rm", "kept"); r.Code == 0 || !strings.Contains(r.Stderr, `plugin "depot" not found`) {
		t.Errorf("%s", r)
	}
	e.OK(t, "docker", "volume", "rm", "-f", "kept", "copied")
}
