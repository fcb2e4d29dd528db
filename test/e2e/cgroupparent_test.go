package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// groupsNamed lists the control groups of that path in all hierarchies.
func groupsNamed(path string) []string {
	a, _ := filepath.Glob("/sys/fs/cgroup/*/" + path)
	b, _ := filepath.Glob("/sys/fs/cgroup/" + path)
	return slices.Concat(a, b)
}

// TestCgroupParent: one that the engine makes goes with the last container in it,
// one that was there stays, whichever engine sees the end.
func TestCgroupParent(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	made := fmt.Sprintf("cleat-test-%d.parent", os.Getpid())
	gone := func() {
		t.Helper()
		harness.Eventually(t, func() (bool, string) {
			left := groupsNamed(made)
			return len(left) == 0, fmt.Sprint(left)
		})
	}
	for _, n := range []string{"one", "two"} {
		e.OK(t, "docker", "run", "-d", "--name", n, "--cgroup-parent", made+"/inner", "busybox", "sleep", "600")
	}
	e.OK(t, "docker", "rm", "-f", "one")
	if left := groupsNamed(made + "/inner"); len(left) == 0 {
		t.Error("the parent of a running container is gone")
	}
	e.Kill()
	e.Run(t)
	e.OK(t, "docker", "rm", "-f", "two")
	gone()
	e.OK(t, "docker", "run", "--rm", "--cgroup-parent", made, "busybox", "true")
	gone()
	if r := e.Docker(t, "run", "--rm", "--cgroup-parent", made, "busybox", "/nosuch"); r.Code != 127 {
		t.Errorf("%s", r)
	}
	gone()

	dirs := groupsNamed("") // what is not ours is used as it is
	var own string
	for _, d := range dirs {
		if strings.Contains(d, "memory") || len(dirs) == 1 {
			own = filepath.Join(d, made)
		}
	}
	if err := os.Mkdir(own, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(own)
	e.OK(t, "docker", "run", "--rm", "--cgroup-parent", made, "busybox", "true")
	harness.Eventually(t, func() (bool, string) {
		left := groupsNamed(made)
		return len(left) == 1 && left[0] == own, fmt.Sprint(left)
	})
}

// TestContainerInTheGroupOfAnother: a job's container has those that it starts in its own control group, for its limits to
// hold for them, too. They go on when it has ended, also over the engine's end.
func TestContainerInTheGroupOfAnother(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	job := strings.TrimSpace(e.OK(t, "docker", "run", "-d", "--name", "job", "busybox", "sleep", "600"))
	e.OK(t, "docker", "run", "-d", "--name", "inner", "--cgroup-parent", e.CgroupParent+"/"+job, "busybox", "sleep", "600")
	e.OK(t, "docker", "kill", "job")
	e.Kill()
	e.Run(t)
	if got := strings.TrimSpace(e.OK(t, "docker", "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "inner")); got != "running 0" {
		t.Errorf("the inner container is %s", got)
	}
	e.OK(t, "docker", "rm", "-f", "inner")
	e.OK(t, "docker", "start", "job") // its group is free again
	e.OK(t, "docker", "rm", "-f", "job")
}

// TestFailedStartLeavesNoGroup: an engine that finds late that it cannot start leaves no empty control group.
func TestFailedStartLeavesNoGroup(t *testing.T) {
	e := harness.New(t, harness.Options{})
	if err := os.MkdirAll(filepath.Join(e.Socket, "taken"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := e.TryRun(t); err == nil {
		t.Fatal("it has started")
	}
	for _, pattern := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		if left, _ := filepath.Glob(filepath.Join(pattern, e.CgroupParent)); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}
	if err := os.RemoveAll(e.Socket); err != nil {
		t.Fatal(err)
	}
	e.Run(t)
	e.Stop(t)
	e.Destroy(t)
}
