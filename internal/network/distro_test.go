package network_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	api "github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/internal/network"
)

// startBus runs a D-Bus system bus of the test's own and returns its address.
func startBus(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	address := "unix:path=" + filepath.Join(dir, "bus")
	must(t, os.WriteFile(filepath.Join(dir, "conf"), []byte(`<busconfig><type>system</type><listen>`+address+`</listen><auth>EXTERNAL</auth>
		<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>`), 0o600))
	startDaemon(t, nil, "dbus-daemon", "--config-file="+filepath.Join(dir, "conf"), "--nofork", "--nopidfile")
	patiently(t, "the bus listens", func() bool { _, err := os.Stat(filepath.Join(dir, "bus")); return err == nil })
	return address
}

// startDaemon runs a program until the test ends.
func startDaemon(t *testing.T, env []string, name string, args ...string) (stop func()) {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "log"))
	must(t, err)
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = out, out
	must(t, cmd.Start())
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		_ = cmd.Process.Signal(syscall.SIGTERM) // an interrupt is ignored in a job of the background
		late := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		late.Stop()
		out.Close()
		if text, err := os.ReadFile(out.Name()); t.Failed() && err == nil {
			t.Logf("%s said:\n%s", name, text)
		}
	}
	t.Cleanup(stop)
	return stop
}

// Debian's firewalld, with a bus of its own, on the host that the test plays.
func TestFirewalld(t *testing.T) {
	h := newHost(t)
	h.listen(h.outside, "outside", ":80")
	address := startBus(t)
	config := t.TempDir()
	env := []string{"DBUS_SYSTEM_BUS_ADDRESS=" + address}
	firewalld := func() func() {
		stop := startDaemon(t, env, "firewalld", "--nofork", "--nopid", "--system-config="+config, "--log-file="+filepath.Join(config, "log"))
		patiently(t, "firewalld runs", func() bool { return runWith(env, "firewall-cmd", "--state") == "running" })
		return stop
	}
	stop := firewalld()
	cfg := h.config()

	// Without a word to it, it rejects what containers send.
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent")
	s := h.open(cfg)
	a := h.attach(s, "8080:80/tcp")
	h.meets("without D-Bus", a.ns, "tcp4", outsideAddr+":80", "no connection")
	if w := strings.Join(s.Warnings(), "\n"); !strings.Contains(w, "firewall-cmd") || !strings.Contains(w, cfg.Bridge) {
		t.Errorf("warnings %q", w)
	}
	must(t, s.Teardown())
	a.close()

	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
	s = h.open(cfg)
	a = h.attach(s, "8080:80/tcp")
	h.listen(a.ns, "a", ":80")
	joined := func(bridges ...string) func() bool {
		return func() bool {
			list := " " + runWith(env, "firewall-cmd", "--zone=trusted", "--list-interfaces") + " "
			for _, b := range bridges {
				if !strings.Contains(list, " "+b+" ") {
					return false
				}
			}
			return true
		}
	}
	patiently(t, "the bridge joins", joined(cfg.Bridge))
	out := func(what string, b *box) {
		t.Helper()
		h.meets(what, b.ns, "tcp4", outsideAddr+":80", "outside sees "+hostAddr)
	}
	out("out", a)
	h.meets("in", h.outside, "tcp4", hostAddr+":8080", "a sees "+outsideAddr)
	if w := s.Warnings(); len(w) != 0 {
		t.Errorf("warnings %q", w)
	}
	rec, _, err := s.Create(context.Background(), api.CreateRequest{Name: "later"})
	must(t, err)
	b := h.on(s, "b", at("later"))
	later := "br-" + rec.ID[:12]
	patiently(t, "a later network's bridge joins", joined(later))
	out("out of a later network", b.box)
	// A reload forgets what is not in its files; so does another start.
	if got := runWith(env, "firewall-cmd", "--reload"); got != "success" {
		t.Fatal(got)
	}
	patiently(t, "both join again", joined(cfg.Bridge, later))
	out("after a reload", a)
	stop()
	firewalld()
	patiently(t, "both join the next one", joined(cfg.Bridge, later))
	out("after a restart", b.box)
	// What an administrator decided stays.
	h.detach(s, b.box)
	_, err = s.Remove(context.Background(), "later")
	must(t, err)
	patiently(t, "a removed bridge leaves the zone", func() bool { return !joined(later)() })
	if got := runWith(env, "firewall-cmd", "--zone=trusted", "--remove-interface="+cfg.Bridge) + runWith(env, "firewall-cmd", "--zone=home", "--add-interface="+cfg.Bridge); got != "successsuccess" {
		t.Fatal(got)
	}
	must(t, s.Close())
	s = h.open(cfg)
	h.network(s, api.CreateRequest{Name: "another"})
	if got := runWith(env, "firewall-cmd", "--get-zone-of-interface="+cfg.Bridge); got != "home" {
		t.Errorf("the bridge was moved to zone %q", got)
	}
	must(t, s.Teardown())
	if got := runWith(env, "firewall-cmd", "--zone=trusted", "--list-interfaces"); got != "" {
		t.Errorf("left in the zone: %s", got)
	}
}

