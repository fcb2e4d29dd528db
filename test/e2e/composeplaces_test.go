package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is wrong is said with the line of the file that says it, whoever finds it: the loader,
// the client or the engine.
func TestComposeMistakesSayWhere(t *testing.T) {
	e := engine(t, "busybox")
	port := freePort(t)
	for name, c := range map[string]struct {
		file, want, line string
	}{
		"an unknown key":               {"services:\n  a:\n    image: busybox\n    comand: x\n", "'comand' not allowed", "4:5\n    4 |     comand: x"},
		"indentation":                  {"services:\n  a:\n    image: busybox\n   command: x\n", "did not find expected key", "4:4\n    4 |    command: x"},
		"a registry that is not there": {"services:\n  a:\n    image: localhost:1/none\n", "connection refused", "3:5\n    3 |     image: localhost:1/none"},
		"a directory that is not there": {"services:\n  a:\n    image: busybox\n    volumes:\n      - {type: bind, source: ./none, target: /n, bind: {create_host_path: false}}\n",
			"bind source path does not exist", "5:30\n    5 |       - {type: bind"},
		"a port for two": {fmt.Sprintf("services:\n  a: &a\n    image: busybox\n    command: sleep 1000\n    stop_signal: SIGKILL\n    ports:\n      - 127.0.0.1:%s:80\n  b: *a\n", port),
			"port is already allocated", "7:9\n    7 |       - 127.0.0.1:" + port},
		"a network that is not there":           {"services:\n  a: {image: busybox, networks: [n]}\nnetworks:\n  n:\n    external: true\n", "cleat network create n", "4:3\n    4 |   n:"},
		"what the engine refuses at the create": {"services:\n  a:\n    image: busybox\n  b:\n    image: busybox\n    cap_add: [NOPE]\n", "invalid capability", "4:3\n    4 |   b:"},
		"what the engine refuses at the start":  {"services:\n  a:\n    image: busybox\n    user: nobodyhere\n", "unable to find user", "4:11\n    4 |     user: nobodyhere"},
		"a network that cannot be made":         {"services:\n  a: {image: busybox, networks: [n]}\nnetworks:\n  n:\n    driver: nope\n", "failed to create network", "5:13\n    5 |     driver: nope"},
		"no name of an image":                   {"services:\n  a:\n    image: busybox\n  b:\n    image: BusyBox\n", "unable to get image 'BusyBox'", "5:12\n    5 |     image: BusyBox"},
		"one container name for two":            {"services:\n  a:\n    image: busybox\n    container_name: own\n  b:\n    image: busybox\n    container_name: own\n", `the container name "own" is that of service "a"`, "7:5\n    7 |     container_name: own"},
		"a port of the other service": {fmt.Sprintf("services:\n  a: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, ports: [127.0.0.1:%[1]s:80]}\n  b:\n    image: busybox\n    ports:\n      - 127.0.0.1:%[1]s:81\n    depends_on: [a]\n", port),
			"port is already allocated", "6:9\n    6 |       - 127.0.0.1:" + port},
		"an image without its variable":          {"services:\n  a:\n    image: busybox:${NOT_SET}\n", "unable to get image 'busybox:'", "3:5\n    3 |     image: busybox:${NOT_SET}"},
		"a secret without its variable":          {"services:\n  a:\n    image: busybox\n    secrets: [s]\nsecrets:\n  s:\n    environment: NOT_SET\n", "is not set", "7:18\n    7 |     environment: NOT_SET"},
		"a policy that is spelled wrong":         {"services:\n  a:\n    image: busybox\n    restart: allways\n", "unknown policy 'allways'", "4:14\n    4 |     restart: allways"},
		"a command that is not there":            {"services:\n  a:\n    image: busybox\n    command: nonesuch --x\n", "executable file not found", "4:14\n    4 |     command: nonesuch --x"},
		"a directory that is not there to build": {"services:\n  a:\n    build: ./none\n", "could not be built", "3:5\n    3 |     build: ./none"},
		"a service without anything":             {"services:\n  a:\n", "services.a must be a mapping", "2:3\n    2 |   a:"},
	} {
		t.Run(name, func(t *testing.T) {
			a := compose(t, e, map[string]string{"compose.yaml": "services: {a: {image: busybox}, b: {image: busybox}}\n", "wrong.yaml": c.file})
			r := a.run(t, "-f", "wrong.yaml", "up", "-d")
			want := "  --> " + filepath.Join(a.dir, "wrong.yaml") + ":" + c.line
			if r.Code != 1 || !strings.Contains(r.Stderr, c.want) || !strings.Contains(r.Stderr, want) {
				t.Errorf("%d\n%s\nwant %q and\n%s", r.Code, r.Stderr, c.want, want)
			}
			if strings.Contains(r.Stderr, "error during connect") {
				t.Errorf("what was given up has another's error: %s", r.Stderr)
			}
		})
	}
}

