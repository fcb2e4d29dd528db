package e2e

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

func TestLifeOfAContainer(t *testing.T) {
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		n := name(t)
		remove(t, e, n, n+"-new")
		id := e.OK(t, program, "create", "--name", n, "busybox", "sleep", "600")
		state := func() string { return e.OK(t, program, "inspect", "-f", "{{.State.Status}}", id) }
		if len(id) != 64 || state() != "created" {
			t.Fatalf("create: %q is %s", id, state())
		}
		e.OK(t, program, "start", n)
		if state() != "running" {
			t.Fatalf("after start it is %s", state())
		}
		if got := e.OK(t, program, "exec", n, "sh", "-c", "echo in $(hostname)"); got != "in "+id[:12] {
			t.Errorf("exec: %q", got)
		}
		e.OK(t, program, "rename", n, n+"-new")
		if got := e.OK(t, program, "ps", "--format", "{{.Names}}", "--filter", "name="+n); got != n+"-new" {
			t.Errorf("after rename: %q", got)
		}
		pid := e.OK(t, program, "inspect", "-f", "{{.State.Pid}}", id)
		e.OK(t, program, "restart", id)
		if again := e.OK(t, program, "inspect", "-f", "{{.State.Pid}}", id); again == pid || again == "0" {
			t.Errorf("after restart the PID is %s, before it was %s", again, pid)
		}
		e.OK(t, program, "kill", "-s", "TERM", id)
		e.OK(t, program, "kill", id)
		if code := e.OK(t, program, "wait", id); code != "137" {
			t.Errorf("wait: %s", code)
		}
		if r := e.Do(t, program, "", "kill", id); r.Code == 0 || !strings.Contains(r.Stderr, "is not running") {
			t.Errorf("kill of a stopped one: %s", r)
		}
		e.OK(t, program, "rm", id)
		if r := e.Do(t, program, "", "inspect", id); r.Code == 0 || !strings.Contains(strings.ToLower(r.Stderr), "no such object") {
			t.Errorf("inspect after rm: %s", r)
		}
	})
}

func TestLogs(t *testing.T) {
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		n := name(t)
		remove(t, e, n)
		e.OK(t, program, "run", "-d", "--name", n, "busybox", "sh", "-c", "for i in 1 2 3 4 5; do echo out $i; echo err $i >&2; done")
		e.OK(t, program, "wait", n)
		r := e.Do(t, program, "", "logs", n)
		if r.Stdout != "out 1\nout 2\nout 3\nout 4\nout 5\n" || r.Stderr != "err 1\nerr 2\nerr 3\nerr 4\nerr 5\n" {
			t.Errorf("%s", r)
		}
		if r := e.Do(t, program, "", "logs", "-n", "2", "-t", n); strings.Count(r.Stdout+r.Stderr, "\n") != 2 || !strings.Contains(r.Stdout, "Z out 5\n") && !strings.Contains(r.Stderr, "Z err 5\n") {
			t.Errorf("tail with times: %s", r) // which stream's last line comes last is the pipes' affair
		}
		if r := e.Do(t, program, "", "logs", "-f", n); r.Code != 0 || strings.Count(r.Stdout, "\n") != 5 {
			t.Errorf("follow of a stopped one must end: %s", r)
		}
		none := n + "-none"
		remove(t, e, none)
		e.OK(t, program, "run", "--name", none, "--log-driver", "none", "busybox", "echo", "x")
		if r := e.Do(t, program, "", "logs", none); r.Code == 0 || !strings.Contains(r.Stderr, "does not support reading") {
			t.Errorf("logs of driver none: %s", r)
		}
	})
}

func TestFollowedLogsEndWithTheContainer(t *testing.T) {
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		n := name(t)
		remove(t, e, n)
		e.OK(t, program, "run", "-d", "--name", n, "busybox", "sh", "-c", "i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); done; read x </dev/null; echo last")
		r := e.Do(t, program, "", "logs", "-f", n)
		if r.Code != 0 || strings.Count(r.Stdout, "\n") != 301 || !strings.HasSuffix(r.Stdout, "last\n") {
			t.Errorf("%s", r)
		}
	})
}

func TestNamesAndPrefixes(t *testing.T) {
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		n := name(t)
		remove(t, e, n)
		id := e.OK(t, program, "create", "--name", n, "busybox")
		r := e.Do(t, program, "", "create", "--name", n, "busybox")
		if r.Code == 0 || !strings.Contains(r.Stderr, "is already in use by container") || !strings.Contains(r.Stderr, id) {
			t.Errorf("a name in use must name its holder: %s", r)
		}
		for _, ref := range []string{id, id[:12], id[:20], n} {
			if got := e.OK(t, program, "inspect", "-f", "{{.Id}}", ref); got != id {
				t.Errorf("%s is %s", ref, got)
			}
		}
		if r := e.Do(t, program, "", "create", "--name", "no/slash", "busybox"); r.Code == 0 || !strings.Contains(r.Stderr, "are allowed") {
			t.Errorf("%s", r)
		}
	})
}

