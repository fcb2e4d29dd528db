package e2e

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/test/harness"
)

// edits changes a filesystem in every way that an overlay notes in one of its own.
const edits = `set -e
echo new >/new; echo in >/d/f; mkdir -p /d/e/m/p/t/y
echo more >>/etc/passwd; chmod 700 /root; rm /etc/group; rm -r /var/spool
rm -r /var/www; mkdir /var/www; echo w >/var/www/w; mkfifo /d/pipe; ln -s /nowhere /d/l; ln /d/f /d/h
touch /gone; rm /gone; mv /home /moved; chmod 4755 /d/f
exec sleep 600`

func TestDiffCommitExport(t *testing.T) {
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		c, image := name(t), name(t)
		t.Cleanup(func() { e.Cleat(t, "rmi", "-f", image+":base") })
		remove(t, e, c, c+"-base", c+"-2")
		e.OK(t, program, "run", "--name", c+"-base", "busybox", "sh", "-c", "mkdir -p /var/spool/x /var/www/old /home/x /root; chmod 755 /root; echo g >/etc/group")
		e.OK(t, program, "commit", c+"-base", image+":base")
		e.OK(t, program, "run", "-d", "--name", c, "-v", "/vol", "-e", "FROM=run", "-w", "/d", "-p", "0:80", image+":base", "sh", "-c", edits)
		e.OK(t, program, "exec", c, "sh", "-c", "until [ -u /d/f ]; do sleep 0.01; done; echo hidden >/vol/hidden")
		check := func(state string) {
			t.Helper()
			list := strings.Split(e.OK(t, program, "diff", c), "\n")
			for _, want := range []string{
				"A /new", "A /d", "A /d/f", "A /d/e/m/p/t/y", "A /d/pipe", "A /d/l", "A /d/h", "C /etc", "C /etc/passwd", "D /etc/group", "C /root",
				"C /var", "D /var/spool", "A /var/www/w", "D /var/www/old", "A /vol", "A /moved", "D /home",
			} {
				if !slices.Contains(list, want) {
					t.Errorf("%s: no %q in %q", state, want, list)
				}
			}
			for _, line := range list {
				for _, never := range []string{" /etc/hosts", " /etc/resolv.conf", " /etc/hostname", " /proc", " /sys", " /dev", " /gone", " /vol/", " /bin"} {
					if strings.Contains(line, never) {
						t.Errorf("%s: %q", state, line)
					}
				}
			}
			if !slices.IsSortedFunc(list, func(a, b string) int { return strings.Compare(a[2:], b[2:]) }) {
				t.Errorf("%s: not sorted: %q", state, list)
			}
		}
		check("running")
		id := e.OK(t, program, "commit", "-a", "me", "-m", "why", "-c", `CMD ["cat","/new"]`, "-c", "ENV ADDED=$FROM", "-c", "LABEL l=1", "-c", "EXPOSE 81", c, image+":v1")
		if got := e.OK(t, program, "run", "--rm", image+":v1"); got != "new" {
			t.Errorf("the image's command says %q", got)
		}
		script := `cat /d/h; stat -c '%a %h' /d/f; readlink /d/l; tail -n 1 /etc/passwd; stat -c %a /root; ls -d /etc/group /var/spool /home /gone 2>/dev/null; cat /var/www/w; ls /vol /moved | wc -l; echo $ADDED; pwd; [ -p /d/pipe ] && echo pipe`
		want := "in\n4755 2\n/nowhere\nmore\n700\nw\n4\nrun\n/d\npipe"
		if got := e.OK(t, program, "run", "--rm", image+":v1", "sh", "-c", script); got != want {
			t.Errorf("the image has\n%s\nwant\n%s", got, want)
		}
		if got := e.OK(t, program, "image", "inspect", "-f", "{{.Id}} {{.Author}} {{.Comment}} {{.Config.Labels.l}} {{len .RootFS.Layers}}", image+":v1"); !strings.HasPrefix(got, id+" me why 1 ") {
			t.Errorf("%s", got)
		}
		if got := e.OK(t, program, "history", "--format", "{{.Comment}}", image+":v1"); !strings.HasPrefix(got, "why") {
			t.Errorf("history %q", got)
		}
		if got := e.OK(t, program, "inspect", "-f", "{{.State.Status}}", c); got != "running" {
			t.Errorf("after the commit: %s", got)
		}
		e.OK(t, program, "stop", "-t", "0", c)
		check("stopped")
		// An image of an image of the stopped container, without a name.
		e.OK(t, program, "run", "--name", c+"-2", image+":v1", "sh", "-c", "rm /new; echo 2 >/two")
		second := e.OK(t, program, "container", "commit", c+"-2")
		if r := e.Do(t, program, "", "run", "--rm", second, "sh", "-c", "cat /two; [ -e /new ] || echo none"); r.Stdout != "2\nnone\n" {
			t.Errorf("%s", r)
		}
		e.OK(t, program, "rmi", second)
		for _, bad := range [][]string{{"commit", "-c", "RUN x", c}, {"commit", c, "UPPER"}, {"commit", "nothing"}, {"diff", "nothing"}, {"export", "nothing"}} {
			if r := e.Do(t, program, "", bad...); r.Code == 0 || r.Stderr == "" {
				t.Errorf("%s", r)
			}
		}

		file := filepath.Join(t.TempDir(), "out.tar")
		e.OK(t, program, "export", "-o", file, c)
		names := tarNames(t, file)
		for n, there := range map[string]bool{"new": true, "d/e/m/p/t/y/": true, "bin/busybox": true, "vol/": true, "vol/hidden": false, "etc/group": false, "home/": false} {
			if slices.Contains(names, n) != there {
				t.Errorf("export: %s is there: %v", n, !there)
			}
		}
		imported := e.OK(t, program, "import", "-c", `CMD ["cat","/new"]`, "-m", "from a file", file, image+":imported")
		if got := e.OK(t, program, "run", "--rm", image+":imported"); got != "new" {
			t.Errorf("%q", got)
		}
		if got := e.OK(t, program, "image", "inspect", "-f", "{{.Id}} {{.Comment}} {{.Architecture}}", image+":imported"); !strings.HasPrefix(got, imported+" from a file ") {
			t.Errorf("%q, imported %q", got, imported)
		}
		e.OK(t, program, "rm", "-v", c+"-2")
		e.OK(t, program, "rm", "-v", c, c+"-base")
		e.OK(t, program, "rmi", image+":imported", image+":v1", image+":base")
	})
}

