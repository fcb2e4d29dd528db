package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/test/harness"
)

// execs asks an engine about execs through the Go client.
type execs struct {
	t *testing.T
	*client.Client
}

func (x *execs) create(container string, tty bool, cmd ...string) (id string) {
	x.t.Helper()
	created, err := x.ExecCreate(x.t.Context(), container, client.ExecCreateOptions{Cmd: cmd, TTY: tty, AttachStdout: true, AttachStderr: true})
	if err != nil {
		x.t.Fatal(err)
	}
	return created.ID
}

func (x *execs) detached(container string, tty bool, cmd ...string) (id string) {
	x.t.Helper()
	id = x.create(container, tty, cmd...)
	if _, err := x.ExecStart(x.t.Context(), id, client.ExecStartOptions{Detach: true, TTY: tty}); err != nil {
		x.t.Fatal(err)
	}
	return id
}

func (x *execs) inspect(id string) client.ExecInspectResult {
	x.t.Helper()
	res, err := x.ExecInspect(x.t.Context(), id, client.ExecInspectOptions{})
	if err != nil {
		x.t.Fatalf("exec %s: %v", id[:12], err)
	}
	return res
}

// of are the execs that inspect lists for a container.
func (x *execs) of(container string) []string {
	x.t.Helper()
	res, err := x.ContainerInspect(x.t.Context(), container, client.ContainerInspectOptions{})
	if err != nil {
		x.t.Fatal(err)
	}
	return res.Container.ExecIDs
}

// ends waits until an exec has ended and returns its exit code.
func (x *execs) ends(id string) int {
	x.t.Helper()
	var res client.ExecInspectResult
	harness.Eventually(x.t, func() (bool, string) {
		res = x.inspect(id)
		return !res.Running, fmt.Sprintf("exec %s runs", id[:12])
	})
	return res.ExitCode
}

