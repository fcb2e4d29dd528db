package network_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/internal/network"
	"github.com/cleatlabs/cleat/test/expect"
)

func (h *host) routeOf(ns int, family string) string {
	h.t.Helper()
	var out string
	h.in(ns, func() (err error) { out, err = runOutput("ip", family, "route", "show", "default"); return err })
	f := strings.Fields(out)
	return strings.Join(f[:min(5, len(f))], " ")
}

func TestDefaultNetworkWithIPv6(t *testing.T) {
	h := newHost(t)
	cfg := h.config()
	cfg.Default = network.DefaultNetwork{IPv6: true, FixedCIDR6: mustPrefix("fd00:d0c:1::/64")}
	s := h.open(cfg)
	a, b := h.attach(s, "8080:80/tcp"), h.attach(s)
	if !cfg.Default.FixedCIDR6.Contains(a.IP6) || !a.IP.IsValid() {
		t.Fatalf("addresses %s and %s", a.IP, a.IP6)
	}
	h.expect("gateway", h.routeOf(a.ns, "-6"), "default via fd00:d0c:1::1 dev eth0")
	h.listen6(a.ns, "a", "[::]:80")
	h.meets("container to container", b.ns, "tcp6", "["+a.IP6.String()+"]:80", "a sees "+b.IP6.String())
	const outside6, host6 = "2001:db8::1", "2001:db8::2"
	h.address6(h.home, "uplink", host6)
	h.address6(h.outside, "wan0", outside6)
	expect.Eventually(t, "published on IPv6", func() bool { return h.dial(h.outside, "tcp6", "["+host6+"]:8080") == "a sees "+outside6 })
	if got := h.dialWithin(patience, h.home, "tcp6", "[::1]:8080"); !strings.HasPrefix(got, "a sees ") {
		t.Errorf("published on ::1: %s", got)
	}
	n, err := s.Inspect(context.Background(), "bridge")
	must(t, err)
	if c := n.IPAM.Config; !n.EnableIPv6 || len(c) != 2 || c[1].Subnet != cfg.Default.FixedCIDR6 || c[1].Gateway.String() != "fd00:d0c:1::1" {
		t.Errorf("inspect: IPv6 %t, %+v", n.EnableIPv6, c)
	}

	// The next engine has no IPv6 there: who has it keeps it, who comes has none.
	must(t, s.Close())
	cfg.Default = network.DefaultNetwork{}
	s = h.open(cfg)
	must(t, s.Adopt(context.Background(), a.Sandbox, os.Getpid()))
	must(t, s.Adopt(context.Background(), b.Sandbox, os.Getpid()))
	must(t, s.Reconcile(context.Background(), []*network.Sandbox{a.Sandbox, b.Sandbox}))
	if c := h.attach(s); c.IP6.IsValid() || c.IP == a.IP {
		t.Errorf("a container of the engine without IPv6 has %s and %s", c.IP, c.IP6)
	}
	h.meets("an adopted one", h.outside, "tcp4", hostAddr+":8080", "a sees "+outsideAddr)
}

// A subnet that nobody named is chosen once and kept.
func TestDefaultNetworkKeepsItsIPv6Subnet(t *testing.T) {
	h := newHost(t)
	cfg := h.config()
	cfg.Default.IPv6 = true
	subnet := func(s *network.Service) netip.Prefix {
		n, err := s.Inspect(context.Background(), "bridge")
		must(t, err)
		return n.IPAM.Config[1].Subnet
	}
	s := h.open(cfg)
	first := subnet(s)
	if !first.Addr().IsPrivate() || first.Bits() != 64 {
		t.Errorf("subnet %s is not a ULA's", first)
	}
	must(t, s.Teardown())
	s = h.open(cfg)
	if again := subnet(s); again != first {
		t.Errorf("subnet %s, after a restart %s", first, again)
	}
	must(t, s.Close())
	// Another one that is asked for takes its place on the bridge.
	cfg.Default.BIP6 = mustPrefix("fd00:d0c:2::99/64")
	s = h.open(cfg)
	out, err := runOutput("ip", "-6", "addr", "show", "dev", cfg.Bridge, "scope", "global")
	must(t, err)
	if !strings.Contains(out, "fd00:d0c:2::99/64") || strings.Count(out, "inet6") != 1 {
		t.Errorf("addresses of the bridge:\n%s", out)
	}
	h.expect("gateway", h.routeOf(h.attach(s).ns, "-6"), "default via fd00:d0c:2::99 dev eth0")
}

