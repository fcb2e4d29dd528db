package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// TestDividedGroup: a container in which something divides the control group, as systemd and engines do, takes execs and
// health checks none the less, and all of it ends with the container.
func TestDividedGroup(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	e.OK(t, "docker", "run", "-d", "--name", "manager", "--health-cmd", "true", "--health-interval", "200ms", "busybox", "sleep", "100000")
	group := filepath.Join(e.CgroupParent, e.OK(t, "docker", "inspect", "-f", "{{.Id}}", "manager"))
	dir := filepath.Join(unified(t), group)
	write := func(file, what string) error { return os.WriteFile(filepath.Join(dir, file), []byte(what), 0) }
	if err := os.Mkdir(filepath.Join(dir, "init"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := write("init/cgroup.procs", e.OK(t, "docker", "inspect", "-f", "{{.State.Pid}}", "manager")); err != nil {
		t.Fatal(err)
	}
	controllers, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil || len(controllers) == 0 {
		t.Skipf("nothing to divide the group by: %q %v", controllers, err)
	}
	harness.Eventually(t, func() (bool, string) { // a health check that is just in the group keeps it from being divided
		err := write("cgroup.subtree_control", "+"+strings.Fields(string(controllers))[0])
		return err == nil, fmt.Sprint(err)
	})
	if got := e.OK(t, "docker", "exec", "manager", "grep", "^0::", "/proc/self/cgroup"); !strings.HasSuffix(got, "/init") {
		t.Errorf("an exec is in %q", got)
	}
	if got := e.OK(t, "docker", "exec", "-t", "manager", "tty"); !strings.Contains(got, "/dev/pts/") {
		t.Errorf("an exec's terminal is %q", got)
	}
	harness.Eventually(t, func() (bool, string) {
		out := e.OK(t, "docker", "inspect", "-f", "{{.State.Health.Status}}", "manager")
		return out == "healthy", out
	})
	e.OK(t, "docker", "exec", "-d", "manager", "sleep", "100000")
	if out := e.OK(t, "docker", "top", "manager"); !strings.Contains(out, "sleep 100000") {
		t.Errorf("top: %s", out)
	}
	e.OK(t, "docker", "rm", "-f", "manager")
}
