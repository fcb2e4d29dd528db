package network_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	api "github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/internal/network"
	"github.com/cleatlabs/cleat/test/expect"
)

// create makes a network that is removed with the test.
func (h *host) create(s *network.Service, req api.CreateRequest) *network.Record {
	h.t.Helper()
	rec, warnings, err := s.Create(context.Background(), req)
	must(h.t, err)
	if len(warnings) > 0 {
		h.t.Errorf("network %s: %q", req.Name, warnings)
	}
	return rec
}

func on(name string, nets ...string) network.Request {
	containers++
	r := network.Request{ContainerID: fmt.Sprintf("%064x", containers), Name: name, Hostname: name, Mode: nets[0]}
	for _, n := range nets {
		r.Endpoints = append(r.Endpoints, network.EndpointRequest{Network: n})
	}
	return r
}

func (h *host) join(s *network.Service, req network.Request) *box {
	h.t.Helper()
	b, err := h.request(s, req)
	must(h.t, err)
	return b
}

func subnets(text ...string) *api.IPAM {
	i := &api.IPAM{}
	for _, t := range text {
		i.Config = append(i.Config, api.IPAMConfig{Subnet: netip.MustParsePrefix(t)})
	}
	return i
}

func yes() *bool { b := true; return &b }
func no() *bool  { b := false; return &b }

const (
	mode4 = "com.docker.network.bridge.gateway_mode_ipv4"
	mode6 = "com.docker.network.bridge.gateway_mode_ipv6"
)

func TestNetworksAreIsolated(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	h.create(s, api.CreateRequest{Name: "one"})
	h.create(s, api.CreateRequest{Name: "two"})
	h.create(s, api.CreateRequest{Name: "inside", Internal: true})
	h.create(s, api.CreateRequest{Name: "apart", Options: map[string]string{"com.docker.network.bridge.enable_icc": "false"}})
	a, a2, b := h.join(s, on("a", "one")), h.join(s, on("a2", "one")), h.join(s, on("b", "two"))
	in, in2 := h.join(s, on("in", "inside")), h.join(s, on("in2", "inside"))
	p, p2 := h.join(s, on("p", "apart")), h.join(s, on("p2", "apart"))
	for _, x := range []*box{a, b, in, p} {
		h.listen(x.ns, x.Name, ":80")
	}
	h.listen(h.outside, "outside", ":80")
	for _, c := range []struct {
		from     *box
		to, want string
	}{
		{a2, a.IP.String(), "a sees " + a2.IP.String()},
		{b, a.IP.String(), "no connection"},
		{a, b.IP.String(), "no connection"},
		{a, outsideAddr, "outside sees " + hostAddr},
		{in2, in.IP.String(), "in sees " + in2.IP.String()},
		{in, outsideAddr, "no connection"},
		{in, a.IP.String(), "no connection"},
		{a, in.IP.String(), "no connection"},
		{p2, p.IP.String(), "no connection"},
		{p2, outsideAddr, "outside sees " + hostAddr},
	} {
		h.meets(c.from.Name+" to "+c.to, c.from.ns, "tcp4", c.to+":80", c.want)
	}
	h.expect("host to one", h.dialWithin(patience, h.home, "tcp4", a.IP.String()+":80")[:7], "a sees ")
	if in.Gateway.IsValid() {
		t.Errorf("a container of an internal network has gateway %s", in.Gateway)
	}
}

// A subnet of link-local addresses is one like others, but for the link that goes with each of them.
func TestLinkLocalSubnet(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	h.create(s, api.CreateRequest{Name: "local", EnableIPv6: yes(), IPAM: subnets("fe80::/64")})
	a, b := h.join(s, on("a", "local")), h.join(s, on("b", "local"))
	h.listen6(a.ns, "a", "[::]:80")
	h.meets("container to container", b.ns, "tcp6", "["+a.IP6.String()+"%eth0]:80", "a sees "+b.IP6.String()+"%eth0")
}

