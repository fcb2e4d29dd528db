package e2e

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// TestPython drives the engine with Docker's Python SDK as Debian ships it. Each of the script's tests is a subtest.
func TestPython(t *testing.T) {
	e := engine(t, "busybox")
	const python = "/usr/bin/python3" // Debian's own: another one has no SDK
	cmd := exec.Command(python, "testdata/sdk.py")
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+e.Socket, "PYTHONDONTWRITEBYTECODE=1", "PYTHONWARNINGS=ignore")
	out, err := cmd.CombinedOutput()
	verdict := regexp.MustCompile(`(?m)^(test_\w+) \(__main__\.(\w+)[^)]*\)(?:\n.*)? \.\.\. (\w+)$`)
	found := verdict.FindAllStringSubmatch(string(out), -1)
	if len(found) == 0 {
		t.Fatalf("no test ran (the suite needs Debian's python3-docker): %v\n%s", err, out)
	}
	for _, v := range found {
		t.Run(v[2]+"/"+strings.TrimPrefix(v[1], "test_"), func(t *testing.T) {
			if v[3] != "ok" {
				t.Error(v[3])
			}
		})
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
