package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// hierarchies are where control groups' roots are mounted.
func hierarchies() []string {
	roots, _ := filepath.Glob("/sys/fs/cgroup/cgroup.procs") // version 2
	if len(roots) == 0 {
		roots, _ = filepath.Glob("/sys/fs/cgroup/*/cgroup.procs")
	}
	for i := range roots {
		roots[i] = filepath.Dir(roots[i])
	}
	return roots
}

// TestSlices: on a host with systemd a container's parent that is a slice is the one that systemd has, started by it
// before, wherever in the tree it lies; the engine adds nothing to it that stays.
func TestSlices(t *testing.T) {
	manager := startServiceManager(t)
	outer := fmt.Sprintf("cleattest%d.slice", os.Getpid())
	inner := strings.TrimSuffix(outer, ".slice") + "-in.slice"
	started := make(chan string, 16)
	manager.start = func(unit string) string {
		if unit != inner {
			return "failed"
		}
		started <- unit
		for _, d := range hierarchies() {
			if err := os.MkdirAll(filepath.Join(d, outer, inner), 0o755); err != nil {
				t.Error(err)
			}
		}
		return "done"
	}
	t.Cleanup(func() {
		for _, d := range hierarchies() {
			_ = os.Remove(filepath.Join(d, outer, inner))
			_ = os.Remove(filepath.Join(d, outer))
		}
		if left := groupsNamed(outer); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	})
	e := harness.Start(t, harness.Options{Env: []string{"DBUS_SYSTEM_BUS_ADDRESS=" + manager.address}})
	e.Load(t, "busybox")

	id := e.OK(t, "docker", "run", "-d", "--name", "in", "--cgroup-parent", inner, "-m", "64m", "busybox", "sleep", "100000")
	if len(started) == 0 {
		t.Error("the slice was not started")
	}
	group := filepath.Join("/", outer, inner, "cleat", id)
	pid := e.OK(t, "docker", "inspect", "-f", "{{.State.Pid}}", "in")
	if text, err := os.ReadFile("/proc/" + pid + "/cgroup"); err != nil || !strings.Contains(string(text), ":"+group+"\n") {
		t.Errorf("its process is not in %s: %v\n%s", group, err, text)
	}
	e.Kill()
	e.Run(t)
	e.OK(t, "docker", "exec", "in", "true")
	if out, err := e.Debug(t, "fsck"); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	e.OK(t, "docker", "rm", "-f", "in")
	harness.Eventually(t, func() (bool, string) {
		left := groupsNamed(filepath.Join(outer, inner, "cleat"))
		return len(left) == 0 && len(groupsNamed(filepath.Join(outer, inner))) > 0, fmt.Sprint(left)
	})

	if r := e.Docker(t, "create", "--cgroup-parent", "a--b.slice", "busybox"); r.Code != 1 || !strings.Contains(r.Stderr, `should be a valid slice named as "xxx.slice"`) {
		t.Errorf("%s", r)
	}
	if r := e.Docker(t, "run", "--rm", "--cgroup-parent", "other.slice", "busybox", "true"); r.Code != 125 || !strings.Contains(r.Stderr, "systemd could not start other.slice: failed") {
		t.Errorf("%s", r)
	}
}

// TestEngineInSlice: a slice can be what all containers lie in.
func TestEngineInSlice(t *testing.T) {
	manager := startServiceManager(t)
	slice := fmt.Sprintf("cleattestall%d.slice", os.Getpid())
	started := make(chan string, 16)
	manager.start = func(unit string) string {
		started <- unit
		return "done"
	}
	t.Cleanup(func() {
		for _, d := range groupsNamed(slice) {
			_ = os.Remove(d)
		}
	})
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", manager.address) // also of what tears down
	e := harness.Start(t, harness.Options{Args: []string{"--cgroup-parent", slice}})
	if unit := <-started; unit != slice {
		t.Errorf("%s was started", unit)
	}
	e.Load(t, "busybox")
	if got := e.OK(t, "docker", "run", "--rm", "--cgroupns", "host", "busybox", "cat", "/proc/self/cgroup"); !strings.Contains(got, ":/"+slice+"/cleat/") {
		t.Errorf("a container lies in %s", got)
	}
}
