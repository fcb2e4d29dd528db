package network_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/internal/network"
	"github.com/cleatlabs/cleat/test/expect"
)

func TestPortInUseNamesTheHolder(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	a := h.attach(s, "8080:80/tcp", "8080:80/udp")
	_, err := h.tryAttach(s, "8080:90/tcp")
	wantError(t, err, errdefs.ErrConflict, "Bind for 0.0.0.0:8080 failed: port is already allocated", fmt.Sprintf("container %q", a.Name), "choose another host port")
	_, err = h.tryAttach(s, "127.0.0.1:8080:90/udp")
	wantError(t, err, errdefs.ErrConflict, "Bind for 127.0.0.1:8080 failed: port is already allocated", fmt.Sprintf("container %q", a.Name))
	s.Rename(&network.Request{ContainerID: a.ContainerID, Name: "renamed"})
	_, err = h.tryAttach(s, "8080:90/tcp")
	wantError(t, err, errdefs.ErrConflict, `container "renamed"`)

	// A process of the host; here it is this one, which plays the engine as well.
	l, err := net.Listen("tcp4", "127.0.0.1:9090")
	must(t, err)
	defer l.Close()
	_, err = h.tryAttach(s, "9090:90/tcp")
	wantError(t, err, errdefs.ErrConflict, "Bind for 0.0.0.0:9090 failed: port is already allocated", "engine itself")

	// The container itself.
	_, err = h.tryAttach(s, "9191:90/tcp", "9191:91/tcp")
	wantError(t, err, errdefs.ErrConflict, "Bind for 0.0.0.0:9191 failed: port is already allocated", "this container publishes it twice")

	// The refused ones left nothing: the first can have all it wants.
	h.detach(s, a)
	h.attach(s, "8080:80/tcp", "8080:80/udp")
}

func TestPortInUseByAnotherProcess(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	pid, stop := startHolder(t, "7070")
	defer stop()
	_, err := h.tryAttach(s, "7070:90/tcp")
	wantError(t, err, errdefs.ErrConflict, "Bind for 0.0.0.0:7070 failed: port is already allocated", fmt.Sprintf("(pid %d)", pid), "busybox")
}

func TestSecondUserOfAPublishedPortIsRefused(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	h.attach(s, "8080:80/tcp", "5353:53/udp")
	for _, addr := range []string{"127.0.0.1:8080", "0.0.0.0:8080", ":8080", "[::1]:8080"} {
		// Go's listeners set SO_REUSEADDR, as most servers do.
		if l, err := net.Listen("tcp", addr); err == nil {
			l.Close()
			t.Errorf("a process could listen on %s", addr)
		}
	}
	if c, err := net.ListenPacket("udp", "127.0.0.1:5353"); err == nil {
		c.Close()
		t.Error("a process could bind 127.0.0.1:5353/udp")
	}
}

func TestHostPortChosenFromRangeOrFree(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	a := h.attach(s, "8000-8002:80/tcp", ":81/tcp", "0:82/tcp")
	b := h.attach(s, "8000-8002:80/tcp")
	c := h.attach(s, "8000-8002:80/tcp")
	got := []string{a.hostPort("80/tcp"), b.hostPort("80/tcp"), c.hostPort("80/tcp")}
	h.expect("ports of the range", strings.Join(got, " "), "8000 8001 8002")
	_, err := h.tryAttach(s, "8000-8002:80/tcp")
	wantError(t, err, errdefs.ErrConflict, "all ports of 8000-8002 are taken", "port is already allocated")
	if p, q := a.hostPort("81/tcp"), a.hostPort("82/tcp"); p == "" || q == "" || p == q || p == "0" {
		t.Errorf("free ports %q and %q", p, q)
	}
	h.listen(a.ns, "a", ":81")
	h.meets("free port", h.outside, "tcp4", hostAddr+":"+a.hostPort("81/tcp"), "a sees "+outsideAddr)
	h.meets("free port by ::1", h.home, "tcp6", "[::1]:"+a.hostPort("81/tcp"), "a sees 172.29.0.1")
}

