package network_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/network"
	"github.com/cleatlabs/cleat/test/expect"
)

// openSockets counts the sockets of this process.
func openSockets(t *testing.T) (n int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return n
}

func thousand(first int) []string {
	var specs []string
	for p := first; p < first+1000; p++ {
		specs = append(specs, fmt.Sprintf("%d:%d/tcp", p, p))
	}
	return specs
}

// What a published port costs is one socket, for 127.0.0.1, all other addresses and ::1
// together: sockets are what a range of ports takes its time for.
func TestPublishedPortIsOneSocket(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	h.attach(s, "8080:80/tcp") // what the first one needs once is there
	before := openSockets(t)
	b := h.attach(s, thousand(20000)...)
	// Spares for later containers come and go meanwhile, some sockets each.
	const spares = 40
	if n := openSockets(t) - before; n < 1000-spares || n > 1000+spares {
		t.Errorf("a thousand ports took %d sockets", n)
	}
	h.listen(b.ns, "b", ":20999")
	h.meets("by 127.0.0.1", h.home, "tcp4", "127.0.0.1:20999", "b sees 172.29.0.1")
	expect.Eventually(t, "the last of so many, which are served behind the answer, by ::1", func() bool {
		return h.dial(h.home, "tcp6", "[::1]:20999") == "b sees 172.29.0.1"
	})
	if l, err := net.Listen("tcp", "[::1]:20500"); err == nil {
		l.Close()
		t.Error("another process could listen on a published port of ::1")
	}
	h.detach(s, b)
	h.meets("by ::1, freed", h.home, "tcp6", "[::1]:20999", "no connection")
	l, err := net.Listen("tcp", "[::1]:20500")
	must(t, err)
	l.Close()
}

// However many ports are published, they take connections when that is answered, those that the proxy serves too.
func TestManyPublishedPortsAnswerAtOnce(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	for range 5 {
		b := h.attach(s, thousand(20000)...)
		conn, err := net.Dial("tcp6", "[::1]:20999")
		if err == nil {
			conn.Close()
		} else if !errors.Is(err, unix.ECONNRESET) { // by the relay, as nobody listens in the container
			t.Error(err)
		}
		h.detach(s, b)
	}
}

func TestForeignServersOfIPv6(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	h.address6(h.home, "uplink", "2001:db8::2") // goes with the link
	for _, c := range []struct{ addr, refused string }{
		{"[2001:db8::2]:7001", "[::]:7001"},
		{"[::1]:7001", "[::]:7001"},
		{"[::]:7001", "[::]:7001"},
		{"0.0.0.0:7001", "0.0.0.0:7001"},
		{"127.0.0.1:7001", "0.0.0.0:7001"},
	} {
		proto := "tcp4"
		if strings.HasPrefix(c.addr, "[") {
			proto = "tcp6" // alone: Go's "tcp" takes IPv4 along
		}
		l, err := net.Listen(proto, c.addr)
		must(t, err)
		_, err = h.tryAttach(s, "7001:80/tcp")
		wantError(t, err, errdefs.ErrConflict, "Bind for "+c.refused+" failed: port is already allocated")
		if proto == "tcp6" {
			h.detach(s, h.attach(s, "0.0.0.0:7001:80/tcp")) // which is all of IPv4, and not IPv6
		}
		l.Close()
	}
}

// ipv6 gives the host and the one outside addresses of IPv6, and returns the host's.
func (h *host) ipv6() (host6, outside6 string) {
	h.t.Helper()
	host6, outside6 = "2001:db8::2", "2001:db8::1"
	h.address6(h.home, "uplink", host6)
	h.address6(h.outside, "wan0", outside6)
	h.listen6(h.home, "host", "["+host6+"]:7")
	expect.Eventually(h.t, "the new addresses of host and outside answer", func() bool {
		return h.dial(h.outside, "tcp6", "["+host6+"]:7") == "host sees "+outside6
	})
	return host6, outside6
}

func on6(port, host, num string) api.PortMap {
	return api.PortMap{api.MustParsePort(port): {{HostIP: netip.MustParseAddr(host), HostPort: num}}}
}

