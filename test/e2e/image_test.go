package e2e

import (
	"archive/tar"
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

func TestPullTagListHistoryRemove(t *testing.T) {
	reg := harness.StartRegistry(t, "busybox")
	e := harness.Start(t, harness.Options{Args: []string{"--registry-mirror", "http://" + reg.Addr}})
	each(t, func(t *testing.T, program string) {
		r := e.Do(t, program, "", "pull", "busybox")
		for _, want := range []string{"Using default tag: latest\n", "latest: Pulling from library/busybox\n", "Pull complete", "Digest: sha256:", "Status: Downloaded newer image for busybox:latest\n", "docker.io/library/busybox:latest\n"} {
			if !strings.Contains(r.Stdout, want) {
				t.Errorf("pull says no %q: %s", want, r)
			}
		}
		if r := e.Do(t, program, "", "pull", "busybox:latest"); !strings.Contains(r.Stdout, "Status: Image is up to date for busybox:latest") {
			t.Errorf("%s", r)
		}
		if got := e.OK(t, program, "pull", "-q", reg.Addr+"/library/busybox"); got != reg.Addr+"/library/busybox:latest" {
			t.Errorf("%q", got)
		}
		e.OK(t, program, "tag", "busybox", "mine/box:v1")
		if got := e.OK(t, program, "images", "--format", "{{.Repository}}:{{.Tag}}", "mine/box"); got != "mine/box:v1" {
			t.Errorf("%q", got)
		}
		id := e.OK(t, program, "images", "-q", "--no-trunc", "mine/box")
		if got := e.OK(t, program, "image", "inspect", "-f", "{{.Id}} {{index .Config.Cmd 0}}", "busybox"); got != id+" sh" {
			t.Errorf("%q, want %q", got, id)
		}
		if got := e.OK(t, program, "history", "-q", "busybox"); got == "" {
			t.Error("no history")
		}
		if r := e.Do(t, program, "", "rmi", "mine/box:v1"); r.Stdout != "Untagged: mine/box:v1\n" {
			t.Errorf("%s", r)
		}
		c := e.OK(t, program, "create", "busybox")
		e.OK(t, program, "rmi", reg.Addr+"/library/busybox")
		if r := e.Do(t, program, "", "rmi", "busybox"); r.Code == 0 || !strings.Contains(r.Stderr, "is using") || !strings.Contains(r.Stderr, c[:12]) {
			t.Errorf("%s", r)
		}
		e.OK(t, program, "rmi", "-f", "busybox")
		// the container's layers stay while it needs them
		if r := e.Do(t, program, "", "start", "-a", c); r.Code != 0 {
			t.Errorf("%s", r)
		}
		e.OK(t, program, "rm", c)
		e.OK(t, program, "rmi", id) // forced away by name, it stayed without one
		if got := e.OK(t, program, "images", "-q"); got != "" {
			t.Errorf("left: %q", got)
		}
		if r := e.Do(t, program, "", "run", "--rm", "busybox", "echo", "pulled by run"); !strings.Contains(r.Stdout, "pulled by run") || !strings.Contains(r.Stderr, "Unable to find image 'busybox:latest' locally") {
			t.Errorf("%s", r)
		}
		e.OK(t, program, "rmi", "busybox")
	})
}

func TestRegistryTrouble(t *testing.T) {
	reg := harness.StartRegistry(t, "busybox")
	answer := func(status int, body string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if status == http.StatusUnauthorized {
				w.Header().Set("WWW-Authenticate", `Basic realm="here"`)
			}
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		}))
		t.Cleanup(s.Close)
		return strings.TrimPrefix(s.URL, "http://")
	}
	e := harness.Start(t, harness.Options{Args: []string{"--registry-mirror", "http://" + reg.Addr}})
	each(t, func(t *testing.T, program string) {
		for _, c := range []struct{ what, ref, text string }{
			{"unknown repository", reg.Addr + "/no/such", "pull access denied for " + reg.Addr + "/no/such, repository does not exist or may require 'docker login'"},
			{"unknown tag", reg.Addr + "/library/busybox:no-such", "manifest for " + reg.Addr + "/library/busybox:no-such not found: manifest unknown"},
			{"upper case", "Ubuntu", "must be lowercase"},
			{"unauthorized", answer(401, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`) + "/x", "login"},
			{"too many requests", answer(429, `{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}`) + "/x", "toomanyrequests"},
			{"registry is down", "127.0.0.1:1/x", "cannot reach the registry at 127.0.0.1:1: connection refused"},
		} {
			if r := e.Do(t, program, "", "pull", c.ref); r.Code != 1 || !strings.Contains(strings.ToLower(r.Stderr), c.text) {
				t.Errorf("%s: want %q: %s", c.what, c.text, r)
			}
		}
	})
	if got := e.OK(t, "cleat", "images", "-aq"); got != "" {
		t.Errorf("failed pulls left %s", got)
	}
}

func TestBrokenArchives(t *testing.T) {
	e := engine(t, "busybox")
	whole, err := os.ReadFile(harness.Images(t, "busybox")[0])
	if err != nil {
		t.Fatal(err)
	}
	before := e.OK(t, "cleat", "images", "-aq")
	escape := &bytes.Buffer{}
	tw := tar.NewWriter(escape)
	if err := tw.WriteHeader(&tar.Header{Name: "../../etc/evil", Mode: 0o644, Size: 1}); err != nil {
		t.Fatal(err)
	}
	tw.Write([]byte("x"))
	tw.Close()
	// one byte of the layer differs: its digest does not match any more
	bad := bytes.Clone(whole)
	if i := bytes.LastIndex(bad, []byte("root:x:0:0:root")); i > 0 {
		bad[i] ^= 1
	} else {
		for i := len(bad) / 2; ; i++ {
			if bad[i] != 0 {
				bad[i] ^= 0xff
				break
			}
		}
	}
	dir := t.TempDir()
	exported := e.OK(t, "cleat", "create", "busybox")
	e.OK(t, "cleat", "export", "-o", filepath.Join(dir, "export.tar"), exported)
	e.OK(t, "cleat", "rm", exported)
	filesystem, err := os.ReadFile(filepath.Join(dir, "export.tar"))
	if err != nil {
		t.Fatal(err)
	}
	each(t, func(t *testing.T, program string) {
		for _, c := range []struct {
			what    string
			archive []byte
			text    string
		}{
			{"nonsense", []byte(strings.Repeat("no tar ", 999)), "damaged or not a tar archive"},
			{"cut off", whole[:len(whole)/3], "damaged or not a tar archive: unexpected EOF"},
			{"escaping", escape.Bytes(), "../../etc/evil"},
			{"corrupt", bad, "the image archive is damaged: blobs/sha256/"},
			{"a container's files", filesystem, "make an image of it by import"},
		} {
			f := filepath.Join(dir, "a.tar")
			if err := os.WriteFile(f, c.archive, 0o600); err != nil {
				t.Fatal(err)
			}
			if r := e.Do(t, program, "", "load", "-i", f); r.Code != 1 || r.Stdout != "" || !strings.Contains(r.Stderr, c.text) {
				t.Errorf("%s: want %q: %s", c.what, c.text, r)
			}
		}
	})
	if after := e.OK(t, "cleat", "images", "-aq"); sorted(after) != sorted(before) {
		t.Errorf("broken archives left images: %q, before %q", after, before)
	}
	if _, err := os.Stat("/etc/evil"); err == nil {
		t.Error("an archive wrote outside of the store")
	}
}
