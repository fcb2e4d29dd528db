package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/test/harness"
)

// counting writes a number a moment, so that standing still can be seen.
const counting = `trap "exit 9" TERM; i=0; while :; do i=$((i+1)); echo $i > /count; sleep 0.02; done`

// counter is the host's path of a counting container's file.
func counter(t *testing.T, e *harness.Engine, n string) func() string {
	pid := e.OK(t, "docker", "inspect", "-f", "{{.State.Pid}}", n)
	return func() string { return readFile("/proc/" + pid + "/root/count") }
}

func TestPause(t *testing.T) {
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		n := name(t)
		remove(t, e, n)
		since := now()
		id := e.OK(t, program, "run", "-d", "--name", n, "busybox", "sh", "-c", counting)
		count := counter(t, e, n)
		harness.Eventually(t, func() (bool, string) { return count() != "", "no count" })
		if got := e.OK(t, program, "pause", n); got != n {
			t.Errorf("pause prints %q", got)
		}
		before := count()
		if got := e.OK(t, program, "inspect", "-f", "{{.State.Status}} {{.State.Paused}} {{.State.Running}}", n); got != "paused true true" {
			t.Errorf("inspect: %s", got)
		}
		if got := e.OK(t, program, "ps", "--filter", "status=paused", "--format", "{{.Names}} {{.Status}}"); !strings.HasPrefix(got, n+" Up ") || !strings.HasSuffix(got, " (Paused)") {
			t.Errorf("ps: %s", got)
		}
		if got := e.OK(t, program, "info", "--format", "{{.ContainersPaused}}"); got != "1" {
			t.Errorf("info counts %s paused", got)
		}
		for _, refused := range []struct{ args, text string }{
			{"exec " + n + " true", "container " + id + " is paused, unpause the container before exec"},
			{"attach " + n, "paused"},
			{"pause " + n, "container " + id + " is already paused"},
			{"start " + n, "cannot start a paused container, try unpause instead"},
			{"rm " + n, "container is paused and must be unpaused first"},
		} {
			if r := e.Do(t, program, "", strings.Fields(refused.args)...); r.Code == 0 || !strings.Contains(r.Stderr, refused.text) {
				t.Errorf("%s: %s", refused.args, r)
			}
		}
		e.OK(t, program, "logs", n)
		if after := count(); after != before {
			t.Errorf("paused, but it counted from %s to %s", before, after)
		}
		if got := e.OK(t, program, "unpause", n); got != n {
			t.Errorf("unpause prints %q", got)
		}
		harness.Eventually(t, func() (bool, string) { return count() != before, "does not go on" })
		if r := e.Do(t, program, "", "unpause", n); r.Code != 1 || !strings.Contains(r.Stderr, "is not paused") {
			t.Errorf("unpause of one that runs: %s", r)
		}
		e.OK(t, program, "exec", n, "true")
		e.OK(t, program, "pause", n)
		e.OK(t, program, "rm", "-f", n)
		events := e.OK(t, program, "events", "--since", since, "--until", now(), "--filter", "container="+id, "--format", "{{.Action}}")
		var seen []string
		for action := range strings.Lines(events) {
			if a := strings.TrimSpace(action); !strings.HasPrefix(a, "exec") && a != "create" && a != "attach" {
				seen = append(seen, a)
			}
		}
		if got, want := strings.Join(seen, " "), "start pause unpause pause kill unpause die destroy"; got != want {
			t.Errorf("events: %s, want %s", got, want)
		}
	})
}

// TestPausedContainersEnd: each way to end a container lets a paused one go on, and
// its program sees the signal.
func TestPausedContainersEnd(t *testing.T) {
	e := engine(t, "busybox")
	for _, end := range []struct{ verb, code string }{
		{"stop", "9"}, {"stop -t 60", "9"}, {"kill", "137"}, {"kill -s TERM", "9"}, {"restart", ""},
	} {
		t.Run(strings.ReplaceAll(end.verb, " ", "_"), func(t *testing.T) {
			t.Parallel()
			n := name(t)
			remove(t, e, n)
			e.OK(t, "docker", "run", "-d", "--name", n, "busybox", "sh", "-c", counting)
			count := counter(t, e, n)
			harness.Eventually(t, func() (bool, string) { return count() != "", "no count" })
			e.OK(t, "docker", "pause", n)
			began := time.Now()
			e.OK(t, "docker", append(strings.Fields(end.verb), n)...)
			if d := time.Since(began); d > 50*time.Second {
				t.Errorf("%s took %v", end.verb, d)
			}
			if end.code == "" {
				if got := e.OK(t, "docker", "inspect", "-f", "{{.State.Status}}", n); got != "running" {
					t.Errorf("after %s it is %s", end.verb, got)
				}
				return
			}
			if got := e.OK(t, "docker", "wait", n); got != end.code {
				t.Errorf("%s: exit code %s, want %s", end.verb, got, end.code)
			}
		})
	}
}