func TestDualStack(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	rec := h.create(s, api.CreateRequest{Name: "dual", EnableIPv6: yes()})
	if len(rec.Subnets) != 2 || rec.Subnets[1].Prefix.Bits() != 64 || rec.Subnets[1].Prefix.Addr().As16()[0] != 0xfd {
		t.Fatalf("subnets %+v", rec.Subnets)
	}
	req := on("a", "dual")
	req.Ports = ports("80/tcp", "8080", "53/udp", "5353")
	a, b := h.join(s, req), h.join(s, on("b", "dual"))
	h.listen6(a.ns, "a", "[::]:80")
	h.listenUDP6(a.ns, "a", "[::]:53")
	const outside6, host6 = "2001:db8::1", "2001:db8::2"
	h.address6(h.home, "uplink", host6)
	h.address6(h.outside, "wan0", outside6)
	h.run(h.outside, "ip", "route", "add", rec.Subnets[1].Prefix.String(), "via", host6)
	h.listen6(h.home, "host", "["+host6+"]:7")
	expect.Eventually(t, "the new addresses of host and outside answer", func() bool { return h.dial(h.outside, "tcp6", "["+host6+"]:7") == "host sees "+outside6 })
	for _, c := range []struct {
		what, proto, addr, want string
		ns                      int
	}{
		{"container to container", "tcp6", "[" + a.IP6.String() + "]:80", "a sees " + b.IP6.String(), b.ns},
		{"container to container, IPv4", "tcp4", a.IP.String() + ":80", "a sees " + b.IP.String(), b.ns},
		{"outside, IPv6", "tcp6", "[" + host6 + "]:8080", "a sees " + outside6, h.outside},
		{"outside, UDP over IPv6", "udp6", "[" + host6 + "]:5353", "a sees " + outside6, h.outside},
		{"outside, IPv4", "tcp4", hostAddr + ":8080", "a sees " + outsideAddr, h.outside},
		{"outside, around publishing", "tcp6", "[" + a.IP6.String() + "]:80", "no connection", h.outside},
		{"host by its own address", "tcp6", "[" + host6 + "]:8080", "a sees " + host6, h.home},
		{"hairpin", "tcp6", "[" + host6 + "]:8080", "a sees " + rec.Subnets[1].Gateway.String(), a.ns},
	} {
		h.meets(c.what, c.ns, c.proto, c.addr, c.want)
	}
	if got := h.dialWithin(patience, h.home, "tcp6", "[::1]:8080"); !strings.HasPrefix(got, "a sees ") {
		t.Errorf("::1: %s", got)
	}
	if got := h.dialWithin(patience, h.home, "udp6", "[::1]:5353"); !strings.HasPrefix(got, "a sees ") {
		t.Errorf("::1, UDP: %s", got)
	}
	for _, bound := range []string{"0.0.0.0", "::"} {
		found := false
		for _, p := range a.Ports[api.MustParsePort("80/tcp")] {
			found = found || p.HostIP.String() == bound && p.HostPort == "8080"
		}
		if !found {
			t.Errorf("not published on %s: %v", bound, a.Ports)
		}
	}
	// The port is nobody else's, on either family.
	h.expectTaken("tcp6", "[::]:8080")
	h.expectTaken("tcp4", "0.0.0.0:8080")
	h.detach(s, a)
	again := on("c", "dual")
	again.Ports = ports("80/tcp", "8080", "53/udp", "5353")
	h.join(s, again)
}

func TestOnlyIPv6(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	h.create(s, api.CreateRequest{Name: "six", EnableIPv4: no(), EnableIPv6: yes()})
	a, b := h.join(s, on("a", "six")), h.join(s, on("b", "six"))
	if a.IP.IsValid() || !a.IP6.IsValid() {
		t.Fatalf("addresses %s and %s", a.IP, a.IP6)
	}
	h.listen6(a.ns, "a", "[::]:80")
	h.meets("container to container", b.ns, "tcp6", "["+a.IP6.String()+"]:80", "a sees "+b.IP6.String())
	h.listen6(h.home, "host", "["+a.Gateway6.String()+"]:80")
	h.meets("container to host", a.ns, "tcp6", "["+a.Gateway6.String()+"]:80", "host sees "+a.IP6.String())
	_, _, err := s.Create(context.Background(), api.CreateRequest{Name: "neither", EnableIPv4: no()})
	wantError(t, err, errInvalid, "IPv4 or IPv6 must be enabled")
}

