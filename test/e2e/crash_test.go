package e2e

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
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
		var problems []string
		for deadline := time.Now().Add(harness.Patience); ; time.Sleep(10 * time.Millisecond) {
			// What the engine has begun to put in order when it answers, it goes on with.
			if problems = w.audit(); len(problems) == 0 || time.Now().After(deadline) {
				break
			}
		}
		if len(problems) > 0 {
			t.Fatalf("after kill %d:\n%s\nlog:\n%s", i+1, strings.Join(problems, "\n"), e.Log())
		}
		w.tidy(t)
		if t.Failed() {
			t.FailNow()
		}
	}
	harness.Eventually(t, func() (bool, string) {
		elements := published(t, e)
		return elements == 1, fmt.Sprintf("%d published ports are left in the kernel, one was never removed", elements)
	})
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

// audit compares the engine's answers with what was acknowledged and with the kernel.
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
	defer w.mu.Unlock()
	for id, state := range w.kept {
		got, ok := there[id]
		switch {
		case state == "gone" && ok:
			say("%s was removed, but is %s", id[:12], got)
		case state != "gone" && state != "" && got != state:
			say("%s was acknowledged as %s, but is %q", id[:12], state, got)
		}
	}
	return problems
}

// tidy removes a round's containers and checks that nothing stays.
func (w *workload) tidy(t *testing.T) {
	t.Helper()
	c := w.client()
	defer c.Close()
	list, err := c.ContainerList(t.Context(), client.ContainerListOptions{All: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list.Items {
		if !w.isWitness(s.ID, list.Items) {
			if _, err := c.ContainerRemove(t.Context(), s.ID, client.ContainerRemoveOptions{Force: true}); err != nil {
				t.Errorf("rm -f %s: %v", s.ID[:12], err)
			}
		}
	}
	clear(w.kept)
	if left := onlyWitness(w.e); len(left) > 0 {
		t.Fatalf("left:\n%s\nlog:\n%s", strings.Join(left, "\n"), w.e.Log())
	}
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
	for _, p := range groupsNamed(filepath.Join(parent, id, "cgroup.procs")) {
		if b, err := os.ReadFile(p); err == nil && len(b) > 0 {
			return true
		}
	}
	return false
}

// spareLinks is how many network namespaces an engine keeps plugged into its
// bridge for the containers to come; they end with the engine.
const spareLinks = 4

// onlyWitness waits until only the witness is left of everything in the kernel and
// on disk, since links and control groups go in the background, and tells what stays.
func onlyWitness(e *harness.Engine) (left []string) {
	for deadline := time.Now().Add(harness.Patience); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if left = traces(e, 1, 1+spareLinks); len(left) == 0 {
			break
		}
	}
	return left
}

// traces tells what there is of containers beyond the given number of them, and
// of links on the bridge beyond (or short of) links.
func traces(e *harness.Engine, containers, links int) (left []string) {
	groups := map[string]bool{}
	for _, pattern := range []string{"/sys/fs/cgroup/*", "/sys/fs/cgroup"} {
		found, _ := filepath.Glob(pattern + e.CgroupParent + "/*")
		for _, d := range found {
			if id := filepath.Base(d); len(id) == 64 { // a container's, no file of the group itself
				groups[id] = true
			}
		}
	}
	if len(groups) > containers {
		left = append(left, fmt.Sprintf("%d control groups: %v", len(groups), slices.Sorted(maps.Keys(groups))))
	}
	if n := linksOf(e); n != links {
		left = append(left, fmt.Sprintf("%d links on %s, should be %d", n, e.Bridge, links))
	}
	for _, d := range []string{filepath.Join(e.DataRoot, "containers"), filepath.Join(e.ExecRoot, "stdio"), filepath.Join(e.ExecRoot, "runtime")} {
		entries, _ := os.ReadDir(d)
		entries = slices.DeleteFunc(entries, func(de os.DirEntry) bool { return len(de.Name()) < 64 })
		if len(entries) > containers {
			left = append(left, fmt.Sprintf("%d entries in %s: %v", len(entries), d, entries))
		}
	}
	if entries, _ := os.ReadDir(filepath.Join(e.DataRoot, "volumes")); len(entries) > 0 {
		left = append(left, fmt.Sprintf("volumes: %v", entries))
	}
	if n := keepers(e); n > containers {
		left = append(left, fmt.Sprintf("%d keepers", n))
	}
	if mi, _ := os.ReadFile("/proc/self/mountinfo"); strings.Contains(string(mi), e.Dir+"/") {
		left = append(left, "mounts below "+e.Dir)
	}
	return left
}

// linksOf counts the links that are plugged into an engine's bridge.
func linksOf(e *harness.Engine) (n int) {
	ports, _ := os.ReadDir("/sys/class/net/" + e.Bridge + "/brif")
	return len(ports)
}

// keepers counts the keepers of e's processes, which hold a status file each.
func keepers(e *harness.Engine) (n int) {
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		b, err := os.ReadFile(p)
		if err != nil || !strings.HasPrefix(string(b), "cleat-keeper ") {
			continue
		}
		status, err := os.Readlink(filepath.Dir(p) + "/fd/5")
		if err == nil && strings.HasPrefix(status, e.ExecRoot+"/") {
			n++
		}
	}
	return n
}

// mapped matches the value of a published port's element: the container's
// address and port.
var mapped = regexp.MustCompile(` : [0-9.]+ \. [0-9]+`)

// published counts the published ports in the kernel.
func published(t *testing.T, e *harness.Engine) int {
	t.Helper()
	out, err := exec.Command("nft", "-n", "list", "table", "inet", "cleat-"+e.Bridge).CombinedOutput()
	if err != nil {
		t.Fatalf("nft list table: %v\n%s", err, out)
	}
	return len(mapped.FindAll(out, -1))
}