// slowFirewalld answers as firewalld does while it starts: at first only with errors, or not at all.
type slowFirewalld struct {
	ready atomic.Bool
	hangs atomic.Pointer[chan struct{}] // until it is closed
	asked atomic.Int32
	links sync.Map // by name, with their zones
}

func (f *slowFirewalld) GetZoneOfInterface(link string) (string, *dbus.Error) {
	f.asked.Add(1)
	if until := f.hangs.Load(); until != nil {
		<-*until
	}
	if !f.ready.Load() {
		return "", dbus.MakeFailedError(errors.New("not yet"))
	}
	zone, _ := f.links.Load(link)
	name, _ := zone.(string)
	return name, nil
}

func (f *slowFirewalld) AddInterface(zone, link string) (string, *dbus.Error) {
	f.links.Store(link, zone)
	return zone, nil
}

func (f *slowFirewalld) RemoveInterface(zone, link string) (string, *dbus.Error) {
	f.links.Delete(link)
	return zone, nil
}

// publish puts it on a bus of the test's own.
func (f *slowFirewalld) publish(t *testing.T) {
	t.Helper()
	address := startBus(t)
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
	conn, err := dbus.Connect(address)
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	methods := map[string]string{"GetZoneOfInterface": "getZoneOfInterface", "AddInterface": "addInterface", "RemoveInterface": "removeInterface"}
	must(t, conn.ExportWithMap(f, methods, "/org/fedoraproject/FirewallD1", "org.fedoraproject.FirewallD1.zone"))
	_, err = conn.RequestName("org.fedoraproject.FirewallD1", dbus.NameFlagDoNotQueue)
	must(t, err)
}

// A firewalld that is on the bus before it can take bridges is told of them again, and the warning lasts until it has
// taken them.
func TestFirewalldThatIsNotReady(t *testing.T) {
	f := &slowFirewalld{}
	f.publish(t)
	h := newHost(t)
	cfg := h.config()
	s := h.open(cfg)
	told := func() bool {
		return strings.Contains(strings.Join(s.Warnings(), "\n"), "bridge "+cfg.Bridge+": firewalld: not yet; it is tried again")
	}
	patiently(t, "warning", told)
	patiently(t, "another attempt", func() bool { return f.asked.Load() > 1 })
	f.ready.Store(true)
	patiently(t, "the bridge joins", func() bool { _, in := f.links.Load(cfg.Bridge); return in })
	patiently(t, "end of the warning", func() bool { return !told() })
	// The bridge of a network made later has joined when the network is there, and has left when that is not.
	s.WaitForFirewalld(patience)
	rec := h.create(s, api.CreateRequest{Name: "later"})
	if zone, _ := f.links.Load(rec.Link); zone != "trusted" {
		t.Errorf("a later network's bridge is in zone %v", zone)
	}
	_, err := s.Remove(context.Background(), "later")
	must(t, err)
	if _, in := f.links.Load(rec.Link); in {
		t.Error("a removed network's bridge is still in the zone")
	}
}

// Nobody who makes or removes a network waits for a firewalld that hangs; the bridges join when it answers again.
func TestFirewalldThatHangs(t *testing.T) {
	f := &slowFirewalld{}
	f.ready.Store(true)
	f.publish(t)
	h := newHost(t)
	cfg := h.config()
	s := h.open(cfg)
	patiently(t, "the bridge joins", func() bool { _, in := f.links.Load(cfg.Bridge); return in })
	until := make(chan struct{})
	f.hangs.Store(&until)
	t.Cleanup(sync.OnceFunc(func() { close(until) }))
	quickest := time.Hour
	var last *network.Record
	for n := range 3 {
		began := time.Now()
		last = h.create(s, api.CreateRequest{Name: fmt.Sprintf("hung%d", n)})
		quickest = min(quickest, time.Since(began))
	}
	// One call is given up after 5 s.
	if quickest > 3*time.Second {
		t.Errorf("the quickest of three networks takes %v", quickest)
	}
	patiently(t, "warning", func() bool { return strings.Contains(strings.Join(s.Warnings(), "\n"), "it is tried again") })
	f.hangs.Store(nil)
	patiently(t, "the last joins", func() bool { _, in := f.links.Load(last.Link); return in })
	patiently(t, "end of the warning", func() bool { return !strings.Contains(strings.Join(s.Warnings(), "\n"), "it is tried again") })
}