func TestGatewayModes(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	boxes := map[string]*box{}
	for i, mode := range []string{"nat", "nat-unprotected", "routed"} {
		subnet := fmt.Sprintf("10.99.%d.0/24", i)
		h.create(s, api.CreateRequest{Name: mode, IPAM: subnets(subnet), Options: map[string]string{mode4: mode}})
		h.run(h.outside, "ip", "route", "add", subnet, "via", hostAddr)
		req := on(mode, mode)
		req.Ports = ports("80/tcp", fmt.Sprint(8000+i))
		b := h.join(s, req)
		boxes[mode] = b
		h.listen(b.ns, mode, ":80")
		h.listen(b.ns, mode, ":81")
	}
	h.listen(h.outside, "outside", ":80")
	for _, c := range []struct {
		mode string
		port int
		host string // on the host's port
		own  string // on the container's, published
		shut string // and not
		sees string
	}{
		{"nat", 8000, "nat sees " + outsideAddr, "no connection", "no connection", hostAddr},
		{"nat-unprotected", 8001, "nat-unprotected sees " + outsideAddr, "nat-unprotected sees " + outsideAddr, "nat-unprotected sees " + outsideAddr, hostAddr},
		{"routed", 8002, "no connection", "routed sees " + outsideAddr, "no connection", ""},
	} {
		b := boxes[c.mode]
		h.meets(c.mode+": the host's port", h.outside, "tcp4", fmt.Sprintf("%s:%d", hostAddr, c.port), c.host)
		h.meets(c.mode+": the container's port", h.outside, "tcp4", b.IP.String()+":80", c.own)
		h.meets(c.mode+": a port that is not published", h.outside, "tcp4", b.IP.String()+":81", c.shut)
		sees := c.sees
		if sees == "" {
			sees = b.IP.String()
		}
		h.meets(c.mode+": going out", b.ns, "tcp4", outsideAddr+":80", "outside sees "+sees)
	}
	h.run(h.outside, "busybox", "ping", "-c1", "-W30", boxes["routed"].IP.String())
	_, _, err := s.Create(context.Background(), api.CreateRequest{Name: "x", Options: map[string]string{mode4: "isolated"}})
	wantError(t, err, errInvalid, "gateway mode 'isolated' can only be used for an internal network")
	h.create(s, api.CreateRequest{Name: "isolated", Internal: true, IPAM: subnets("10.99.9.0/24"), Options: map[string]string{mode4: "isolated"}})
	i := h.join(s, on("i", "isolated"))
	h.listen(i.ns, "i", ":80")
	h.meets("isolated: from the host", h.home, "tcp4", i.IP.String()+":80", "no connection")
}

func TestTrustedInterface(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	h.create(s, api.CreateRequest{Name: "n", IPAM: subnets("10.99.0.0/24"), Options: map[string]string{"com.docker.network.bridge.trusted_host_interfaces": "uplink:wg0"}})
	h.run(h.outside, "ip", "route", "add", "10.99.0.0/24", "via", hostAddr)
	req := on("a", "n")
	req.Ports = ports("80/tcp", "8080")
	a := h.join(s, req)
	h.listen(a.ns, "a", ":80")
	h.listen(a.ns, "a", ":81")
	h.meets("published", h.outside, "tcp4", a.IP.String()+":80", "a sees "+outsideAddr)
	h.meets("not published", h.outside, "tcp4", a.IP.String()+":81", "no connection")
	h.meets("the host's port", h.outside, "tcp4", hostAddr+":8080", "a sees "+outsideAddr)
}