func TestRestartPolicies(t *testing.T) {
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		n := name(t)
		remove(t, e, n)
		e.OK(t, program, "run", "-d", "--name", n, "--restart", "on-failure:2", "busybox", "sh", "-c", "echo run; exit 3")
		harness.Eventually(t, func() (bool, string) {
			s := e.OK(t, program, "inspect", "-f", "{{.State.Status}} {{.RestartCount}} {{.State.ExitCode}}", n)
			return s == "exited 2 3", s
		})
		if got := e.OK(t, program, "logs", n); got != "run\nrun\nrun" {
			t.Errorf("the logs of all runs: %q", got)
		}
		always := n + "-always"
		remove(t, e, always)
		e.OK(t, program, "run", "-d", "--name", always, "--restart", "always", "busybox", "sleep", "600")
		pid := e.OK(t, program, "inspect", "-f", "{{.State.Pid}}", always)
		host, err := strconv.Atoi(pid)
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(host, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		harness.Eventually(t, func() (bool, string) {
			s := e.OK(t, program, "inspect", "-f", "{{.State.Status}} {{.State.Pid}}", always)
			return strings.HasPrefix(s, "running ") && s != "running "+pid && s != "running 0", s
		})
		e.OK(t, program, "stop", "-t", "0", always)
		if got := e.OK(t, program, "inspect", "-f", "{{.State.Status}}", always); got != "exited" {
			t.Errorf("a stop by hand must last: %s", got)
		}
	})
}

// TestStopIsNotInVain: what can react to the signal gets its time, what cannot is
// not waited for.
func TestStopIsNotInVain(t *testing.T) {
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		n := name(t)
		remove(t, e, n, n+"-trap")
		e.OK(t, program, "run", "-d", "--name", n, "busybox", "sleep", "infinity")
		begin := now()
		e.OK(t, program, "stop", n)
		reason := e.OK(t, program, "events", "--since", begin, "--until", now(), "--filter", "container="+n, "--filter", "event=kill",
			"--format", `{{.Actor.Attributes.signal}} {{index .Actor.Attributes "cleat.reason"}}`)
		if !strings.Contains(reason, "9 no thread of PID 1 can receive signal 15 and the container was idle: killed before its timeout") {
			t.Errorf("a PID 1 that nothing can wake was waited for: %q", reason)
		}
		if got := e.OK(t, program, "inspect", "-f", "{{.State.ExitCode}}", n); got != "137" {
			t.Errorf("exit code %s", got)
		}
		e.OK(t, program, "run", "-d", "--name", n+"-trap", "busybox", "sh", "-c", "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.1; done")
		harness.Eventually(t, func() (bool, string) { s := e.OK(t, program, "logs", n+"-trap"); return s == "ready", s })
		e.OK(t, program, "stop", "-t", "100", n+"-trap")
		if got := e.OK(t, program, "inspect", "-f", "{{.State.ExitCode}}", n+"-trap"); got != "5" {
			t.Errorf("the trap's exit code is %s", got)
		}
	})
}

func TestEventsInOrder(t *testing.T) {
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		n := name(t)
		begin := now()
		e.OK(t, program, "run", "--rm", "--name", n, "busybox", "true")
		want := []string{"create", "attach", "start", "die", "destroy"}
		harness.Eventually(t, func() (bool, string) {
			var actions []string
			for line := range strings.Lines(e.OK(t, program, "events", "--since", begin, "--until", now(), "--filter", "type=container", "--format", "{{.Action}} {{.Actor.Attributes.name}}")) {
				if a, who, _ := strings.Cut(strings.TrimSpace(line), " "); who == n {
					actions = append(actions, a)
				}
			}
			return slices.Equal(actions, want), fmt.Sprintf("%v, want %v", actions, want)
		})
	})
}