// A container without IPv6 is published on the host's addresses of it all the same, as
// those who look up a name meet them first.
func TestContainerWithoutIPv6IsPublishedOnIPv6(t *testing.T) {
	h := newHost(t)
	cfg := h.config()
	s := h.open(cfg)
	host6, _ := h.ipv6()
	a := h.attach(s, "8080:80/tcp", "5353:53/udp", "192.0.2.2:8081:80/tcp", "0.0.0.0:8082:80/tcp")
	h.listen(a.ns, "a", ":80")
	h.listenUDP(a.ns, "a", ":53")
	const sees = "a sees 172.29.0.1"
	for _, c := range []struct {
		what, proto, host, port, want string
		ns                            int
	}{
		{"outside", "tcp6", host6, "8080", sees, h.outside},
		{"outside, UDP", "udp6", host6, "5353", sees, h.outside},
		{"the host itself", "tcp6", host6, "8080", sees, h.home},
		{"::1", "tcp6", "::1", "8080", sees, h.home},
		{"::1, UDP", "udp6", "::1", "5353", sees, h.home},
		{"IPv4 keeps its source", "tcp4", hostAddr, "8080", "a sees " + outsideAddr, h.outside},
		{"UDP over IPv4 keeps its source", "udp4", hostAddr, "5353", "a sees " + outsideAddr, h.outside},
		{"what is published on one address of IPv4", "tcp6", host6, "8081", "no connection", h.outside},
		{"what is published on 0.0.0.0", "tcp6", host6, "8082", "no connection", h.outside},
		{"what is published on 0.0.0.0, by ::1", "tcp6", "::1", "8082", "no connection", h.home},
	} {
		h.meets(c.what, c.ns, c.proto, net.JoinHostPort(c.host, c.port), c.want)
	}
	if got := a.Ports[api.MustParsePort("53/udp")]; len(got) != 2 || got[0].HostIP.String() != "0.0.0.0" || got[1].HostIP.String() != "::" || got[1].HostPort != "5353" {
		t.Errorf("shown: %v", got)
	}
	// On addresses that are named, nothing else is taken.
	b, err := h.request(s, network.Request{ContainerID: strings.Repeat("b", 64), Ports: on6("80/tcp", "::", "8090")})
	must(t, err)
	h.listen(b.ns, "b", ":80")
	h.meets("on ::", h.outside, "tcp6", "["+host6+"]:8090", "b sees 172.29.0.1")
	h.meets("on ::, by ::1", h.home, "tcp6", "[::1]:8090", "b sees 172.29.0.1")
	h.meets("on ::, by IPv4", h.home, "tcp4", "127.0.0.1:8090", "no connection")
	c, err := h.request(s, network.Request{ContainerID: strings.Repeat("c", 64), Ports: on6("80/tcp", host6, "8091")})
	must(t, err)
	h.listen(c.ns, "c", ":80")
	h.meets("on one address", h.outside, "tcp6", "["+host6+"]:8091", "c sees 172.29.0.1")
	h.meets("on one address, by ::1", h.home, "tcp6", "[::1]:8091", "no connection")
	h.detach(s, a)
	h.meets("freed", h.outside, "tcp6", "["+host6+"]:8080", "no connection")
	for _, addr := range []string{"[::]:8080", "0.0.0.0:8080"} {
		l, err := net.Listen("tcp", addr)
		must(t, err)
		l.Close()
	}
}

// What the engine serves itself is the administrator's to refuse, as all else that is
// published, and internal networks stay by themselves.
func TestAdminChainJudgesIPv6Too(t *testing.T) {
	h := newHost(t)
	cfg := h.config()
	s := h.open(cfg)
	host6, outside6 := h.ipv6()
	h.create(s, api.CreateRequest{Name: "inner", Internal: true, EnableIPv6: yes()})
	inner := h.join(s, on("i", "inner"))
	a := h.attach(s, "8080:80/tcp", "20000:20000/tcp", "20001:20001/tcp")
	b, err := h.request(s, network.Request{ContainerID: strings.Repeat("b", 64), Ports: on6("80/tcp", host6, "8091")})
	must(t, err)
	h.listen(a.ns, "a", ":80")
	h.listen(a.ns, "a", ":20001")
	h.listen(b.ns, "b", ":80")
	at := func(what string, ns int, port, want string) { h.meets(what, ns, "tcp6", "["+host6+"]:"+port, want) }
	at("from an internal network", inner.ns, "8080", "no connection")
	at("before", h.outside, "8080", "a sees 172.29.0.1")
	h.nft("add rule inet cleat-" + cfg.Bridge + " admin ip6 saddr " + outside6 + " drop")
	for _, port := range []string{"8080", "20001", "8091"} {
		at("blocked by the administrator, port "+port, h.outside, port, "no connection")
	}
	at("the host's own servers are not meant", h.outside, "7", "host sees "+outside6)
	at("the host itself", h.home, "8080", "a sees 172.29.0.1")
}

