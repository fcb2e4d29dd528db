package network

import (
	"math/rand/v2"
	"net/netip"
	"testing"
)

// poolModel says by trying every address what a pool has to do.
type poolModel struct {
	window  []netip.Addr // in order, without those that are never given out
	subnet  netip.Prefix
	barred  map[netip.Addr]bool
	used    map[netip.Addr]bool
	held    map[netip.Addr]int
	leaving map[netip.Addr]bool
}

func newPoolModel(subnet, window netip.Prefix, barred ...netip.Addr) *poolModel {
	m := &poolModel{subnet: subnet, barred: map[netip.Addr]bool{}, used: map[netip.Addr]bool{}, held: map[netip.Addr]int{}, leaving: map[netip.Addr]bool{}}
	for _, a := range append(barred, subnet.Addr()) {
		m.barred[a] = true
	}
	if subnet.Addr().Is4() {
		m.barred[lastAddr(subnet)] = true
	}
	for a := window.Addr(); window.Contains(a); a = a.Next() {
		if !m.barred[a] {
			m.window = append(m.window, a)
		}
	}
	return m
}

// lowest is what take is to give out, the zero address if nothing. returning counts as free.
func (m *poolModel) lowest(returning netip.Addr) netip.Addr {
	for _, a := range m.window {
		if (!m.used[a] || a == returning) && m.held[a] == 0 {
			return a
		}
	}
	return netip.Addr{}
}

// free is how many are free to take, or will be in a moment.
func (m *poolModel) free() (n uint64) {
	for _, a := range m.window {
		if !m.used[a] || m.leaving[a] {
			n++
		}
	}
	return n
}

// Whatever is taken, named, kept for others, about to leave and given back in whatever order: what is given out is the
// lowest address that is free and kept for nobody, an address that is named is had exactly if it is free, and the
// counts are right.
func TestPoolUnderAnyOrder(t *testing.T) {
	for _, c := range []struct{ subnet, window, gateway string }{
		{"10.0.0.0/28", "10.0.0.0/28", "10.0.0.1"},
		{"10.0.0.0/26", "10.0.0.32/28", "10.0.0.1"},
		{"10.0.0.0/25", "10.0.0.0/25", "10.0.0.126"},
		{"10.0.0.0/28", "10.0.0.8/29", "10.0.0.10"},
		{"fd00::/121", "fd00::/121", "fd00::1"},
		{"fd00:1::/64", "fd00:1::40/122", "fd00:1::1"},
	} {
		subnet, window, gateway := netip.MustParsePrefix(c.subnet), netip.MustParsePrefix(c.window), netip.MustParseAddr(c.gateway)
		for seed := range uint64(8) {
			p, err := newPool(subnet, window, gateway)
			if err != nil {
				t.Fatal(err)
			}
			m := newPoolModel(subnet, window, gateway)
			r := rand.New(rand.NewPCG(seed, 11))
			any := func() netip.Addr { // of the subnet, in the window or around it
				a := subnet.Addr()
				for range r.IntN(130) {
					if next := a.Next(); subnet.Contains(next) {
						a = next
					}
				}
				return a
			}
			for step := range 600 {
				m.step(t, p, r.IntN(8), any())
				if t.Failed() {
					t.Fatalf("%s of %s, seed %d, step %d", c.window, c.subnet, seed, step)
				}
			}
		}
	}
}

// step does one thing to the pool, and the same to the model.
func (m *poolModel) step(t *testing.T, p *pool, op int, a netip.Addr) {
	t.Helper()
	switch op {
	case 0, 1, 2:
		want := m.lowest(netip.Addr{})
		got, err := p.take()
		if got != want || (err == nil) != want.IsValid() {
			t.Errorf("took %v (%v), the lowest is %v", got, err, want)
		}
		if want.IsValid() {
			m.used[want] = true
		}
	case 3:
		ok := !m.used[a] && !m.barred[a]
		if err := p.claim(a); (err == nil) != ok {
			t.Errorf("claimed %s: %v, free: %t", a, err, ok)
		}
		if ok {
			m.used[a] = true
		}
	case 4:
		p.release(a)
		delete(m.used, a)
		delete(m.leaving, a)
	case 5:
		p.leave(a)
		if m.used[a] {
			m.leaving[a] = true
		}
	case 6:
		p.hold(a)
		m.held[a]++
	case 7:
		p.unhold(a)
		m.held[a] = max(0, m.held[a]-1)
	}
	for leaving := range m.leaving {
		yes, full := p.prefers(leaving)
		if want := m.lowest(leaving) == leaving; yes != want || full == m.lowest(netip.Addr{}).IsValid() {
			t.Errorf("prefers %s: %t (full: %t), want %t", leaving, yes, full, want)
		}
	}
	used, free := p.usage()
	if want := uint64(len(m.used) - len(m.leaving) + len(m.barred)); used != want {
		t.Errorf("%d in use, want %d", used, want)
	}
	if want := m.free(); m.subnet.Addr().Is4() && free != want {
		t.Errorf("%d free, want %d", free, want)
	}
}
