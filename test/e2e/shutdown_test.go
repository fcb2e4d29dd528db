package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/godbus/dbus/v5"

	"github.com/cleatlabs/cleat/test/harness"
)

// serviceManager plays systemd on a bus of its own.
type serviceManager struct {
	address string // of the bus
	state   chan string
	// start is called for each unit that is to be started and answers how that ended; nil starts none.
	start func(unit string) (result string)
}

// set changes the machine's state.
func (m *serviceManager) set(state string) {
	<-m.state
	m.state <- state
}

func startServiceManager(t *testing.T) *serviceManager {
	t.Helper()
	m := &serviceManager{state: make(chan string, 1)}
	m.state <- "running"
	dir := t.TempDir()
	m.address = "unix:path=" + filepath.Join(dir, "bus")
	conf := filepath.Join(dir, "conf")
	err := os.WriteFile(conf, []byte(`<busconfig><type>system</type><listen>`+m.address+`</listen><auth>EXTERNAL</auth>
		<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	bus := exec.Command(harness.Program(t, "dbus-daemon"), "--config-file="+conf, "--nofork", "--nopidfile")
	if err := bus.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = bus.Process.Signal(syscall.SIGTERM) // an interrupt is ignored in a job of the background
		_ = bus.Wait()
	})
	var conn *dbus.Conn
	harness.Eventually(t, func() (bool, string) {
		conn, err = dbus.Connect(m.address)
		return err == nil, "the bus does not listen"
	})
	t.Cleanup(func() { conn.Close() })
	properties := map[string]any{"Get": func(iface, property string) (dbus.Variant, *dbus.Error) {
		now := <-m.state
		m.state <- now
		if iface != "org.freedesktop.systemd1.Manager" || property != "SystemState" {
			return dbus.Variant{}, dbus.MakeFailedError(os.ErrNotExist)
		}
		return dbus.MakeVariant(now), nil
	}}
	if err := conn.ExportMethodTable(properties, "/org/freedesktop/systemd1", "org.freedesktop.DBus.Properties"); err != nil {
		t.Fatal(err)
	}
	jobs := uint32(0)
	units := map[string]any{"StartUnit": func(unit, mode string) (dbus.ObjectPath, *dbus.Error) {
		if m.start == nil || mode != "replace" {
			return "", dbus.NewError("org.freedesktop.systemd1.NoSuchUnit", []any{"Unit " + unit + " not found."})
		}
		result := m.start(unit)
		jobs++
		job := dbus.ObjectPath(fmt.Sprintf("/org/freedesktop/systemd1/job/%d", jobs))
		for _, ended := range []dbus.ObjectPath{job + "0", job} { // another's first
			if err := conn.Emit("/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager.JobRemoved", jobs, ended, unit, result); err != nil {
				return "", dbus.MakeFailedError(err)
			}
		}
		return job, nil
	}}
	if err := conn.ExportMethodTable(units, "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.RequestName("org.freedesktop.systemd1", 0); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestMachineGoesDown: an engine that is ended alone leaves its containers running; one that is ended because the machine
// goes down stops them as stop does, and after the boot those start that have a policy for it.
func TestMachineGoesDown(t *testing.T) {
	manager := startServiceManager(t)
	e := harness.Start(t, harness.Options{Env: []string{"DBUS_SYSTEM_BUS_ADDRESS=" + manager.address}})
	e.Load(t, "busybox")
	const kind = `trap "echo asked to end; exit 3" TERM; echo up; while :; do sleep 0.1; done`
	for name, args := range map[string][]string{
		"always": {"--restart", "always"}, "unless": {"--restart", "unless-stopped"}, "stopped": {"--restart", "unless-stopped"}, "plain": nil,
		"failing": {"--restart", "on-failure"}, "paused": nil,
	} {
		e.OK(t, "docker", append(append([]string{"run", "-d", "--name", name}, args...), "busybox", "sh", "-c", kind)...)
		harness.Eventually(t, func() (bool, string) {
			out := e.OK(t, "cleat", "logs", name)
			return strings.Contains(out, "up"), out
		})
	}
	e.OK(t, "docker", "run", "-d", "--name", "deaf", "busybox", "sleep", "100000")
	e.OK(t, "docker", "pause", "paused")
	e.OK(t, "docker", "stop", "stopped")
	status := func(name string) string {
		return e.OK(t, "cleat", "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", name)
	}

	e.Stop(t)
	e.Run(t)
	if got := status("plain"); got != "running 0" {
		t.Errorf("plain is %s after the engine alone was ended", got)
	}

	manager.set("stopping")
	e.Stop(t)
	if log := e.Log(); !strings.Contains(log, "the machine goes down") {
		t.Errorf("the engine says:\n%s", log)
	}
	manager.set("running")
	e.Run(t)
	for name, want := range map[string]string{
		"plain": "exited 3", "paused": "exited 3", "deaf": "exited 137", "stopped": "exited 3", "always": "running 0", "unless": "running 0", "failing": "running 0",
	} {
		harness.Eventually(t, func() (bool, string) { got := status(name); return got == want, name + " is " + got })
	}
	for name, ends := range map[string]int{"plain": 1, "always": 1, "paused": 1} {
		if got := strings.Count(e.OK(t, "cleat", "logs", name), "asked to end"); got != ends {
			t.Errorf("%s was asked to end %d times", name, got)
		}
	}
}

// TestShutdownWithoutEngine: containers that go on after their engine was stopped are stopped as the engine would when
// the machine goes down, and the next engine starts those that have a policy for it.
func TestShutdownWithoutEngine(t *testing.T) {
	left := "RUNTIME_DIRECTORY=" + t.TempDir() // as systemd gives it to both units
	e := harness.Start(t, harness.Options{Env: []string{left}})
	with := func(flags ...string) (string, error) {
		cmd := exec.Command(harness.Binary(t, "cleatd"), append([]string{"shutdown"}, flags...)...)
		cmd.Env = append(os.Environ(), left)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	shutdown := func() (string, error) { return with() }
	e.Load(t, "busybox")
	const kind = `trap "echo asked to end; exit 3" TERM; echo up; while :; do sleep 0.1; done`
	for name, args := range map[string][]string{
		"always": {"--restart", "always"}, "plain": nil, "paused": nil, "removed": {"--rm"}, "dying": {"--restart", "always"},
	} {
		e.OK(t, "docker", append(append([]string{"run", "-d", "--name", name}, args...), "busybox", "sh", "-c", kind)...)
		harness.Eventually(t, func() (bool, string) {
			out := e.OK(t, "cleat", "logs", name)
			return strings.Contains(out, "up"), out
		})
	}
	e.OK(t, "docker", "run", "-d", "--name", "own", "--stop-signal", "USR1", "busybox", "sh", "-c", "trap 'exit 6' USR1; echo up; while :; do sleep 0.1; done")
	harness.Eventually(t, func() (bool, string) { out := e.OK(t, "cleat", "logs", "own"); return strings.Contains(out, "up"), out })
	e.OK(t, "docker", "run", "-d", "--name", "deaf", "--stop-timeout", "1", "busybox", "sleep", "100000")
	e.OK(t, "docker", "pause", "paused")
	for _, flags := range [][]string{nil, e.Args()} {
		if out, err := with(flags...); err == nil || !strings.Contains(out, fmt.Sprintf("the engine is running (PID %d)", e.PID())) {
			t.Errorf("with its engine and the flags %q: %v, %s", flags, err, out)
		}
	}
	pid := e.OK(t, "docker", "inspect", "-f", "{{.State.Pid}}", "dying")
	keepers := filepath.Join("/sys/fs/cgroup", e.CgroupParent, "keepers", "cgroup.procs")

	e.Stop(t)
	if n, err := strconv.Atoi(pid); err != nil || syscall.Kill(n, syscall.SIGKILL) != nil {
		t.Fatalf("ending %q: %v", pid, err)
	}
	if out, err := shutdown(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if left, err := os.ReadFile(keepers); err == nil && len(left) > 0 {
		t.Errorf("keepers are left: %s", left)
	}
	if out, err := shutdown(); err != nil || out != "" {
		t.Errorf("where nothing runs: %v, %s", err, out)
	}

	e.Run(t)
	for name, want := range map[string]string{
		"plain": "exited 3", "paused": "exited 3", "own": "exited 6", "deaf": "exited 137", "always": "running 0", "dying": "running 0",
	} {
		harness.Eventually(t, func() (bool, string) {
			got := e.OK(t, "cleat", "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", name)
			return got == want, name + " is " + got
		})
	}
	harness.Eventually(t, func() (bool, string) {
		return e.Cleat(t, "inspect", "removed").Code != 0, "what is removed at its end is still there"
	})
	for name, ends := range map[string]int{"plain": 1, "always": 1, "paused": 1, "dying": 0} {
		if got := strings.Count(e.OK(t, "cleat", "logs", name), "asked to end"); got != ends {
			t.Errorf("%s was asked to end %d times", name, got)
		}
	}
	if out, err := e.Debug(t, "fsck"); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