func TestDefaultNetworkFixedCIDRAndGateway(t *testing.T) {
	h := newHost(t)
	cfg := h.config()
	cfg.Default = network.DefaultNetwork{FixedCIDR: mustPrefix("172.29.5.0/30"), Gateway: netip.MustParseAddr("172.29.0.254")}
	s := h.open(cfg)
	for i := range 4 {
		b := h.attach(s)
		if !cfg.Default.FixedCIDR.Contains(b.IP) || b.PrefixLen != 16 {
			t.Errorf("container %d has %s/%d", i, b.IP, b.PrefixLen)
		}
		h.expect("gateway", h.routeOf(b.ns, "-4"), "default via 172.29.0.254 dev eth0")
	}
	_, err := h.tryAttach(s)
	wantError(t, err, errExhausted, "172.29.5.0/30")
	n, err := s.Inspect(context.Background(), "bridge")
	must(t, err)
	if c := n.IPAM.Config[0]; c.IPRange != cfg.Default.FixedCIDR || c.Gateway.String() != "172.29.0.1" || c.AuxAddress["DefaultGatewayIPv4"] != cfg.Default.Gateway {
		t.Errorf("inspect: %+v", c)
	}
	must(t, s.Close())

	// Without an address of the bridge, the part is the subnet.
	cfg.BIP, cfg.Default = netip.Prefix{}, network.DefaultNetwork{FixedCIDR: mustPrefix("172.30.7.0/24")}
	s = h.open(cfg)
	b := h.attach(s)
	if b.Gateway.String() != "172.30.7.1" || b.PrefixLen != 24 {
		t.Errorf("%s/%d, gateway %s", b.IP, b.PrefixLen, b.Gateway)
	}
}

func TestDefaultNetworkBadSettings(t *testing.T) {
	h := newHost(t)
	for text, d := range map[string]network.DefaultNetwork{
		"--fixed-cidr 10.0.0.0/24 is not within 172.29.0.0/16":        {FixedCIDR: mustPrefix("10.0.0.0/24")},
		"--fixed-cidr 172.0.0.0/8 is not within":                      {FixedCIDR: mustPrefix("172.0.0.0/8")},
		"--default-gateway 10.0.0.1 is not within":                    {Gateway: netip.MustParseAddr("10.0.0.1")},
		"invalid auxiliary address DefaultGatewayIPv4 172.29.255.255": {Gateway: netip.MustParseAddr("172.29.255.255")},
		"--default-gateway-v6 fd01::1 is not within fd00::/64":        {IPv6: true, FixedCIDR6: mustPrefix("fd00::/64"), Gateway6: netip.MustParseAddr("fd01::1")},
		"invalid --fixed-cidr-v6 10.0.0.0: want an IPv6 address":      {IPv6: true, FixedCIDR6: mustPrefix("10.0.0.0/24")},
		"invalid --fixed-cidr fd00::: want an IPv4 address":           {FixedCIDR: mustPrefix("fd00::/64")},
		"invalid --bip6 fd00::/64":                                    {IPv6: true, BIP6: mustPrefix("fd00::/64")},
		"invalid --default-gateway fd00::1: want an IPv4 address":     {Gateway: netip.MustParseAddr("fd00::1")},
		"must have room for a gateway and a container":                {FixedCIDR: mustPrefix("172.29.0.0/31")},
	} {
		cfg := h.config()
		cfg.Default = d
		s, err := network.Open(context.Background(), cfg)
		if err == nil {
			_ = s.Teardown()
		}
		wantError(t, err, errInvalid, text)
	}
}

func TestDefaultNetworkApartAndNotTranslated(t *testing.T) {
	h := newHost(t)
	cfg := h.config()
	cfg.Default = network.DefaultNetwork{NoICC: true, NoMasquerade: true}
	s := h.open(cfg)
	a, b := h.attach(s, "8080:80/tcp"), h.attach(s)
	h.listen(a.ns, "a", ":80")
	h.meets("container to container", b.ns, "tcp4", a.IP.String()+":80", "no connection")
	h.meets("from outside", h.outside, "tcp4", hostAddr+":8080", "a sees "+outsideAddr)
	h.run(h.outside, "ip", "route", "add", "172.29.0.0/16", "via", hostAddr)
	h.listen(h.outside, "outside", ":80")
	h.meets("out", a.ns, "tcp4", outsideAddr+":80", "outside sees "+a.IP.String())
	h.meets("in, past the published port", h.outside, "tcp4", a.IP.String()+":80", "no connection")
	n, err := s.Inspect(context.Background(), "bridge")
	must(t, err)
	for _, o := range []string{"enable_icc", "enable_ip_masquerade"} {
		if got := n.Options["com.docker.network.bridge."+o]; got != "false" {
			t.Errorf("inspect: %s is %q", o, got)
		}
	}
	_, _, err = s.Attach(context.Background(), network.Request{
		ContainerID: fmt.Sprintf("%064x", 1<<41), Name: "linked", Links: []network.HostLine{{Addr: a.IP, Names: []string{"db"}}},
	})
	wantError(t, err, errInvalid, "--icc=false")
}

func TestForwardingIsLeftAlone(t *testing.T) {
	h := newHost(t)
	forward := func(path, value string) { must(t, os.WriteFile(path, []byte(value), 0)) }
	const four, six = "/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"
	forward(four, "0")
	forward(six, "0")
	defer forward(four, "1")
	defer forward(six, "1")
	cfg := h.config()
	cfg.NoForwarding, cfg.Default.IPv6 = true, true
	s := h.open(cfg)
	h.attach(s)
	for _, path := range []string{four, six} {
		if got, _ := os.ReadFile(path); strings.TrimSpace(string(got)) != "0" {
			t.Errorf("%s is %s", path, got)
		}
	}
	if w := strings.Join(s.Warnings(), "\n"); !strings.Contains(w, "IPv4 forwarding is disabled") || !strings.Contains(w, "sysctl net.ipv4.ip_forward=1") {
		t.Errorf("warnings %q", w)
	}
}