func TestPsFiltersAndFormats(t *testing.T) {
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		n := name(t)
		remove(t, e, n+"-up", n+"-down")
		up := e.OK(t, program, "run", "-d", "--name", n+"-up", "--label", "who="+n, "busybox", "sleep", "600")
		down := e.OK(t, program, "create", "--name", n+"-down", "--label", "who="+n, "busybox", "echo", "hi there")
		label := "label=who=" + n
		for _, c := range []struct {
			args []string
			want string
		}{
			{[]string{"ps", "-q", "--no-trunc", "-f", label}, up},
			{[]string{"ps", "-aq", "-f", label}, down[:12] + "\n" + up[:12]},
			{[]string{"ps", "-a", "-f", label, "-f", "status=created", "--format", "{{.Names}} {{.Image}} {{.Command}} {{.State}}"}, n + `-down busybox "echo 'hi there'" created`},
			{[]string{"ps", "-l", "-q"}, down[:12]},
			{[]string{"ps", "-n", "1", "-q"}, down[:12]},
			{[]string{"ps", "-a", "-f", label, "-f", "since=" + n + "-up", "-q"}, down[:12]},
			{[]string{"ps", "-a", "-f", label, "-f", "before=" + n + "-down", "-q"}, up[:12]},
			{[]string{"ps", "-a", "-f", label, "-f", "ancestor=busybox", "-q"}, down[:12] + "\n" + up[:12]},
		} {
			if got := e.OK(t, program, c.args...); got != c.want {
				t.Errorf("%v: %q, want %q", c.args, got, c.want)
			}
		}
		if r := e.Do(t, program, "", "ps", "-f", "status=nonsense"); r.Code != 1 || !strings.Contains(r.Stderr, "invalid filter 'status=nonsense': invalid value for state (nonsense)") {
			t.Errorf("%s", r)
		}
	})
}

// TestRemoveWhatHasExited is the line that scripts use to tidy up.
func TestRemoveWhatHasExited(t *testing.T) {
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		for i := range 5 {
			if r := e.Do(t, program, "", "run", "--label", "tidy="+program, "busybox", "sh", "-c", fmt.Sprintf("exit %d", i)); r.Code != i {
				t.Fatalf("%s", r)
			}
		}
		ids := strings.Fields(e.OK(t, program, "ps", "-a", "-q", "-f", "status=exited", "-f", "label=tidy="+program))
		if len(ids) != 5 {
			t.Fatalf("%d exited containers", len(ids))
		}
		e.OK(t, program, append([]string{"rm"}, ids...)...)
		if left := e.OK(t, program, "ps", "-a", "-q", "-f", "label=tidy="+program); left != "" {
			t.Errorf("left: %s", left)
		}
	})
}

func TestFiftyAtOnce(t *testing.T) {
	e := engine(t, "busybox")
	const n = 50
	ids := make([]string, n)
	var wg sync.WaitGroup
	work := make(chan int)
	for range 8 {
		wg.Go(func() {
			for i := range work {
				ids[i] = e.OK(t, clients[i%2], "run", "-d", "busybox", "sh", "-c", fmt.Sprintf("echo number %d; exec sleep 600", i))
			}
		})
	}
	for i := range n {
		work <- i
	}
	close(work)
	wg.Wait()
	for i, id := range ids {
		harness.Eventually(t, func() (bool, string) {
			s := e.OK(t, "cleat", "logs", id)
			return s == fmt.Sprintf("number %d", i), s
		})
	}
	if got := strings.Count(e.OK(t, "docker", "ps", "-q"), "\n") + 1; got < n {
		t.Errorf("%d of %d run", got, n)
	}
	e.OK(t, "docker", append([]string{"rm", "-f"}, ids...)...)
}

func TestExecDetails(t *testing.T) {
	e := engine(t, "busybox")
	n := name(t)
	remove(t, e, n)
	e.OK(t, "cleat", "run", "-d", "--name", n, "-e", "A=1", "busybox", "sleep", "600")
	each(t, func(t *testing.T, program string) {
		for _, c := range []struct {
			args []string
			code int
			out  string
		}{
			{[]string{n, "sh", "-c", "exit 9"}, 9, ""},
			{[]string{"-u", "1000", "-w", "/tmp", "-e", "B=2", n, "sh", "-c", "id -u; pwd; echo $A$B"}, 0, "1000\n/tmp\n12"},
			{[]string{n, "no-such-program"}, 127, ""},
			{[]string{n, "/etc/passwd"}, 126, ""},
			{[]string{"--privileged", n, "grep", "CapEff", "/proc/self/status"}, 0, ""},
		} {
			r := e.Do(t, program, "", append([]string{"exec"}, c.args...)...)
			if r.Code != c.code || (c.out != "" && r.Line() != c.out) {
				t.Errorf("want %d %q: %s", c.code, c.out, r)
			}
		}
		if r := e.Do(t, program, "typed\n", "exec", "-i", n, "cat"); r.Stdout != "typed\n" {
			t.Errorf("stdin of exec: %s", r)
		}
		if r := e.Do(t, program, "", "exec", "no-such-container", "true"); r.Code != 1 || !strings.Contains(r.Stderr, "No such container: no-such-container") {
			t.Errorf("%s", r)
		}
	})
}
