package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/test/harness"
)

// healthOf is State.Health, nil if inspect has none.
func healthOf(t *testing.T, e *harness.Engine, name string) *container.Health {
	t.Helper()
	var h *container.Health
	if err := json.Unmarshal([]byte(e.OK(t, "docker", "inspect", "-f", "{{json .State.Health}}", name)), &h); err != nil {
		t.Fatal(err)
	}
	return h
}

// turns waits until a container's health is so.
func turns(t *testing.T, e *harness.Engine, name string, want container.HealthStatus) *container.Health {
	t.Helper()
	var h *container.Health
	harness.Eventually(t, func() (bool, string) {
		h = healthOf(t, e, name)
		return h != nil && h.Status == want, fmt.Sprintf("want %s, is %+v", want, h)
	})
	return h
}

// last is the latest result, which must be there.
func last(t *testing.T, h *container.Health) *container.HealthcheckResult {
	t.Helper()
	if len(h.Log) == 0 {
		t.Fatalf("no result: %+v", h)
	}
	return h.Log[len(h.Log)-1]
}

// quick are flags of probes in quick succession.
var quick = []string{"--health-interval", "50ms", "--health-retries", "2", "--health-timeout", "30s"}

func runWith(flags []string, name string, more ...string) []string {
	return append(append([]string{"run", "-d", "--name", name}, flags...), more...)
}

func TestHealthcheck(t *testing.T) {
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		n := name(t)
		remove(t, e, n)
		since := now()
		flags := append([]string{"--health-cmd", "echo looked; test -e /well", "--health-start-period", "1h", "--health-start-interval", "20ms"}, quick...)
		e.OK(t, program, runWith(flags, n, "busybox", "sleep", "600")...)
		// As they come: on a slow machine those of the probes' execs drive them out of what the engine remembers.
		told := harness.Begin(t, e.Command(t, program, "events", "--since", since, "--filter", "container="+n, "--filter", "event=health_status", "--format", "{{.Action}}"))
		status := func() string { return e.OK(t, program, "ps", "--filter", "name="+n, "--format", "{{.Status}}") }
		if s := status(); !strings.HasPrefix(s, "Up ") || !strings.HasSuffix(s, " (health: starting)") {
			t.Errorf("%s", s)
		}
		// within the start period failures do not count
		harness.Eventually(t, func() (bool, string) {
			h := healthOf(t, e, n)
			return len(h.Log) == 5, fmt.Sprintf("%+v", h)
		})
		h := healthOf(t, e, n)
		if r := last(t, h); h.Status != container.Starting || h.FailingStreak != 0 || r.ExitCode != 1 || r.Output != "looked\n" || !r.End.After(r.Start) {
			t.Errorf("%+v %+v", h, last(t, h))
		}
		e.OK(t, program, "exec", n, "touch", "/well")
		h = turns(t, e, n, container.Healthy)
		if r := last(t, h); h.FailingStreak != 0 || r.ExitCode != 0 {
			t.Errorf("%+v %+v", h, r)
		}
		if s := status(); !strings.HasSuffix(s, " (healthy)") {
			t.Errorf("%s", s)
		}
		for filter, want := range map[string]string{"healthy": n, "starting": "", "unhealthy": "", "none": ""} {
			if got := e.OK(t, program, "ps", "--filter", "health="+filter, "--filter", "name="+n, "--format", "{{.Names}}"); got != want {
				t.Errorf("health=%s: %q", filter, got)
			}
		}
		e.OK(t, program, "exec", n, "rm", "/well")
		h = turns(t, e, n, container.Unhealthy)
		if h.FailingStreak < 2 || len(h.Log) != 5 {
			t.Errorf("%+v", h)
		}
		if s := status(); !strings.HasSuffix(s, " (unhealthy)") {
			t.Errorf("%s", s)
		}
		told.Shows(t, "health_status: healthy\n")
		told.Shows(t, "health_status: unhealthy\n")
		if got := told.String(); got != "health_status: healthy\nhealth_status: unhealthy\n" {
			t.Errorf("%s", got)
		}
		execs := e.OK(t, program, "events", "--since", since, "--until", now(), "--filter", "container="+n, "--format", "{{.Action}} {{.Actor.Attributes.exitCode}}")
		for _, want := range []string{"exec_create: /bin/sh -c echo looked; test -e /well", "exec_start: /bin/sh -c echo looked; test -e /well", "exec_die 1"} {
			if !strings.Contains(execs, want) {
				t.Errorf("no %q in:\n%s", want, execs)
			}
		}
		// a new run starts anew
		e.OK(t, program, "exec", n, "touch", "/well")
		e.OK(t, program, "restart", "-t", "0", n)
		if h := healthOf(t, e, n); h.Status == container.Unhealthy || h.FailingStreak != 0 {
			t.Errorf("after a restart: %+v", h)
		}
		turns(t, e, n, container.Healthy)
		e.OK(t, program, "stop", "-t", "0", n)
		if h := healthOf(t, e, n); h.Status != container.Unhealthy {
			t.Errorf("of a stopped container Docker says unhealthy: %+v", h)
		}
		if s := e.OK(t, program, "ps", "-a", "--filter", "name="+n, "--format", "{{.Status}}"); strings.Contains(s, "health") {
			t.Errorf("%s", s)
		}
	})
}

