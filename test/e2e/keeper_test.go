package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/test/harness"
)

// keeperOf is the PID of the keeper of a container's first process.
func keeperOf(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	keeper, err := strconv.Atoi(fields[1])
	if err != nil {
		t.Fatal(err)
	}
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", keeper))
	if err != nil || !strings.HasPrefix(string(line), "cleat-keeper ") {
		t.Fatalf("the parent of %d is %q (%v)", pid, line, err)
	}
	return keeper
}

func kill(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	awaitDeath(t, pid)
}

// gated runs until its file /go is made, and exits with 7.
const gated = "trap 'exit 7' TERM; until [ -e /go ]; do sleep 0.02; done; exit 7"

// TestKeeperKilled: what a keeper watches goes on without it, and how it ends is
// asked of the kernel; what ends unwatched by anybody ends with 255 and the reason.
func TestKeeperKilled(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	x := &execs{t, e.Client(t)}
	run := func(name string) (pid int) {
		e.OK(t, "docker", "run", "-d", "--name", name, "busybox", "sh", "-c", gated)
		pid, err := strconv.Atoi(e.OK(t, "docker", "inspect", "-f", "{{.State.Pid}}", name))
		if err != nil {
			t.Fatal(err)
		}
		return pid
	}
	ended := func(name string, code int, reason string) {
		t.Helper()
		if got := e.OK(t, "docker", "wait", name); got != strconv.Itoa(code) {
			t.Errorf("%s: exit code %s, want %d", name, got, code)
		}
		got := e.OK(t, "docker", "inspect", "-f", "{{.State.Status}} {{.State.Pid}} {{.State.Error}}", name)
		if !strings.HasPrefix(got, "exited 0") || (reason == "") != (got == "exited 0") || !strings.Contains(got, reason) {
			t.Errorf("%s: %s", name, got)
		}
	}
	t.Run("alone", func(t *testing.T) {
		kill(t, keeperOf(t, run("alone")))
		exec := x.detached("alone", false, "sh", "-c", "until [ -e /end ]; do sleep 0.02; done; exit 9")
		kill(t, keeperOf(t, x.inspect(exec).PID))
		if got := x.inspect(exec); !got.Running {
			t.Errorf("%+v", got)
		}
		e.OK(t, "docker", "exec", "alone", "touch", "/end")
		if code := x.ends(exec); code != 9 {
			t.Errorf("exit code of the exec: %d", code)
		}
		e.OK(t, "docker", "exec", "alone", "touch", "/go")
		ended("alone", 7, "")
	})
	t.Run("with its engine", func(t *testing.T) {
		pid := run("both")
		exec := x.detached("both", false, "sh", "-c", "until [ -e /end ]; do sleep 0.02; done; exit 9")
		before := x.inspect(exec)
		e.Kill()
		kill(t, keeperOf(t, pid))
		kill(t, keeperOf(t, before.PID))
		e.Run(t)
		if got := e.OK(t, "docker", "inspect", "-f", "{{.State.Pid}} {{.State.Status}}", "both"); got != fmt.Sprint(pid, " running") {
			t.Errorf("%s", got)
		}
		if got := x.inspect(exec); !got.Running || got.PID != before.PID {
			t.Errorf("%+v", got)
		}
		e.OK(t, "docker", "exec", "both", "touch", "/end")
		if code := x.ends(exec); code != 9 && code != 255 { // the kernel tells since Linux 6.15
			t.Errorf("exit code of the exec: %d", code)
		}
		e.OK(t, "docker", "exec", "both", "touch", "/go")
		if got := e.OK(t, "docker", "wait", "both"); got == "255" {
			ended("both", 255, "this kernel does not tell")
		} else {
			ended("both", 7, "")
		}
	})
	t.Run("with its engine and its process", func(t *testing.T) {
		pid := run("all")
		e.Kill()
		kill(t, keeperOf(t, pid))
		kill(t, pid)
		e.Run(t)
		ended("all", 255, "its keeper was killed and the process is gone")
		sound(t, e)
	})
	e.OK(t, "docker", "rm", "-f", "alone", "both", "all")
	nothingLeft(t, e)
}