// The default route is that of the network with the highest priority, else of the first
// by name; published ports lead to where it is.
func TestDefaultRouteAndPortsFollowThePriority(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	for i, n := range []string{"alpha", "beta", "closed"} {
		h.create(s, api.CreateRequest{Name: n, Internal: n == "closed", IPAM: subnets(fmt.Sprintf("10.99.%d.0/24", i))})
	}
	route := func(b *box) string {
		var out string
		h.in(b.ns, func() (err error) { out, err = runOutput("ip", "-4", "route", "show", "default"); return err })
		return strings.Join(strings.Fields(out)[:5], " ")
	}
	req := on("a", "beta", "alpha", "closed")
	req.Ports = ports("80/tcp", "8080")
	a := h.join(s, req)
	h.listen(a.ns, "a", ":80")
	h.expect("by name", route(a), "default via 10.99.0.1 dev eth1")
	h.meets("published", h.outside, "tcp4", hostAddr+":8080", "a sees "+outsideAddr)
	if text := ruleset(t); !strings.Contains(text, "tcp . 8080 : 10.99.0.2 . 80") {
		t.Errorf("ports do not lead to the network of the default route:\n%s", text)
	}
	ctx := context.Background()
	persist := func(*network.Sandbox) error { return nil }
	h.create(s, api.CreateRequest{Name: "late", IPAM: subnets("10.99.7.0/24")})
	_, err := s.Connect(ctx, req, network.EndpointRequest{Network: "late", GwPriority: 5}, a.ns, persist)
	must(t, err)
	h.expect("with priority", route(a), "default via 10.99.7.1 dev eth3")
	h.meets("published over the new route", h.outside, "tcp4", hostAddr+":8080", "a sees "+outsideAddr)
	if text := ruleset(t); !strings.Contains(text, "tcp . 8080 : 10.99.7.2 . 80") || strings.Contains(text, "10.99.0.2 . 80") {
		t.Errorf("ports do not follow the default route:\n%s", text)
	}
	if got := h.dialWithin(patience, h.home, "tcp6", "[::1]:8080"); !strings.HasPrefix(got, "a sees ") {
		t.Errorf("::1: %s", got)
	}
	id := func(name string) string { rec, err := s.Find(name); must(t, err); return rec.ID }
	_, err = s.Connect(ctx, req, network.EndpointRequest{Network: "late"}, a.ns, persist)
	wantError(t, err, errForbidden, "endpoint with name a already exists in network late")
	_, err = s.Disconnect(ctx, req, id("late"), a.ns, persist)
	must(t, err)
	h.expect("after disconnect", route(a), "default via 10.99.0.1 dev eth1")
	h.meets("published after disconnect", h.outside, "tcp4", hostAddr+":8080", "a sees "+outsideAddr)
	for _, n := range []string{"alpha", "beta"} {
		_, err = s.Disconnect(ctx, req, id(n), a.ns, persist)
		must(t, err)
	}
	h.meets("with the internal network only", h.outside, "tcp4", hostAddr+":8080", "no connection")
	// The port is free.
	other := on("b", "alpha")
	other.Ports = ports("80/tcp", "8080")
	b := h.join(s, other)
	h.detach(s, b)
	// Back on a network that publishes.
	_, err = s.Connect(ctx, req, network.EndpointRequest{Network: "beta"}, a.ns, persist)
	must(t, err)
	h.meets("published again", h.outside, "tcp4", hostAddr+":8080", "a sees "+outsideAddr)
}

