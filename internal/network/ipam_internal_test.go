package network

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/test/expect"
)

// TestIPAMDecisions pins which subnets a sequence of networks gets.
func TestIPAMDecisions(t *testing.T) {
	p := netip.MustParsePrefix
	routes := map[netip.Prefix]string{
		p("0.0.0.0/0"): "uplink", p("172.18.0.0/16"): "uplink", p("172.20.5.0/24"): "vpn0", p("192.168.0.0/17"): "lan0", p("10.64.0.0/12"): "tun0",
	}
	pl := &planner{pools: defaultPools(), ula: p("fd00:1:2::/48"), taken: map[netip.Prefix]string{p("172.17.0.0/16"): "bridge"}, routes: routes}
	var out strings.Builder
	plan := func(rec *Record, configs ...network.IPAMConfig) {
		subnets, warnings, err := pl.plan(rec, configs)
		fmt.Fprintf(&out, "%s:", rec.Name)
		for _, s := range subnets {
			fmt.Fprintf(&out, " %s gateway %s", s.Prefix, s.Gateway)
			pl.taken[s.Prefix] = rec.Name
		}
		for _, w := range warnings {
			fmt.Fprintf(&out, "\n  warning: %s", w)
		}
		if err != nil {
			fmt.Fprintf(&out, "\n  error: %v", err)
		}
		out.WriteByte('\n')
	}
	decide := func(name string, six bool, configs ...network.IPAMConfig) {
		plan(&Record{Name: name, EnableIPv4: true, EnableIPv6: six}, configs...)
	}
	for i := range 24 {
		decide(fmt.Sprintf("auto%d", i), i%8 == 0)
	}
	c := func(subnet string) network.IPAMConfig { return network.IPAMConfig{Subnet: p(subnet)} }
	decide("sized", false, c("0.0.0.0/25"))
	decide("sized-again", false, c("0.0.0.0/25"))
	decide("own", false, c("10.1.0.0/16"))
	decide("overlap", false, c("10.1.2.0/24"))
	decide("in-a-route", false, c("172.20.5.128/25"))
	decide("the-route", false, c("172.20.5.0/24"))
	decide("two", true, c("10.2.0.0/24"), c("10.3.0.0/24"), c("fd00:9::/64"))
	decide("aux", false, network.IPAMConfig{Subnet: p("10.4.0.0/24"), AuxAddress: map[string]netip.Addr{"r": netip.MustParseAddr("10.4.0.1")}})
	decide("exactly-a-route", false, c("10.64.0.0/12"))
	decide("overlaps-itself", false, c("10.5.0.0/16"), c("10.5.1.0/24"))
	plan(&Record{Name: "without-v4", EnableIPv6: true}, c("10.6.0.0/24"), c("fd00:a::/64"))
	decide("two-addresses", false, c("10.7.0.0/31"))
	decide("two-addresses-6", true, c("fd00:b::/127"))
	decide("four-addresses", true, c("10.8.0.0/30"), c("fd00:c::/126"))
	decide("sized-large", false, c("0.0.0.0/15"))
	decide("sized-too-large", false, c("0.0.0.0/8"))
	for what, address := range map[string]string{"network": "10.9.0.0", "broadcast": "10.9.0.255", "foreign": "10.10.0.1"} {
		config := c("10.9.0.0/24")
		config.Gateway = netip.MustParseAddr(address)
		if _, _, err := pl.plan(&Record{EnableIPv4: true}, []network.IPAMConfig{config}); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("the %s address as gateway: %v", what, err)
		}
	}
	expect.Golden(t, "testdata/ipam.txt", out.String())
}

