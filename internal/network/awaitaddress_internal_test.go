package network

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/cleatlabs/cleat/internal/netlink"
)

// A container does not begin before its IPv6 address is up, also where that takes the kernel a second: its connections
// would have another one as their sender's. Who is on a link without a carrier is not held up for it.
func TestAnAddressIsWaitedForWhereItWillComeUp(t *testing.T) {
	for what, carrier := range map[string]bool{"with a carrier": true, "without a carrier": false} {
		t.Run(what, func(t *testing.T) {
			in := ownUplink(t).namespace(t)
			// The kernel looks for duplicates, for a second or two.
			err := in.do(func() error { return os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("0"), 0) })
			if err != nil {
				t.Fatal(err)
			}
			ip := netip.MustParseAddr("fd00:9:8::2")
			var one, other netlink.Link
			err = in.conn.Do(netlink.NewVeth(netlink.Veth{Name: "one", Peer: "other", PeerNS: in.ns}))
			if err == nil {
				one, err = in.conn.LinkByName("one")
			}
			if err == nil {
				other, err = in.conn.LinkByName("other")
			}
			msgs := []*netlink.Message{netlink.SetUp(one.Index), netlink.NewAddr(one.Index, netip.PrefixFrom(ip, 64))}
			if carrier {
				msgs = append([]*netlink.Message{netlink.SetUp(other.Index)}, msgs...)
			}
			if err = errors.Join(err, in.conn.Do(msgs...), awaitAddress(in.conn, one.Index, ip)); err != nil {
				t.Fatal(err)
			}
			all, err := in.conn.AddrsOf(one.Index)
			if err != nil {
				t.Fatal(err)
			}
			up := slices.ContainsFunc(all, func(a netlink.Addr) bool { return a.Prefix.Addr() == ip && !a.Tentative })
			if up != carrier {
				t.Errorf("afterwards: %+v", all)
			}
		})
	}
}
