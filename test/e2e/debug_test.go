package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cleatlabs/cleat/test/harness"
)

func TestFsckSaysWhatDiffers(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	e.OK(t, "docker", "run", "-d", "--name", "victim", "busybox", "sleep", "600")
	if out, err := e.Debug(t, "fsck"); err != nil || !strings.Contains(out, "agree") {
		t.Errorf("of a sound engine: %v\n%s", err, out)
	}
	pid := e.OK(t, "docker", "inspect", "-f", "{{.State.Pid}}", "victim")
	e.Kill()
	if out, err := e.Debug(t, "fsck"); err != nil {
		t.Errorf("without an engine: %v\n%s", err, out)
	}
	n, _ := strconv.Atoi(pid)
	if err := syscall.Kill(n, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	stray := filepath.Join("/sys/fs/cgroup/memory", e.CgroupParent, strings.Repeat("ab", 32))
	if err := os.Mkdir(stray, 0o755); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, func() (bool, string) {
		out, err := e.Debug(t, "fsck")
		return err != nil && strings.Contains(out, "process (PID "+pid+") is gone") && strings.Contains(out, strings.Repeat("ab", 32)), out
	})
	e.Run(t) // puts both in order
	harness.Eventually(t, func() (bool, string) {
		out, err := e.Debug(t, "fsck")
		return err == nil, out
	})
}

func TestTeardownRefusesWhileSomethingRunsAndLeavesNothing(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	e.OK(t, "docker", "run", "-d", "--name", "running", "-p", "0:80", "busybox", "sleep", "600")
	if out, err := e.Debug(t, "teardown"); err == nil || !strings.Contains(out, strconv.Itoa(e.PID())) {
		t.Errorf("under an engine: %v\n%s", err, out)
	}
	e.Kill()
	if out, err := e.Debug(t, "teardown"); err == nil || !strings.Contains(out, "running") {
		t.Errorf("under a container: %v\n%s", err, out)
	}
	e.Run(t)
	e.OK(t, "docker", "rm", "-f", "running")
	e.Kill() // socket and pidfile stay
	if out, err := e.Debug(t, "teardown"); err != nil || out != "" {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := net.InterfaceByName(e.Bridge); err == nil {
		t.Error("the bridge is left")
	}
	groups, _ := filepath.Glob("/sys/fs/cgroup/*" + e.CgroupParent)
	for _, p := range append(groups, e.Socket, filepath.Join(e.Dir, "cleatd.pid"), e.ExecRoot) {
		if _, err := os.Lstat(p); err == nil {
			t.Errorf("%s is left", p)
		}
	}
}

// TestFiftyContainersOutliveTheirEngine stops the engine under them and starts it again.
func TestFiftyContainersOutliveTheirEngine(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	const n = 50
	for i := range n {
		e.OK(t, "docker", "run", "-d", "--name", fmt.Sprint("c", i), "busybox", "sleep", "600")
	}
	pids := func() string {
		args := []string{"inspect", "-f", "{{.State.Status}} {{.State.Pid}} {{.RestartCount}}"}
		for i := range n {
			args = append(args, fmt.Sprint("c", i))
		}
		return e.OK(t, "docker", args...)
	}
	before := pids()
	began := time.Now()
	e.Stop(t)
	stopped := time.Now()
	e.Run(t)
	t.Logf("stop %v, start %v", stopped.Sub(began), time.Since(stopped))
	if after := pids(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	if got := strings.Count(before, "running"); got != n {
		t.Errorf("%d of %d run", got, n)
	}
}