// linkLocal is a namespace's own link-local address on a link, once it may be used, and the same with the zone that it
// has there.
func (h *host) linkLocal(ns int, link string) (addr, zoned string) {
	h.t.Helper()
	h.in(ns, func() error {
		expect.Eventually(h.t, link+" has a link-local address", func() bool {
			l, err := net.InterfaceByName(link)
			if err != nil {
				return false
			}
			all, _ := l.Addrs()
			for _, a := range all {
				ip, _ := netip.ParsePrefix(a.String())
				if !ip.Addr().Is6() || !ip.Addr().IsLinkLocalUnicast() {
					continue
				}
				addr, zoned = ip.Addr().String(), fmt.Sprintf("%s%%%d", ip.Addr(), l.Index)
				probe, err := net.ListenPacket("udp6", net.JoinHostPort(zoned, "0")) // refused while the kernel looks for others that have it
				if err == nil {
					probe.Close()
				}
				return err == nil
			}
			return false
		})
		return nil
	})
	return addr, zoned
}

// zone is an address with the number of a link in a namespace.
func (h *host) zone(addr string, ns int, link string) string {
	_, zoned := h.linkLocal(ns, link)
	_, zone, _ := strings.Cut(zoned, "%")
	return addr + "%" + zone
}

// The kernel forwards nothing that comes from a link-local address, as which a neighbour finds this host by mDNS: what
// comes from one to a container with IPv6 is the engine's to hand on, all else goes on to keep its source.
func TestPublishedPortByLinkLocalAddresses(t *testing.T) {
	h := newHost(t)
	cfg := h.config()
	s := h.open(cfg)
	host6, outside6 := h.ipv6()
	h.create(s, api.CreateRequest{Name: "dual", EnableIPv6: yes(), IPAM: subnets("172.30.9.0/24", "fd00:9::/64")})
	h.create(s, api.CreateRequest{Name: "six", EnableIPv4: no(), EnableIPv6: yes(), IPAM: subnets("fd00:8::/64")})
	h.create(s, api.CreateRequest{Name: "inner", Internal: true, EnableIPv6: yes()})
	inner := h.join(s, on("i", "inner"))
	boxes := map[string]*box{}
	for name, port := range map[string]string{"dual": "8080", "six": "8081"} {
		req := on(name, name)
		req.Ports = ports("80/tcp", port, "53/udp", port)
		boxes[name] = h.join(s, req)
		h.listen6(boxes[name].ns, name, "[::]:80")
		h.listenUDP6(boxes[name].ns, name, "[::]:53")
	}
	here, self := h.linkLocal(h.home, "uplink")
	byLink := h.zone(here, h.outside, "wan0")
	byBridge := func(b *box) string {
		addr, _ := h.linkLocal(h.home, "br-"+b.NetworkID[:12])
		return h.zone(addr, b.ns, "eth0")
	}
	for _, c := range []struct {
		what, proto, host, port, want string
		ns                            int
	}{
		{"a neighbour", "tcp6", byLink, "8080", "dual sees fd00:9::1", h.outside},
		{"a neighbour, by UDP", "udp6", byLink, "8080", "dual sees fd00:9::1", h.outside},
		{"a neighbour, to a container of IPv6 alone", "tcp6", byLink, "8081", "six sees fd00:8::1", h.outside},
		{"a neighbour with an address", "tcp6", host6, "8080", "dual sees " + outside6, h.outside},
		{"the host itself", "tcp6", self, "8080", "dual sees fd00:9::1", h.home},
		{"a container, by its gateway's", "tcp6", byBridge(boxes["dual"]), "8081", "six sees fd00:8::1", boxes["dual"].ns},
		{"a container of an internal network", "tcp6", byBridge(inner), "8080", "no connection", inner.ns},
	} {
		h.meets(c.what, c.ns, c.proto, net.JoinHostPort(c.host, c.port), c.want)
	}
	if said := s.Check([]*network.Sandbox{boxes["dual"].Sandbox, boxes["six"].Sandbox, inner.Sandbox}); len(said) > 0 {
		t.Errorf("what differs: %q", said)
	}
	h.nft("add rule inet cleat-" + cfg.Bridge + " admin ip6 saddr fe80::/10 drop")
	h.meets("blocked by the administrator", h.outside, "tcp6", net.JoinHostPort(byLink, "8080"), "no connection")
	h.detach(s, boxes["dual"])
	if text := ruleset(t); strings.Contains(text, "tcp . 8080") {
		t.Errorf("elements are left:\n%s", text)
	}
}

