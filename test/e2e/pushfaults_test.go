package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/test/harness"
)

// bulky makes an image with so many bytes that cannot be compressed.
func bulky(t *testing.T, e *harness.Engine, image string, megabytes int) {
	t.Helper()
	made := name(t)
	remove(t, e, made)
	e.OK(t, "cleat", "run", "--name", made, "busybox", "sh", "-c", fmt.Sprintf("dd if=/dev/urandom of=/bulk bs=1M count=%d 2>/dev/null", megabytes))
	e.OK(t, "cleat", "commit", made, image)
	e.OK(t, "cleat", "rm", made)
	t.Cleanup(func() { e.Cleat(t, "rmi", "-f", image) })
}

// uploading reports whether a registry is in the middle of taking a blob of some size.
func uploading(reg *harness.Registry) bool {
	found, _ := filepath.Glob(reg.Data + "/docker/registry/v2/repositories/*/_uploads/*/data")
	for _, f := range found {
		if info, err := os.Stat(f); err == nil && info.Size() > 1<<20 {
			return true
		}
	}
	return false
}

// TestRegistryKilledDuringPush: the push waits for the registry and goes on.
func TestRegistryKilledDuringPush(t *testing.T) {
	reg := harness.StartRegistry(t)
	e := engine(t, "busybox")
	image := reg.Addr + "/bulky:v1"
	bulky(t, e, image, 64)
	for try := 1; ; try++ {
		cmd := e.Command(t, "docker", "push", image)
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		killed := false
		for deadline := time.Now().Add(harness.Patience); !killed && time.Now().Before(deadline) && len(done) == 0; {
			if killed = uploading(reg); killed {
				reg.Kill()
				reg.Run(t)
			}
		}
		select {
		case err := <-done:
			if err != nil || !strings.Contains(out.String(), "v1: digest: sha256:") {
				t.Fatalf("%v: %s", err, out.String())
			}
		case <-time.After(harness.Patience):
			cmd.Process.Kill()
			t.Fatalf("the push hangs: %s", out.String())
		}
		if strings.Contains(out.String(), "Retrying in ") {
			break
		}
		if try == 5 {
			t.Fatal("the registry was never killed in the middle of an upload")
		}
		reg.Kill() // it was too fast: once more, from nothing
		if err := os.RemoveAll(reg.Data); err != nil {
			t.Fatal(err)
		}
		reg.Run(t)
	}
	there := harness.Start(t, harness.Options{})
	if got := there.OK(t, "docker", "run", "--rm", image, "wc", "-c", "/bulk"); got != fmt.Sprint(64<<20)+" /bulk" {
		t.Errorf("%q", got)
	}
}

// slow is a registry that takes the first bytes of a blob and then no more.
func slow(t *testing.T, registry string) (addr string, taken, dropped *atomic.Int32) {
	u, err := url.Parse("http://" + registry)
	if err != nil {
		t.Fatal(err)
	}
	taken, dropped = &atomic.Int32{}, &atomic.Int32{}
	proxy := httputil.NewSingleHostReverseProxy(u)
	proxy.ModifyResponse = func(r *http.Response) error { // uploads come here, too
		r.Header.Set("Location", strings.Replace(r.Header.Get("Location"), "http://"+registry, "", 1))
		return nil
	}
	proxy.ErrorLog = log.New(io.Discard, "", 0) // requests that were cancelled are what this is about
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/uploads/") && r.ContentLength > 1<<20:
			_, _ = io.CopyN(io.Discard, r.Body, 1<<20)
			taken.Add(1)
			buf := make([]byte, 1)
			for { // slower than anybody waits
				if _, err := r.Body.Read(buf); err != nil {
					panic(http.ErrAbortHandler)
				}
				time.Sleep(time.Millisecond)
			}
		case r.Method == http.MethodDelete:
			dropped.Add(1)
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(s.CloseClientConnections)
	return strings.TrimPrefix(s.URL, "http://"), taken, dropped
}

