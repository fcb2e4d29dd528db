package e2e

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// TestCopiedDataRoot: an engine that is started on a copy of another's data root, as one that was moved to a larger disk
// is, has all of it there, and leaves the old one as it was.
func TestCopiedDataRoot(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	script := "cat /v/said; echo $((1 + $(cat /v/said))) > /v/said; echo again > /layer"
	e.OK(t, "cleat", "run", "--name", "first", "-v", "data:/v", "busybox", "sh", "-c", "echo 1 > /v/said;"+script)
	e.OK(t, "cleat", "commit", "first", "made")
	e.Stop(t)
	from, to := e.DataRoot, filepath.Join(e.Dir, "moved")
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	logOf := func(root string) string {
		paths, err := filepath.Glob(filepath.Join(root, "containers", "*", "*-json.log"))
		if err != nil || len(paths) != 1 {
			t.Fatalf("%v: %v", paths, err)
		}
		return paths[0]
	}
	before := readFile(logOf(from))
	args := e.Args()
	args[slices.Index(args, from)] = to
	e.DataRoot = to
	e.Run(t)
	e.OK(t, "cleat", "start", "-a", "first")
	if got := e.OK(t, "cleat", "logs", "first"); got != "1\n1" {
		t.Errorf("the log: %q", got)
	}
	if after := readFile(logOf(from)); after != before {
		t.Errorf("the engine has written to the log of the old data root: %s", after)
	}
	if got := readFile(filepath.Join(from, "volumes", "data", "_data", "said")); got != "2" {
		t.Errorf("the volume of the old data root has %q", got)
	}
	if got := e.OK(t, "cleat", "run", "--rm", "made", "cat", "/layer"); got != "again" {
		t.Errorf("the image has %q", got)
	}
	if got := e.OK(t, "cleat", "inspect", "first"); strings.Contains(got, from+"/") {
		t.Errorf("inspect tells of the old data root: %s", got)
	}
}