func TestExecsOutliveTheirEngine(t *testing.T) {
	for how, end := range endings {
		t.Run(how, func(t *testing.T) {
			e := harness.Start(t, harness.Options{})
			e.Load(t, "busybox")
			e.OK(t, "docker", "run", "-d", "--name", "box", "busybox", "sleep", "600")
			x := &execs{t, e.Client(t)}
			// writes more than a pipe holds, to nobody
			writer := x.detached("box", false, "sh", "-c", `n=0; until [ -e /stop ]; do head -c 300000 /dev/zero; n=$((n+1)); echo $n >/.n; mv /.n /n; done; exit 7`)
			console := x.detached("box", true, "sh", "-c", `until [ -e /stop ]; do stty size >/.size; mv /.size /size; sleep 0.05; done; exit 8`)
			short := x.detached("box", false, "sh", "-c", "echo unread; sleep 6001; exit 5")
			shortTTY := x.detached("box", true, "sh", "-c", "echo unread; sleep 6002; exit 6")
			attached := e.Command(t, "docker", "exec", "box", "sh", "-c", "echo begun >/begun; until [ -e /stop ]; do sleep 0.05; done; echo done >/done")
			if err := attached.Start(); err != nil {
				t.Fatal(err)
			}
			never := x.create("box", false, "true")
			harness.Eventually(t, func() (bool, string) {
				r := e.Docker(t, "exec", "box", "cat", "/begun", "/n", "/size")
				return r.Code == 0, r.String()
			})
			pids := map[string]int{}
			for _, id := range []string{writer, console, short, shortTTY} {
				pids[id] = x.inspect(id).PID
			}
			listed := func(n int, what string) {
				t.Helper()
				harness.Eventually(t, func() (bool, string) { // those that looked for the files above are forgotten a moment later
					ids := x.of("box")
					return len(ids) == n, fmt.Sprintf("%d execs of the container, want %d: %s", len(ids), n, what)
				})
			}
			listed(6, "all")
			end(t, e)
			attached.Wait() // its connection is broken: whatever it makes of that
			for _, n := range []int{6001, 6002} {
				if err := syscall.Kill(pidOf(t, e, fmt.Sprintf("sleep\x00%d", n)), syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
			for _, id := range []string{short, shortTTY} {
				awaitDeath(t, pids[id])
			}
			e.Run(t)

			for id, want := range map[string]int{short: 5, shortTTY: 6} {
				// Its keeper may still be about to note it.
				if code := x.ends(id); code != want || x.inspect(id).ContainerID == "" {
					t.Errorf("what ended without an engine: %+v, want exit code %d", x.inspect(id), want)
				}
			}
			for _, id := range []string{writer, console} {
				if got := x.inspect(id); !got.Running || got.PID != pids[id] {
					t.Errorf("adopted as %+v, PID was %d", got, pids[id])
				}
			}
			listed(3, "those that run")
			if _, err := x.ExecInspect(t.Context(), never, client.ExecInspectOptions{}); !errdefs.IsNotFound(err) {
				t.Errorf("one that was never started is forgotten, as Docker does: %v", err)
			}
			// output that nobody wants goes on being read
			count := func() int {
				n, _ := strconv.Atoi(e.OK(t, "docker", "exec", "box", "cat", "/n"))
				return n
			}
			n := count()
			harness.Eventually(t, func() (bool, string) { return count() > n+20, "the writer stands still" })
			if _, err := x.ExecResize(t.Context(), console, client.ExecResizeOptions{Height: 33, Width: 44}); err != nil {
				t.Error(err)
			}
			harness.Eventually(t, func() (bool, string) {
				s := e.OK(t, "docker", "exec", "box", "cat", "/size")
				return s == "33 44", s
			})
			agrees(t, e)
			since := now()
			e.OK(t, "docker", "exec", "box", "touch", "/stop")
			if a, b := x.ends(writer), x.ends(console); a != 7 || b != 8 {
				t.Errorf("exit codes %d and %d", a, b)
			}
			harness.Eventually(t, func() (bool, string) {
				r := e.Docker(t, "exec", "box", "cat", "/done")
				return r.Line() == "done", "the exec whose client was cut off: " + r.String()
			})
			harness.Eventually(t, func() (bool, string) {
				died := e.OK(t, "docker", "events", "--since", since, "--until", now(), "--filter", "event=exec_die", "--format", "{{.Actor.Attributes.execID}} {{.Actor.Attributes.exitCode}}")
				return strings.Contains(died, writer+" 7") && strings.Contains(died, console+" 8"), "events: " + died
			})
			harness.Eventually(t, func() (bool, string) {
				ids := x.of("box")
				return len(ids) == 0, fmt.Sprintf("execs: %v", ids)
			})
			e.OK(t, "docker", "rm", "-f", "box")
			if _, err := x.ExecInspect(t.Context(), writer, client.ExecInspectOptions{}); !errdefs.IsNotFound(err) {
				t.Errorf("an exec of a removed container: %v", err)
			}
			nothingLeft(t, e)
		})
	}
}

// awaitDeath waits until no process has the PID, or it is a zombie.
func awaitDeath(t *testing.T, pid int) {
	t.Helper()
	harness.Eventually(t, func() (bool, string) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || strings.Contains(string(b), ") Z "), fmt.Sprintf("process %d lives", pid)
	})
}

// nothingLeft waits until neither keepers nor their directories are left.
func nothingLeft(t *testing.T, e *harness.Engine) {
	t.Helper()
	harness.Eventually(t, func() (bool, string) {
		left := traces(e, 0, spareLinks)
		return len(left) == 0, strings.Join(left, "\n")
	})
}

// TestExecsOverKillsAtRandomInstants: after each kill an exec whose start was
// acknowledged runs, and no process is there that no exec accounts for.
func TestExecsOverKillsAtRandomInstants(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	id := e.OK(t, "docker", "run", "-d", "--name", "box", "busybox", "sleep", "600")
	x := &execs{t, e.Client(t)}
	for round := range 20 {
		var mu sync.Mutex
		var acknowledged []string
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				c, err := client.New(client.WithHost("unix://" + e.Socket))
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				for {
					created, err := c.ExecCreate(t.Context(), "box", client.ExecCreateOptions{Cmd: []string{"sleep", "600"}})
					if err != nil {
						return
					}
					if _, err := c.ExecStart(t.Context(), created.ID, client.ExecStartOptions{Detach: true}); err != nil {
						return
					}
					mu.Lock()
					acknowledged = append(acknowledged, created.ID)
					mu.Unlock()
				}
			})
		}
		time.Sleep(time.Duration(rand.IntN(40_000)) * time.Microsecond) // the random instant, not a wait
		e.Kill()
		wg.Wait()
		e.Run(t)
		for _, exec := range acknowledged {
			if got := x.inspect(exec); !got.Running {
				t.Errorf("round %d: %+v was acknowledged", round, got)
			}
		}
		var there []string
		harness.Eventually(t, func() (bool, string) { // what was killed for having no note may still be ending
			there = x.of("box")
			n := processes(t, e, id)
			return n == len(there)+1, fmt.Sprintf("round %d: %d processes, %d execs", round, n, len(there))
		})
		for _, exec := range there {
			pid := x.inspect(exec).PID
			if pid <= 0 {
				t.Fatalf("round %d: an exec that is listed has no process", round)
			}
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Error(err)
			}
		}
		for _, exec := range there {
			if code := x.ends(exec); code != 137 {
				t.Errorf("round %d: exit code %d", round, code)
			}
		}
		if t.Failed() {
			t.Fatalf("%d acknowledged, %d there\n%s", len(acknowledged), len(there), e.Log())
		}
	}
	harness.Eventually(t, func() (bool, string) {
		left := traces(e, 1, 1+spareLinks)
		return len(left) == 0, strings.Join(left, "\n")
	})
}