// TestCancelledPush leaves nothing, neither here nor at the registry.
func TestCancelledPush(t *testing.T) {
	reg := harness.StartRegistry(t)
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	each(t, func(t *testing.T, program string) {
		addr, taken, dropped := slow(t, reg.Addr)
		image := addr + "/bulky:v1"
		bulky(t, e, image, 8)
		cmd := e.Command(t, program, "push", image)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		harness.Eventually(t, func() (bool, string) { return taken.Load() > 0, "the registry gets nothing" })
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		// Docker's client ends with 0 where its reader of the records sees the interrupt first: that error names no signal.
		if err := cmd.Wait(); err == nil && program == "cleat" {
			t.Error("a push that was interrupted succeeds")
		}
		harness.Eventually(t, func() (bool, string) { return dropped.Load() > 0, "the registry still keeps the upload" })
		if got := e.OK(t, program, "search", "--format", "{{.Name}}", addr+"/bulky"); got != "" {
			t.Errorf("the registry has %s", got)
		}
		harness.Eventually(t, func() (bool, string) {
			left, err := os.ReadDir(filepath.Join(e.DataRoot, "images", "content", "ingest"))
			return len(left) == 0 && err == nil, fmt.Sprint(left, err)
		})
	})
}

// TestPushByTheSDKs reads the records of a push as programs do.
func TestPushByTheSDKs(t *testing.T) {
	reg := harness.StartRegistry(t)
	e := engine(t, "busybox")
	image := reg.Addr + "/sdk/x:v1"
	committed(t, e, "cleat", image, "for programs")
	c := gophers(t, e)
	res, err := c.ImagePush(c.ctx, image, client.ImagePushOptions{RegistryAuth: "e30="})
	if err != nil {
		t.Fatal(err)
	}
	var pushed struct {
		Tag, Digest string
		Size        int64
	}
	var layers []string
	for m, err := range res.JSONMessages(c.ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if m.Aux != nil {
			if err := json.Unmarshal(*m.Aux, &pushed); err != nil {
				t.Error(err)
			}
		}
		if m.Status == "Pushed" {
			layers = append(layers, m.ID)
		}
	}
	if pushed.Tag != "v1" || !strings.HasPrefix(pushed.Digest, "sha256:") || pushed.Size == 0 || len(layers) != 2 || len(layers[0]) != 12 {
		t.Errorf("%+v, layers %v", pushed, layers)
	}
	missing, err := c.ImagePush(c.ctx, reg.Addr+"/none:v1", client.ImagePushOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := missing.Wait(c.ctx); err == nil || !strings.Contains(err.Error(), "An image does not exist locally with the tag: "+reg.Addr+"/none") {
		t.Errorf("%v", err)
	}
	script := fmt.Sprintf(`
import docker
c = docker.DockerClient('unix://%s')
last = [r for r in c.images.push(%q, tag='v1', stream=True, decode=True)]
print(last[-1]['aux']['Digest'], any(r.get('status') == 'Layer already exists' for r in last))
print([r['error'] for r in c.images.push(%q, stream=True, decode=True) if 'error' in r])
`, e.Socket, reg.Addr+"/sdk/x", reg.Addr+"/none")
	out, err := exec.Command("/usr/bin/python3", "-c", script).CombinedOutput()
	if lines := strings.Split(strings.TrimSpace(string(out)), "\n"); err != nil || lines[0] != pushed.Digest+" True" || !strings.Contains(lines[1], "An image does not exist locally with the tag: "+reg.Addr+"/none") {
		t.Errorf("%v: %s", err, out)
	}
}

// TestPushRecordsOverTheWire has the very records that older programs read.
func TestPushRecordsOverTheWire(t *testing.T) {
	reg := harness.StartRegistry(t)
	e := engine(t, "busybox")
	image := reg.Addr + "/wire/x"
	e.OK(t, "cleat", "tag", "busybox", image+":v1")
	t.Cleanup(func() { e.Cleat(t, "rmi", image+":v1") })
	ctx, cancel := context.WithTimeout(context.Background(), harness.Patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://engine/v1.24/images/"+image+"/push?tag=v1", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Registry-Auth", "no base64 at all!")
	resp, err := plainly(t, e).http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var lines []string
	for s := bufio.NewScanner(resp.Body); s.Scan(); {
		lines = append(lines, s.Text())
	}
	text := strings.Join(lines, "\n")
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "application/json" {
		t.Errorf("%s, %v", resp.Status, resp.Header)
	}
	for _, want := range []string{
		`{"status":"The push refers to repository [` + image + `]"}`,
		`{"status":"Preparing","progressDetail":{},"id":"`,
		`{"status":"Pushed","progressDetail":{},"id":"`,
		`{"status":"v1: digest: sha256:`,
		`{"progressDetail":{},"aux":{"Tag":"v1","Digest":"sha256:`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
}
