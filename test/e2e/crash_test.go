package e2e

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/test/harness"
)

var kills = flag.Int("kills", 300, "how often TestKilledAtRandomInstants kills the engine")

// TestKilledAtRandomInstants kills the engine again and again while clients
// create, start, exec, stop, remove and pull. After each kill the next engine's
// answers and the kernel must agree: nothing that was acknowledged is lost, and
// nothing is left of what is gone.
func TestKilledAtRandomInstants(t *testing.T) {
	reg := harness.StartRegistry(t, "busybox")
	e := harness.Start(t, harness.Options{Args: []string{"--registry-mirror", "http://" + reg.Addr}})
	e.OK(t, "docker", "pull", "-q", "busybox")
	// one container that must outlive everything
	e.OK(t, "docker", "run", "-d", "--name", "witness", "-p", "0:80", "busybox", "sh", "-c", web)
	pid := e.OK(t, "docker", "inspect", "-f", "{{.State.Pid}}", "witness")
	w := &workload{t: t, e: e, kept: map[string]string{}}
	for i := range *kills {
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for n := range 3 {
			wg.Go(func() { w.run(ctx, i, n) })
		}
		wg.Go(func() { w.pull(ctx) })
		time.Sleep(time.Duration(rand.IntN(60_000)) * time.Microsecond) // the random instant, not a wait
		e.Kill()
		cancel()
		wg.Wait()
		e.Run(t)
		if problems := w.audit(); len(problems) > 0 {
			t.Fatalf("after kill %d:\n%s\nlog:\n%s", i+1, strings.Join(problems, "\n"), e.Log())
		}
		if t.Failed() {
			t.FailNow()
		}
	}
	if got := e.OK(t, "docker", "inspect", "-f", "{{.State.Pid}} {{.RestartCount}}", "witness"); got != pid+" 0" {
		t.Errorf("the witness is %s, it was %s", got, pid)
	}
}

// workload runs verbs and remembers what the engine acknowledged.
type workload struct {
	t    *testing.T
	e    *harness.Engine
	mu   sync.Mutex
	kept map[string]string // id → the state that an acknowledged verb left it in, "gone" if removed
}

func (w *workload) note(id, state string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kept[id] = state
}

func (w *workload) client() *client.Client {
	c, err := client.New(client.WithHost("unix://" + w.e.Socket))
	if err != nil {
		w.t.Error(err)
	}
	return c
}

// run does whole lives of containers until ctx ends. Errors are expected: the
// engine dies in the middle. Only what was acknowledged counts.
func (w *workload) run(ctx context.Context, round, worker int) {
	c := w.client()
	defer c.Close()
	for i := 0; ctx.Err() == nil; i++ {
		mode := container.NetworkMode("none")
		if worker == 0 {
			mode = "bridge"
		}
		host := &container.HostConfig{NetworkMode: mode}
		if mode == "bridge" {
			host.PortBindings = network.PortMap{network.MustParsePort("80/tcp"): {{}}}
		}
		res, err := c.ContainerCreate(ctx, client.ContainerCreateOptions{
			Name:   fmt.Sprintf("r%d-w%d-i%d", round, worker, i),
			Config: &container.Config{Image: "busybox", Cmd: []string{"sleep", "600"}}, HostConfig: host,
		})
		if err != nil {
			return
		}
		w.note(res.ID, "created")
		w.note(res.ID, "")
		if _, err = c.ContainerStart(ctx, res.ID, client.ContainerStartOptions{}); err != nil {
			return
		}
		w.note(res.ID, "running")
		if ex, err := c.ExecCreate(ctx, res.ID, client.ExecCreateOptions{Cmd: []string{"true"}}); err == nil {
			if _, err = c.ExecStart(ctx, ex.ID, client.ExecStartOptions{Detach: true}); err != nil {
				return
			}
		} else {
			return
		}
		zero := 0
		w.note(res.ID, "") // unknown while a verb is under way
		if _, err = c.ContainerStop(ctx, res.ID, client.ContainerStopOptions{Timeout: &zero}); err != nil {
			return
		}
		w.note(res.ID, "exited")
		w.note(res.ID, "")
		if _, err = c.ContainerRemove(ctx, res.ID, client.ContainerRemoveOptions{}); err != nil {
			return
		}
		w.note(res.ID, "gone")
	}
}

