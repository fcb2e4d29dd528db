package e2e

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// check runs `cleat network check` until it says what is wanted: programs take a moment
// to listen.
func check(t *testing.T, e *harness.Engine, container string, code int, want ...string) {
	t.Helper()
	harness.Eventually(t, func() (bool, string) {
		r := e.Cleat(t, "network", "check", container)
		ok := r.Code == code
		for _, w := range want {
			ok = ok && strings.Contains(r.Stdout, w)
		}
		return ok, r.String()
	})
}

func TestNetworkCheck(t *testing.T) {
	e := engine(t, "busybox")
	n := userNetwork(t, e)
	run := func(what string, args ...string) string {
		c := n + what
		remove(t, e, c)
		e.OK(t, "cleat", append([]string{"run", "-d", "--name", c, "--network", n}, args...)...)
		return c
	}
	good := run("good", "-p", "80", "busybox", "httpd", "-f", "-p", "80")
	check(t, e, good, 0, "on eth0", "reached by this host, other hosts, containers", "names: 127.0.0.11 answers", "no problem found")
	lonely := run("lonely", "-p", freePort(t)+":80", "busybox", "httpd", "-f", "-p", "127.0.0.1:80")
	check(t, e, lonely, 1, "port 80/tcp is published, but the program in the container listens on 127.0.0.1 only", "listen on 0.0.0.0", "reaches   "+good)
	wrong := run("wrong", "-p", "80", "busybox", "httpd", "-f", "-p", "3000")
	check(t, e, wrong, 1, "nothing in the container listens on it", "listens on 3000/tcp: publish that")
	silent := run("silent", "busybox", "httpd", "-f", "-p", "80")
	check(t, e, silent, 0, "no port is published")
	e.OK(t, "cleat", "stop", "-t", "0", silent)
	check(t, e, silent, 1, "the container does not run (exited)", "start "+silent)

	var report struct {
		Name     string
		Running  bool
		Ports    []struct{ Listening bool }
		Findings []struct{ Level string }
	}
	r := e.Cleat(t, "network", "check", "--format", "json", lonely)
	if err := json.Unmarshal([]byte(r.Stdout), &report); err != nil || report.Name != lonely || !report.Running || len(report.Ports) == 0 || report.Ports[0].Listening || r.Code != 1 {
		t.Errorf("%v %+v: %s", err, report, r)
	}
	if r := e.Cleat(t, "network", "check", "nosuch"); r.Code != 1 || !strings.Contains(r.Stderr, "No such container: nosuch") {
		t.Error(r)
	}
	if r := e.Cleat(t, "network", "check", "--format", "table", good); r.Code != 1 || !strings.Contains(r.Stderr, "only json") {
		t.Error(r)
	}
}

func TestNetworkCheckOfTheHost(t *testing.T) {
	e := engine(t, "busybox")
	n := userNetwork(t, e, "--internal")
	remove(t, e, n+"in", n+"off", n+"host", n+"guest")
	e.OK(t, "cleat", "run", "-d", "--name", n+"in", "--network", n, "busybox", "sleep", "600")
	check(t, e, n+"in", 0, "not reached: the network is internal", "only names of containers are answered")
	e.OK(t, "cleat", "run", "-d", "--name", n+"off", "--network", "none", "busybox", "sleep", "600")
	check(t, e, n+"off", 0, "no network but its own loopback")
	e.OK(t, "cleat", "run", "-d", "--name", n+"host", "--network", "host", "busybox", "sleep", "600")
	check(t, e, n+"host", 0, "shares the host's network")
	e.OK(t, "cleat", "run", "-d", "--name", n+"guest", "--network", "container:"+n+"in", "busybox", "sleep", "600")
	check(t, e, n+"guest", 0, "uses the network of container "+n+"in")
}

// A VPN's route over a network's addresses is named, and the link that it leads to.
func TestNetworkCheckNamesTheRoute(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	four, six := harness.Subnet(t)
	n := made(t, e, "cleat", "-net", "--ipv6", "--subnet", four+"0/24", "--subnet", six+"/64")
	e.OK(t, "cleat", "run", "-d", "--name", "one", "--network", n, "-p", "80", "busybox", "httpd", "-f", "-p", "80")
	check(t, e, "one", 0, "no problem found")
	for _, route := range []string{four + "0/25 dev lo", six + "/65 dev lo", "blackhole " + four + "0/25"} {
		ip(t, append([]string{"route", "add"}, strings.Fields(route)...)...)
		undo := func() { _ = exec.Command("ip", append([]string{"route", "del"}, strings.Fields(route)...)...).Run() }
		t.Cleanup(undo)
		way, address := "to link lo", four+"2"
		if strings.HasPrefix(route, six) {
			address = six + "2"
		}
		if strings.HasPrefix(route, "blackhole") {
			way = "nowhere"
		}
		check(t, e, "one", 1, "the host sends what is for the container's address "+address+" "+way, "of network "+n, "not reached: the host sends what is for "+address, "ip route get "+address)
		undo()
		check(t, e, "one", 0, "no problem found")
	}
}

// A firewall that drops what is forwarded is named with the command that helps; it
// guards the bridge of this test's engine only.
func TestNetworkCheckNamesTheFirewall(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	e.OK(t, "cleat", "run", "-d", "--name", "one", "-p", "80", "busybox", "httpd", "-f", "-p", "80")
	check(t, e, "one", 0, "reached by this host, other hosts, containers", "no problem found")
	table := "guard" + e.Bridge
	nft := func(script string) {
		t.Helper()
		if out, err := exec.Command("nft", script).CombinedOutput(); err != nil {
			t.Fatalf("nft %s: %v\n%s", script, err, out)
		}
	}
	// Other engines of this machine go on: all but this one's bridge is let through.
	nft("add table inet " + table + "; add chain inet " + table + " fw { type filter hook forward priority 10; policy drop; }; " +
		"add rule inet " + table + " fw iifname != { " + e.Bridge + "x } oifname != { " + e.Bridge + "x } accept")
	t.Cleanup(func() { nft("delete table inet " + table) })
	check(t, e, "one", 1, `chain "fw" of the host's firewall (nftables table "inet `+table+`") drops`, "nft insert rule inet "+table+" fw iifname "+e.Bridge+" accept",
		`outside   not reached: chain "fw" of nftables table "inet `+table+`" drops it`,
		"-> 80/tcp: reached by this host only, as its firewall drops what comes from others",
		"[::]:", "-> 80/tcp: reached by this host, other hosts, containers") // on IPv6 the engine serves it
	r := e.Cleat(t, "info")
	if said := strings.Index(r.Stderr, "WARNING: "); said < 0 || !strings.Contains(r.Stderr[said:], table) {
		t.Errorf("info does not tell: %s", r)
	}
	// What the engine serves itself is guarded by another chain.
	nft("add chain inet " + table + " in { type filter hook input priority 10; policy drop; }; add rule inet " + table + " in accept")
	check(t, e, "one", 1, `(chain "in" of nftables table "inet `+table+`" drops what no rule of it lets in)`, "let the ports in there, or give its network IPv6",
		"-> 80/tcp: reached by this host and containers, and others where its firewall lets the port in")
}