func tarNames(t *testing.T, file string) []string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var names []string
	for tr := tar.NewReader(f); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
}

func TestNothingChanged(t *testing.T) {
	e := engine(t, "busybox", "hello-world")
	for _, image := range []string{"busybox", "hello-world"} {
		c := name(t) + "-" + image
		remove(t, e, c)
		if image == "busybox" {
			e.OK(t, "docker", "run", "--name", c, image, "true")
		} else {
			e.OK(t, "docker", "run", "--name", c, image)
		}
		if got := e.OK(t, "docker", "diff", c); got != "" {
			t.Errorf("%s: %q", image, got)
		}
		id := e.OK(t, "docker", "commit", c)
		if got := e.OK(t, "cleat", "image", "inspect", "-f", "{{len .RootFS.Layers}}", id); got != e.OK(t, "cleat", "image", "inspect", "-f", "{{len .RootFS.Layers}}", image) {
			t.Errorf("%s: a layer of nothing: %s", image, got)
		}
		e.OK(t, "cleat", "rmi", id)
	}
}

func TestImportFromElsewhere(t *testing.T) {
	e := engine(t)
	archive := tarOf("file", "content")
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/a.tar" {
			http.NotFound(w, r)
			return
		}
		io.WriteString(w, archive)
	}))
	defer s.Close()
	each(t, func(t *testing.T, program string) {
		if r := e.Do(t, program, archive, "import", "--platform", "linux/arm64", "-", "mine/imported"); !strings.HasPrefix(r.Stdout, "sha256:") {
			t.Fatalf("%s", r)
		}
		if got := e.OK(t, program, "image", "inspect", "-f", "{{.Os}}/{{.Architecture}} {{.Comment}}", "mine/imported"); got != "linux/arm64 Imported from -" {
			t.Errorf("%q", got)
		}
		e.OK(t, program, "rmi", "mine/imported")
		r := e.Do(t, program, "", "import", s.URL+"/a.tar")
		lines := strings.Split(strings.TrimSpace(r.Stdout), "\n")
		id := lines[len(lines)-1]
		if !strings.HasPrefix(id, "sha256:") {
			t.Fatalf("%s", r)
		}
		e.OK(t, program, "image", "rm", id)
		for _, bad := range []struct{ stdin, source, text string }{
			{"", s.URL + "/missing", "404"}, {"", "/no/such/file", "no such file"}, {"garbage" + strings.Repeat("x", 2000), "-", "not a tar archive"}, {"", "-", "empty"},
		} {
			if r := e.Do(t, program, bad.stdin, "import", bad.source); r.Code == 0 || !strings.Contains(r.Stderr, bad.text) {
				t.Errorf("%s: %s", bad.source, r)
			}
		}
	})
}

