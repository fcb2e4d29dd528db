package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const downFile = `
services:
  web:
    build: {context: ., dockerfile_inline: "FROM busybox"}
    command: sleep 1000
    stop_signal: SIGKILL
    depends_on: [db]
    volumes: [web:/web, shared:/shared]
    networks: [front, default]
  db: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, volumes: [db:/db, shared:/shared]}
  later: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, volumes: [later:/later], networks: [others], profiles: [extra]}
networks: {front: , others: }
volumes: {web: , db: , shared: , later: }
`

// of are the names of the project's objects of a kind, without the project's own.
func (a *application) of(t *testing.T, list ...string) string {
	t.Helper()
	names := strings.Fields(a.e.OK(t, "cleat", append(list, "--filter", "label=com.docker.compose.project="+a.name)...))
	for i := range names {
		names[i] = strings.TrimLeft(strings.TrimPrefix(names[i], a.name), "_-")
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

func (a *application) left(t *testing.T) string {
	t.Helper()
	return a.of(t, "ps", "-a", "--format", "{{.Names}}") + "; " + a.of(t, "network", "ls", "--format", "{{.Name}}") + "; " +
		a.of(t, "volume", "ls", "--format", "{{.Name}}") + "; " + a.of(t, "images", "--format", "{{.Repository}}")
}

// What `down` takes along of volumes, networks and images is what belongs to the services that it names, or else what the
// files declare for those that are enabled.
func TestComposeDownTakesAlong(t *testing.T) {
	e := engine(t, "busybox")
	a := compose(t, e, map[string]string{"compose.yaml": downFile})
	t.Cleanup(func() { a.ok(t, "--profile", "*", "down", "-v", "-t", "0", "--rmi", "local", "--remove-orphans") })
	const all = "db-1 later-1 web-1; default front others; db later shared web; web"
	for _, c := range []struct{ args, left string }{
		{"-f compose.yaml down -v", "later-1; others; later; web"},
		{"-f compose.yaml down -v db", "later-1 web-1; default front others; later shared web; web"},
		{"down -v db", "later-1; others; later web; web"}, // and what depends on it
		{"-f compose.yaml down -v --rmi local web", "db-1 later-1; default others; db later shared; "},
		{"down --rmi all web", "db-1 later-1; default others; db later shared web; "},
		{"-f compose.yaml down -v web db", "later-1; others; later; web"},
		{"-f compose.yaml down -v later", "db-1 web-1; default front; db shared web; web"},
		{"-f compose.yaml down later", "db-1 web-1; default front; db later shared web; web"},
		{"down -v", "; ; ; web"},
	} {
		a.ok(t, "--profile", "extra", "up", "-d")
		if got := a.left(t); got != all {
			t.Fatal(got)
		}
		if r := a.run(t, strings.Fields(c.args)...); r.Code != 0 {
			t.Errorf("%s: %s", c.args, r)
		}
		if got := a.left(t); got != c.left {
			t.Errorf("%s leaves %q, want %q", c.args, got, c.left)
		}
	}

	// Nor do volumes go that only services have that are not enabled, or that the file has no more.
	a.ok(t, "--profile", "extra", "up", "-d")
	a.ok(t, "--profile", "extra", "rm", "-fsv", "later")
	a.ok(t, "-f", "compose.yaml", "down", "-v")
	if got := a.of(t, "volume", "ls", "--format", "{{.Name}}"); got != "later" {
		t.Errorf("left of the volumes: %q", got)
	}
	a.ok(t, "--profile", "extra", "up", "-d")
	if err := os.WriteFile(filepath.Join(a.dir, "compose.yaml"), []byte("services: {db: {image: busybox}, other: {image: busybox}}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	a.ok(t, "-f", "compose.yaml", "down", "-v", "--remove-orphans", "other")
	if got := a.of(t, "ps", "-a", "--format", "{{.Names}}"); got != "db-1" {
		t.Errorf("down --remove-orphans other leaves %q", got)
	}
	a.ok(t, "-f", "compose.yaml", "down", "-v", "--remove-orphans")
	if got := a.left(t); got != "; ; db later shared web; web" {
		t.Errorf("left: %q", got)
	}
}
