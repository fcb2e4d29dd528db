package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"strings"
	"testing"

	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/test/harness"
)

// withoutSearch is a registry that serves what the protocol demands and no more.
func withoutSearch(t *testing.T, registry string) string {
	u, err := url.Parse("http://" + registry)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(u)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/v2/") {
			http.NotFound(w, r)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func TestSearch(t *testing.T) {
	reg := harness.StartRegistry(t, "hello-world", "busybox")
	e := harness.Start(t, harness.Options{Args: []string{"--registry-mirror", "http://" + reg.Addr}})
	bare, guarded := withoutSearch(t, reg.Addr), newGuard(t, "bearer", false, reg.Addr).address()
	each(t, func(t *testing.T, program string) {
		for _, c := range []struct {
			args []string
			want string
		}{
			{[]string{"hello"}, "hello-world|true"},
			{[]string{"--filter", "is-official=true", "BUSY"}, "busybox|true"},
			{[]string{"--filter", "is-official=false", "busy"}, ""},
			{[]string{"--filter", "stars=1", "busy"}, ""},
			{[]string{reg.Addr + "/o"}, reg.Addr + "/library/busybox|true\n" + reg.Addr + "/library/hello-world|true"},
			{[]string{"--limit", "1", reg.Addr + "/o"}, reg.Addr + "/library/busybox|true"},
			{[]string{reg.Addr + "/nothing"}, ""},
			{[]string{bare + "/hello"}, bare + "/library/hello-world|"},
		} {
			r := e.Do(t, program, "", append([]string{"search", "--format", `{{.Name}}|{{if .IsOfficial}}true{{end}}`}, c.args...)...)
			if r.Code != 0 || r.Line() != c.want {
				t.Errorf("want %q: %s", c.want, r)
			}
		}
		table := e.OK(t, program, "search", "--no-trunc", bare+"/hello")
		if lines := strings.Split(table, "\n"); len(lines) != 2 || strings.Join(strings.Fields(lines[0]), " ") != "NAME DESCRIPTION STARS OFFICIAL" || !strings.Contains(lines[1], "in the catalogue of "+bare+", which has no search") {
			t.Errorf("%s", table)
		}
		for what, c := range map[string]struct{ args, text string }{
			"scheme":      {"http://" + reg.Addr + "/x", "should not have a scheme"},
			"limit":       {"--limit 101 x", "limit 101 is outside the range of [1, 100]"},
			"filter":      {"--filter colour=red x", "invalid filter 'colour'"},
			"no registry": {"127.0.0.1:1/x", "cannot reach the registry at 127.0.0.1:1"},
			"denied":      {guarded + "/x", "needs a login"},
		} {
			if r := e.Do(t, program, "", append([]string{"search"}, strings.Fields(c.args)...)...); r.Code != 1 || !strings.Contains(r.Stderr, c.text) {
				t.Errorf("%s: %s", what, r)
			}
		}
		if r := e.Do(t, program, guardSecret, "login", "-u", guardUser, "--password-stdin", guarded); r.Code != 0 {
			t.Fatalf("%s", r)
		}
		if got := e.OK(t, program, "search", "--format", "{{.Name}}", guarded+"/hello"); got != guarded+"/library/hello-world" {
			t.Errorf("with credentials: %q", got)
		}
		e.OK(t, program, "logout", guarded)
	})
	py := fmt.Sprintf("import docker; c = docker.DockerClient('unix://%s')\nprint(c.images.search('hello')[0]['name'], c.api.inspect_distribution(%q)['Platforms'][0]['os'])", e.Socket, reg.Addr+"/library/hello-world")
	if out, err := exec.Command("/usr/bin/python3", "-c", py).CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "hello-world linux" {
		t.Errorf("%v: %s", err, out)
	}
}

func TestDistributionInspect(t *testing.T) {
	reg := harness.StartRegistry(t, "hello-world")
	e := engine(t)
	c := gophers(t, e)
	res, err := c.DistributionInspect(c.ctx, reg.Addr+"/library/hello-world", client.DistributionInspectOptions{})
	if err != nil || len(res.Platforms) != 1 || res.Platforms[0].OS != "linux" || res.Descriptor.Digest == "" || res.Descriptor.Size == 0 {
		t.Fatalf("%+v, %v", res, err)
	}
	byDigest, err := c.DistributionInspect(c.ctx, reg.Addr+"/library/hello-world@"+res.Descriptor.Digest.String(), client.DistributionInspectOptions{})
	if err != nil || byDigest.Descriptor.Digest != res.Descriptor.Digest {
		t.Errorf("%+v, %v", byDigest, err)
	}
	p := plainly(t, e)
	guarded := newGuard(t, "basic", false, reg.Addr).address()
	p.want(401, "GET", "/distribution/"+guarded+"/library/hello-world/json", "", "pull access denied")
	p.want(404, "GET", "/distribution/"+reg.Addr+"/library/hello-world:none/json", "", "not found")
	p.want(400, "GET", "/distribution/UPPER/json", "", "must be lowercase")
}