func TestBadNetworks(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	h.create(s, api.CreateRequest{Name: "there", IPAM: subnets("10.99.0.0/24")})
	h.run(h.home, "ip", "route", "add", "10.98.0.0/24", "dev", "uplink")
	prefix, addr := netip.MustParsePrefix, netip.MustParseAddr
	with := func(c api.IPAMConfig) *api.IPAM { return &api.IPAM{Config: []api.IPAMConfig{c}} }
	opt := func(k, v string) map[string]string { return map[string]string{k: v} }
	for _, c := range []struct {
		req   api.CreateRequest
		class error
		text  string
	}{
		{api.CreateRequest{Name: ""}, errInvalid, "invalid network name"},
		{api.CreateRequest{Name: "a/b"}, errInvalid, `"a/b"`},
		{api.CreateRequest{Name: "bridge"}, errForbidden, "operation is not permitted on predefined bridge network"},
		{api.CreateRequest{Name: "there"}, errConflict, "network with name there already exists"},
		{api.CreateRequest{Name: "x", Driver: "host"}, errForbidden, `only one instance of "host" network is allowed`},
		{api.CreateRequest{Name: "x", Driver: "weave"}, errNotFound, `"weave" not found`},
		{api.CreateRequest{Name: "x", Scope: "swarm"}, errUnavailable, "swarm"},
		{api.CreateRequest{Name: "x", Scope: "wide"}, errInvalid, "wide"},
		{api.CreateRequest{Name: "x", Ingress: true}, errUnavailable, "swarm"},
		{api.CreateRequest{Name: "x", IPAM: &api.IPAM{Driver: "dhcp"}}, errInvalid, `"dhcp"`},
		{api.CreateRequest{Name: "x", IPAM: &api.IPAM{Options: opt("a", "b")}}, errInvalid, `IPAM option "a"`},
		{api.CreateRequest{Name: "x", Options: opt("com.docker.network.bridge.nope", "1")}, errInvalid, "com.docker.network.bridge.nope"},
		{api.CreateRequest{Name: "x", Options: opt("com.docker.network.driver.mtu", "7")}, errInvalid, "mtu"},
		{api.CreateRequest{Name: "x", Options: opt(mode4, "open")}, errInvalid, "unknown gateway mode open"},
		{api.CreateRequest{Name: "x", Options: opt("com.docker.network.bridge.enable_icc", "maybe")}, errInvalid, "maybe"},
		{api.CreateRequest{Name: "x", Options: opt("com.docker.network.bridge.name", "uplink")}, errInvalid, "not a bridge"},
		{api.CreateRequest{Name: "x", Options: opt("com.docker.network.bridge.name", "made%d")}, errInvalid, `"made%d"`},
		{api.CreateRequest{Name: "x", EnableIPv6: yes(), IPAM: subnets("::ffff:10.97.0.0/120")}, errInvalid, "such as 10.97.0.0/24"},
		{api.CreateRequest{Name: "x", ConfigFrom: &api.ConfigReference{Network: "nope"}}, errNotFound, `could not find the configuration network "nope"`},
		{api.CreateRequest{Name: "x", IPAM: subnets("10.99.0.1/24")}, errInvalid, "invalid subnet 10.99.0.1/24: it should be 10.99.0.0/24"},
		{api.CreateRequest{Name: "x", IPAM: subnets("10.99.0.128/25")}, errForbidden, "Pool overlaps with other one on this address space"},
		{api.CreateRequest{Name: "x", IPAM: subnets("10.97.0.0/24", "10.97.0.0/25")}, errForbidden, "Pool overlaps"},
		{api.CreateRequest{Name: "x", IPAM: subnets("10.98.0.0/24")}, errForbidden, "10.98.0.0/24 dev uplink"},
		{api.CreateRequest{Name: "x", IPAM: subnets("10.97.0.0/31")}, errInvalid, "no room"},
		{api.CreateRequest{Name: "x", IPAM: subnets("127.3.0.0/16")}, errInvalid, "invalid subnet 127.3.0.0/16: its addresses are those of loopback"},
		{api.CreateRequest{Name: "x", IPAM: subnets("224.0.0.0/24")}, errInvalid, "invalid subnet 224.0.0.0/24"},
		{api.CreateRequest{Name: "x", EnableIPv6: yes(), IPAM: subnets("ff05::/64")}, errInvalid, "invalid subnet ff05::/64"},
		{api.CreateRequest{Name: "x", IPAM: with(api.IPAMConfig{Subnet: prefix("10.97.0.0/24"), Gateway: addr("10.96.0.1")})}, errInvalid, "invalid gateway 10.96.0.1"},
		{api.CreateRequest{Name: "x", IPAM: with(api.IPAMConfig{Subnet: prefix("10.97.0.0/24"), Gateway: addr("10.97.0.255")})}, errInvalid, "broadcast"},
		{api.CreateRequest{Name: "x", IPAM: with(api.IPAMConfig{Subnet: prefix("10.97.0.0/24"), IPRange: prefix("10.96.0.0/25")})}, errInvalid, "invalid ip-range 10.96.0.0/25"},
		{api.CreateRequest{Name: "x", IPAM: with(api.IPAMConfig{Subnet: prefix("10.97.0.0/24"), IPRange: prefix("10.96.0.0/8")})}, errInvalid, "it should be 10.0.0.0/8"},
		{api.CreateRequest{Name: "x", IPAM: with(api.IPAMConfig{Subnet: prefix("10.97.0.0/24"), AuxAddress: map[string]netip.Addr{"r": addr("10.96.0.1")}})}, errInvalid, "invalid auxiliary address 10.96.0.1"},
		{api.CreateRequest{Name: "x", IPAM: with(api.IPAMConfig{Gateway: addr("10.96.0.1")})}, errInvalid, "invalid subnet"},
	} {
		_, _, err := s.Create(context.Background(), c.req)
		wantError(t, err, c.class, c.text)
	}
	// A subnet inside a wider route of the host works, and says what it hides.
	h.run(h.home, "ip", "route", "add", "10.90.0.0/16", "dev", "uplink")
	_, warnings, err := s.Create(context.Background(), api.CreateRequest{Name: "hides", IPAM: subnets("10.90.3.0/24")})
	must(t, err)
	if len(warnings) != 1 || !strings.Contains(warnings[0], "10.90.0.0/16 dev uplink") {
		t.Errorf("warnings %q", warnings)
	}
	// Nothing is left of what was refused.
	list, err := s.List(context.Background(), map[string][]string{"type": {"custom"}})
	must(t, err)
	if len(list) != 2 {
		t.Errorf("networks %v", list)
	}
}

