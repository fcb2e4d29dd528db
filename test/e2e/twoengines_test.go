package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// TestTwoEnginesInOneGroup: engines whose containers are meant to lie in one control group, as those of two containers
// that see the host's groups are, leave each other's alone: one has its own group beside it, also over its end.
func TestTwoEnginesInOneGroup(t *testing.T) {
	var a *harness.Engine
	t.Cleanup(func() {
		if left := groupsNamed(a.CgroupParent + "-*"); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	})
	a = harness.Start(t, harness.Options{})
	a.Load(t, "busybox")
	a.OK(t, "cleat", "run", "-d", "--name", "held", "busybox", "sleep", "600")
	b := harness.Start(t, harness.Options{Args: []string{"--cgroup-parent", a.CgroupParent}})
	b.Load(t, "busybox")
	b.OK(t, "cleat", "run", "-d", "--name", "held", "busybox", "sleep", "600")
	b.CgroupParent = groupOfEngine(t, b, "held")
	if want := a.CgroupParent + "-"; !strings.HasPrefix(b.CgroupParent, want) {
		t.Errorf("the second engine's containers lie in %s, not in one that is named %s…", b.CgroupParent, want)
	}
	if !strings.Contains(b.Log(), "another engine has its containers") {
		t.Errorf("the engine does not say so:\n%s", b.Log())
	}
	pids := []string{processIn(t, a, "held"), processIn(t, b, "held")}
	for _, e := range []*harness.Engine{b, a} {
		e.Kill()
		if out, err := e.Debug(t, "fsck"); strings.Contains(out, "cgroup ") {
			t.Errorf("without an engine: %v\n%s", err, out)
		}
		e.Run(t)
		if got := []string{processIn(t, a, "held"), processIn(t, b, "held")}; !slices.Equal(got, pids) {
			t.Fatalf("the containers' processes are %v, were %v", got, pids)
		}
		harness.Eventually(t, func() (bool, string) {
			out, err := e.Debug(t, "fsck")
			return err == nil, out
		})
	}
	// Its containers go on below the group that they were started in when the other engine has gone.
	b.Kill()
	a.OK(t, "cleat", "rm", "-f", "held")
	a.Stop(t)
	b.Run(t)
	if got := processIn(t, b, "held"); got != pids[1] {
		t.Errorf("it is process %s, was %s", got, pids[1])
	}
	b.OK(t, "cleat", "run", "--rm", "busybox", "true")
	if got := groupOfEngine(t, b, "held"); got != b.CgroupParent {
		t.Errorf("it lies in %s", got)
	}
}

// processIn is the first process of a container, as the engine knows it.
func processIn(t *testing.T, e *harness.Engine, name string) string {
	t.Helper()
	return e.OK(t, "cleat", "inspect", "-f", "{{.State.Pid}}", name)
}

// groupOfEngine is the control group that a running container of the engine's lies below.
func groupOfEngine(t *testing.T, e *harness.Engine, name string) string {
	t.Helper()
	table, err := os.ReadFile(filepath.Join("/proc", processIn(t, e, name), "cgroup"))
	if err != nil {
		t.Fatal(err)
	}
	id := e.OK(t, "cleat", "inspect", "-f", "{{.Id}}", name)
	for line := range strings.Lines(string(table)) {
		if parts := strings.SplitN(strings.TrimSpace(line), ":", 3); len(parts) == 3 && filepath.Base(parts[2]) == id {
			return filepath.Dir(parts[2])
		}
	}
	t.Fatalf("%s is in no group of its own:\n%s", name, table)
	return ""
}