// TestSaveAndLoadElsewhere moves images to another engine, and looks at the archive as
// other programs do.
func TestSaveAndLoadElsewhere(t *testing.T) {
	e := engine(t, "busybox", "hello-world")
	other := harness.Start(t, harness.Options{})
	each(t, func(t *testing.T, program string) {
		e.OK(t, program, "tag", "busybox", "mine/saved:1")
		e.OK(t, program, "tag", "hello-world", "mine/saved:2")
		defer e.OK(t, program, "rmi", "mine/saved:1", "mine/saved:2")
		file := filepath.Join(t.TempDir(), "saved.tar")
		e.OK(t, program, "save", "-o", file, "mine/saved")
		names := tarNames(t, file)
		for _, n := range []string{"oci-layout", "index.json", "manifest.json"} {
			if !slices.Contains(names, n) {
				t.Errorf("no %s in %q", n, names)
			}
		}
		r := other.Do(t, program, "", "load", "-i", file)
		if !strings.Contains(r.Stdout, "Loaded image: mine/saved:1\n") || !strings.Contains(r.Stdout, "Loaded image: mine/saved:2\n") {
			t.Errorf("%s", r)
		}
		for _, tag := range []string{"1", "2"} {
			id := e.OK(t, program, "image", "inspect", "-f", "{{.Id}}", "mine/saved:"+tag)
			if got := other.OK(t, program, "image", "inspect", "-f", "{{.Id}}", "mine/saved:"+tag); got != id {
				t.Errorf("the id was %s and is %s", id, got)
			}
		}
		if got := other.OK(t, program, "run", "--rm", "mine/saved:1", "echo", "hi"); got != "hi" {
			t.Errorf("%q", got)
		}
		other.OK(t, program, "rmi", "mine/saved:1", "mine/saved:2")
		id := e.OK(t, program, "image", "inspect", "-f", "{{.Id}}", "busybox")
		piped := e.Command(t, program, "image", "save", id)
		archive, err := piped.Output()
		if err != nil {
			t.Fatal(err)
		}
		if r := other.Do(t, program, string(archive), "image", "load"); !strings.Contains(r.Stdout, "Loaded image ID: "+id) {
			t.Errorf("%s", r)
		}
		other.OK(t, program, "rmi", id)
		for _, bad := range [][]string{{"save", "-o", file, "nothing"}, {"save", "-o", "/no/dir/x", "busybox"}, {"save", "-o", "/dev/null", "busybox"}, {"save", "--platform", "linux/s390x", "-o", file, "busybox"}} {
			if r := e.Do(t, program, "", bad...); r.Code == 0 || r.Stderr == "" {
				t.Errorf("%s", r)
			}
		}
		if again := tarNames(t, file); !slices.Equal(again, names) {
			t.Error("a save that failed has changed the file")
		}
	})
}

