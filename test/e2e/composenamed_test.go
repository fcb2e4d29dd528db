package e2e

import (
	"strings"
	"testing"
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