func TestAddressesAskedFor(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	addr := netip.MustParseAddr
	h.create(s, api.CreateRequest{Name: "n", IPAM: &api.IPAM{Config: []api.IPAMConfig{{
		Subnet: netip.MustParsePrefix("10.99.0.0/24"), IPRange: netip.MustParsePrefix("10.99.0.8/30"), Gateway: addr("10.99.0.254"),
		AuxAddress: map[string]netip.Addr{"router": addr("10.99.0.9")},
	}}}})
	h.create(s, api.CreateRequest{Name: "any"})
	ask := func(name, net, ip string) (*box, error) {
		r := on(name, net)
		r.Endpoints[0].IP = addr(ip)
		return h.request(s, r)
	}
	a, err := ask("a", "n", "10.99.0.77")
	must(t, err)
	h.expect("asked for", a.IP.String()+" "+a.Gateway.String(), "10.99.0.77 10.99.0.254")
	_, err = ask("b", "n", "10.99.0.77")
	wantError(t, err, errConflict, "Address already in use", `container "a"`)
	for ip, text := range map[string]string{"10.99.0.254": "already in use", "10.99.0.9": "already in use"} {
		_, err = ask("b", "n", ip)
		wantError(t, err, errConflict, text)
	}
	_, err = ask("b", "n", "10.99.1.7")
	wantError(t, err, errInvalid, "no configured subnet or ip-range contain the IP address 10.99.1.7: network ")
	_, err = ask("b", "any", "10.99.0.7")
	wantError(t, err, errInvalid, "no configured subnet")
	_, err = ask("b", "bridge", "172.29.0.7")
	wantError(t, err, errInvalid, "user specified IP address is supported on user defined networks only, not on bridge")
	// One of the range's is kept for a container that does not run.
	s.Expect("stopped", []network.EndpointRequest{{Network: "n", IP: addr("10.99.0.10")}})
	got := map[string]bool{}
	for _, n := range []string{"c", "d"} {
		got[h.join(s, on(n, "n")).IP.String()] = true
	}
	if !got["10.99.0.8"] || !got["10.99.0.11"] {
		t.Errorf("addresses %v", got)
	}
	_, err = h.request(s, on("e", "n"))
	wantError(t, err, errExhausted, "no available IPv4 addresses on network n", "10.99.0.8/30")
	if _, err = ask("stopped", "n", "10.99.0.10"); err != nil {
		t.Error(err)
	}
	s.Forget("stopped")
}

// Docker's client sends subnets in any order; IPv4 comes first when they are told.
func TestSubnetsAreToldIPv4First(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	rec := h.create(s, api.CreateRequest{Name: "both", EnableIPv6: yes(), IPAM: subnets("fd00:77::/64", "10.77.3.0/24", "10.77.2.0/24")})
	var got []string
	for _, sub := range rec.Subnets {
		got = append(got, sub.Prefix.String())
	}
	if want := "10.77.3.0/24 10.77.2.0/24 fd00:77::/64"; strings.Join(got, " ") != want {
		t.Errorf("%v, want %s", got, want)
	}
}
