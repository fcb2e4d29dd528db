package network_test

import (
	"context"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/internal/network"
)

// What starts by itself is published on an address that comes later, as one by DHCP does at boot, and stays so when the
// address goes and comes again, over an engine's end, too. Who starts it by hand is told that there is no such address.
func TestPublishedOnAnAddressThatComesLater(t *testing.T) {
	const late, late6 = "192.0.2.9", "2001:db8::9"
	h := newHost(t)
	_, outside6 := h.ipv6()
	cfg := h.config()
	s := h.open(cfg)
	h.create(s, api.CreateRequest{Name: "both", EnableIPv6: yes()})
	request := func(name string, unattended bool) network.Request {
		req := on(name, "both")
		req.Unattended = unattended
		req.Ports = api.PortMap{api.MustParsePort("80/tcp"): {
			{HostIP: netip.MustParseAddr(late), HostPort: "8080"}, {HostIP: netip.MustParseAddr(late6), HostPort: "8080"},
		}}
		return req
	}
	_, err := h.request(s, request("by hand", false))
	wantError(t, err, errdefs.ErrInvalidArgument, "no interface of this host has that address")

	a := h.join(s, request("a", true))
	h.listen6(a.ns, "a", "[::]:80")
	told := func(s *network.Service) []string {
		return slices.DeleteFunc(s.Warnings(), func(w string) bool { return !strings.Contains(w, "which no interface of this host has") })
	}
	if got := told(s); len(got) != 2 || !strings.Contains(got[0], "container a publishes ports on "+late+",") || !strings.Contains(got[1], late6) {
		t.Errorf("warnings: %q", got)
	}
	_, err = h.request(s, request("second", true))
	wantError(t, err, errdefs.ErrConflict, "port is already allocated", "a")

	reached := func(what string) {
		t.Helper()
		h.run(h.home, "ip", "addr", "add", late+"/24", "dev", "uplink")
		h.address6(h.home, "uplink", late6)
		h.meets(what, h.outside, "tcp4", late+":8080", "a sees "+outsideAddr)
		h.meets(what+", IPv6", h.outside, "tcp6", "["+late6+"]:8080", "a sees "+outside6)
		h.run(h.home, "ip", "addr", "del", late+"/24", "dev", "uplink")
		h.run(h.home, "ip", "addr", "del", late6+"/64", "dev", "uplink")
	}
	reached("the address has come")
	must(t, s.Close())
	s = h.open(cfg)
	must(t, s.Adopt(context.Background(), a.Sandbox, os.Getpid()))
	if got := told(s); len(got) != 2 {
		t.Errorf("warnings of the next engine: %q", got)
	}
	_, err = h.request(s, request("third", true))
	wantError(t, err, errdefs.ErrConflict, "port is already allocated", "a")
	reached("after another engine's start")
}
