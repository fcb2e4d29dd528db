package network

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/internal/nft"
)

// republish has the published ports lead to where the default routes come from now, and
// be there in the families that these have. A port keeps its number.
func (s *Service) republish(a *attachment) error {
	a.edit.Lock()
	defer a.edit.Unlock()
	s.mu.Lock()
	sb, held, gone := a.sandbox, a.ports, a.gone
	s.mu.Unlock()
	if gone || sb.Asked == nil {
		return nil
	}
	t := s.targets(sb)
	r, err := s.reserveAgain(a, held, t)
	if err != nil {
		return err
	}
	next := append(t.elements(r.ports, sb.Asked), s.servedElements(r.ports)...)
	if err := s.table.Apply(nft.Change{Del: without(a.elements, next), Add: without(next, a.elements)}); err != nil {
		return fmt.Errorf("publish ports: %w", err)
	}
	old := a.elements
	a.elements = next
	s.mu.Lock()
	shown := *a.sandbox
	shown.Ports = portMap(sb.Asked.Exposed, r.ports)
	a.sandbox = &shown
	s.mu.Unlock()
	s.stale.forget(without(next, old), without(old, next))
	return nil
}

func without(ps, others []nft.Publish) []nft.Publish {
	var out []nft.Publish
	for _, p := range ps {
		if !slices.Contains(others, p) {
			out = append(out, p)
		}
	}
	return out
}

// reserveAgain makes a container's reservation what its targets want. Where that is the
// same as before, nothing but the aim of the proxy changes; else the sockets are made anew, in
// one go, as those of IPv6 can only be made in a certain order. The redirection is not
// touched, so that traffic goes on meanwhile. The caller holds a.edit.
func (s *Service) reserveAgain(a *attachment, held *reservation, t targets) (*reservation, error) {
	ws, err := s.wishes(s.possible(a.sandbox.Asked, t), t)
	if err != nil {
		return nil, err
	}
	if familiesOf(held.ports) == familiesWanted(ws) {
		s.proxy.retarget(held.served, t.proxyIP())
		return held, nil
	}
	evenAbsent(ws)
	before := slices.Clone(held.ports)
	s.letGo(held)
	r, listening, err := s.reserve(chosenBefore(before, ws), t)
	if err == nil {
		if err = listening(); err != nil {
			s.letGo(r)
		}
	}
	if err != nil {
		// Nobody can have taken all of them in between.
		s.rebind(a, before, t)
		return nil, err
	}
	s.mu.Lock()
	a.ports = r
	s.mu.Unlock()
	return r, nil
}

// possible leaves out of a request the bindings that there is no way for on the networks
// that the container has now, such as those to an address of a family that it lost.
func (s *Service) possible(asked *PortRequest, t targets) *PortRequest {
	out := *asked
	out.Ports = network.PortMap{}
	for port, bindings := range asked.Ports {
		kept := slices.DeleteFunc(slices.Clone(bindings), func(b network.PortBinding) bool {
			_, err := s.wish(port, b, t)
			return err != nil
		})
		if len(kept) > 0 || len(bindings) == 0 {
			out.Ports[port] = kept
		}
	}
	return &out
}

// families are the kinds of addresses that ports are bound to.
type families struct{ four, six, loopback6 bool }

func (f *families) add(host netip.Addr) {
	switch {
	case !host.IsValid():
	case host.Is4():
		f.four = true
	case host == netip.IPv6Loopback():
		f.loopback6 = true
	default:
		f.six = true
	}
}

func familiesOf(bs []bound) (f families) {
	for _, b := range bs {
		f.add(b.host)
	}
	return f
}

func familiesWanted(ws []wish) (f families) {
	for _, w := range ws {
		f.add(w.host)
		f.add(w.host6)
	}
	return f
}

// chosenBefore narrows wishes that any of several ports would do for to the one that was
// taken before.
func chosenBefore(before []bound, ws []wish) []wish {
	left := map[network.Port][]bound{}
	for _, b := range before {
		if n := len(left[b.port]); n == 0 || left[b.port][n-1].num != b.num { // each number once
			left[b.port] = append(left[b.port], b)
		}
	}
	out := slices.Clone(ws)
	for i, w := range out {
		of := left[w.port]
		j := slices.IndexFunc(of, func(b bound) bool { return w.first == 0 || w.first <= b.num && b.num <= w.last })
		if j >= 0 {
			out[i].first, out[i].last = of[j].num, of[j].num
			left[w.port] = slices.Delete(of, j, j+1)
		}
	}
	return out
}

// rebind reserves ports that a container has had before as far as they are free.
func (s *Service) rebind(a *attachment, bs []bound, t targets) {
	r := &reservation{}
	for _, w := range sameWishes(bs) {
		if s.takePort(r, w, w.first, t) == nil {
			continue
		}
		for _, one := range w.apart() { // another's on some addresses, which may be free on the rest
			if err := s.takePort(r, one, one.first, t); err != nil {
				host := cmp.Or(one.host, one.host6)
				r.ports = append(r.ports, bound{w.port, host, w.first})
				s.warn(fmt.Sprintf("container %s keeps published port %s, though %s", a.sandbox.Name, netip.AddrPortFrom(host, w.first), s.describe(err, &reservation{})))
			}
		}
	}
	listening, err := s.proxy.add(r.served)
	if err == nil {
		err = listening()
	}
	if err != nil {
		s.warn(fmt.Sprintf("published ports of container %s do not answer on IPv6: %v", a.sandbox.Name, err))
	}
	s.mu.Lock()
	a.ports = r
	s.mu.Unlock()
}

// apart are the wishes for each address of a wish.
func (w wish) apart() []wish {
	four, six := w, w
	four.host6, six.host = netip.Addr{}, netip.Addr{}
	return slices.DeleteFunc([]wish{four, six}, func(w wish) bool { return !w.host.IsValid() && !w.host6.IsValid() })
}

// sameWishes are the wishes that ports came from: one on all addresses of both families
// is one, as they are bound together.
func sameWishes(bs []bound) []wish {
	var ws []wish
	everywhere := map[bound]int{} // wishes on all of IPv4
	for _, b := range bs {
		if b.host == netip.IPv6Unspecified() {
			if i, ok := everywhere[bound{b.port, netip.IPv4Unspecified(), b.num}]; ok {
				ws[i].host6 = b.host
				continue
			}
		}
		if b.host == netip.IPv4Unspecified() {
			everywhere[b] = len(ws)
		}
		w := wish{port: b.port, first: b.num, last: b.num, absent: true}
		if b.host.Is4() {
			w.host = b.host
		} else {
			w.host6 = b.host
		}
		ws = append(ws, w)
	}
	return ws
}