func TestPublishAllAndExposed(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	p80, p81 := api.MustParsePort("80/tcp"), api.MustParsePort("81/tcp")
	b, err := h.request(s, network.Request{ContainerID: strings.Repeat("a", 64), Exposed: []api.Port{p80, p81}, Ports: api.PortMap{p81: {{HostPort: "8181"}}}, PublishAll: true})
	must(t, err)
	if b.hostPort("80/tcp") == "" || b.hostPort("81/tcp") != "8181" {
		t.Errorf("ports %v", b.Ports)
	}
	c, err := h.request(s, network.Request{ContainerID: strings.Repeat("b", 64), Exposed: []api.Port{p80}})
	must(t, err)
	if bindings, shown := c.Ports[p80]; !shown || bindings != nil {
		t.Errorf("an exposed port must be shown without bindings, got %v", c.Ports)
	}
}

func TestThousandPortRangeIsOneElement(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	var ports []string
	for p := 20000; p < 21000; p++ {
		ports = append(ports, fmt.Sprintf("%d:%d/tcp", p, p))
	}
	b := h.attach(s, ports...)
	h.listen(b.ns, "b", ":20999")
	h.meets("last of the range", h.outside, "tcp4", hostAddr+":20999", "b sees "+outsideAddr)
	text := ruleset(t)
	if !strings.Contains(text, "0.0.0.0/0 . tcp . 20000-20999 : "+b.IP.String()) {
		t.Errorf("the range is not one element:\n%s", text)
	}
	h.detach(s, b)
	if text := ruleset(t); strings.Contains(text, b.IP.String()) {
		t.Errorf("elements left after detach:\n%s", text)
	}
}

// Many ports are bound and freed on all processors at once: all of them, or none.
func TestOneOfAThousandPortsIsTaken(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	before := openFiles(t)
	var ports []string
	for p := 20000; p < 21000; p++ {
		ports = append(ports, fmt.Sprintf("%d:%d/tcp", p, p))
	}
	ports = append(ports, ":81/tcp")
	for _, taken := range []string{"20000", "20499", "20500", "20999"} {
		l, err := net.Listen("tcp4", "0.0.0.0:"+taken)
		must(t, err)
		if _, err := h.tryAttach(s, ports...); err == nil || !strings.Contains(err.Error(), "Bind for 0.0.0.0:"+taken+" failed: port is already allocated") {
			t.Errorf("%s is taken: %v", taken, err)
		}
		l.Close()
	}
	b := h.attach(s, ports...)
	for p := 20000; p < 21000; p++ {
		port := strconv.Itoa(p)
		h.expectTaken("tcp4", "0.0.0.0:"+port)
		h.expect("binding", b.hostPort(port+"/tcp"), port)
	}
	h.detach(s, b)
	expect.Eventually(t, "no socket is left", func() bool { return openFiles(t) <= before+20 })
}

func openFiles(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(fds)
}

func TestShiftedRange(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	b := h.attach(s, "9000:80/tcp", "9001:81/tcp", "9002:82/tcp")
	h.listen(b.ns, "b", ":81")
	h.meets("middle of the range", h.outside, "tcp4", hostAddr+":9001", "b sees "+outsideAddr)
}

