package network

import (
	"net/netip"
	"testing"
)

// No two addresses of a network go with the same hardware address, whichever were asked for (--ip6).
func TestHardwareAddressesDiffer(t *testing.T) {
	for subnet, addrs := range map[string][]string{
		"10.9.0.0/16":     {"10.9.0.2", "10.9.1.2", "10.9.2.0"},
		"fd00:9::/64":     {"fd00:9::2", "fd00:9::3", "fd00:9::1:2", "fd00:9::100:2", "fd00:9::200:2", "fd00:9::1:0:2", "fd00:9::1:0:0:2", "fd00:9::100:0:0:2"},
		"fd00:9::/48":     {"fd00:9::2", "fd00:9:0:1::2", "fd00:9:0:100::2", "fd00:9:0:200::2"},
		"fd00:9:8::8/112": {"fd00:9:8::9", "fd00:9:8::a", "fd00:9:8::100"},
	} {
		known := map[string]string{}
		for _, a := range addrs {
			e := &Endpoint{PrefixLen6: netip.MustParsePrefix(subnet).Bits()}
			if ip := netip.MustParseAddr(a); ip.Is4() {
				e.IP = ip
			} else {
				e.IP6 = ip
			}
			mac := macOf(e)
			if other, taken := known[mac.String()]; taken || mac[0]&3 != 2 {
				t.Errorf("%s: %s has %s, as %q", subnet, a, mac, other)
			}
			known[mac.String()] = a
		}
	}
}
