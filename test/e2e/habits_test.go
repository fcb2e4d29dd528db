package e2e

import (
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// TestScriptsFindWhatTheyLookFor holds what scripts and programs take for granted in
// a container of Docker's, and that none of it is a change of the container's.
func TestScriptsFindWhatTheyLookFor(t *testing.T) {
	e := engine(t, "busybox")
	const name = "habits-files"
	out := e.OK(t, "docker", "run", "--name", name, "busybox", "sh", "-c",
		"test -f /.dockerenv && echo contained; readlink /etc/mtab; df / | tail -n 1 | cut -d ' ' -f 1")
	defer e.OK(t, "cleat", "rm", "-f", name)
	if out != "contained\n/proc/mounts\noverlay" {
		t.Errorf("a container has not what its programs look for:\n%s", out)
	}
	if changes := e.OK(t, "docker", "diff", name); changes != "" {
		t.Errorf("what the engine gives a container counts as its changes:\n%s", changes)
	}
}

// TestInspectAnswersOldExpressions asks for what the API's newest version has dropped
// and half of all scripts ask for.
func TestInspectAnswersOldExpressions(t *testing.T) {
	e := engine(t, "busybox")
	const name = "habits-inspect"
	e.OK(t, "cleat", "run", "-d", "--name", name, "busybox", "sleep", "1000")
	defer e.OK(t, "cleat", "rm", "-f", name)
	own := e.OK(t, "cleat", "exec", name, "hostname", "-i")
	each(t, func(t *testing.T, program string) {
		for _, command := range [][]string{{"inspect"}, {"container", "inspect"}} {
			args := append(command, "-f", "{{.Name}} {{.NetworkSettings.IPAddress}}", name)
			if out := e.OK(t, program, args...); out != "/"+name+" "+own {
				t.Errorf("%s %s: %q, want the address %s", program, strings.Join(args, " "), out, own)
			}
		}
		for _, command := range [][]string{{"inspect"}, {"image", "inspect"}, {"image", "inspect", "--platform", "linux/" + runtime.GOARCH}} {
			args := append(command, "-f", "{{.GraphDriver.Name}} {{.Parent}}|{{.DockerVersion}}|{{.Os}}", "busybox")
			if out := e.OK(t, program, args...); out != "overlay2 ||linux" {
				t.Errorf("%s %s: %q", program, strings.Join(args, " "), out)
			}
		}
		r := e.Do(t, program, "", "inspect", "-f", "{{.NetworkSettings.NoSuchThing}}", name)
		if r.Code == 0 || !strings.Contains(r.Stderr, "NoSuchThing") {
			t.Errorf("%s: a field that no version has is to be named: %s", program, r)
		}
	})
}

// TestNetworksAreFilteredByExpressions has the filters as scripts write them to ask
// whether a network exists already.
func TestNetworksAreFilteredByExpressions(t *testing.T) {
	e := engine(t)
	id := e.OK(t, "cleat", "network", "create", "habits")
	e.OK(t, "cleat", "network", "create", "habits-more")
	defer e.OK(t, "cleat", "network", "rm", "habits", "habits-more")
	each(t, func(t *testing.T, program string) {
		for filter, want := range map[string]string{
			"name=^habits$": "habits", "name=habits": "habits\nhabits-more", "name=^habit$": "", "name=^habits-": "habits-more",
			"name=habits[": "", "id=^" + id[:12]: "habits", "id=" + id[:12]: "habits",
		} {
			if out := e.OK(t, program, "network", "ls", "--filter", filter, "--format", "{{.Name}}"); out != want {
				t.Errorf("%s network ls --filter %s: %q, want %q", program, filter, out, want)
			}
		}
	})
}

// TestLogDriverLocal writes, rotates and reads logs of Docker's driver for those who
// want the logs small and no file of theirs.
func TestLogDriverLocal(t *testing.T) {
	e := engine(t, "busybox")
	const name = "habits-local"
	r := e.Docker(t, "run", "--name", name, "--log-driver", "local", "--log-opt", "max-size=20k", "--log-opt", "max-file=3", "busybox",
		"sh", "-c", "i=0; while [ $i -lt 1000 ]; do echo line $i; i=$((i+1)); done; echo last")
	defer e.OK(t, "cleat", "rm", "-f", name)
	if r.Code != 0 || !strings.HasSuffix(r.Stdout, "line 999\nlast\n") {
		t.Fatalf("%s", r)
	}
	each(t, func(t *testing.T, program string) {
		if out := e.OK(t, program, "logs", name); !strings.HasSuffix(out, "line 998\nline 999\nlast") {
			t.Errorf("%s logs ends with %q", program, out[max(0, len(out)-40):])
		}
		if out := e.OK(t, program, "logs", "-n", "2", name); out != "line 999\nlast" {
			t.Errorf("%s logs -n 2: %q", program, out)
		}
		if out := e.OK(t, program, "inspect", "-f", "{{.HostConfig.LogConfig.Type}} {{.LogPath}}", name); out != "local" {
			t.Errorf("%s inspect: %q, want the driver and no file", program, out)
		}
	})
	id := e.OK(t, "cleat", "inspect", "-f", "{{.Id}}", name)
	root := e.OK(t, "docker", "info", "-f", "{{.DockerRootDir}}")
	harness.Eventually(t, func() (bool, string) {
		packed, err := filepath.Glob(filepath.Join(root, "containers", id, "*.gz"))
		return err == nil && len(packed) > 0, fmt.Sprintf("what was rotated away is not compressed: %v, %v", packed, err)
	})
	// The options without which compressing makes no sense switch it off, as they are no mistake.
	for _, opts := range [][]string{{"max-file=1"}, {"max-size=-1"}} {
		if r := e.Cleat(t, "run", "--rm", "--log-driver", "local", "--log-opt", opts[0], "busybox", "echo", "x"); r.Code != 0 {
			t.Errorf("local with %s: %s", opts[0], r)
		}
	}
}
