package network_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/netlink"
	"github.com/cleatlabs/cleat/internal/network"
)

// hasKind says whether the kernel can make a kind of link.
func hasKind(t *testing.T, kind string) bool {
	t.Helper()
	conn, err := netlink.Dial(unix.NETLINK_ROUTE)
	must(t, err)
	defer conn.Close()
	parent, err := conn.LinkByName("uplink")
	must(t, err)
	sub := netlink.Sublink{Name: "probe", Parent: parent.Index, NS: -1}
	m := netlink.NewMacvlan(sub, netlink.MacvlanBridge)
	switch kind {
	case "ipvlan":
		m = netlink.NewIPvlan(sub, netlink.IPvlanL2, 0)
	case "vlan":
		m = netlink.NewVLAN(sub, 9)
	}
	err = conn.Do(m)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return false
	}
	must(t, err)
	must(t, conn.Do(netlink.DeleteLink("probe")))
	return true
}

func lanRequest(name, driver, subnet string, options map[string]string) api.CreateRequest {
	return api.CreateRequest{Name: name, Driver: driver, Options: options, IPAM: &api.IPAM{Config: []api.IPAMConfig{{Subnet: netip.MustParsePrefix(subnet)}}}}
}

// TestLinksOnAParent: in every mode of both drivers two containers have addresses and default routes as the mode has
// them, reach the world beside the host's own, and leave nothing.
func TestLinksOnAParent(t *testing.T) {
	for _, c := range []struct {
		driver, mode, flag string
		between            bool // containers reach each other
		gateway            bool // the default route has one
	}{
		{"macvlan", "bridge", "", true, true}, {"macvlan", "private", "", false, true}, {"macvlan", "vepa", "", false, true},
		{"ipvlan", "l2", "bridge", true, true}, {"ipvlan", "l2", "private", false, true}, {"ipvlan", "l3", "bridge", true, false}, {"ipvlan", "l3s", "bridge", true, false},
	} {
		t.Run(c.driver+"-"+c.mode+"-"+c.flag, func(t *testing.T) {
			h := newHost(t)
			if !hasKind(t, c.driver) {
				t.Skipf("the kernel has no %s links", c.driver)
			}
			s := h.open(h.config())
			options := map[string]string{"parent": "uplink", c.driver + "_mode": c.mode}
			if c.flag != "" {
				options["ipvlan_flag"] = c.flag
			}
			// The parent's own subnet, as it is in the field; .1 is the other host, and .2 this one.
			req := lanRequest("lan", c.driver, "192.0.2.0/24", options)
			req.IPAM.Config[0].AuxAddress = map[string]netip.Addr{"host": netip.MustParseAddr(hostAddr)}
			rec, _, err := s.Create(context.Background(), req)
			must(t, err)
			one, two := h.onLAN(s, 1), h.onLAN(s, 2)
			h.expect("first address", one.IP.String(), "192.0.2.3")
			h.listen(two.ns, "two", two.IP.String()+":80")
			h.listen(h.outside, "outside", outsideAddr+":80")
			of := noConnection
			if c.between {
				of = "two sees " + one.IP.String()
			}
			h.meets("of two", one.ns, "tcp", two.IP.String()+":80", of)
			// A router outside knows the way to where an L3 link's containers are; here ARP has to do.
			if c.mode != "l3" && c.mode != "l3s" {
				h.expect("from inside to outside", strings.Fields(h.dialWithin(patience, one.ns, "tcp", outsideAddr+":80"))[0], "outside")
			}
			h.in(one.ns, func() error { return defaultRouteIs(c.gateway) })
			h.detach(s, one)
			h.detach(s, two)
			_, err = s.Remove(context.Background(), rec.ID)
			must(t, err)
			conn, err := netlink.Dial(unix.NETLINK_ROUTE)
			must(t, err)
			defer conn.Close()
			if _, err := conn.LinkByName("uplink"); err != nil {
				t.Errorf("the user's own link is gone with the network: %v", err)
			}
		})
	}
}

func (h *host) onLAN(s *network.Service, n int) *box {
	h.t.Helper()
	b, err := h.request(s, network.Request{ContainerID: fmt.Sprintf("%063x%d", 0xabc, n), Name: fmt.Sprintf("lan%d", n), Mode: "lan", FilesDir: h.t.TempDir()})
	must(h.t, err)
	return b
}

func defaultRouteIs(gateway bool) error {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer conn.Close()
	routes, err := conn.Routes(unix.AF_INET)
	if err != nil {
		return err
	}
	for _, r := range routes {
		if r.Dst.Bits() == 0 {
			if r.Gateway.IsValid() != gateway {
				return fmt.Errorf("the default route's gateway is %s", r.Gateway)
			}
			return nil
		}
	}
	return errors.New("there is no default route")
}

