package e2e

import (
	"strings"
	"syscall"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// An attached `up` of services that are named lasts as long as they do, and stops them: what they depend on may end
// before, and goes on behind it, as with docker compose.
func TestComposeUpOfNamedServices(t *testing.T) {
	e := engine(t, "busybox")
	a := compose(t, e, map[string]string{"compose.yaml": `
services:
  db: {image: busybox, command: sleep 1000, stop_signal: SIGKILL}
  migrate: {image: busybox, command: "true"}
  tests:
    image: busybox
    command: sh -c "echo tested; exit 3"
    depends_on: {db: {condition: service_started}, migrate: {condition: service_completed_successfully}}
  other: {image: busybox, command: sleep 1000, stop_signal: SIGKILL}
`})
	for _, c := range []struct {
		args string
		code int
		left string
	}{
		{"tests", 0, "db"},
		{"tests --attach-dependencies", 0, "db"},
		{"tests --abort-on-container-exit", 3, "db"},
		{"tests --abort-on-container-failure", 3, "db"},
		{"tests --exit-code-from tests", 3, "db"},
		{"tests --exit-code-from db", 3, "db"},
		{"tests other --abort-on-container-exit", 3, "db"},
	} {
		r := a.run(t, append([]string{"up"}, strings.Fields(c.args)...)...)
		if r.Code != c.code || !strings.Contains(r.Stdout, "tested") {
			t.Errorf("%s: %s", c.args, r)
		}
		if got := a.ok(t, "ps", "--services"); got != c.left {
			t.Errorf("%s: %q goes on", c.args, got)
		}
		a.ok(t, "down", "-t", "0")
	}
}

// One that names no services, but leaves some out of what it shows, lasts as long as those that it shows. What ends it
// before stops all.
func TestComposeUpOfAttachedServices(t *testing.T) {
	e := engine(t, "busybox")
	a := compose(t, e, map[string]string{"compose.yaml": `
services:
  db: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, attach: false}
  queue: {image: busybox, command: sleep 1000, stop_signal: SIGKILL}
  tests: {image: busybox, command: sh -c "echo tested; exit 3", depends_on: [db, queue]}
`})
	for _, c := range []struct {
		args string
		code int
		left string
	}{
		{"--no-attach queue", 0, "db\nqueue"},
		{"--attach tests", 0, "db\nqueue"},
		{"--no-attach queue --abort-on-container-exit", 3, ""},
		{"--attach tests --abort-on-container-failure", 3, ""},
		{"--attach tests --exit-code-from db", 3, ""},
		{"--no-attach tests --no-attach queue --exit-code-from tests", 3, ""}, // nothing is shown: all count
	} {
		r := a.run(t, append([]string{"up"}, strings.Fields(c.args)...)...)
		if r.Code != c.code || strings.Contains(r.Stdout, "tested") == strings.Contains(c.args, "--no-attach tests") {
			t.Errorf("%s: %s", c.args, r)
		}
		if got := a.ok(t, "ps", "--services"); got != c.left {
			t.Errorf("%s: %q goes on", c.args, got)
		}
		a.ok(t, "down", "-t", "0")
	}

	up := harness.Begin(t, a.command(t, "up", "--attach", "queue"))
	up.Shows(t, "Attaching to queue-1")
	harness.Eventually(t, func() (bool, string) {
		got := a.ok(t, "ps", "-a", "--format", "{{.Service}} {{.State}}")
		return got == "db running\nqueue running\ntests exited", got
	})
	up.Signal(t, syscall.SIGINT)
	if code := up.Exit(t); code != 130 {
		t.Errorf("exit code %d\n%s", code, up)
	}
	if got := a.ok(t, "ps", "-q"); got != "" {
		t.Errorf("goes on: %s", got)
	}
}

// An attached up that fails stops what it has started, and nothing that ran before.
func TestComposeUpThatFailsLeavesWhatRan(t *testing.T) {
	e := engine(t, "busybox")
	a := compose(t, e, map[string]string{"compose.yaml": `
services:
  db: {image: busybox, command: sleep 1000, stop_signal: SIGKILL}
  queue: {image: busybox, command: sleep 1000, stop_signal: SIGKILL}
  web: {image: busybox, command: /nonesuch, depends_on: [db, queue]}
`})
	a.ok(t, "up", "-d", "db")
	for _, args := range []string{"up", "up web", "up --attach-dependencies web"} {
		r := a.run(t, strings.Fields(args)...)
		if r.Code == 0 || !strings.Contains(r.Stderr, "/nonesuch") {
			t.Errorf("%s: %s", args, r)
		}
		if got := a.ok(t, "ps", "--services"); got != "db" {
			t.Errorf("%s: %q runs", args, got)
		}
	}
}
