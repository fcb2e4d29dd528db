package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/godbus/dbus/v5"

	"github.com/cleatlabs/cleat/test/harness"
)

// serviceManager plays systemd on a bus of its own and returns the bus's address, and a way to set the machine's state.
func serviceManager(t *testing.T) (address string, set func(state string)) {
	t.Helper()
	dir := t.TempDir()
	address = "unix:path=" + filepath.Join(dir, "bus")
	conf := filepath.Join(dir, "conf")
	err := os.WriteFile(conf, []byte(`<busconfig><type>system</type><listen>`+address+`</listen><auth>EXTERNAL</auth>
		<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	bus := exec.Command(harness.Program(t, "dbus-daemon"), "--config-file="+conf, "--nofork", "--nopidfile")
	if err := bus.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = bus.Process.Signal(os.Interrupt)
		_ = bus.Wait()
	})
	var conn *dbus.Conn
	harness.Eventually(t, func() (bool, string) {
		conn, err = dbus.Connect(address)
		return err == nil, "the bus does not listen"
	})
	t.Cleanup(func() { conn.Close() })
	state := make(chan string, 1)
	state <- "running"
	properties := map[string]any{"Get": func(iface, property string) (dbus.Variant, *dbus.Error) {
		now := <-state
		state <- now
		if iface != "org.freedesktop.systemd1.Manager" || property != "SystemState" {
			return dbus.Variant{}, dbus.MakeFailedError(os.ErrNotExist)
		}
		return dbus.MakeVariant(now), nil
	}}
	if err := conn.ExportMethodTable(properties, "/org/freedesktop/systemd1", "org.freedesktop.DBus.Properties"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.RequestName("org.freedesktop.systemd1", 0); err != nil {
		t.Fatal(err)
	}
	return address, func(s string) {
		<-state
		state <- s
	}
}

// TestMachineGoesDown: an engine that is ended alone leaves its containers running; one that is ended because the machine
// goes down stops them as stop does, and after the boot those start that have a policy for it.
func TestMachineGoesDown(t *testing.T) {
	address, set := serviceManager(t)
	e := harness.Start(t, harness.Options{Env: []string{"DBUS_SYSTEM_BUS_ADDRESS=" + address}})
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

	set("stopping")
	e.Stop(t)
	if log := e.Log(); !strings.Contains(log, "the machine goes down") {
		t.Errorf("the engine says:\n%s", log)
	}
	set("running")
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
