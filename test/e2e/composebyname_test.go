package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Who names a project in the directory of another one means the first: neither the services of the other's file nor its
// hooks, providers and images are touched or run, as with docker compose.
func TestComposeByNameBesideAnotherFile(t *testing.T) {
	e := engine(t, "busybox")
	a := compose(t, e, map[string]string{"compose.yaml": `services:
  db: {image: "ours:1", command: sleep 1000, stop_signal: SIGKILL}
  web: {image: "ours:1", command: sleep 1000, stop_signal: SIGKILL, depends_on: [db]}
`})
	e.OK(t, "docker", "tag", "busybox", "others:1")
	t.Cleanup(func() { e.Docker(t, "rmi", "others:1") })
	elsewhere := &application{e: e, dir: contextDir(t, map[string]string{
		"compose.yaml": `services:
  web: {image: "others:1", post_start: [{command: [touch, /hooked]}], pre_stop: [{command: ["false"]}], depends_on: {cloud: {condition: service_started}}}
  cloud: {provider: {type: others-cloud}}
`,
		"others-cloud": "#!/bin/sh\n[ $2 = metadata ] || echo $@ >>called\n",
	}), name: a.name}
	if err := os.Chmod(filepath.Join(elsewhere.dir, "others-cloud"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, env := range []string{"NONE=", "COMPOSE_FILE=compose.yaml"} {
		e.OK(t, "docker", "tag", "busybox", "ours:1")
		a.ok(t, "up", "-d")
		elsewhere.env = []string{env, "PATH=" + elsewhere.dir + ":" + os.Getenv("PATH")}
		for _, step := range []struct{ verb, running string }{
			{"stop -t 0", ""}, {"start", "db\nweb"}, {"stop -t 0 db", "web"}, {"start db", "db\nweb"}, {"restart -t 0", "db\nweb"}, {"restart -t 0 web", "db\nweb"},
			{"pause", "db\nweb"}, {"unpause", "db\nweb"}, {"kill", ""}, {"start web", "db\nweb"}, {"exec -T web test ! -e /hooked", "db\nweb"},
			{"rm -sf db", "web"}, {"down -t 0 --rmi all nosuch", "web"}, {"down -t 0 --rmi all", ""},
		} {
			if r := elsewhere.run(t, strings.Fields(step.verb)...); r.Code != 0 {
				t.Errorf("%s: %+v", step.verb, r)
			}
			if got := a.ok(t, "ps", "--services"); got != step.running {
				t.Errorf("running after %s: %q", step.verb, got)
			}
		}
		if left := a.ids(t); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
		if os.Remove(filepath.Join(elsewhere.dir, "called")) == nil {
			t.Error("the other project's provider was run")
		}
		elsewhere.ok(t, "down", "--rmi", "all") // though it has nothing any more
		e.OK(t, "docker", "image", "inspect", "others:1")
		_ = os.Remove(filepath.Join(elsewhere.dir, "called"))
	}
}

// In its own directory a project that is named has all that its files say.
func TestComposeByNameInItsDirectory(t *testing.T) {
	e := engine(t, "busybox")
	a := compose(t, e, map[string]string{"compose.yaml": `services:
  web: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, secrets: [token], post_start: [{command: [sh, -c, "cat /run/secrets/token >> /hooked"]}]}
  debug: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, profiles: [debug]}
secrets: {token: {environment: TOKEN}}
`})
	a.env = []string{"TOKEN=hush"}
	a.ok(t, "--profile", "debug", "create")
	a.ok(t, "start")
	if got := a.ok(t, "ps", "--services"); got != "debug\nweb" {
		t.Errorf("running: %q", got)
	}
	a.ok(t, "restart", "-t", "0", "web")
	if got := a.ok(t, "exec", "-T", "web", "cat", "/hooked"); got != "hushhush" {
		t.Errorf("the hook was run: %q", got)
	}
}

// Of a project that is known by its name alone, what depends on a service is taken down with it, as with docker compose;
// with its files named it is not.
func TestComposeDownOfServicesByName(t *testing.T) {
	e := engine(t, "busybox")
	const sleeps = "{image: busybox, command: sleep 1000, stop_signal: SIGKILL"
	a := compose(t, e, map[string]string{"compose.yaml": "services: {db: " + sleeps + "}, mid: " + sleeps + ", depends_on: [db]}, web: " + sleeps + ", depends_on: [mid]}, other: " + sleeps + "}}"})
	for line, want := range map[string]string{"-f compose.yaml down db": "mid\nother\nweb", "down mid": "db\nother", "down db": "other"} {
		a.ok(t, "up", "-d")
		a.ok(t, strings.Fields(line)...)
		if got := a.ok(t, "ps", "-a", "--services"); got != want {
			t.Errorf("%s: %q is left", line, got)
		}
	}
}