// runWith runs a program and returns what it says.
func runWith(env []string, name string, args ...string) string {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil && len(out) == 0 {
		return err.Error()
	}
	return strings.TrimSpace(string(out))
}

// Debian's ufw, with files of its own, on the host that the test plays.
func TestUFW(t *testing.T) {
	h := newHost(t)
	dir := t.TempDir()
	ufw := func(commands string) {
		t.Helper()
		script := fmt.Sprintf(`set -e; [ -d %[1]s/ufw ] || { cp -a /etc/ufw %[1]s/ufw; cp /etc/default/ufw %[1]s/default; }
			mount --bind %[1]s/ufw /etc/ufw; mount --bind %[1]s/default /etc/default/ufw
			%[2]s`, dir, commands)
		out, err := exec.Command("unshare", "-m", "sh", "-c", script).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", commands, err, out)
		}
	}
	ufw("ufw --force enable")
	t.Cleanup(func() {
		ufw("ufw disable")
		_ = exec.Command("sh", "-c", "for t in ip ip6; do for n in filter mangle nat raw; do nft delete table $t $n 2>/dev/null; done; done").Run()
	})
	h.listen(h.outside, "outside", ":80")
	h.listen6(h.outside, "outside", "[::]:81")
	h.address6(h.home, "uplink", "2001:db8::2")
	h.address6(h.outside, "wan0", "2001:db8::1")
	cfg := h.config()
	cfg.Default.IPv6 = true
	s := h.open(cfg)
	a := h.attach(s, "8080:80/tcp")
	h.listen(a.ns, "a", ":80")
	h.meets("out, with ufw's default", a.ns, "tcp4", outsideAddr+":80", "no connection")
	h.meets("out, with ufw's default, IPv6", a.ns, "tcp6", "[2001:db8::1]:81", "no connection")
	w := s.Warnings()
	if text := strings.Join(w, "\n"); len(w) != 2 || !strings.Contains(text, "ip filter") || !strings.Contains(text, "ip6 filter") {
		t.Errorf("warnings of IPv4 and IPv6: %q", w)
	}
	_, command, ok := strings.Cut(w[0], "allow it with: ")
	command, _, _ = strings.Cut(command, " (or")
	if !ok || !strings.HasPrefix(command, "ufw route allow") {
		t.Fatalf("warnings %q", w)
	}
	ufw(command)
	h.meets("out, allowed", a.ns, "tcp4", outsideAddr+":80", "outside sees "+hostAddr)
	h.meets("out, allowed, IPv6", a.ns, "tcp6", "[2001:db8::1]:81", "outside sees 2001:db8::2")
	h.meets("in, allowed", h.outside, "tcp4", hostAddr+":8080", "a sees "+outsideAddr)
	if w := s.Warnings(); len(w) != 0 {
		t.Errorf("warnings after %q: %q", command, w)
	}
	// Integrated, no command is needed, and ufw may reload as it likes.
	ufw(strings.ReplaceAll(command, "ufw route allow", "ufw route delete allow"))
	must(t, s.Teardown())
	a.close()
	cfg.FirewallIntegrate = true
	s = h.open(cfg)
	h.network(s, api.CreateRequest{Name: "later"})
	b := h.on(s, "b", at("later"))
	h.meets("out, integrated", b.ns, "tcp4", outsideAddr+":80", "outside sees "+hostAddr)
	c := h.attach(s)
	h.meets("out, integrated, IPv6", c.ns, "tcp6", "[2001:db8::1]:81", "outside sees 2001:db8::2")
	ufw("ufw reload")
	patiently(t, "integrated again", func() bool { return h.dial(b.ns, "tcp4", outsideAddr+":80") == "outside sees "+hostAddr })
	must(t, s.Teardown())
	if text := ruleset(t); strings.Contains(text, "cleat-") {
		t.Errorf("left in ufw's rules:\n%s", text)
	}
}

// patiently is eventually for what programs in Python take their time with.
func patiently(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if cond() {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
