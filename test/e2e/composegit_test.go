package e2e

import (
	"path/filepath"
	"strings"
	"testing"
)

// A project is read from a git repository, by -f and by an include, as docker compose reads it.
func TestComposeOfARepository(t *testing.T) {
	e := engine(t, "busybox")
	url, commit := gitServer(t, files{
		"compose.yaml":        "services:\n  web: {image: busybox, command: cat /src/page, volumes: ['./deploy:/src']}\n",
		"deploy/compose.yaml": "services:\n  inner: {build: {context: ., dockerfile_inline: \"FROM busybox\\nCOPY page /page\\n\"}, command: cat /page}\n",
		"deploy/page":         "of the repository\n",
	})
	a := compose(t, e, map[string]string{"compose.yaml": "include: [\"" + url + "#main:deploy\"]\n"})
	a.env = []string{"XDG_CACHE_HOME=" + t.TempDir()}
	for _, c := range []struct{ args []string }{{[]string{"-f", url}}, {[]string{"-f", url + "#v1"}}, {[]string{"-f", url + "#" + commit}}, {[]string{"-f", url + "#main:deploy/compose.yaml"}}} {
		ours, theirs := a.ok(t, append(c.args, "config", "--services")...), a.theirs(t).ok(t, append(c.args, "config", "--services")...)
		if ours != theirs {
			t.Errorf("%v: %q, stock %q", c.args, ours, theirs)
		}
	}
	if got := a.ok(t, "-f", url, "run", "--rm", "-T", "web"); got != "of the repository" {
		t.Errorf("a bound directory of the repository: %q", got)
	}
	if got := a.ok(t, "run", "--rm", "-T", "--quiet-build", "inner"); got != "of the repository" {
		t.Errorf("built from an included repository: %q", got)
	}
	e.Cleat(t, "rmi", "-f", a.name+"-inner")
	for where, want := range map[string]string{
		url + "#none":   "does not contain ref none",
		url + "#:none":  "is not there",
		url + "#:../..": "leads out of the repository",
		strings.Replace(url, "repo.git", "other.git", 1): "failed to access repository",
	} {
		if r := a.run(t, "-f", where, "config"); r.Code == 0 || !strings.Contains(r.Stderr, want) {
			t.Errorf("%s: want %q: %s", where, want, r)
		}
	}
	a.env = append(a.env, "COMPOSE_EXPERIMENTAL_GIT_REMOTE=false")
	if r := a.run(t, "-f", url, "config"); r.Code == 0 || !strings.Contains(r.Stderr, "disabled by COMPOSE_EXPERIMENTAL_GIT_REMOTE") {
		t.Errorf("%s", r)
	}
	a.env = nil
	replace(t, filepath.Join(a.dir, "compose.yaml"), "include: [\""+url+"#main:deploy\"]\n", "services: {}\n")
}
