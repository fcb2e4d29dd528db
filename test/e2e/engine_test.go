package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// TestDataRootsThatCannotWork: the engine says at its start which directory is
// wrong and what to choose, and leaves nothing behind.
func TestDataRootsThatCannotWork(t *testing.T) {
	ramfs := t.TempDir()
	if err := syscall.Mount("none", ramfs, "ramfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(ramfs, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct{ root, text string }{
		"a file system without overlay": {filepath.Join(ramfs, "data"), "choose a data root on"},
		"a file":                        {file, "not a directory"},
		"below a file":                  {filepath.Join(file, "data"), file + ": not a directory"},
	} {
		e := harness.New(t, harness.Options{})
		args := append([]string{}, e.Args()...)
		for i, a := range args {
			if a == "--data-root" {
				args[i+1] = c.root
			}
		}
		out, err := exec.Command(harness.Binary(t, "cleatd"), args...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), strings.TrimSuffix(c.root, "/data")) || !strings.Contains(string(out), c.text) {
			t.Errorf("%s: want a refusal that names it and %q: %v\n%s", what, c.text, err, out)
		}
		os.RemoveAll(e.Dir)
		os.RemoveAll(e.ExecRoot)
	}
}

func TestFlagsOfOtherEngines(t *testing.T) {
	e := harness.Start(t, harness.Options{Args: []string{"--live-restore", "--userland-proxy-path=/usr/bin/docker-proxy", "--storage-driver", "overlay2", "--containerd", "/run/containerd/containerd.sock"}})
	if log := e.Log(); !strings.Contains(log, "userland-proxy") || !strings.Contains(log, "containerd") {
		t.Errorf("flags for parts that are not needed deserve a warning each:\n%s", log)
	}
	for _, refused := range []string{"--userns-remap=default", "--storage-driver=btrfs", "--tls", "--no-such-flag"} {
		out, err := exec.Command(harness.Binary(t, "cleatd"), append(append([]string{}, e.Args()...), refused)...).CombinedOutput()
		name, _, _ := strings.Cut(strings.TrimLeft(refused, "-"), "=")
		if err == nil || !strings.Contains(string(out), name) {
			t.Errorf("%s must be refused by name: %v\n%s", refused, err, out)
		}
	}
}

// TestEngineCommands: the client starts and stops an engine, and containers go on.
func TestEngineCommands(t *testing.T) {
	e := harness.New(t, harness.Options{}) // for its names; the client does the rest
	socket := filepath.Join(e.Dir, "cleat.sock")
	flags := []string{"--exec-root", e.ExecRoot, "--socket", socket, "--pidfile", filepath.Join(e.Dir, "cleatd.pid"),
		"--log-file", filepath.Join(e.Dir, "engine.log")}
	more := []string{"--data-root", e.DataRoot, "--", "--bridge", e.Bridge, "--bip", e.Subnet, "--cgroup-parent", e.CgroupParent}
	t.Cleanup(func() {
		e.Cleat(t, append([]string{"engine", "stop"}, flags...)...)
		e.Run(t) // the harness's own engine adopts what is there, and cleans up
		e.Destroy(t)
	})
	if r := e.Cleat(t, append([]string{"engine", "status"}, flags...)...); r.Code == 0 {
		t.Errorf("status before start: %s", r)
	}
	e.OK(t, "cleat", append(append([]string{"engine", "start"}, flags...), more...)...)
	e.Load(t, "busybox")
	e.OK(t, "cleat", "run", "-d", "--name", "stays", "busybox", "sleep", "600")
	pid := e.OK(t, "cleat", "inspect", "-f", "{{.State.Pid}}", "stays")
	if got := e.OK(t, "cleat", append([]string{"engine", "status"}, flags...)...); !strings.Contains(got, socket) {
		t.Errorf("status: %q", got)
	}
	e.OK(t, "cleat", append([]string{"engine", "stop"}, flags...)...)
	if r := e.Cleat(t, "ps"); r.Code == 0 || !strings.Contains(r.Stderr, "engine start") {
		t.Errorf("without an engine the client says how to get one: %s", r)
	}
	e.OK(t, "cleat", append(append([]string{"engine", "start"}, flags...), more...)...)
	if got := e.OK(t, "cleat", "inspect", "-f", "{{.State.Pid}}", "stays"); got != pid {
		t.Errorf("PID %s, before %s", got, pid)
	}
	if got := e.OK(t, "cleat", append([]string{"engine", "logs"}, flags...)...); !strings.Contains(got, "ready") {
		t.Errorf("logs: %q", got)
	}
}
