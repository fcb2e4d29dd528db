package network

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/cleatlabs/cleat/internal/netlink"
)

// An address of IPv6 that the kernel has not brought up yet, which is for the engine a matter of how busy the machine
// is, is announced all the same: a container's start does not fail for that.
func TestAnAddressIsAnnouncedBeforeItIsUp(t *testing.T) {
	in := ownUplink(t).namespace(t)
	// The kernel looks for duplicates for longer than the test takes.
	err := in.do(func() error {
		return errors.Join(os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("0"), 0),
			os.WriteFile("/proc/sys/net/ipv6/conf/default/dad_transmits", []byte("1000"), 0))
	})
	if err != nil {
		t.Fatal(err)
	}
	ip := netip.MustParseAddr("fd00:9:8::2")
	var link netlink.Link
	err = in.conn.Do(netlink.NewVeth(netlink.Veth{Name: "one", Peer: "other", PeerNS: in.ns}))
	if err == nil {
		link, err = in.conn.LinkByName("one")
	}
	if err == nil {
		err = in.conn.Do(netlink.NewAddr(link.Index, netip.PrefixFrom(ip, 64)))
	}
	if err != nil {
		t.Fatal(err)
	}
	all, err := in.conn.AddrsOf(link.Index)
	if err != nil || len(all) == 0 || !all[len(all)-1].Tentative && !all[0].Tentative {
		t.Fatalf("no address that is not up yet: %+v, %v", all, err)
	}
	if err := in.do(func() error { return announce6(link.Index, ip, net.HardwareAddr{2, 0, 0, 0, 0, 2}) }); err != nil {
		t.Error(err)
	}
}
