package e2e

import (
	"encoding/json"
	"strings"
	"testing"
)

// A dry run says what would be done, and does nothing of it.
func TestComposeDryRun(t *testing.T) {
	e := engine(t, "busybox")
	a := compose(t, e, map[string]string{"compose.yaml": `
services:
  db:
    image: busybox
    command: sleep 1000
    stop_signal: SIGKILL
    environment: {VALUE: "${VALUE:-one}"}
    healthcheck: {test: "true", interval: 200ms}
    post_start: [{command: [touch, /hooked]}]
  web:
    image: busybox
    command: sleep 1000
    stop_signal: SIGKILL
    depends_on: {db: {condition: service_healthy}}
    secrets: [token]
  made: {build: .}
  far: {image: "localhost:1/none"}
secrets: {token: {environment: PATH}}
volumes: {data: }
`})
	says := func(r string, want ...string) {
		t.Helper()
		for _, w := range want {
			if !strings.Contains(r, "DRY-RUN MODE -  "+w) {
				t.Errorf("no %q in\n%s", w, r)
			}
		}
	}
	r := a.run(t, "--dry-run", "up", "-d")
	if r.Code != 0 {
		t.Fatalf("%s", r)
	}
	says(r.Stderr, "Network "+a.name+"_default  Created", "Service made  Built", "Image localhost:1/none  Pulled", "Container "+a.name+"-web-1  Created", "Container "+a.name+"-db-1  Healthy", "Container "+a.name+"-web-1  Started")
	if got := a.ids(t); len(got) != 0 {
		t.Errorf("made in a dry run: %v", got)
	}
	if r := a.run(t, "--dry-run", "up", "db"); r.Code != 0 { // attached: there is nothing to attach to
		t.Errorf("%s", r)
	}

	a.ok(t, "up", "-d", "db", "web")
	before := a.ids(t)
	a.env = []string{"VALUE=two"}
	r = a.run(t, "--dry-run", "up", "-d", "db", "web", "--scale", "web=2")
	says(r.Stderr, "Container "+a.name+"-db-1  Recreated", "Container "+a.name+"-web-2  Created", "Container "+a.name+"-web-2  Started")
	for _, line := range [][]string{{"stop"}, {"restart"}, {"kill"}, {"pause"}, {"rm", "-fs"}, {"down", "-v", "--rmi", "all"}} {
		if r := a.run(t, append([]string{"--dry-run"}, line...)...); r.Code != 0 || !strings.Contains(r.Stderr, "DRY-RUN MODE -  Container "+a.name+"-db-1") {
			t.Errorf("%s", r)
		}
	}
	if r := a.run(t, "--dry-run", "exec", "db", "touch", "/tmp/x"); r.Code != 0 || !strings.Contains(r.Stderr, "DRY-RUN MODE -") {
		t.Errorf("%s", r)
	}
	now := a.ids(t)
	if len(now) != 2 || now[a.name+"-db-1"] != before[a.name+"-db-1"] {
		t.Errorf("%v, before %v", now, before)
	}
	if got := strings.Count(a.ok(t, "ps", "-q"), "\n") + 1; got != 2 {
		t.Errorf("%d run", got)
	}
	r = a.run(t, "--dry-run", "--progress", "json", "stop")
	if strings.Count(r.Stderr, a.name+"-db-1") == 0 {
		t.Errorf("nothing is said of db: %s", r)
	}
	for line := range strings.Lines(r.Stderr) {
		var step map[string]any
		if err := json.Unmarshal([]byte(line), &step); err != nil || step["dry-run"] != true {
			t.Errorf("%v: %s", err, line)
		}
	}
}