// Whatever is created and removed in whatever order: no two networks overlap, no
// address is given twice, nothing leaks, and an engine that starts anew from the records
// has the same picture.
func TestIPAMUnderAnyOrder(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 7))
		p := netip.MustParsePrefix
		pools := []AddressPool{{p("10.0.0.0/24"), 27}, {p("10.0.1.0/26"), 28}}
		type net struct {
			a    *addresses
			subs []Subnet
			used map[netip.Addr]bool
		}
		live := map[string]*net{}
		for step := range 400 {
			name := fmt.Sprintf("n%d", r.IntN(12))
			n := live[name]
			switch r.IntN(6) {
			case 0: // create
				if n != nil {
					break
				}
				pl := &planner{pools: pools, ula: p("fd00::/48"), taken: map[netip.Prefix]string{}, routes: map[netip.Prefix]string{p("10.0.0.64/28"): "x"}}
				for other, o := range live {
					for _, s := range o.subs {
						pl.taken[s.Prefix] = other
					}
				}
				subs, _, err := pl.plan(&Record{Name: name, EnableIPv4: true, EnableIPv6: r.IntN(2) == 0}, nil)
				if err != nil {
					if len(live) < 11 {
						t.Fatalf("seed %d, step %d: %v with %d networks", seed, step, err, len(live))
					}
					break
				}
				a, err := newAddresses(name, subs)
				if err != nil {
					t.Fatal(err)
				}
				live[name] = &net{a, subs, map[netip.Addr]bool{}}
			case 1: // remove, if nobody is on it
				if n != nil && len(n.used) == 0 {
					delete(live, name)
				}
			case 2, 3: // take
				if n == nil {
					break
				}
				ip, sub, err := n.a.take(false, netip.Addr{})
				if err != nil {
					if free := capacity(n.subs[0]) - len(n.used); free != 0 {
						t.Fatalf("seed %d, step %d: %v with %d free", seed, step, err, free)
					}
					break
				}
				if n.used[ip] || ip == sub.Gateway || !sub.Prefix.Contains(ip) || ip == lastAddr(sub.Prefix) || ip == sub.Prefix.Addr() {
					t.Fatalf("seed %d, step %d: %s was given out of %s", seed, step, ip, sub.Prefix)
				}
				n.used[ip] = true
			case 4: // release
				if n == nil {
					break
				}
				for ip := range n.used {
					n.a.release(ip)
					n.a.release(ip)
					delete(n.used, ip)
					break
				}
			case 5: // the engine starts anew
				if n == nil {
					break
				}
				again, err := newAddresses(name, n.subs)
				if err != nil {
					t.Fatal(err)
				}
				for ip := range n.used {
					if _, _, err := again.takeThis(ip); err != nil {
						t.Fatalf("seed %d, step %d: %v", seed, step, err)
					}
				}
				n.a = again
			}
			overlapsAny(t, live, func(n *net) []Subnet { return n.subs })
		}
		for name, n := range live {
			for ip := range n.used {
				n.a.release(ip)
			}
			count := 0
			for {
				if _, _, err := n.a.take(false, netip.Addr{}); err != nil {
					break
				}
				count++
			}
			if count != capacity(n.subs[0]) {
				t.Errorf("seed %d: network %s has %d addresses, want %d", seed, name, count, capacity(n.subs[0]))
			}
		}
	}
}

// capacity is what a subnet has for containers: all but network, broadcast and gateway.
func capacity(s Subnet) int { return 1<<(32-s.Prefix.Bits()) - 3 }

func overlapsAny[T any](t *testing.T, live map[string]T, subs func(T) []Subnet) {
	t.Helper()
	var all []netip.Prefix
	for _, n := range live {
		for _, s := range subs(n) {
			if slices.ContainsFunc(all, s.Prefix.Overlaps) {
				t.Fatalf("%s overlaps another of %v", s.Prefix, all)
			}
			all = append(all, s.Prefix)
		}
	}
}

func FuzzPool(f *testing.F) {
	f.Add("10.0.0.0/29", "10.0.0.0/30", []byte{0, 1, 2, 3})
	f.Add("fd00::/120", "", []byte{9, 9, 1})
	f.Fuzz(func(t *testing.T, subnet, window string, ops []byte) {
		s, err := netip.ParsePrefix(subnet)
		if err != nil || s.Addr().Is4In6() || s.Addr().Zone() != "" {
			return
		}
		w, err := netip.ParsePrefix(window)
		if window != "" && (err != nil || w.Bits() < s.Bits() || !s.Contains(w.Addr())) {
			return
		}
		p, err := newPool(s, w)
		if err != nil {
			return
		}
		held := map[netip.Addr]bool{}
		for _, op := range ops {
			if op%3 == 0 {
				for a := range held {
					p.release(a)
					delete(held, a)
					break
				}
				continue
			}
			a, err := p.take()
			if err != nil {
				if !errors.Is(err, errFull) {
					t.Fatal(err)
				}
				continue
			}
			if held[a] || !s.Contains(a) || w.IsValid() && !w.Contains(a) {
				t.Fatalf("%s was given out of %s", a, s)
			}
			held[a] = true
		}
	})
}
