package e2e

import (
	"fmt"
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
		"a network that is not there": {"services:\n  a: {image: busybox, networks: [n]}\nnetworks:\n  n:\n    external: true\n", "cleat network create n", "4:3\n    4 |   n:"},
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
