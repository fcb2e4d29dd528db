package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// TestFrozenContainers: one that somebody froze takes no exec, and ends all the same.
func TestFrozenContainers(t *testing.T) {
	e := engine(t, "busybox")
	for _, verb := range [][]string{{"stop", "-t", "1000"}, {"kill"}, {"rm", "-f"}} {
		t.Run(verb[0], func(t *testing.T) {
			n := name(t)
			remove(t, e, n)
			id := e.OK(t, "docker", "run", "-d", "--init", "--name", n, "busybox", "sleep", "600")
			freeze(t, e, id)
			if r := e.Docker(t, "exec", n, "true"); r.Code == 0 || !strings.Contains(r.Stderr, "is paused") {
				t.Errorf("%s", r)
			}
			e.OK(t, "docker", append(verb, n)...) // long before the time that it has to end by itself is over
		})
	}
}

func freeze(t *testing.T, e *harness.Engine, id string) {
	t.Helper()
	setFreezer(t, e, id, "FROZEN", "1")
}

func thaw(t *testing.T, e *harness.Engine, id string) {
	t.Helper()
	setFreezer(t, e, id, "THAWED", "0")
}

func setFreezer(t *testing.T, e *harness.Engine, id, v1, v2 string) {
	t.Helper()
	file, want := filepath.Join("/sys/fs/cgroup/freezer", e.CgroupParent, id, "freezer.state"), v1
	if _, err := os.Stat(file); err != nil {
		file, want = filepath.Join("/sys/fs/cgroup", e.CgroupParent, id, "cgroup.freeze"), v2
	}
	if err := os.WriteFile(file, []byte(want), 0); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, func() (bool, string) {
		s := readFile(file)
		return s == want, s
	})
}

// readFile is a small file's trimmed text, "" while it cannot be read.
func readFile(path string) string {
	b, _ := os.ReadFile(path)
	return strings.TrimSpace(string(b))
}
