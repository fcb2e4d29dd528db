package network_test

import (
	"testing"

	api "github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/internal/network"
)

// A container with IPv6 on an internal network alone, through which nothing comes from outside, has its ports of IPv6
// served as one without: nothing is missing.
func TestCheckOfPortsBesideAnInternalNetwork(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	h.create(s, api.CreateRequest{Name: "four", IPAM: subnets("172.30.9.0/24")})
	h.create(s, api.CreateRequest{Name: "inner", Internal: true, EnableIPv6: yes()})
	req := on("web", "four", "inner")
	req.Ports = ports("80/tcp", "8080")
	web := h.join(s, req)
	h.listen6(web.ns, "web", "[::]:80")
	h.meets("on IPv6", h.home, "tcp6", "[::1]:8080", "web sees 172.30.9.1")
	if said := s.Check([]*network.Sandbox{web.Sandbox}); len(said) > 0 {
		t.Errorf("what differs: %q", said)
	}
	h.nft("flush map inet cleat-" + h.config().Bridge + " ports4")
	if said := s.Check([]*network.Sandbox{web.Sandbox}); len(said) != 1 {
		t.Errorf("what differs when the port on IPv4 is missing: %q", said)
	}
}