// pull takes the image's second name away and pulls it again.
func (w *workload) pull(ctx context.Context) {
	c := w.client()
	defer c.Close()
	for ctx.Err() == nil {
		if _, err := c.ImageRemove(ctx, "busybox:other", client.ImageRemoveOptions{}); err != nil && !errdefs.IsNotFound(err) {
			return
		}
		r, err := c.ImagePull(ctx, "busybox:other", client.ImagePullOptions{})
		if err != nil {
			return
		}
		if r.Wait(ctx) != nil {
			return
		}
	}
}

// audit compares the engine's answers with what was acknowledged and with the
// kernel, then removes the round's containers and checks that nothing stays.
func (w *workload) audit() (problems []string) {
	say := func(format string, a ...any) { problems = append(problems, fmt.Sprintf(format, a...)) }
	ctx := w.t.Context()
	c := w.client()
	defer c.Close()
	list, err := c.ContainerList(ctx, client.ContainerListOptions{All: true})
	if err != nil {
		return []string{err.Error()}
	}
	there := map[string]string{}
	for _, s := range list.Items {
		there[s.ID] = string(s.State)
		in, err := c.ContainerInspect(ctx, s.ID, client.ContainerInspectOptions{})
		if err != nil {
			say("inspect %s: %v", s.ID[:12], err)
			continue
		}
		pid := in.Container.State.Pid
		switch in.Container.State.Status {
		case "running":
			if cg, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup"); err != nil || !strings.Contains(string(cg), s.ID) {
				say("%s should run as process %d: %v", s.ID[:12], pid, err)
			}
		case "created", "exited":
			if pid != 0 || populated(w.e.CgroupParent, s.ID) {
				say("%s is %s, but has processes (pid %d)", s.ID[:12], in.Container.State.Status, pid)
			}
		default:
			say("%s is %s", s.ID[:12], in.Container.State.Status)
		}
	}
	w.mu.Lock()
	for id, state := range w.kept {
		got, ok := there[id]
		switch {
		case state == "gone" && ok:
			say("%s was removed, but is %s", id[:12], got)
		case state != "gone" && state != "" && got != state:
			say("%s was acknowledged as %s, but is %q", id[:12], state, got)
		}
	}
	clear(w.kept)
	w.mu.Unlock()
	for id := range there {
		if list.Items[0].ID != "" && !w.isWitness(id, list.Items) {
			if _, err := c.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true}); err != nil {
				say("rm -f %s: %v", id[:12], err)
			}
		}
	}
	problems = append(problems, w.traces()...)
	return problems
}

func (w *workload) isWitness(id string, items []container.Summary) bool {
	for _, s := range items {
		if s.ID == id {
			return len(s.Names) > 0 && s.Names[0] == "/witness"
		}
	}
	return false
}

// populated tells whether any control group of the container has a process.
func populated(parent, id string) bool {
	procs, _ := filepath.Glob("/sys/fs/cgroup/*" + parent + "/" + id + "/cgroup.procs")
	for _, p := range procs {
		if b, err := os.ReadFile(p); err == nil && len(b) > 0 {
			return true
		}
	}
	return false
}

// traces waits until only the witness is left of everything in the kernel and on
// disk, since links and control groups go in the background, and tells what stays.
func (w *workload) traces() (left []string) {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		left = nil
		groups, _ := filepath.Glob("/sys/fs/cgroup/memory" + w.e.CgroupParent + "/*/")
		if len(groups) > 1 {
			left = append(left, fmt.Sprintf("control groups: %v", groups))
		}
		ports := 0
		ifs, _ := net.Interfaces()
		for _, i := range ifs {
			if m, err := os.Readlink("/sys/class/net/" + i.Name + "/master"); err == nil && filepath.Base(m) == w.e.Bridge {
				ports++
			}
		}
		if ports > 1 {
			left = append(left, fmt.Sprintf("%d links on %s", ports, w.e.Bridge))
		}
		if dirs, _ := os.ReadDir(filepath.Join(w.e.DataRoot, "containers")); len(dirs) > 1 {
			left = append(left, fmt.Sprintf("%d container directories", len(dirs)))
		}
		if mi, _ := os.ReadFile("/proc/self/mountinfo"); strings.Contains(string(mi), w.e.Dir) {
			left = append(left, "mounts below "+w.e.Dir)
		}
		if len(left) == 0 {
			return nil
		}
	}
	return left
}
