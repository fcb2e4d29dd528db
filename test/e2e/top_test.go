package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/test/harness"
)

func TestTop(t *testing.T) {
	e := engine(t, "busybox")
	n := name(t)
	remove(t, e, n)
	e.OK(t, "docker", "run", "-d", "--init", "--name", n, "busybox", "sh", "-c", "sleep 6543 & exec sleep 6544")
	e.OK(t, "docker", "exec", "-d", "-u", "1234", n, "sleep", "6545")
	for _, program := range []string{"sleep\x006543", "sleep\x006544", "sleep\x006545"} {
		pidOf(t, e, program)
	}
	pid := e.OK(t, "docker", "inspect", "-f", "{{.State.Pid}}", n)
	for _, args := range [][]string{
		{}, {"-ef"}, {"aux"}, {"-o", "pid,ppid,user,comm,args"}, {"-eo", "pid,args"}, {"axo", "pid,stat,tty,cmd"}, {"-o", "comm"},
	} {
		var got string
		harness.Eventually(t, func() (bool, string) { // shares and states of processes differ from one moment to the next
			got = e.OK(t, "cleat", append([]string{"top", n}, args...)...)
			want := e.OK(t, "docker", append([]string{"top", n}, args...)...)
			return got == want, fmt.Sprintf("top %v:\n%s\nwith docker\n%s", args, got, want)
		})
		if lines := strings.Split(got, "\n"); len(lines) != 5 {
			t.Errorf("top %v: %d lines, want a title, init and three programs\n%s", args, len(lines), got)
		}
	}
	table := e.OK(t, "cleat", "container", "top", n)
	if f := strings.Fields(strings.Split(table, "\n")[0]); !slices.Equal(f, []string{"UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"}) {
		t.Errorf("titles %v", f)
	}
	for _, want := range []string{"sleep 6543", "sleep 6544", "sleep 6545", "1234", pid} {
		if !strings.Contains(table, want) {
			t.Errorf("%s is missing in\n%s", want, table)
		}
	}
	for _, program := range clients {
		if r := e.Do(t, program, "", "top", n, "-o", "nosuch"); r.Code != 1 || !strings.Contains(r.Stderr, `ps column "nosuch" is not supported`) {
			t.Errorf("%s", r)
		}
		if r := e.Do(t, program, "", "top", "nosuch"); r.Code != 1 || !strings.Contains(r.Stderr, "No such container: nosuch") {
			t.Errorf("%s", r)
		}
	}
	e.OK(t, "docker", "pause", n)
	if got := e.OK(t, "docker", "top", n, "-o", "args"); !strings.Contains(got, "sleep 6544") {
		t.Errorf("paused: %s", got)
	}
	e.OK(t, "docker", "kill", n)
	if r := e.Docker(t, "top", n); r.Code != 1 || !strings.Contains(r.Stderr, "is not running") {
		t.Errorf("%s", r)
	}
}

// TestTopOfTheHostsProcesses: in the host's PID namespace, too, only its own are shown.
func TestTopOfTheHostsProcesses(t *testing.T) {
	g := gophers(t, engine(t, "busybox"))
	n := name(t)
	e := engine(t)
	remove(t, e, n)
	e.OK(t, "docker", "run", "-d", "--pid", "host", "--name", n, "busybox", "sleep", "6546")
	res, err := g.ContainerTop(g.ctx, n, client.ContainerTopOptions{Arguments: []string{"-o", "pid,args"}})
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Processes) != 1 || res.Processes[0][1] != "sleep 6546" || !slices.Equal(res.Titles, []string{"PID", "COMMAND"}) {
		t.Errorf("%+v", res)
	}
	if _, err := g.ContainerTop(g.ctx, "nosuch", client.ContainerTopOptions{}); !errdefs.IsNotFound(err) {
		t.Errorf("top of none: %v", err)
	}
	e.OK(t, "docker", "kill", n)
	if _, err := g.ContainerTop(g.ctx, n, client.ContainerTopOptions{}); !errdefs.IsConflict(err) {
		t.Errorf("top of one that does not run: %v", err)
	}
}
