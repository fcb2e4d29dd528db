package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// A container whose engine was killed while it started it has not run, and says so: its process has waited for that engine.
func TestEngineKilledBeforeTheCommandSaysSo(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	e.OK(t, "cleat", "create", "--name", "gated", "busybox", "touch", "/ran")
	e.Kill()
	e.SetEnv("CLEAT_FAILPOINTS=engine.start.after-ahead")
	e.Run(t)
	e.Cleat(t, "start", "gated")
	<-e.Exited()
	e.SetEnv()
	e.Run(t)
	const format = "{{.State.Status}} {{.State.ExitCode}} {{.State.Error}}"
	harness.Eventually(t, func() (bool, string) {
		got := e.OK(t, "cleat", "inspect", "-f", format, "gated")
		return got == "exited 255 the engine ended while it started the container: its command was not executed", got
	})
	if diff := e.OK(t, "cleat", "diff", "gated"); strings.Contains(diff, "/ran") {
		t.Errorf("its command was executed: %s", diff)
	}
	e.OK(t, "cleat", "start", "-a", "gated")
	if got := e.OK(t, "cleat", "inspect", "-f", format, "gated"); got != "exited 0" {
		t.Errorf("started again: %q", got)
	}
	dir := t.TempDir()
	// The end of one that has run is its own, also of 127.
	id := e.OK(t, "cleat", "run", "-d", "-v", dir+":/dir", "busybox", "sh", "-c", "until [ -e /dir/end ]; do sleep 0.1; done; exit 127")
	pid := e.OK(t, "cleat", "inspect", "-f", "{{.State.Pid}}", id)
	e.Kill()
	if err := os.WriteFile(filepath.Join(dir, "end"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, func() (bool, string) {
		_, err := os.Stat("/proc/" + pid)
		return err != nil, "it has not ended"
	})
	e.Run(t)
	harness.Eventually(t, func() (bool, string) {
		got := e.OK(t, "cleat", "inspect", "-f", format, id)
		return got == "exited 127", got
	})
}

// A start whose state cannot be written is answered with that, and nothing runs that a later engine would not know of.
func TestStartWhoseStateCannotBeWritten(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	id := e.OK(t, "cleat", "create", "--name", "gated", "busybox", "sleep", "1000")
	inTheWay := filepath.Join(e.DataRoot, "containers", id, ".tmp-state.json")
	if err := os.MkdirAll(filepath.Join(inTheWay, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if r := e.Cleat(t, "start", "gated"); r.Code == 0 || !strings.Contains(r.Stderr, "state.json") {
		t.Errorf("the start: %s", r)
	}
	if state := e.OK(t, "cleat", "inspect", "-f", "{{.State.Running}} {{.State.Error}}", "gated"); !strings.HasPrefix(state, "false ") || !strings.Contains(state, "state.json") {
		t.Errorf("the container: %s", state)
	}
	if err := os.RemoveAll(inTheWay); err != nil {
		t.Fatal(err)
	}
	e.OK(t, "cleat", "start", "gated")
}