// A project whose file is broken is looked at and taken down by its name, as docker compose does; a file that was chosen
// by -f counts, and so does one whose project has no name but there.
func TestComposeDownOfABrokenFile(t *testing.T) {
	e := engine(t, "busybox")
	whole := "services: {a: {image: busybox, command: sleep 1000, stop_signal: SIGKILL}}\n"
	a := compose(t, e, map[string]string{"compose.yaml": whole})
	a.ok(t, "up", "-d")
	if err := os.WriteFile(filepath.Join(a.dir, "compose.yaml"), []byte("services: [\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := a.run(t, "-f", "compose.yaml", "down"); r.Code != 1 || !strings.Contains(r.Stderr, "compose.yaml:") {
		t.Errorf("with -f: %+v", r)
	}
	if r := a.run(t, "ps", "-q"); r.Code != 0 || strings.TrimSpace(r.Stdout) == "" || !strings.Contains(r.Stderr, "known by its name alone") {
		t.Errorf("ps: %+v", r)
	}
	if r := a.run(t, "down"); r.Code != 0 || !strings.Contains(r.Stderr, "known by its name alone") || !strings.Contains(r.Stderr, "compose.yaml:") {
		t.Errorf("down: %+v", r)
	}
	if left := a.ids(t); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
	if err := os.WriteFile(filepath.Join(a.dir, "compose.yaml"), []byte(whole), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Who has a container name is said with what takes it from him, and the line that wants it.
func TestComposeNameThatIsTaken(t *testing.T) {
	e := engine(t, "busybox")
	taken := name(t)
	service := "services:\n  %s:\n    image: busybox\n    container_name: " + taken + "\n    command: sleep 1000\n    stop_signal: SIGKILL\n"
	other := compose(t, e, map[string]string{"compose.yaml": fmt.Sprintf(service, "holder")})
	other.name += "-other"
	a := compose(t, e, map[string]string{"compose.yaml": fmt.Sprintf(service, "web"), "before.yaml": fmt.Sprintf(service, "before")})
	says := func(want string) {
		t.Helper()
		r := a.run(t, "up", "-d")
		for _, want := range []string{want, "compose.yaml:4:21\n    4 |     container_name: " + taken} {
			if r.Code != 1 || !strings.Contains(r.Stderr, want) {
				t.Errorf("%d\n%s\nwant %q", r.Code, r.Stderr, want)
			}
		}
	}
	e.OK(t, "cleat", "create", "--name", taken, "busybox")
	says("It is of no project: remove it by `cleat rm -f " + taken + "`")
	e.OK(t, "cleat", "rm", taken)
	other.ok(t, "up", "-d")
	says(fmt.Sprintf("It is of the service %q of project %q: take that down by `cleat compose -p %s down`", "holder", other.name, other.name))
	other.ok(t, "down")
	a.ok(t, "-f", "before.yaml", "up", "-d")
	says(fmt.Sprintf("It is of the service %q of this project: `cleat compose up --remove-orphans` removes it", "before"))
	a.ok(t, "up", "-d", "--remove-orphans")
}

// A down that has removed a network alone has removed something.
func TestComposeDownSaysThatThereIsNothing(t *testing.T) {
	e := engine(t, "busybox")
	a := compose(t, e, map[string]string{"compose.yaml": "services: {a: {image: busybox, restart: wrong}}\n"})
	const nothing = "No resource found to remove"
	if r := a.run(t, "up", "-d"); r.Code == 0 {
		t.Fatalf("up: %s", r)
	}
	if r := a.run(t, "down"); r.Code != 0 || strings.Contains(r.Stderr, nothing) || !strings.Contains(r.Stderr, "Removed") {
		t.Errorf("with a network: %s", r)
	}
	if r := a.run(t, "down"); r.Code != 0 || !strings.Contains(r.Stderr, nothing) {
		t.Errorf("with nothing: %s", r)
	}
}
