package network_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	api "github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/netlink"
	"github.com/cleatlabs/cleat/internal/network"
	"github.com/cleatlabs/cleat/test/expect"
)

// bridgesInUse are a network with IPv6 and the default one, with containers that reach each other and are reached; old is
// on the default one.
func (h *host) bridgesInUse(cfg network.Config) (s *network.Service, links []string, old *box, reached func() bool) {
	h.t.Helper()
	s = h.open(cfg)
	rec := h.create(s, api.CreateRequest{Name: "n", EnableIPv6: yes()})
	req := on("a", "n")
	req.Ports = ports("80/tcp", "8080")
	a, b, c := h.join(s, req), h.join(s, on("b", "n")), h.join(s, on("c", "bridge"))
	h.listen6(a.ns, "a", "[::]:80")
	h.listen(c.ns, "c", ":80")
	return s, []string{rec.Link, cfg.Bridge}, c, func() bool {
		return h.dial(h.outside, "tcp4", hostAddr+":8080") == "a sees "+outsideAddr && h.dial(h.home, "tcp4", c.IP.String()+":80") == "c sees 172.29.0.1" &&
			h.dial(b.ns, "tcp6", "["+a.IP6.String()+"]:80") == "a sees "+b.IP6.String() && h.dial(h.home, "tcp6", "["+a.IP6.String()+"]:80") == "a sees "+a.Gateway6.String()
	}
}

// Somebody deletes the bridges: they are made again, and nobody on them is lost.
func TestDeletedBridgeIsMadeAgain(t *testing.T) {
	h := newHost(t)
	s, links, old, reached := h.bridgesInUse(h.config())
	for range 2 {
		for _, link := range links {
			h.run(h.home, "ip", "link", "del", link)
		}
		expect.Eventually(t, "the containers are reached again", reached)
	}
	// New ones, too.
	d := h.join(s, on("d", "bridge"))
	expect.Eventually(t, "a new one on the default bridge reaches the old one", func() bool {
		return h.dial(d.ns, "tcp4", old.IP.String()+":80") == "c sees "+d.IP.String()
	})
}

// Somebody sets the bridges down, takes their addresses or switches IPv6 off for a moment, as network managers do to
// links that they do not know: they are put right.
func TestChangedBridgeIsPutRight(t *testing.T) {
	for what, change := range map[string]string{
		"set down": "ip link set $LINK down", "without addresses": "ip addr flush dev $LINK",
		"without IPv6": "echo 1 >/proc/sys/net/ipv6/conf/$LINK/disable_ipv6; echo 0 >/proc/sys/net/ipv6/conf/$LINK/disable_ipv6",
	} {
		t.Run(what, func(t *testing.T) {
			h := newHost(t)
			_, links, _, reached := h.bridgesInUse(h.config())
			for _, link := range links {
				h.run(h.home, "sh", "-c", strings.ReplaceAll(change, "$LINK", link))
			}
			expect.Eventually(t, "the containers are reached again", reached)
			// By it, the host asks for the hardware addresses of those for whom it forwards.
			expect.Eventually(t, "the bridge has a link-local address again", func() bool {
				out, err := runOutput("ip", "-6", "addr", "show", "dev", links[0], "scope", "link")
				return err == nil && strings.Contains(out, "inet6 fe80::42:")
			})
		})
	}
}

// Who sets a bridge down again and again means it: it stays so, and info says it for as long as it is so.
func TestContestedBridgeIsLeftAlone(t *testing.T) {
	h := newHost(t)
	cfg := h.config()
	s, _, _, reached := h.bridgesInUse(cfg)
	down := func() bool {
		return slices.ContainsFunc(s.Warnings(), func(w string) bool { return strings.Contains(w, "bridge "+cfg.Bridge+" of network bridge is down") })
	}
	conn, err := netlink.Dial(unix.NETLINK_ROUTE)
	must(t, err)
	defer conn.Close()
	expect.Eventually(t, "it is left down, and told of", func() bool {
		link, err := conn.LinkByName(cfg.Bridge)
		must(t, err)
		if link.Up && !down() {
			must(t, conn.Do(netlink.SetDown(link.Index)))
		}
		return !link.Up && down()
	})
	h.run(h.home, "ip", "link", "set", cfg.Bridge, "up")
	if down() {
		t.Errorf("it is up: %q", s.Warnings())
	}
	expect.Eventually(t, "the containers are reached again", reached)
}

// A bridge of the administrator's is his.
func TestForeignBridgeIsNotPutRight(t *testing.T) {
	h := newHost(t)
	cfg := h.config()
	cfg.BIP = netip.Prefix{}
	h.run(h.home, "ip", "link", "add", cfg.Bridge, "type", "bridge")
	t.Cleanup(func() { _, _ = runOutput("ip", "link", "del", cfg.Bridge) })
	h.run(h.home, "ip", "addr", "add", "198.51.100.1/24", "dev", cfg.Bridge)
	s := h.open(cfg)
	ours := h.create(s, api.CreateRequest{Name: "n"})
	for _, link := range []string{cfg.Bridge, ours.Link} {
		h.run(h.home, "ip", "link", "set", link, "down")
	}
	conn, err := netlink.Dial(unix.NETLINK_ROUTE)
	must(t, err)
	defer conn.Close()
	up := func(name string) bool { link, err := conn.LinkByName(name); return err == nil && link.Up }
	expect.Eventually(t, "the engine's own is up", func() bool { return up(ours.Link) })
	if up(cfg.Bridge) {
		t.Error("the administrator's bridge was set up")
	}
}