// withVLANs is a host whose kernel has VLANs, as Debian's: where it has none, there is nothing to test.
func withVLANs(t *testing.T) (*host, *network.Service, *netlink.Conn) {
	t.Helper()
	h := newHost(t)
	if !hasKind(t, "vlan") {
		t.Skip("the kernel has no VLAN links")
	}
	conn, err := netlink.Dial(unix.NETLINK_ROUTE)
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	return h, h.open(h.config()), conn
}

// TestVLANOfAParent: the part of the wire with a VLAN's tag is made for the first network on it, and goes with the last.
func TestVLANOfAParent(t *testing.T) {
	_, s, conn := withVLANs(t)
	first, _, err := s.Create(context.Background(), lanRequest("a", "macvlan", "10.5.0.0/24", map[string]string{"parent": "uplink.10"}))
	must(t, err)
	second, _, err := s.Create(context.Background(), lanRequest("b", "macvlan", "10.6.0.0/24", map[string]string{"parent": "uplink.10"}))
	must(t, err)
	link, err := conn.LinkByName("uplink.10")
	if err != nil || link.Kind != "vlan" || !link.Up {
		t.Errorf("%+v, %v", link, err)
	}
	_, _, err = s.Create(context.Background(), lanRequest("c", "ipvlan", "10.7.0.0/24", map[string]string{"parent": "uplink.10"}))
	if !errors.Is(err, errdefs.ErrPermissionDenied) || !strings.Contains(err.Error(), "one kind only") {
		t.Errorf("another kind on the same parent: %v", err)
	}
	_, err = s.Remove(context.Background(), first.ID)
	must(t, err)
	if _, err := conn.LinkByName("uplink.10"); err != nil {
		t.Errorf("the link is gone with the first of two networks: %v", err)
	}
	_, err = s.Remove(context.Background(), second.ID)
	must(t, err)
	if _, err := conn.LinkByName("uplink.10"); !errors.Is(err, unix.ENODEV) {
		t.Errorf("the link is left: %v", err)
	}
}

// late makes a link that parents can be, with another host behind it.
func (h *host) late(conn *netlink.Conn) {
	h.t.Helper()
	must(h.t, conn.Do(netlink.NewVeth(netlink.Veth{Name: "late", Peer: "late0", PeerNS: h.outside})))
	h.t.Cleanup(func() {
		if c, err := netlink.Dial(unix.NETLINK_ROUTE); err == nil {
			_ = c.Do(netlink.DeleteLink("late"))
			c.Close()
		}
	})
}

// TestVLANComesUpWithItsParent: a parent may be down when a network is made on it, or when the engine starts.
func TestVLANComesUpWithItsParent(t *testing.T) {
	h, s, conn := withVLANs(t)
	h.late(conn)
	parent, err := conn.LinkByName("late")
	must(t, err)
	must(t, conn.Do(netlink.SetDown(parent.Index)))
	rec, _, err := s.Create(context.Background(), lanRequest("a", "macvlan", "10.5.0.0/24", map[string]string{"parent": "late.10"}))
	must(t, err)
	must(t, conn.Do(netlink.SetUp(parent.Index)))
	if link, err := conn.LinkByName("late.10"); err != nil || !link.Up {
		t.Errorf("%+v, %v", link, err)
	}
	_, err = s.Remove(context.Background(), rec.ID)
	must(t, err)
}

// TestParentThatComesLate: what an engine does not find as it starts, as a bond or what is plugged in, can be there later.
func TestParentThatComesLate(t *testing.T) {
	h := newHost(t)
	cfg := h.config()
	s := h.open(cfg)
	conn, err := netlink.Dial(unix.NETLINK_ROUTE)
	must(t, err)
	defer conn.Close()
	h.late(conn)
	_, _, err = s.Create(context.Background(), lanRequest("lan", "macvlan", "10.5.0.0/24", map[string]string{"parent": "late"}))
	must(t, err)
	must(t, s.Close())
	must(t, conn.Do(netlink.DeleteLink("late")))

	s = h.open(cfg)
	req := network.Request{ContainerID: fmt.Sprintf("%064x", 0xabc), Name: "box", Mode: "lan", FilesDir: t.TempDir()}
	if _, err := h.request(s, req); err == nil || !strings.HasPrefix(err.Error(), `network lan: the parent link "late" does not exist`) {
		t.Errorf("without its parent: %v", err)
	}
	h.late(conn)
	b, err := h.request(s, req)
	must(t, err)
	h.detach(s, b)
}
