package network_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	api "github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/internal/nft"
)

// filterBridged has the host's bridged packets pass its firewalls, or not.
func filterBridged(t *testing.T, value string) {
	t.Helper()
	for _, knob := range []string{"iptables", "ip6tables"} {
		path := "/proc/sys/net/bridge/bridge-nf-call-" + knob
		before, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			t.Skip("this kernel cannot filter bridged packets")
		}
		must(t, err)
		must(t, os.WriteFile(path, []byte(value), 0))
		t.Cleanup(func() { must(t, os.WriteFile(path, before, 0)) })
	}
}

// Containers that are kept apart reach each other's published ports, and nothing else,
// whether the host has bridged packets pass the firewall or not, or ceases to.
func TestContainersThatAreKeptApart(t *testing.T) {
	for _, filtered := range []string{"0", "1"} {
		t.Run("bridge-nf-call="+filtered, func(t *testing.T) {
			filterBridged(t, filtered)
			h := newHost(t)
			s := h.open(h.config())
			h.create(s, api.CreateRequest{Name: "apart", EnableIPv6: yes(), Options: map[string]string{"com.docker.network.bridge.enable_icc": "false"}})
			req := on("a", "apart")
			req.Ports = ports("80/tcp", "8080")
			a, b := h.join(s, req), h.join(s, on("b", "apart"))
			h.listen6(a.ns, "a", "[::]:80")
			h.listen6(a.ns, "hidden", "[::]:81")
			meet := func(when string) {
				t.Helper()
				for _, port := range []string{":80", ":81"} {
					h.meets(when+": its address", b.ns, "tcp4", a.IP.String()+port, "no connection")
					h.meets(when+": its IPv6 address", b.ns, "tcp6", "["+a.IP6.String()+"]"+port, "no connection")
				}
				for _, c := range []struct{ proto, addr string }{
					{"tcp4", hostAddr + ":8080"}, {"tcp4", a.Gateway.String() + ":8080"}, {"tcp6", "[" + a.Gateway6.String() + "]:8080"},
				} {
					if got := h.dialWithin(patience, b.ns, c.proto, c.addr); !strings.HasPrefix(got, "a sees ") {
						t.Errorf("%s: published, %s: %s", when, c.addr, got)
					}
				}
			}
			meet("as made")
			if filtered == "1" {
				filterBridged(t, "0")
				h.meets("no longer filtered: its address", b.ns, "tcp4", a.IP.String()+":81", "no connection")
				h.meets("no longer filtered: its IPv6 address", b.ns, "tcp6", "["+a.IP6.String()+"]:81", "no connection")
			}
		})
	}
}

// With direct routing, published ports are open by the containers' own addresses, and
// others stay closed.
func TestDirectRouting(t *testing.T) {
	h := newHost(t)
	cfg := h.config()
	cfg.DirectRouting = true
	s := h.open(cfg)
	a := h.attach(s, "8080:80/tcp")
	h.create(s, api.CreateRequest{Name: "own"})
	req := on("b", "own")
	req.Ports = ports("80/tcp", "8081")
	b := h.join(s, req)
	h.create(s, api.CreateRequest{Name: "inner", Internal: true})
	c := h.join(s, on("c", "inner"))
	for _, x := range []*box{a, b, c} {
		h.listen(x.ns, "it", ":80")
		h.listen(x.ns, "it", ":81")
		h.run(h.outside, "ip", "route", "add", x.IP.String(), "via", hostAddr)
	}
	for _, x := range []*box{a, b} {
		h.meets("its published port", h.outside, "tcp4", x.IP.String()+":80", "it sees "+outsideAddr)
		h.meets("another port", h.outside, "tcp4", x.IP.String()+":81", "no connection")
	}
	h.meets("on an internal network", h.outside, "tcp4", c.IP.String()+":80", "no connection")
	h.meets("from another network", a.ns, "tcp4", b.IP.String()+":81", "no connection")
}

// What another program of the host has marked is let through, published or not.
func TestAcceptedMark(t *testing.T) {
	h := newHost(t)
	cfg := h.config()
	cfg.AcceptMark = &nft.Mark{Value: 0x10, Mask: 0x30}
	s := h.open(cfg)
	a := h.attach(s)
	h.create(s, api.CreateRequest{Name: "inner", Internal: true})
	c := h.join(s, on("c", "inner"))
	for _, x := range []*box{a, c} {
		h.listen(x.ns, "it", ":81")
		h.run(h.outside, "ip", "route", "add", x.IP.String(), "via", hostAddr)
	}
	h.meets("without the mark", h.outside, "tcp4", a.IP.String()+":81", "no connection")
	const table = "marks"
	mark := func(value string) {
		t.Helper()
		_ = exec.Command("nft", "delete table ip "+table).Run() // of before
		h.nft(fmt.Sprintf("table ip %s { chain c { type filter hook prerouting priority -310; ip saddr %s meta mark set %s; }; }", table, outsideAddr, value))
	}
	defer func() { _ = exec.Command("nft", "delete table ip "+table).Run() }()
	mark("0x20")
	h.meets("with another mark", h.outside, "tcp4", a.IP.String()+":81", "no connection")
	mark("0x51")
	h.meets("with the mark", h.outside, "tcp4", a.IP.String()+":81", "it sees "+outsideAddr)
	h.meets("on an internal network", h.outside, "tcp4", c.IP.String()+":81", "no connection")
}
