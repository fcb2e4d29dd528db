package network

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/network"
)

func FuzzHostPorts(f *testing.F) {
	for _, s := range []string{"", "0", "80", "8000-8010", "8-", "-8", "65535-65536", "1-1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, b, err := hostPorts(s)
		if err == nil && (b < a || a == 0 && strings.Contains(s, "-")) {
			t.Errorf("%q is %d to %d", s, a, b)
		}
	})
}

func FuzzSocketInodes(f *testing.F) {
	f.Add("  sl  local_address rem_address\n   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 0", uint16(8080))
	f.Fuzz(func(t *testing.T, table string, port uint16) {
		for inode := range socketInodes(table, port) {
			if inode == "0" || !strings.Contains(table, inode) {
				t.Errorf("inode %q", inode)
			}
		}
	})
}

func TestEndpointsOfSCTP(t *testing.T) {
	const eps = " ENDPT     SOCK   STY SST HBKT LPORT   UID INODE LADDRS\n" +
		"ffff888003c1c000 ffff888004a4a000 2   10  27   3868      0 12345 0.0.0.0 \n" +
		"ffff888003c1c000 ffff888004a4a000 0   10  27   99999     0 12345 0.0.0.0 \n" +
		"ffff888003c1c400 ffff888004a4a400 2   7   28   3869      0 12346 0.0.0.0 \n" +
		"ffff888003c1c800 ffff888004a4a800 0   10  29   2905      0 12347 10.1.0.2 fd00::2 x\n short\n"
	got, err := parseEndpoints(strings.NewReader(eps))
	var all []string
	for _, l := range got {
		all = append(all, string(l.proto)+" "+l.addr.String())
	}
	if text := strings.Join(all, ", "); err != nil || text != "sctp 0.0.0.0:3868, sctp 10.1.0.2:2905, sctp [fd00::2]:2905" {
		t.Errorf("%s, %v", text, err)
	}
}

func FuzzEndpointsOfSCTP(f *testing.F) {
	f.Add("a b 2 10 27 3868 0 1 0.0.0.0 ::1\n")
	f.Fuzz(func(t *testing.T, table string) {
		got, _ := parseEndpoints(strings.NewReader(table))
		for _, l := range got {
			if !l.addr.IsValid() || l.proto != network.SCTP {
				t.Errorf("%v", l)
			}
		}
	})
}

// Whatever was bound must come back from the record that inspect shows.
func TestPortMapRoundTrip(t *testing.T) {
	any4 := netip.IPv4Unspecified()
	bs := []bound{
		{network.MustParsePort("53/udp"), any4, 5353},
		{network.MustParsePort("80/tcp"), any4, 8080},
		{network.MustParsePort("80/tcp"), netip.IPv6Loopback(), 8081},
	}
	m := portMap([]network.Port{network.MustParsePort("99/tcp")}, bs)
	got, err := boundPorts(m)
	if err != nil || len(got) != len(bs) {
		t.Fatalf("%v, %v", got, err)
	}
	for _, b := range bs {
		found := false
		for _, g := range got {
			found = found || g == b
		}
		if !found {
			t.Errorf("%+v is lost", b)
		}
	}
	if _, err := boundPorts(network.PortMap{network.MustParsePort("80/tcp"): {{HostPort: "x"}}}); err == nil {
		t.Error("a record with host port x was taken")
	}
}

func TestPoolGivesTheLowest(t *testing.T) {
	p, err := newPool(netip.MustParsePrefix("10.0.0.0/28"), netip.Prefix{}, netip.MustParseAddr("10.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	take := func(want string) {
		t.Helper()
		a, err := p.take()
		if got := a.String(); err == nil && got != want || err != nil && want != "" {
			t.Fatalf("%s, %v; want %q", got, err, want)
		}
	}
	addr := netip.MustParseAddr
	for i := range 13 {
		take(fmt.Sprintf("10.0.0.%d", i+2))
	}
	take("")
	for _, a := range []string{"10.0.0.5", "10.0.0.5", "192.0.2.1", "10.0.0.1"} {
		p.release(addr(a)) // twice, foreign and the gateway: once counts
	}
	take("10.0.0.5")
	take("")
	for _, a := range []string{"10.0.0.12", "10.0.0.7", "10.0.0.9"} {
		p.release(addr(a))
	}
	p.hold(addr("10.0.0.7"))
	take("10.0.0.9")
	p.unhold(addr("10.0.0.7"))
	take("10.0.0.7")
	p.release(addr("10.0.0.2"))
	take("10.0.0.2")
	if err := p.claim(addr("10.0.0.12")); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"10.0.0.9", "10.0.1.9", "fd00::1", "10.0.0.1"} {
		if err := p.claim(addr(bad)); err == nil {
			t.Errorf("%s was claimed", bad)
		}
	}
}

