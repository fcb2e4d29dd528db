package e2e

import (
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// lan is a wire with another host on it: a link of this host, whose other end is in a namespace of the test's own.
type lan struct {
	parent string // the host's link
	ns     string // the other host
	subnet string // of both; the other host has .1
}

func ip(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(harness.Program(t, "ip"), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("ip %q: %v\n%s", args, err, out)
	}
	return string(out)
}

func newLAN(t *testing.T, e *harness.Engine, number int) lan {
	t.Helper()
	l := lan{parent: fmt.Sprintf("l%d%s", number, strings.TrimPrefix(e.Bridge, "ct"))}
	l.subnet, _ = harness.Subnet(t)
	l.ns = "lan-" + l.parent
	ip(t, "netns", "add", l.ns)
	t.Cleanup(func() {
		ip(t, "link", "del", l.parent)
		ip(t, "netns", "del", l.ns)
	})
	ip(t, "link", "add", l.parent, "type", "veth", "peer", "name", "eth0", "netns", l.ns)
	ip(t, "link", "set", l.parent, "up")
	ip(t, "-n", l.ns, "link", "set", "eth0", "up")
	ip(t, "-n", l.ns, "addr", "add", l.subnet+"1/24", "dev", "eth0")
	return l
}

// outside gets a page as the other host does.
func (l lan) outside(t *testing.T, addr string) string {
	t.Helper()
	// The server may have just been started, and a lost packet is sent anew.
	out, _ := exec.Command(harness.Program(t, "ip"), "netns", "exec", l.ns, "curl", "-s", "-m", "50", "--retry", "100", "--retry-delay", "0", "--retry-connrefused", "http://"+addr+"/").CombinedOutput()
	return strings.TrimSpace(string(out))
}

// TestMacvlan: containers stand on the parent's wire as hosts of their own, and go on when the engine is killed.
func TestMacvlan(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	l := newLAN(t, e, 1)
	n := made(t, e, "docker", "-net", "-d", "macvlan", "--subnet", l.subnet+"0/24", "--gateway", l.subnet+"1", "--ip-range", l.subnet+"64/27", "-o", "parent="+l.parent)
	server(t, e, "docker", "one", "--network", n)
	server(t, e, "cleat", "two", "--network", n, "--ip", l.subnet+"200", "--mac-address", "02:00:00:00:00:77")
	one, two := address(t, e, "one", n), address(t, e, "two", n)
	if one != l.subnet+"64" || two != l.subnet+"200" {
		t.Errorf("addresses %s and %s", one, two)
	}
	check := func(when string) {
		t.Helper()
		reaches(t, e, "one", two, "page of two")
		reaches(t, e, "two", one, "page of one")
		for _, a := range []string{one, two} {
			if got := l.outside(t, a); !strings.HasPrefix(got, "page of ") {
				t.Errorf("%s the other host gets %q from %s", when, got, a)
			}
		}
	}
	check("at first")
	if got := e.OK(t, "cleat", "exec", "two", "sh", "-c", "ip route | head -1; cat /sys/class/net/eth0/address"); got != "default via "+l.subnet+"1 dev eth0 \n02:00:00:00:00:77" {
		t.Errorf("inside: %q", got)
	}
	if got := ip(t, "-n", l.ns, "neigh", "show", two); !strings.Contains(got, "02:00:00:00:00:77") {
		t.Errorf("the other host knows %s by %q", two, got)
	}
	e.Kill()
	check2 := l.outside(t, one)
	if check2 != "page of one" {
		t.Errorf("without an engine: %q", check2)
	}
	e.Run(t)
	check("after the engine was killed")
	if r := e.Do(t, "docker", "", "run", "--rm", "--network", n, "--ip", two, "busybox", "true"); r.Code == 0 || !strings.Contains(r.Stderr, "already in use") {
		t.Errorf("a second container with the address of an adopted one: %s", r)
	}
	// Live, on top of the default network.
	server(t, e, "cleat", "three")
	e.OK(t, "docker", "network", "connect", n, "three")
	if got := l.outside(t, address(t, e, "three", n)); got != "page of three" {
		t.Errorf("connected live: %q", got)
	}
	e.OK(t, "docker", "network", "disconnect", n, "three")
	if got := e.OK(t, "cleat", "exec", "three", "sh", "-c", "ls /sys/class/net | tr '\\n' ' '"); got != "eth0 lo" {
		t.Errorf("links after disconnect: %q", got)
	}
	// Two networks on one parent; a container that shares the namespace outlives the one that made it.
	second, _ := harness.Subnet(t)
	m := made(t, e, "cleat", "-second", "-d", "macvlan", "--subnet", second+"0/24", "-o", "parent="+l.parent)
	server(t, e, "cleat", "owner", "--network", m)
	remove(t, e, "guest")
	e.OK(t, "cleat", "run", "-d", "--name", "guest", "--network", "container:owner", "busybox", "sleep", "600")
	e.OK(t, "cleat", "rm", "-f", "owner")
	harness.Eventually(t, func() (bool, string) {
		got := e.OK(t, "cleat", "exec", "guest", "sh", "-c", "ls /sys/class/net | tr '\\n' ' '")
		return got == "lo", "the owner's address is free, and its link still there: " + got
	})
}

func TestMacvlanModes(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	l := newLAN(t, e, 2)
	private := made(t, e, "cleat", "-private", "-d", "macvlan", "--subnet", l.subnet+"0/24", "-o", "parent="+l.parent, "-o", "macvlan_mode=private")
	server(t, e, "cleat", "one", "--network", private)
	server(t, e, "cleat", "two", "--network", private)
	if r := e.Cleat(t, "exec", "one", "sh", "-c", getWithin(3, address(t, e, "two", private), "80")); r.Line() != "" {
		t.Errorf("private links reach each other: %s", r)
	}
	if got := l.outside(t, address(t, e, "two", private)); got != "page of two" {
		t.Errorf("from outside: %q", got)
	}
	p := newLAN(t, e, 3)
	alone := made(t, e, "cleat", "-alone", "-d", "macvlan", "--subnet", p.subnet+"0/24", "-o", "parent="+p.parent, "-o", "macvlan_mode=passthru")
	server(t, e, "cleat", "three", "--network", alone)
	if r := e.Cleat(t, "run", "--rm", "--network", alone, "busybox", "true"); r.Code == 0 || !strings.Contains(r.Stderr, p.parent) {
		t.Errorf("a second container of mode passthru: %s", r)
	}
	if r := e.Cleat(t, "run", "--rm", "-p", "80", "--network", private, "busybox", "true"); r.Code != 0 || !strings.Contains(r.Stderr, "Published ports are discarded: containers of macvlan network "+private) {
		t.Errorf("ports on a network that publishes none: %s", r)
	}
	// Without a parent there is no way out.
	nowhere, _ := harness.Subnet(t)
	closed := made(t, e, "cleat", "-closed", "-d", "macvlan", "--subnet", nowhere+"0/24")
	server(t, e, "cleat", "four", "--network", closed)
	server(t, e, "cleat", "five", "--network", closed)
	reaches(t, e, "four", address(t, e, "five", closed), "page of five")
	if got := e.OK(t, "cleat", "exec", "four", "ip", "route"); strings.Contains(got, "default") {
		t.Errorf("routes of a network without a parent: %q", got)
	}
}

// TestParentsThatCannotBe: each error says what a parent is, and nothing is left of the attempt.
func TestParentsThatCannotBe(t *testing.T) {
	e := engine(t)
	four, _ := harness.Subnet(t)
	each(t, func(t *testing.T, program string) {
		for options, text := range map[string]string{
			"-d macvlan -o parent=02:00:00:00:00:01":         "not a hardware address",
			"-d macvlan -o parent=nosuch":                    `the parent link "nosuch" does not exist: choose one of `,
			"-d macvlan -o parent=nosuch.10":                 `the parent link "nosuch" of nosuch.10 does not exist`,
			"-d macvlan -o parent=eth0.4095":                 "example formatting is eth0.10",
			"-d macvlan -o parent=eth0.x":                    "example formatting is eth0.10",
			"-d macvlan -o parent=lo":                        "loopback interface is not a valid macvlan parent link",
			"-d macvlan -o parent=a/b":                       "invalid value",
			"-d macvlan -o macvlan_mode=l2":                  "bridge, passthru, private, vepa",
			"-d ipvlan -o ipvlan_mode=bridge":                "l2, l3, l3s",
			"-d ipvlan -o ipvlan_flag=x":                     "bridge, private, vepa",
			"-d macvlan -o ipvlan_mode=l2":                   "not supported by driver macvlan",
			"-d macvlan -o com.docker.network.bridge.name=x": "not supported by driver macvlan",
			"-d overlay": "overlay",
			"-d macvlan --subnet " + four + "0/24 --gateway 1.2.3.4": "1.2.3.4",
		} {
			r := e.Do(t, program, "", append(append([]string{"network", "create"}, strings.Fields(options)...), name(t))...)
			if r.Code != 1 || !strings.Contains(r.Stderr, text) {
				t.Errorf("%s: want %q: %s", options, text, r)
			}
			if r := e.Do(t, program, "", "network", "inspect", name(t)); r.Code == 0 {
				t.Errorf("%s: left a network: %s", options, r)
				e.Cleat(t, "network", "rm", name(t))
			}
		}
	})
}

// TestKernelsWithoutTheLinks: ipvlan and VLANs work where the kernel has them, and are refused by name where not.
func TestKernelsWithoutTheLinks(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	l := newLAN(t, e, 4)
	for i, options := range []string{"-d ipvlan -o parent=" + l.parent, "-d ipvlan -o ipvlan_mode=l3 -o parent=" + l.parent + ".20", "-d macvlan -o parent=" + l.parent + ".10"} {
		n, c := fmt.Sprintf("lan%d", i), fmt.Sprintf("on-lan%d", i)
		four, _ := harness.Subnet(t)
		r := e.Cleat(t, append(append([]string{"network", "create", "--subnet", four + "0/24"}, strings.Fields(options)...), n)...)
		if r.Code == 0 {
			remove(t, e, c)
			r = e.Cleat(t, "run", "--name", c, "--network", n, "busybox", "ip", "-4", "-o", "addr", "show", "eth0")
			if r.Code == 0 && !strings.Contains(r.Stdout, four) {
				t.Errorf("%s: %s", options, r)
			}
		}
		if r.Code != 0 && (!strings.Contains(r.Stderr, "8021q") || !strings.Contains(r.Stderr, "module")) {
			t.Errorf("%s: %s", options, r)
		}
		e.Cleat(t, "rm", "-f", c)
		e.Cleat(t, "network", "rm", n)
		for _, made := range []string{l.parent + ".10", l.parent + ".20"} {
			harness.Eventually(t, func() (bool, string) {
				_, err := net.InterfaceByName(made)
				return err != nil, fmt.Sprintf("%s: %s is left", options, made)
			})
		}
	}
}