// processes counts those in a container's control group.
func processes(t *testing.T, e *harness.Engine, id string) int {
	t.Helper()
	for _, pattern := range []string{"/sys/fs/cgroup/memory", "/sys/fs/cgroup"} {
		b, err := os.ReadFile(filepath.Join(pattern, e.CgroupParent, id, "cgroup.procs"))
		if err == nil {
			return len(strings.Fields(string(b)))
		}
	}
	t.Fatalf("no control group of %s", id)
	return 0
}

// TestExecWhoseStartKillsTheEngine goes on, attached or not, once it was allowed to execute its command; before that it
// ends with the engine.
func TestExecWhoseStartKillsTheEngine(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	id := e.OK(t, "docker", "run", "-d", "--name", "box", "busybox", "sleep", "600")
	detached, attached := []string{"exec", "-d", "box", "sleep", "601"}, []string{"exec", "box", "sleep", "601"}
	for _, c := range []struct {
		failpoint string
		command   []string
		left      int
	}{
		{"engine.exec.after-prepare", detached, 0}, {"runtime.exec.after-note", detached, 0}, {"runtime.start.after-fork", detached, 1},
		{"engine.exec.after-process", detached, 1}, {"runtime.exec.after-note", attached, 0}, {"runtime.start.after-fork", attached, 1},
		{"engine.exec.after-process", attached, 1},
	} {
		e.Stop(t)
		e.SetEnv("CLEAT_FAILPOINTS=" + c.failpoint)
		e.Run(t)
		e.SetEnv()
		if r := e.Docker(t, c.command...); r.Code == 0 {
			t.Fatalf("%s, %q: the exec was acknowledged", c.failpoint, c.command)
		}
		<-e.Exited()
		e.Run(t)
		x := &execs{t, e.Client(t)}
		var there []string
		harness.Eventually(t, func() (bool, string) {
			there = x.of("box")
			n := processes(t, e, id)
			return len(there) == c.left && n == c.left+1, fmt.Sprintf("%s, %q: %d execs, %d processes", c.failpoint, c.command, len(there), n)
		})
		for _, exec := range there {
			syscall.Kill(x.inspect(exec).PID, syscall.SIGTERM)
			if code := x.ends(exec); code != 143 {
				t.Errorf("exit code %d", code)
			}
		}
		sound(t, e)
	}
}