// TestExecMeetsAnExit: whatever the instant at which a container ends, an exec
// works or is a conflict, and leaves nothing.
func TestExecMeetsAnExit(t *testing.T) {
	e := engine(t, "busybox")
	x := &execs{t, e.Client(t)}
	n := name(t)
	remove(t, e, n)
	e.OK(t, "docker", "run", "-d", "--name", n, "busybox", "sleep", "600")
	for range 15 {
		waiting := x.create(n, false, "true")
		var wg sync.WaitGroup
		for detach := range 2 {
			wg.Go(func() {
				for {
					created, err := x.ExecCreate(t.Context(), n, client.ExecCreateOptions{Cmd: []string{"sleep", "600"}})
					if err == nil && detach == 0 {
						_, err = x.ExecStart(t.Context(), created.ID, client.ExecStartOptions{Detach: true})
					} else if err == nil {
						var s client.ExecAttachResult
						if s, err = x.ExecAttach(t.Context(), created.ID, client.ExecAttachOptions{}); err == nil {
							s.Close()
						}
					}
					if err != nil {
						refused := errdefs.IsConflict(err) && strings.Contains(err.Error(), "is not running")
						if !refused && !strings.Contains(err.Error(), "received 409") { // all that the client tells of a refused attach
							t.Errorf("not a conflict: %v", err)
						}
						return
					}
				}
			})
		}
		e.OK(t, "docker", "kill", n)
		wg.Wait()
		if _, err := x.ExecStart(t.Context(), waiting, client.ExecStartOptions{Detach: true}); !errdefs.IsConflict(err) {
			t.Errorf("start of an exec in a container that has ended: %v", err)
		}
		e.OK(t, "docker", "start", n)
		if _, err := x.ExecStart(t.Context(), waiting, client.ExecStartOptions{Detach: true}); !errdefs.IsConflict(err) {
			t.Errorf("start of an exec of an earlier run: %v", err)
		}
	}
	e.OK(t, "docker", "rm", "-f", n)
	harness.Eventually(t, func() (bool, string) {
		dirs, _ := filepath.Glob(filepath.Join(e.ExecRoot, "runtime", strings.Repeat("[0-9a-f]", 64)))
		return len(dirs) == 0, fmt.Sprint(dirs)
	})
}

// TestMemoryLimitTooSmallToStart: the message says so, and nothing is left.
func TestMemoryLimitTooSmallToStart(t *testing.T) {
	e := engine(t, "busybox")
	parent := fmt.Sprintf("cleat-test-tiny-%d", os.Getpid())
	dir, limit := filepath.Join("/sys/fs/cgroup/memory", parent), "memory.limit_in_bytes"
	if _, err := os.Stat("/sys/fs/cgroup/memory"); err != nil {
		dir, limit = filepath.Join("/sys/fs/cgroup", parent), "memory.max"
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		harness.Eventually(t, func() (bool, string) { // the others are the engine's
			err := os.Remove(dir)
			left, _ := filepath.Glob("/sys/fs/cgroup/*/" + parent)
			return len(left) == 0, fmt.Sprint(err, left)
		})
	})
	if err := os.WriteFile(filepath.Join(dir, limit), []byte("16384"), 0); err != nil {
		t.Fatal(err)
	}
	each(t, func(t *testing.T, program string) {
		n := name(t)
		remove(t, e, n)
		r := e.Do(t, program, "", "run", "--name", n, "--cgroup-parent", "/"+parent, "-m", "6m", "busybox", "true")
		if r.Code != 125 || !strings.Contains(r.Stderr, "memory limit is too small to start a process") {
			t.Errorf("%s", r)
		}
		if got := e.OK(t, program, "inspect", "-f", "{{.State.Status}} {{.State.Pid}}", n); got != "created 0" {
			t.Errorf("%s", got)
		}
		harness.Eventually(t, func() (bool, string) {
			entries, _ := filepath.Glob(filepath.Join(filepath.Dir(filepath.Dir(dir)), "*", parent, strings.Repeat("[0-9a-f]", 64)))
			return len(entries) == 0, fmt.Sprintf("left: %v", entries)
		})
	})
	if r := e.Docker(t, "run", "--rm", "-m", "5m", "busybox", "true"); r.Code != 125 || !strings.Contains(r.Stderr, "Minimum memory limit allowed is 6MB") {
		t.Errorf("%s", r)
	}
}
