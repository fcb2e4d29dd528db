package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// groupOf is the control group of a process in the unified hierarchy.
func groupOf(t *testing.T, pid int) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(b)) {
		if group, ok := strings.CutPrefix(l, "0::"); ok {
			return strings.TrimSpace(group)
		}
	}
	t.Skip("no unified hierarchy of control groups")
	return ""
}

// TestKeepersOutsideTheService: what outlives the engine is not in the engine's own control group, where systemd would
// count it as the service's and warn of it at each start and stop. The group goes with the engine that has nobody in
// it.
func TestKeepersOutsideTheService(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	own := groupOf(t, e.PID())
	group := filepath.Join(e.CgroupParent, "keepers")
	pid := func(name string) int {
		n, err := strconv.Atoi(e.OK(t, "docker", "inspect", "-f", "{{.State.Pid}}", name))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	x := &execs{t, e.Client(t)}
	var all []int
	start := func(name string) {
		e.OK(t, "docker", "run", "-d", "--name", name, "busybox", "sleep", "100000")
		exec := x.detached(name, false, "sleep", "100000")
		for what, of := range map[string]int{"container": pid(name), "exec": x.inspect(exec).PID} {
			all = append(all, keeperOf(t, of))
			if got := groupOf(t, keeperOf(t, of)); got != group {
				t.Errorf("the keeper of %s's %s is in %s, want %s; the engine is in %s", name, what, got, group, own)
			}
			if got := groupOf(t, of); got == group || got == own {
				t.Errorf("%s's %s is in %s", name, what, got)
			}
		}
	}
	inGroup := func() []string {
		b, err := os.ReadFile(filepath.Join(unified(t), group, "cgroup.procs"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Fields(string(b))
	}
	start("first")
	e.Kill()
	harness.Eventually(t, func() (bool, string) { // those that were spare end with their engine
		left := inGroup()
		return len(left) == 2, fmt.Sprint("in the group: ", left)
	})
	e.Run(t)
	start("second")
	e.OK(t, "docker", "rm", "-f", "first", "second")
	for _, keeper := range all { // which end behind what they have kept
		awaitDeath(t, keeper)
	}
	e.Stop(t)
	if _, err := os.Stat(filepath.Join(unified(t), group)); !os.IsNotExist(err) {
		t.Errorf("the group is left without an engine and containers: %v", err)
	}
}

// unified is where the unified hierarchy is mounted.
func unified(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(b)) {
		if f := strings.Fields(l); strings.Contains(l, " - cgroup2 ") {
			return f[4]
		}
	}
	t.Skip("no unified hierarchy of control groups")
	return ""
}