// What stands in the environment counts where there is no flag.
func TestComposeEnvironment(t *testing.T) {
	e := engine(t, "busybox")
	two := "services:\n  a: {image: busybox, command: sleep 1000, stop_signal: SIGKILL}\n  b: {image: busybox, command: sh -c 'echo said; exec sleep 1000', stop_signal: SIGKILL}\n"
	a := compose(t, e, map[string]string{"compose.yaml": two, "one.yaml": "services:\n  a: {image: busybox, command: sleep 1000, stop_signal: SIGKILL}\n", "vars": "FROM=file\nKEPT=file\n"})
	a.ok(t, "up", "-d")
	with := func(env ...string) func(args ...string) string {
		return func(args ...string) string {
			t.Helper()
			a.env = env
			defer func() { a.env = nil }()
			r := a.run(t, args...)
			return r.Stdout + "|" + r.Stderr
		}
	}
	for _, c := range []struct {
		env       []string
		args      []string
		want, not string
	}{
		{[]string{"COMPOSE_FILE=one.yaml"}, []string{"up", "-d"}, "Found orphan containers", ""},
		{[]string{"COMPOSE_FILE=one.yaml", "COMPOSE_IGNORE_ORPHANS=true"}, []string{"up", "-d"}, "Running", "orphan"},
		{[]string{"COMPOSE_FILE=one.yaml", "COMPOSE_IGNORE_ORPHANS=true"}, []string{"up", "-d", "--remove-orphans"}, "cannot combine COMPOSE_IGNORE_ORPHANS and --remove-orphans", ""},
		{[]string{"COMPOSE_PROGRESS=json"}, []string{"up", "-d"}, `{"id":"Container`, ""},
		{[]string{"COMPOSE_PROGRESS=quiet"}, []string{"up", "-d"}, "|", "Container"},
		{[]string{"COMPOSE_PROGRESS=loud"}, []string{"up", "-d"}, `unsupported --progress value "loud"`, ""},
		{[]string{"COMPOSE_STATUS_STDOUT=1"}, []string{"up", "-d"}, "Running \n|", ""},
		{[]string{"COMPOSE_ANSI=always"}, []string{"logs", "b"}, "\x1b[36m", ""},
		{[]string{"COMPOSE_ANSI=always", "NO_COLOR=1"}, []string{"logs", "b"}, "said", "\x1b["},
		{[]string{"COMPOSE_ANSI=never", "COMPOSE_PROGRESS=tty"}, []string{"up", "-d"}, "can't use --progress tty while ANSI support is disabled", ""},
		{[]string{"COMPOSE_PARALLEL_LIMIT=1"}, []string{"up", "-d"}, "Running", ""},
		{[]string{"COMPOSE_PARALLEL_LIMIT=many"}, []string{"up", "-d"}, `COMPOSE_PARALLEL_LIMIT must be an integer (found: "many")`, ""},
		{[]string{"COMPOSE_PATH_SEPARATOR=;", "COMPOSE_FILE=one.yaml;compose.yaml"}, []string{"config", "--services"}, "a\nb", ""},
		{nil, []string{"--version"}, "Docker Compose version v", ""},
		{nil, []string{"--verbose", "ps"}, "--verbose is not supported", ""},
		{nil, []string{"build", "--memory", "1g"}, "--memory is not supported", ""},
		{nil, []string{"pull", "--no-parallel"}, "--no-parallel is not supported", ""},
		{nil, []string{"alpha", "viz"}, "alpha", "digraph"},
		{nil, []string{"bridge", "convert"}, "bridge", ""},
		{nil, []string{"run", "--rm", "-T", "--env-from-file", "vars", "-e", "KEPT=flag", "a", "sh", "-c", "echo $FROM $KEPT"}, "file flag", ""},
		{nil, []string{"run", "--rm", "-T", "-q", "a", "true"}, "|", "Container"},
	} {
		got := with(c.env...)(c.args...)
		if !strings.Contains(got, c.want) || c.not != "" && strings.Contains(got, c.not) {
			t.Errorf("%v %v: %q, want %q, not %q", c.env, c.args, got, c.want, c.not)
		}
	}
	// Without its file only kill --remove-orphans reaches b; a down takes it with the variable.
	a.env = []string{"COMPOSE_FILE=one.yaml"}
	a.ok(t, "kill")
	if got := a.ok(t, "ps", "--services"); got != "b" {
		t.Errorf("after a kill of the file's services %q run", got)
	}
	a.ok(t, "kill", "--remove-orphans")
	if got := a.ok(t, "ps", "--services"); got != "" {
		t.Errorf("after a kill with orphans %q run", got)
	}
	if r := a.run(t, "kill", "--remove-orphans"); r.Code != 0 || !strings.Contains(r.Stderr, "no container to kill") || strings.Contains(r.Stderr, "Killing") {
		t.Errorf("a kill of what has ended: %s", r)
	}
	a.env = append(a.env, "COMPOSE_REMOVE_ORPHANS=true")
	a.ok(t, "down")
	if left := a.ids(t); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}
