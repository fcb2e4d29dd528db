package network_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"

	api "github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/internal/network"
	"github.com/cleatlabs/cleat/test/expect"
)

// A running container's ports are there on IPv6 as soon as a network of its default
// routes has that, under the numbers that they have, and no longer.
func TestPortsFollowTheFamiliesOfLiveNetworks(t *testing.T) {
	h := newHost(t)
	cfg := h.config()
	s := h.open(cfg)
	const outside6, host6 = "2001:db8::1", "2001:db8::2"
	h.address6(h.home, "uplink", host6)
	h.address6(h.outside, "wan0", outside6)
	h.create(s, api.CreateRequest{Name: "four"})
	h.create(s, api.CreateRequest{Name: "dual", EnableIPv6: yes()})
	req := on("a", "four")
	req.Ports = ports("80/tcp", "8080", "53/udp", "5353", "81/tcp", "")
	a := h.join(s, req)
	chosen := a.hostPort("81/tcp")
	served := "a sees " + a.Gateway.String() // by the engine, from where it reaches the container
	h.listen6(a.ns, "a", "[::]:80")
	h.listen6(a.ns, "a", "[::]:81")
	h.listenUDP6(a.ns, "a", "[::]:53")
	sees := func(what string, want4, want6 string) {
		t.Helper()
		h.meets(what+": IPv4", h.outside, "tcp4", hostAddr+":8080", want4)
		h.meets(what+": IPv6", h.outside, "tcp6", "["+host6+"]:8080", want6)
		h.meets(what+": a port that was chosen, IPv6", h.outside, "tcp6", "["+host6+"]:"+chosen, want6)
		within := patience
		if want4 == noConnection {
			within = shortly
		}
		if got := h.dialWithin(within, h.home, "tcp6", "[::1]:8080"); strings.HasPrefix(got, "a sees ") != (want4 != noConnection) {
			t.Errorf("%s: ::1: %s", what, got)
		}
	}
	var shown *network.Sandbox
	persist := func(sb *network.Sandbox) error { shown = sb; return nil }
	expect.Eventually(t, "outside reaches the host's IPv6 address", func() bool {
		return h.dial(h.outside, "tcp6", "["+host6+"]:8080") == served
	})
	sees("on IPv4 only", "a sees "+outsideAddr, served)
	ctx := context.Background()
	e, err := s.Connect(ctx, req, network.EndpointRequest{Network: "dual", GwPriority: 1}, a.ns, persist)
	must(t, err)
	sees("after a live connect", "a sees "+outsideAddr, "a sees "+outside6)
	h.meets("UDP, IPv6", h.outside, "udp6", "["+host6+"]:5353", "a sees "+outside6)
	if got := len(shown.Ports[api.MustParsePort("80/tcp")]); got != 2 || (&box{Sandbox: shown}).hostPort("81/tcp") != chosen {
		t.Errorf("shown: %v", shown.Ports)
	}

	// The next engine reserves the same, and warns of nothing.
	must(t, s.Close())
	s = h.open(cfg)
	must(t, s.Adopt(ctx, shown, h.holder(a.ns)))
	must(t, s.Reconcile(ctx, []*network.Sandbox{shown}))
	if w := s.Warnings(); len(w) > 0 {
		t.Errorf("warnings of the next engine: %q", w)
	}
	sees("adopted", "a sees "+outsideAddr, "a sees "+outside6)
	_, err = s.Disconnect(ctx, req, e.NetworkID, a.ns, persist)
	must(t, err)
	sees("after a live disconnect", "a sees "+outsideAddr, served)
	h.expectTaken("tcp6", "[::1]:8080")
	h.expectTaken("tcp4", "0.0.0.0:8080")
}

// expectTaken fails if somebody else can listen there on the host.
func (h *host) expectTaken(proto, addr string) {
	h.t.Helper()
	l, err := net.Listen(proto, addr)
	if err == nil {
		l.Close()
	}
	if !errors.Is(err, syscall.EADDRINUSE) {
		h.t.Errorf("a second one on %s: %v", addr, err)
	}
}
