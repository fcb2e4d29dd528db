package network_test

import (
	"net/netip"
	"testing"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/internal/network"
)

// Where the engine publishes on an address of IPv6 unless a binding names one, nothing is published on IPv4, for
// containers with and without IPv6 alike.
func TestPublishedOnIPv6ByDefault(t *testing.T) {
	h := newHost(t)
	host6, outside6 := h.ipv6()
	cfg := h.config()
	cfg.BindIP = netip.MustParseAddr("::1")
	s := h.open(cfg)
	a := h.attach(s, "8080:80/tcp", "0.0.0.0:8081:80/tcp")
	h.listen(a.ns, "a", ":80")
	for _, c := range []struct{ what, proto, addr, want string }{
		{"::1", "tcp6", "[::1]:8080", "a sees 172.29.0.1"},
		{"127.0.0.1", "tcp4", "127.0.0.1:8080", "no connection"},
		{"another address of the host", "tcp6", "[" + host6 + "]:8080", "no connection"},
		{"an address that is named", "tcp4", "127.0.0.1:8081", "a sees 172.29.0.1"},
		{"an address that is named, IPv6", "tcp6", "[::1]:8081", "no connection"},
	} {
		h.meets(c.what, h.home, c.proto, c.addr, c.want)
	}
	if got := a.Ports[api.MustParsePort("80/tcp")]; len(got) != 2 || got[0].HostIP.String() != "0.0.0.0" && got[1].HostIP.String() != "0.0.0.0" {
		t.Errorf("bound: %v", got)
	}
	h.detach(s, a)
	must(t, s.Close())

	cfg.BindIP = netip.MustParseAddr(host6)
	s = h.open(cfg)
	h.create(s, api.CreateRequest{Name: "six", EnableIPv6: yes()})
	own := h.create(s, api.CreateRequest{Name: "own", Options: map[string]string{"com.docker.network.bridge.host_binding_ipv4": "127.0.0.1"}})
	req := on("d", "six")
	req.Ports = ports("80/tcp", "8082")
	d := h.join(s, req)
	h.listen6(d.ns, "d", "[::]:80")
	h.meets("one address", h.outside, "tcp6", "["+host6+"]:8082", "d sees "+outside6)
	h.meets("one address, ::1", h.home, "tcp6", "[::1]:8082", "no connection")
	h.meets("one address, IPv4", h.outside, "tcp4", hostAddr+":8082", "no connection")
	req = on("e", "own")
	req.Ports = ports("80/tcp", "8083")
	e := h.join(s, req)
	h.listen(e.ns, "e", ":80")
	h.meets("the network's own choice", h.home, "tcp4", "127.0.0.1:8083", "e sees "+own.Subnets[0].Gateway.String())
	h.meets("the network's own choice, IPv6", h.outside, "tcp6", "["+host6+"]:8083", "no connection")
}

// What only the engine itself could serve, and does not, is refused with a way out that fits.
func TestDefaultOfIPv6ThatCannotBeServed(t *testing.T) {
	h := newHost(t)
	cfg := h.config()
	cfg.BindIP, cfg.NoProxy = netip.MustParseAddr("::1"), true
	s := h.open(cfg)
	_, err := h.tryAttach(s, "8080:80/tcp")
	wantError(t, err, errdefs.ErrNotImplemented, "cannot publish port 80/tcp on ::1", "--userland-proxy=false; name an address of IPv4, as in -p 0.0.0.0:PORT:80")
	h.detach(s, h.attach(s, "0.0.0.0:8080:80/tcp"))
	cfg = h.config()
	cfg.BindIP = netip.MustParseAddr("fe80::1%uplink")
	_, err = network.Open(t.Context(), cfg)
	wantError(t, err, errdefs.ErrInvalidArgument, "--ip fe80::1%uplink", "without a zone")
}