func TestProbes(t *testing.T) {
	e := engine(t, "busybox")
	t.Run("output is cut", func(t *testing.T) {
		n := name(t)
		remove(t, e, n)
		e.OK(t, "docker", runWith(append([]string{"--health-cmd", "head -c 300000 /dev/zero | tr '\\0' x"}, quick...), n, "busybox", "sleep", "600")...)
		if out := last(t, turns(t, e, n, container.Healthy)).Output; out != strings.Repeat("x", 4096)+"..." {
			t.Errorf("%d bytes, the end is %q", len(out), out[max(0, len(out)-10):])
		}
	})
	t.Run("too long", func(t *testing.T) {
		n := name(t)
		remove(t, e, n)
		id := e.OK(t, "docker", "run", "-d", "--name", n, "--health-cmd", "echo begun; sleep 1000; true", "--health-interval", "20ms", "--health-retries", "3", "--health-timeout", "300ms",
			"busybox", "sleep", "600")
		h := turns(t, e, n, container.Unhealthy)
		for _, r := range h.Log {
			// on a busy machine the shell may not come to its first word
			if r.ExitCode != -1 || r.Output != "Health check exceeded timeout (300ms): begun\n" && r.Output != "Health check exceeded timeout (300ms)" {
				t.Errorf("%+v", r)
			}
		}
		// the probe and what it has started are gone: at most the next one is there
		harness.Eventually(t, func() (bool, string) {
			n := processes(t, e, id)
			return n <= 3, fmt.Sprintf("%d processes", n)
		})
	})
	t.Run("what cannot be run", func(t *testing.T) {
		n := name(t)
		remove(t, e, n)
		c := e.Client(t)
		made, err := c.ContainerCreate(t.Context(), client.ContainerCreateOptions{Name: n, Config: &container.Config{
			Image: "busybox", Cmd: []string{"sleep", "600"}, Healthcheck: &container.HealthConfig{Test: []string{"CMD", "/no such", "a b"}, Interval: time.Millisecond, Retries: 1},
		}})
		if err != nil {
			t.Fatal(err)
		}
		if h := healthOf(t, e, n); h != nil {
			t.Errorf("before the first start: %+v", h)
		}
		e.OK(t, "docker", "start", made.ID)
		if r := last(t, turns(t, e, n, container.Unhealthy)); r.ExitCode != -1 || !strings.Contains(r.Output, `exec: "/no such": stat /no such: no such file or directory`) {
			t.Errorf("%+v", r)
		}
	})
	t.Run("none", func(t *testing.T) {
		n := name(t)
		remove(t, e, n)
		e.OK(t, "docker", "run", "-d", "--name", n, "--no-healthcheck", "busybox", "sleep", "600")
		if h := healthOf(t, e, n); h != nil {
			t.Errorf("%+v", h)
		}
		if got := e.OK(t, "docker", "ps", "--filter", "health=none", "--filter", "name="+n, "--format", "{{.Names}} {{.Status}}"); !strings.HasPrefix(got, n+" Up") || strings.Contains(got, "(") {
			t.Errorf("%s", got)
		}
	})
	t.Run("of the image", func(t *testing.T) {
		archive, root := filepath.Join(t.TempDir(), "image.tar"), t.TempDir()
		b, err := os.ReadFile(harness.Program(t, "busybox"))
		if err == nil {
			err = os.WriteFile(filepath.Join(root, "busybox"), b, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
		harness.MakeImage(t, "with-health", archive, "--from-dir", root, "--cmd", `["/busybox","sleep","600"]`,
			"--healthcheck", `{"Test":["CMD","/busybox","echo","two  blanks"],"Interval":50000000,"Retries":7}`)
		e.OK(t, "docker", "load", "-i", archive)
		t.Cleanup(func() { e.OK(t, "docker", "rmi", "-f", "with-health") })
		n := name(t)
		remove(t, e, n, n+"-own", n+"-none")
		e.OK(t, "docker", "run", "-d", "--name", n, "with-health")
		if r := last(t, turns(t, e, n, container.Healthy)); r.Output != "two  blanks\n" {
			t.Errorf("%+v", r)
		}
		if got := e.OK(t, "docker", "inspect", "-f", "{{.Config.Healthcheck.Retries}}", n); got != "7" {
			t.Errorf("%s retries", got)
		}
		e.OK(t, "docker", "run", "-d", "--name", n+"-none", "--no-healthcheck", "with-health")
		if h := healthOf(t, e, n+"-none"); h != nil {
			t.Errorf("%+v", h)
		}
	})
}

// TestStopDoesNotWaitForProbes: probes are no sign that PID 1, which nothing can
// wake, is at work.
func TestStopDoesNotWaitForProbes(t *testing.T) {
	e := engine(t, "busybox")
	n := name(t)
	remove(t, e, n)
	id := e.OK(t, "docker", runWith([]string{"--health-cmd", "while :; do :; done", "--health-interval", "1ms"}, n, "busybox", "sleep", "600")...)
	harness.Eventually(t, func() (bool, string) {
		return processes(t, e, id) > 1, "no probe"
	})
	since := now()
	e.OK(t, "docker", "stop", n)
	got := e.OK(t, "docker", "events", "--since", since, "--until", now(), "--filter", "container="+n, "--filter", "event=kill", "--format", `{{.Actor.Attributes.signal}} {{index .Actor.Attributes "cleat.reason"}}`)
	if !strings.Contains(got, "9 no thread of PID 1 can receive signal 15 and the container was idle") {
		t.Errorf("%s", got)
	}
}

func TestPausedContainersAreNotProbed(t *testing.T) {
	t.Parallel() // it waits, mostly
	e := engine(t, "busybox")
	n := name(t)
	remove(t, e, n)
	// Nearly always a probe is under way when the container is paused.
	e.OK(t, "docker", runWith([]string{"--health-cmd", "sleep 0.5", "--health-interval", "20ms", "--health-timeout", "5s", "--health-retries", "1"}, n, "busybox", "sleep", "600")...)
	turns(t, e, n, container.Healthy)
	since := now()
	for range 5 { // whatever the instant of a probe that this meets
		e.OK(t, "docker", "pause", n)
		e.OK(t, "docker", "unpause", n)
	}
	e.OK(t, "docker", "pause", n)
	if s := e.OK(t, "docker", "ps", "--filter", "name="+n, "--format", "{{.Status}}"); !strings.HasSuffix(s, "(Paused)") {
		t.Errorf("%s", s)
	}
	paused := time.Now()
	time.Sleep(5500 * time.Millisecond) // longer than a probe may take: a probe that stood still must not be counted
	before := last(t, healthOf(t, e, n))
	if before.Start.After(paused) {
		t.Errorf("probed while paused, since %v: %+v", paused, before)
	}
	e.OK(t, "docker", "unpause", n)
	harness.Eventually(t, func() (bool, string) {
		r := last(t, healthOf(t, e, n))
		return r.End.After(before.End), fmt.Sprintf("%+v", r)
	})
	if got := e.OK(t, "docker", "events", "--since", since, "--until", now(), "--filter", "container="+n, "--filter", "event=health_status", "--format", "{{.Action}}"); got != "" {
		t.Errorf("%s", got)
	}
}

// TestHealthGoesOnOverItsEngine: status, streak and results are the next engine's,
// which probes on; a probe that was under way is gone.
func TestHealthGoesOnOverItsEngine(t *testing.T) {
	for how, end := range endings {
		t.Run(how, func(t *testing.T) {
			e := harness.Start(t, harness.Options{})
			e.Load(t, "busybox")
			probed := func(name, cmd string, more ...string) string {
				flags := append([]string{"--health-cmd", cmd, "--health-interval", "1s", "--health-retries", "1000"}, more...)
				return e.OK(t, "docker", runWith(flags, name, "busybox", "sleep", "600")...)
			}
			probed("well", "echo well")
			probed("ill", "echo ill; false")
			long := probed("long", "sleep 1000", "--health-interval", "10ms")
			turns(t, e, "well", container.Healthy)
			harness.Eventually(t, func() (bool, string) {
				h := healthOf(t, e, "ill")
				return h.FailingStreak >= 2 && processes(t, e, long) == 2, fmt.Sprintf("%+v", h)
			})
			end(t, e)
			e.Run(t)
			ill := healthOf(t, e, "ill")
			if ill.FailingStreak < 2 || len(ill.Log) < 2 {
				t.Errorf("%+v", ill)
			}
			if h := healthOf(t, e, "well"); h.Status != container.Healthy {
				t.Errorf("%+v", h)
			}
			harness.Eventually(t, func() (bool, string) {
				h := healthOf(t, e, "ill")
				return h.FailingStreak > ill.FailingStreak, fmt.Sprintf("%+v", h)
			})
			harness.Eventually(t, func() (bool, string) { // the next probe begins while the one before is ending
				n := processes(t, e, long)
				return n <= 2, fmt.Sprintf("%d processes", n)
			})
			e.OK(t, "docker", "rm", "-f", "well", "ill", "long")
			nothingLeft(t, e)
			harness.Eventually(t, func() (bool, string) {
				files, _ := filepath.Glob(filepath.Join(e.ExecRoot, "health", "*"))
				return len(files) == 0, fmt.Sprintf("left: %v", files)
			})
		})
	}
}

func TestHealthOnFailure(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	ill := append([]string{"--health-cmd", "test ! -e /ill"}, quick...)
	start := func(t *testing.T, program, n string, flags ...string) {
		t.Helper()
		e.OK(t, program, runWith(append(flags, ill...), n, "busybox", "sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.05; done")...)
		turns(t, e, n, container.Healthy)
	}
	exited := func(t *testing.T, n, want string) {
		t.Helper()
		harness.Eventually(t, func() (bool, string) {
			s := e.OK(t, "docker", "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}", n)
			return s == want, s
		})
	}
	t.Run("stop", func(t *testing.T) {
		start(t, "cleat", "stop", "--health-on-failure", "stop", "--restart", "always")
		e.OK(t, "docker", "exec", "stop", "touch", "/ill")
		exited(t, "stop", "exited 3 0")
	})
	t.Run("kill", func(t *testing.T) {
		start(t, "docker", "kill", "--annotation", "cleat.health-on-failure=kill")
		since := now()
		e.OK(t, "docker", "exec", "kill", "touch", "/ill")
		exited(t, "kill", "exited 137 0")
		got := e.OK(t, "docker", "events", "--since", since, "--until", now(), "--filter", "event=kill", "--format", "{{.Actor.Attributes.signal}} {{index .Actor.Attributes \"cleat.reason\"}}")
		if got != "9 unhealthy, and --health-on-failure is kill" {
			t.Errorf("%s", got)
		}
	})
	t.Run("kill with a restart policy", func(t *testing.T) {
		start(t, "cleat", "policy", "--health-on-failure=kill", "--restart", "on-failure:3", "--tmpfs", "/run")
		e.OK(t, "docker", "exec", "policy", "touch", "/ill")
		exited(t, "policy", "exited 137 3") // the file stays
	})
	t.Run("restart", func(t *testing.T) {
		start(t, "cleat", "again", "--health-on-failure=restart", "--rm")
		first := e.OK(t, "docker", "inspect", "-f", "{{.State.Pid}}", "again")
		since := now()
		e.OK(t, "docker", "exec", "again", "touch", "/ill")
		harness.Eventually(t, func() (bool, string) { // in vain, again and again, more slowly each time
			s := e.OK(t, "docker", "inspect", "-f", "{{.RestartCount}}", "again")
			n, _ := strconv.Atoi(s)
			return n >= 3, s + " restarts"
		})
		var ends []time.Time
		for _, l := range strings.Fields(e.OK(t, "docker", "events", "--since", since, "--until", now(), "--filter", "container=again", "--filter", "event=start", "--format", "{{.TimeNano}}")) {
			n, _ := strconv.ParseInt(l, 10, 64)
			ends = append(ends, time.Unix(0, n))
		}
		for i := 1; i < len(ends); i++ { // the delay is 100 ms at first, and doubles
			if d := ends[i].Sub(ends[i-1]); d < 100*time.Millisecond<<i {
				t.Errorf("restart %d after %v", i+1, d)
			}
		}
		harness.Eventually(t, func() (bool, string) {
			r := e.Docker(t, "exec", "again", "rm", "-f", "/ill")
			return r.Code == 0, r.String()
		})
		turns(t, e, "again", container.Healthy)
		if got := e.OK(t, "docker", "inspect", "-f", "{{.State.Status}} {{.State.Pid}}", "again"); !strings.HasPrefix(got, "running ") || got == "running "+first {
			t.Errorf("%s, was %s", got, first)
		}
		e.OK(t, "docker", "stop", "-t", "0", "again")
		exited := func() bool { return e.Docker(t, "inspect", "again").Code != 0 }
		harness.Eventually(t, func() (bool, string) { return exited(), "--rm does not remove what was stopped by hand" })
	})
	t.Run("restart over a killed engine", func(t *testing.T) {
		e.OK(t, "cleat", runWith(append([]string{"--health-on-failure=restart", "--stop-timeout", "600"}, ill...), "slow", "busybox", "sh", "-c", "trap '' TERM; while :; do sleep 0.05; done")...)
		pid, _ := strconv.Atoi(e.OK(t, "docker", "inspect", "-f", "{{.State.Pid}}", "slow"))
		since := now()
		e.OK(t, "docker", "exec", "slow", "touch", "/ill")
		harness.Eventually(t, func() (bool, string) {
			s := e.OK(t, "docker", "events", "--since", since, "--until", now(), "--filter", "event=kill", "--format", "{{.Actor.Attributes.signal}}")
			return s == "15", "signals: " + s
		})
		e.Kill()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		awaitDeath(t, pid)
		e.Run(t)
		harness.Eventually(t, func() (bool, string) {
			s := e.OK(t, "docker", "inspect", "-f", "{{.State.Running}} {{.State.Pid}}", "slow")
			return strings.HasPrefix(s, "true ") && s != fmt.Sprint("true ", pid) && s != "true 0", s
		})
		e.OK(t, "docker", "rm", "-f", "slow")
	})
	t.Run("refused", func(t *testing.T) {
		for _, c := range []struct{ action, health, want string }{
			{"reboot", "true", `invalid action "reboot" on health check failure (--health-on-failure, annotation cleat.health-on-failure): want none, restart, stop or kill`},
			{"", "true", `invalid action ""`},
			{"restart", "", "cannot restart the container on health check failure (--health-on-failure): neither --health-cmd nor the image gives it a health check"},
		} {
			args := []string{"run", "--rm", "--health-on-failure", c.action}
			if c.health != "" {
				args = append(args, "--health-cmd", c.health)
			}
			if r := e.Cleat(t, append(args, "busybox", "true")...); r.Code != 125 || !strings.Contains(r.Stderr, c.want) {
				t.Errorf("%s", r)
			}
		}
		if r := e.Cleat(t, "run", "--rm", "--health-on-failure", "none", "busybox", "true"); r.Code != 0 {
			t.Errorf("%s", r)
		}
	})
}