// TestPauseOutlivesTheEngine: what is paused stays so, and can be told to go on by
// the next engine.
func TestPauseOutlivesTheEngine(t *testing.T) {
	for how, end := range endings {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			e := harness.Start(t, harness.Options{})
			e.Load(t, "busybox")
			for _, n := range []string{"paused", "frozen", "thawed"} {
				id := e.OK(t, "docker", "run", "-d", "--name", n, "busybox", "sh", "-c", counting)
				if n == "frozen" { // by somebody else: the record does not know
					freeze(t, e, id)
					continue
				}
				e.OK(t, "docker", "pause", n)
			}
			id := e.OK(t, "docker", "inspect", "-f", "{{.Id}}", "thawed")
			count := counter(t, e, "paused")
			end(t, e)
			thaw(t, e, id)
			before := count()
			e.Run(t)
			for n, want := range map[string]string{"paused": "paused", "frozen": "paused", "thawed": "running"} {
				if got := e.OK(t, "docker", "inspect", "-f", "{{.State.Status}}", n); got != want {
					t.Errorf("%s is %s, want %s", n, got, want)
				}
			}
			if after := count(); after != before {
				t.Errorf("went on: %s, %s", before, after)
			}
			e.OK(t, "docker", "unpause", "paused", "frozen")
			harness.Eventually(t, func() (bool, string) { return count() != before, "does not go on" })
			e.OK(t, "docker", "stop", "paused", "frozen", "thawed")
		})
	}
}

func TestPauseWithTheGoClient(t *testing.T) {
	g := gophers(t, engine(t, "busybox"))
	id := g.busybox("sleep 600")
	pause := func() error { _, err := g.ContainerPause(g.ctx, id, client.ContainerPauseOptions{}); return err }
	unpause := func() error { _, err := g.ContainerUnpause(g.ctx, id, client.ContainerUnpauseOptions{}); return err }
	if err := pause(); !errdefs.IsConflict(err) || !strings.Contains(err.Error(), fmt.Sprintf("container %s is not running", id)) {
		t.Errorf("pause of one that does not run: %v", err)
	}
	if err := unpause(); !errdefs.IsInternal(err) {
		t.Errorf("unpause of one that does not run: %v", err)
	}
	g.start(id)
	if err := pause(); err != nil {
		t.Fatal(err)
	}
	if err := pause(); !errdefs.IsConflict(err) {
		t.Errorf("pause of a paused one: %v", err)
	}
	// The wait goes on over the pause.
	wait := g.wait(id, "next-exit")
	if _, err := g.ContainerStop(g.ctx, id, client.ContainerStopOptions{}); err != nil {
		t.Fatal(err)
	}
	g.exit(wait)
	if _, err := g.ContainerPause(g.ctx, "nosuch", client.ContainerPauseOptions{}); !errdefs.IsNotFound(err) {
		t.Errorf("pause of none: %v", err)
	}
}

func TestPort(t *testing.T) {
	e := engine(t, "busybox")
	n := name(t)
	remove(t, e, n)
	e.OK(t, "docker", "run", "-d", "--name", n, "-p", "0:80", "-p", "127.0.0.1:0:53/udp", "-p", "127.0.0.1:0:100", "--expose", "9", "busybox", "sleep", "600")
	for _, args := range [][]string{{"port", n}, {"container", "port", n}, {"port", n, "80"}, {"port", n, "80/tcp"}, {"port", n, "53/udp"}} {
		want, got := e.Docker(t, args...), e.Cleat(t, args...)
		if want.Code != 0 || want.Stdout == "" || got.Stdout != want.Stdout || got.Stderr != want.Stderr || got.Code != want.Code {
			t.Errorf("%s\nwant %s", got, want)
		}
	}
	for port, text := range map[string]string{"81": "no public port '81' published for " + n, "9": "no public port '9' published for " + n, "80/udp": "no public port", "x": "invalid port", "70000": "invalid port"} {
		want, got := e.Docker(t, "port", n, port), e.Cleat(t, "port", n, port)
		if want.Code != 1 || got.Code != 1 || got.Stdout != "" || !strings.Contains(strings.ToLower(got.Stderr), text) || !strings.Contains(strings.ToLower(want.Stderr), text) {
			t.Errorf("%s\ndocker's: %s", got, want)
		}
	}
	if got, want := e.Cleat(t, "port", "nosuch"), e.Docker(t, "port", "nosuch"); got.Code != want.Code || !strings.Contains(got.Stderr, "No such container: nosuch") {
		t.Errorf("%s\ndocker's: %s", got, want)
	}
}