func TestCommitAPI(t *testing.T) {
	e := engine(t, "busybox")
	g := gophers(t, e)
	id := g.busybox("exec sleep 600")
	if _, err := g.ContainerStart(g.ctx, id, client.ContainerStartOptions{}); err != nil {
		t.Fatal(err)
	}
	since := now()
	res, err := g.ContainerCommit(g.ctx, id, client.ContainerCommitOptions{
		Reference: "mine/api:x", Comment: "c", Config: &container.Config{Cmd: []string{"true"}, Env: []string{"A=1"}},
	})
	if err != nil || !strings.HasPrefix(res.ID, "sha256:") {
		t.Fatalf("%+v, %v", res, err)
	}
	defer e.OK(t, "cleat", "rmi", "mine/api:x")
	got, err := g.ImageInspect(g.ctx, "mine/api:x")
	if err != nil || !slices.Equal(got.Config.Cmd, []string{"true"}) || !slices.Contains(got.Config.Env, "A=1") || len(got.Config.Env) < 2 {
		t.Errorf("%+v, %v", got.Config, err)
	}
	events := e.OK(t, "docker", "events", "--since", since, "--until", now(), "--format", "{{.Type}} {{.Action}} {{.Actor.Attributes.imageRef}} {{.Actor.Attributes.imageID}}")
	if !strings.Contains(events, "container commit mine/api:x "+res.ID) {
		t.Errorf("events: %s", events)
	}
	for _, tc := range []struct {
		method, path, body string
		status             int
		text               string
	}{
		{"POST", "/commit", "", 400, "container is empty"},
		{"POST", "/commit?container=nothing", "", 404, "No such container: nothing"},
		{"POST", "/commit?container=" + id + "&changes=FROM+x", "", 400, "from is not a valid change command"},
		{"POST", "/commit?container=" + id + "&repo=a:b:c", "", 400, "invalid reference format"},
		{"GET", "/containers/nothing/changes", "", 404, "No such container: nothing"},
		{"GET", "/images/get?names=nothing", "", 404, "No such image: nothing:latest"},
		{"GET", "/images/get", "", 400, "no image to save"},
		{"GET", "/images/nothing/get", "", 404, "No such image"},
	} {
		status, header, body := request(t, e, tc.method, "/v1.51"+tc.path, tc.body)
		if status != tc.status || !strings.Contains(body, tc.text) {
			t.Errorf("%s: %d %s", tc.path, status, body)
		}
		if !json.Valid([]byte(body)) || header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %s %s", tc.path, header.Get("Content-Type"), body)
		}
	}
	if status, header, body := request(t, e, "GET", "/images/busybox/get", ""); status != 200 || header.Get("Content-Type") != "application/x-tar" || !bytes.Contains([]byte(body), []byte("manifest.json")) {
		t.Errorf("%d %v", status, header)
	}
}

// TestCommitWithoutTriggers: what an image says for those who build on it is not said again by a commit of its container.
func TestCommitWithoutTriggers(t *testing.T) {
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		n := name(t)
		base, made := strings.ToLower(n)+"-base", strings.ToLower(n)+"-made"
		remove(t, e, n, n+"-base")
		e.OK(t, program, "create", "--name", n+"-base", "busybox")
		e.OK(t, program, "commit", "--change", "ONBUILD RUN true", n+"-base", base)
		t.Cleanup(func() { e.OK(t, "cleat", "rmi", "-f", made, base) })
		e.OK(t, program, "create", "--name", n, base)
		e.OK(t, program, "commit", n, made)
		for image, want := range map[string]string{base: "1", made: "0"} {
			if got := e.OK(t, program, "image", "inspect", "-f", "{{len .Config.OnBuild}}", image); got != want {
				t.Errorf("%s has %s triggers, want %s", image, got, want)
			}
		}
	})
}
