package e2e

import (
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// A service's pull_policy counts for pull, --policy wins over it, and what is called latest is pulled anew; push and pull
// are silent where they are asked to be.
func TestComposePullPolicies(t *testing.T) {
	e := builder(t)
	at := harness.StartRegistry(t).Addr + "/team/policies"
	a := compose(t, e, map[string]string{"Dockerfile": "FROM scratch\nCMD [\"/none\"]\n", "compose.yaml": `
services:
  built: {build: {context: ., tags: ['` + at + `']}, image: '` + at + `:1', pull_policy: build}
  once: {image: '` + at + `:1', pull_policy: missing}
  same: {image: '` + at + `:1', pull_policy: if_not_present}
  latest: {image: '` + at + `', pull_policy: missing}
  kept: {image: '` + at + `:never', pull_policy: never}
`})
	dropImages(t, e, at+":1", at+":latest")
	shown := func(args ...string) string {
		r := a.run(t, args...)
		if r.Code != 0 {
			t.Errorf("%s", r)
		}
		return r.Stdout + r.Stderr
	}
	a.ok(t, "build", "-q")
	if out := shown("push", "-q"); out != "" {
		t.Errorf("push -q says %q", out)
	}
	for _, c := range []struct {
		args  []string
		pulls bool
	}{
		{[]string{"once"}, false},
		{[]string{"once", "same"}, false},
		{[]string{"latest"}, true},
		{[]string{"built"}, false},
		{[]string{"kept"}, false},
		{[]string{"--policy", "always", "once"}, true},
		{[]string{"--policy", "always", "built"}, true},
		{[]string{"--policy", "missing", "built"}, false},
	} {
		out := shown(append([]string{"pull"}, c.args...)...)
		if strings.Contains(out, "Pulled") != c.pulls {
			t.Errorf("pull %q: %s", c.args, out)
		}
	}
	if out := shown("pull", "-q", "latest"); out != "" {
		t.Errorf("pull -q says %q", out)
	}
	e.OK(t, "cleat", "rmi", at+":1")
	if out := shown("pull", "once"); !strings.Contains(out, "Pulled") {
		t.Errorf("pull of what is missing: %s", out)
	}
}

// images lists the containers of run, too, as docker compose does.
func TestComposeImagesOfRuns(t *testing.T) {
	e := engine(t, "busybox")
	a := compose(t, e, map[string]string{"compose.yaml": "services: {web: {image: busybox, command: sleep 1000}}\n"})
	name := a.name + "-by-hand"
	a.ok(t, "run", "-d", "--name", name, "web")
	if got := a.ok(t, "images"); !strings.Contains(got, name) {
		t.Errorf("images lacks the container of run: %s", got)
	}
}
