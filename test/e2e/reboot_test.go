package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// editState changes what is written down of a container's state. No engine runs.
func editState(t *testing.T, e *harness.Engine, id string, change func(state map[string]any)) {
	t.Helper()
	path := filepath.Join(e.DataRoot, "containers", id, "state.json")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var state map[string]any
	if err := json.Unmarshal(b, &state); err != nil {
		t.Fatal(err)
	}
	change(state)
	if b, err = json.Marshal(state); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// reboot ends an engine and containers that run as the machine does, and has another boot be the one that they ran in.
// Their numbers are pid's then.
func reboot(t *testing.T, e *harness.Engine, pid int, ids ...string) {
	t.Helper()
	running := map[string]startedService{}
	for _, id := range ids {
		var s startedService
		if _, err := fmt.Sscan(e.OK(t, "cleat", "inspect", "-f", "{{.State.Pid}}", id), &s.PID); err != nil {
			t.Fatal(err)
		}
		running[id] = s
	}
	endAll(t, e, running, true)
	for _, id := range ids {
		editState(t, e, id, func(state map[string]any) {
			k := state["Keeper"].(map[string]any)
			k["BootID"], k["PID"] = "00000000-0000-4000-8000-000000000000", pid
		})
	}
}

// TestRebootGivesNumbersToOthers: what has the number of a container's process after a reboot, as a daemon of the host, is
// left alone: its network namespace gets no name server, and loses no link.
func TestRebootGivesNumbersToOthers(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	l := newLAN(t, e, 4)
	n := made(t, e, "cleat", "-lan", "-d", "macvlan", "--subnet", l.subnet+"0/24", "-o", "parent="+l.parent)
	id := e.OK(t, "cleat", "run", "-d", "--network", n, "--ip", l.subnet+"200", "busybox", "sleep", "1000")

	ip(t, "-n", l.ns, "link", "set", "lo", "up")
	const index = 77
	ip(t, "-n", l.ns, "link", "add", "kept", "index", fmt.Sprint(index), "type", "bridge")
	other := exec.Command(harness.Program(t, "ip"), "netns", "exec", l.ns, "sleep", "1000")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer other.Wait()
	defer other.Process.Kill()
	harness.Eventually(t, func() (bool, string) {
		name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", other.Process.Pid))
		return string(name) == "sleep\n", "the other process is " + string(name)
	})
	reboot(t, e, other.Process.Pid, id)
	editState(t, e, id, func(state map[string]any) {
		state["Sandbox"].(map[string]any)["Endpoints"].([]any)[0].(map[string]any)["Index"] = index
	})
	e.Run(t)
	// The address is free when all is done that the end of the container asks for.
	e.OK(t, "cleat", "run", "--rm", "--network", n, "--ip", l.subnet+"200", "busybox", "true")
	if links := ip(t, "-n", l.ns, "link", "show"); !strings.Contains(links, "kept") {
		t.Errorf("a link of another process's namespace is deleted:\n%s", links)
	}
	if tables := ip(t, "netns", "exec", l.ns, "nft", "list", "tables"); tables != "" {
		t.Errorf("another process's namespace has a name server: %s", tables)
	}
}

// TestStartThatHangsHoldsUpNoOther: of the containers that start with the engine only those wait for one that takes long,
// as its volume is on a server that does not answer, that depend on it.
func TestStartThatHangsHoldsUpNoOther(t *testing.T) {
	sockets := t.TempDir()
	d := newDepot(t, sockets)
	e := harness.Start(t, harness.Options{Args: []string{"--plugin-dir", sockets}})
	e.Load(t, "busybox")
	run := func(name string, flags ...string) {
		args := append([]string{"run", "-d", "--name", name, "--restart", "always", "--stop-signal", "KILL"}, flags...)
		e.OK(t, "cleat", append(args, "busybox", "sleep", "1000")...)
	}
	run("first")
	run("hangs", "--mount", "type=volume,src=far,dst=/far,volume-driver=depot")
	run("joins", "--network", "container:hangs")
	run("linked", "--link", "hangs")
	run("last")
	e.OK(t, "cleat", "stop", "linked", "joins", "hangs", "first", "last")
	e.Kill()
	open := d.hold("far")
	t.Cleanup(open)
	e.Run(t)
	runs := func(name string) bool { return e.OK(t, "cleat", "inspect", "-f", "{{.State.Running}}", name) == "true" }
	all := func(names ...string) {
		t.Helper()
		for _, name := range names {
			harness.Eventually(t, func() (bool, string) { return runs(name), name + " does not run" })
		}
	}
	all("first", "last")
	if runs("hangs") || runs("joins") || runs("linked") {
		t.Error("one runs without its volume, or before the one whose network it has, or that it is linked to")
	}
	open()
	all("hangs", "joins", "linked")
}

// TestLinksAfterAReboot: a container that is linked to another one starts with the engine, after that one: without it, it
// cannot be started.
func TestLinksAfterAReboot(t *testing.T) {
	for _, ends := range []string{"stopped", "reboot"} {
		t.Run(ends, func(t *testing.T) {
			e := harness.Start(t, harness.Options{})
			e.Load(t, "busybox")
			run := func(flags ...string) string {
				args := append([]string{"run", "-d", "--restart", "always", "--stop-signal", "KILL"}, flags...)
				return e.OK(t, "cleat", append(args, "busybox", "sleep", "1000")...)
			}
			ids := []string{run("--name", "db"), run("--name", "web", "--link", "db"), run("--link", "web:up")}
			if ends == "reboot" {
				reboot(t, e, 1<<22, ids...) // no process can have this number
			} else {
				e.OK(t, "cleat", append([]string{"stop"}, ids...)...)
				e.Kill()
			}
			e.Run(t)
			for _, id := range ids {
				harness.Eventually(t, func() (bool, string) {
					state := e.OK(t, "cleat", "inspect", "-f", "{{.State.Status}} {{.State.Error}}", id)
					return strings.HasPrefix(state, "running"), state
				})
			}
		})
	}
}

// TestRebootsAreNoFailures: what a policy allows of restarts after failures is not used up by reboots.
func TestRebootsAreNoFailures(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	id := e.OK(t, "cleat", "run", "-d", "--restart", "on-failure:2", "busybox", "sleep", "1000")
	for range 3 {
		reboot(t, e, 1<<22, id) // no process can have this number
		e.Run(t)
		harness.Eventually(t, func() (bool, string) {
			state := e.OK(t, "cleat", "inspect", "-f", "{{.State.Status}} {{.State.Restarting}} {{.RestartCount}}", id)
			return state == "running false 0", state
		})
	}
}

// TestTooFewFilesToAdopt: an engine that may not open the files that it needs for what runs ends nothing of it: it does not
// start, and says what to do.
func TestTooFewFilesToAdopt(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	for i := range 24 {
		e.OK(t, "cleat", "run", "-d", "--stop-signal", "KILL", "-p", "127.0.0.1::80", "--name", fmt.Sprint("many", i), "busybox", "sleep", "1000")
	}
	running := func() string {
		ids := strings.Fields(e.OK(t, "cleat", "ps", "-aq"))
		return e.OK(t, "cleat", append([]string{"inspect", "-f", "{{.Name}} {{.State.Status}} {{.State.Pid}}"}, ids...)...)
	}
	before := running()
	// With ever more files it gets further. Those that are enough to start, and no more, are not tried: it could not answer.
	for most := 121; most < 160; most += 4 {
		e.Kill()
		e.LimitFiles(most)
		if e.TryRun(t) == nil {
			t.Errorf("it started with %d files", most)
		}
	}
	e.Kill()
	e.LimitFiles(0)
	e.Run(t)
	if after := running(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	if !strings.Contains(e.Log(), "cannot be taken over: ") {
		t.Error("none was refused for its containers")
	}
}