func TestWithoutUserlandProxy(t *testing.T) {
	h := newHost(t)
	cfg := h.config()
	cfg.NoProxy = true
	s := h.open(cfg)
	host6, outside6 := h.ipv6()
	a := h.attach(s, "8080:80/tcp")
	h.listen(a.ns, "a", ":80")
	h.meets("IPv4", h.outside, "tcp4", hostAddr+":8080", "a sees "+outsideAddr)
	h.meets("IPv6", h.outside, "tcp6", "["+host6+"]:8080", "no connection")
	h.meets("::1", h.home, "tcp6", "[::1]:8080", "no connection")
	if got := a.Ports[api.MustParsePort("80/tcp")]; len(got) != 1 {
		t.Errorf("shown: %v", got)
	}
	for _, host := range []string{"::1", "::", host6} {
		_, err := h.request(s, network.Request{ContainerID: "x", Ports: on6("80/tcp", host, "8081")})
		wantError(t, err, errdefs.ErrNotImplemented, "on "+host+":", "--userland-proxy=false")
	}
	h.create(s, api.CreateRequest{Name: "dual", EnableIPv6: yes()})
	req := on("d", "dual")
	req.Ports = ports("80/tcp", "8083")
	d := h.join(s, req)
	h.listen6(d.ns, "d", "[::]:80")
	h.meets("a container with IPv6", h.outside, "tcp6", "["+host6+"]:8083", "d sees "+outside6)
	h.meets("a container with IPv6, by ::1", h.home, "tcp6", "[::1]:8083", "no connection")
	h.expectTaken("tcp6", "[::]:8083")
}

// The next engine serves the same, also those of a range, and what a container that is gone
// has left does not stay.
func TestAdoptedPortsAreServedOnIPv6(t *testing.T) {
	h := newHost(t)
	cfg := h.config()
	host6, _ := h.ipv6()
	ranged := ports()
	for p := 6000; p < 6100; p++ {
		ranged[api.MustParsePort(fmt.Sprintf("%d/tcp", p))] = []api.PortBinding{{HostPort: fmt.Sprint(p)}}
	}
	boxes, kill := h.engine(job{Config: cfg, Attach: []network.Request{request(1, ports("80/tcp", "8080")), request(2, ranged), request(3, ports("80/tcp", "8083"))}})
	h.listen(boxes[0].ns, "a", ":80")
	h.listen(boxes[1].ns, "b", ":6050")
	h.meets("before", h.outside, "tcp6", "["+host6+"]:8080", "a sees 172.29.0.1")
	kill()
	h.meets("while no engine runs", h.outside, "tcp6", "["+host6+"]:8080", "no connection")
	s := h.open(cfg)
	kept := []*network.Sandbox{boxes[0].Sandbox, boxes[1].Sandbox}
	for _, sb := range kept {
		must(t, s.Adopt(context.Background(), sb, os.Getpid()))
	}
	must(t, s.Reconcile(context.Background(), kept))
	if w := s.Warnings(); len(w) > 0 {
		t.Errorf("warnings of the next engine: %q", w)
	}
	h.meets("a port", h.outside, "tcp6", "["+host6+"]:8080", "a sees 172.29.0.1")
	h.meets("a port of a range", h.home, "tcp6", "[::1]:6050", "b sees 172.29.0.1")
	if text := ruleset(t); strings.Contains(text, "tcp . 8083") {
		t.Errorf("elements of before are left:\n%s", text)
	}
	if said := s.Check(kept); len(said) > 0 {
		t.Errorf("what differs: %q", said)
	}
}