func TestRefusedPorts(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	for _, c := range []struct {
		port  string
		class error
		text  string
	}{
		{"80:80/icmp", errdefs.ErrInvalidArgument, `unknown protocol "icmp"`},
		{"x:80/tcp", errdefs.ErrInvalidArgument, `"x"`},
		{"70000:80/tcp", errdefs.ErrInvalidArgument, `"70000"`},
		{"9-8:80/tcp", errdefs.ErrInvalidArgument, `"9-8"`},
		{"0-8:80/tcp", errdefs.ErrInvalidArgument, `"0-8"`},
		{"198.51.100.9:80:80/tcp", errdefs.ErrInvalidArgument, "198.51.100.9:80"},
		{"80:0/tcp", errdefs.ErrInvalidArgument, "0/tcp"},
	} {
		_, err := h.tryAttach(s, c.port)
		wantError(t, err, c.class, c.text)
	}
	_, err := h.request(s, network.Request{ContainerID: "x", Ports: api.PortMap{api.MustParsePort("80/tcp"): {{HostIP: netip.MustParseAddr("2001:db8::1"), HostPort: "80"}}}})
	wantError(t, err, errdefs.ErrInvalidArgument, "[2001:db8::1]:80", "no interface of this host has that address")
	for _, local := range []string{"fe80::1", "fe80::1%uplink"} {
		_, err = h.tryAttach(s, local+":80:80/tcp")
		wantError(t, err, errdefs.ErrInvalidArgument, "cannot publish on ["+local+"]:80: a link-local address", "-p [::]:80:PORT")
	}
	_, err = h.request(s, network.Request{ContainerID: "x", Mode: "foo"})
	wantError(t, err, errdefs.ErrNotFound, "network foo not found")
	// After all these, the first address is still the first or a later one, and
	// nothing is listed as connected.
	in, err := s.Inspect(context.Background(), "bridge")
	must(t, err)
	if len(in.Containers) != 0 {
		t.Errorf("refused requests left %v", in.Containers)
	}
}

// A UDP client that sends before the container is there must reach it afterwards
// from the same socket, and the next container after it.
func TestUDPClientFollowsThePublishedPort(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	var client net.Conn
	h.in(h.outside, func() (err error) {
		client, err = net.Dial("udp4", hostAddr+":5300")
		return err
	})
	defer client.Close()
	h.expect("nobody", ask(client), "no answer")
	a := h.attach(s, "5300:53/udp")
	h.listenUDP(a.ns, "a", ":53")
	expect.Eventually(t, "the first container answers", func() bool { return askUDP(client) == "a sees "+outsideAddr })
	h.detach(s, a)
	b := h.attach(s, "5300:53/udp")
	h.listenUDP(b.ns, "b", ":53")
	expect.Eventually(t, "the second container answers", func() bool { return askUDP(client) == "b sees "+outsideAddr })
}

// askUDP asks a few times: an ICMP error of an earlier datagram may be pending.
func askUDP(c net.Conn) string {
	var got string
	for range 3 {
		if got = ask(c); got != "no answer" {
			break
		}
	}
	return got
}

func TestContainersCannotReachTheHostsLoopback(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	a := h.attach(s, "127.0.0.1:8088:80/tcp")
	h.listen(h.home, "secret", "127.0.0.1:6666")
	must(t, h.routeLoopback(a.ns, "172.29.0.1"))
	h.meets("host's 127.0.0.1 from a container", a.ns, "tcp4", "127.0.0.1:6666", "no connection")
	h.meets("host's 127.0.0.1 from outside", h.outside, "tcp4", "127.0.0.1:6666", "no connection")
	must(t, h.routeLoopback(h.outside, hostAddr))
	h.meets("port published on 127.0.0.1 from outside", h.outside, "tcp4", "127.0.0.1:8088", "no connection")
}

func TestContainerAddressIsNotReachableFromOutside(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	a := h.attach(s, "8080:80/tcp")
	h.listen(a.ns, "a", ":80")
	h.run(h.outside, "ip", "route", "add", "172.29.0.0/16", "via", hostAddr)
	h.meets("by its own address", h.outside, "tcp4", a.IP.String()+":80", "no connection")
	h.meets("published", h.outside, "tcp4", hostAddr+":8080", "a sees "+outsideAddr)
}

func TestAdminChainComesFirst(t *testing.T) {
	h := newHost(t)
	cfg := h.config()
	s := h.open(cfg)
	a := h.attach(s, "8080:80/tcp")
	h.listen(a.ns, "a", ":80")
	h.nft("add rule inet cleat-" + cfg.Bridge + " admin ip saddr " + outsideAddr + " drop")
	h.meets("blocked by the administrator", h.outside, "tcp4", hostAddr+":8080", "no connection")
	h.meets("others", h.home, "tcp4", "127.0.0.1:8080", "a sees 172.29.0.1")
}

func wantError(t *testing.T, err, class error, texts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want one with %q", texts)
		return
	}
	if !isClass(err, class) {
		t.Errorf("error %q is not of class %v", err, class)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("error %q does not say %q", err, text)
		}
	}
}