// An address that is leaving is nobody's and is given to nobody.
func TestPoolOfLeavingAddresses(t *testing.T) {
	p, err := newPool(netip.MustParsePrefix("10.0.0.0/29"), netip.Prefix{}, netip.MustParseAddr("10.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddr
	for range 3 { // .2, .3, .4 of .2 to .6
		if _, err := p.take(); err != nil {
			t.Fatal(err)
		}
	}
	p.leave(addr("10.0.0.3"))
	p.leave(addr("10.0.0.6")) // was not taken
	if used, free := p.usage(); used != 5 || free != 3 {
		t.Errorf("%d used, %d free", used, free)
	}
	for _, c := range []struct {
		addr string
		want bool
	}{{"10.0.0.3", true}, {"10.0.0.6", false}, {"10.0.1.3", false}} {
		if yes, full := p.prefers(addr(c.addr)); yes != c.want || full {
			t.Errorf("%s: %v, %v", c.addr, yes, full)
		}
	}
	if err := p.claim(addr("10.0.0.3")); err == nil {
		t.Error("an address that is leaving was claimed")
	}
	if a, err := p.take(); err != nil || a != addr("10.0.0.5") {
		t.Errorf("%s, %v", a, err)
	}
	p.release(addr("10.0.0.3"))
	if used, free := p.usage(); used != 6 || free != 2 {
		t.Errorf("%d used, %d free", used, free)
	}
	if a, err := p.take(); err != nil || a != addr("10.0.0.3") {
		t.Errorf("%s, %v", a, err)
	}
}

func TestPoolSizes(t *testing.T) {
	for subnet, want := range map[string]uint32{"10.0.0.0/30": 2, "10.0.0.0/24": 254, "10.0.0.0/16": 65534, "10.0.0.0/12": 1<<20 - 2, "10.0.0.0/8": 1<<20 - 1, "fd00::/64": 1<<16 - 1, "fd00::/120": 255} {
		p, err := newPool(netip.MustParsePrefix(subnet), netip.Prefix{})
		if err != nil {
			t.Fatal(err)
		}
		if p.free != want {
			t.Errorf("%s has %d addresses, want %d", subnet, p.free, want)
		}
	}
	for _, c := range []struct {
		subnet, window string
		free           uint64
	}{
		{"10.0.0.0/8", "10.0.0.0/8", 1<<24 - 2}, {"10.0.0.0/8", "10.16.0.0/12", 1 << 20}, {"10.0.0.0/8", "10.1.0.0/16", 1 << 16},
		{"fd00::/64", "fd00::/64", math.MaxUint64 - 1}, {"fd00::/64", "fd00::/72", 1<<56 - 1}, {"fd00::/64", "fd00::1:0/112", 1 << 16},
	} {
		p, err := newPool(netip.MustParsePrefix(c.subnet), netip.MustParsePrefix(c.window))
		if err != nil {
			t.Fatal(err)
		}
		if _, free := p.usage(); free != c.free {
			t.Errorf("of %s, %d addresses of %s are free, want %d", c.window, free, c.subnet, c.free)
		}
		last := lastAddr(p.window).Prev() // beyond the bitmap of a large window
		if err := p.claim(last); err != nil {
			t.Fatal(err)
		}
		if _, free := p.usage(); free != c.free-1 {
			t.Errorf("with %s taken, %d addresses of %s are free, want %d", last, free, c.window, c.free-1)
		}
		p.leave(last)
		if _, free := p.usage(); free != c.free {
			t.Errorf("while %s is leaving, %d addresses of %s are free, want %d", last, free, c.window, c.free)
		}
	}
	if _, err := newPool(netip.MustParsePrefix("10.0.0.0/32"), netip.Prefix{}, netip.MustParseAddr("10.0.0.0")); err == nil {
		t.Error("a subnet without any address to give was accepted")
	}
}

func BenchmarkPoolNearlyFull(b *testing.B) {
	p, err := newPool(netip.MustParsePrefix("10.0.0.0/16"), netip.Prefix{})
	if err != nil {
		b.Fatal(err)
	}
	for range 65533 {
		if _, err := p.take(); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		a, err := p.take()
		if err != nil {
			b.Fatal(err)
		}
		p.release(a)
	}
}

// Which of the host's name servers a container with and without IPv6 reaches.
func TestReachedInside(t *testing.T) {
	for server, want := range map[string][2]bool{
		"192.0.2.53": {true, true}, "::ffff:192.0.2.53": {true, true}, "2001:db8::53": {false, true}, "fe80::53": {false, true}, "fe80::53%eth0": {},
		"127.0.0.53": {}, "::1": {}, "::ffff:127.0.0.1": {}, "example": {},
	} {
		if got := [2]bool{reachedInside(server, false), reachedInside(server, true)}; got != want {
			t.Errorf("%s: %v, want %v", server, got, want)
		}
	}
}
