package network

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/internal/netlink"
	"github.com/cleatlabs/cleat/internal/nft"
)

// Gateways returns the endpoints that a container's default routes lead through, nil
// where it has none: the one with the highest priority, and of several with that the
// one whose network's name comes first.
func (sb *Sandbox) Gateways() (four, six *Endpoint) {
	order := slices.Clone(sb.Endpoints)
	slices.SortStableFunc(order, func(a, b *Endpoint) int {
		return cmp.Or(cmp.Compare(b.GwPriority, a.GwPriority), cmp.Compare(a.NetworkName, b.NetworkName))
	})
	for _, e := range order {
		if four == nil && (e.Gateway.IsValid() || e.Direct && e.IP.IsValid()) {
			four = e
		}
		if six == nil && (e.Gateway6.IsValid() || e.Direct && e.IP6.IsValid()) {
			six = e
		}
	}
	return four, six
}

// defaultRoutes asks for them, in place of others.
func defaultRoutes(sb *Sandbox, indexes map[*Endpoint]int) []*netlink.Message {
	var msgs []*netlink.Message
	four, six := sb.Gateways()
	if four != nil {
		msgs = append(msgs, defaultRoute(indexes[four], four.Gateway, false))
	}
	if six != nil {
		msgs = append(msgs, defaultRoute(indexes[six], six.Gateway6, true))
	}
	return msgs
}

// defaultRoute asks for one route; without a gateway all addresses are on the link.
func defaultRoute(index int, gateway netip.Addr, six bool) *netlink.Message {
	all := netip.IPv4Unspecified()
	if six {
		all = netip.IPv6Unspecified()
	}
	return netlink.NewRoute(index, netip.PrefixFrom(all, 0), gateway)
}

// target is where published ports of one family lead.
type target struct {
	ip   netip.Addr // of the container; invalid: there is none
	mode gatewayMode
	// bind is the host address of ports that name none, if the network has its own.
	bind netip.Addr
	// trusted neighbours may use the container's address itself.
	trusted bool
}

// targets are where the published ports of a container lead.
type targets struct {
	four, six target
	network   string
}

// binds says whether ports of the host are taken in this family.
func (t target) binds() bool { return t.ip.IsValid() && t.mode.translates() }

// opens says whether packets to the container's address are let through.
func (t target) opens() bool {
	return t.ip.IsValid() && (t.mode == modeRouted || t.trusted && t.mode.translates())
}

// targets finds them: the endpoints of the default routes, if their networks publish.
func (s *Service) targets(sb *Sandbox) targets {
	four, six := sb.Gateways()
	t := targets{network: ModeNone}
	if len(sb.Endpoints) > 0 {
		t.network = sb.Endpoints[0].NetworkName
	}
	if b, ok := s.publisher(four); ok {
		t.network = four.NetworkName
		t.four = target{ip: four.IP, mode: b.opts.mode, bind: b.opts.bind, trusted: b.opts.direct || len(b.opts.trusted) > 0}
	}
	if b, ok := s.publisher(six); ok {
		t.six = target{ip: six.IP6, mode: b.opts.mode6, bind: b.opts.bind6, trusted: b.opts.direct || len(b.opts.trusted) > 0}
	}
	return t
}

func (s *Service) publisher(e *Endpoint) (*bridge, bool) {
	if e == nil {
		return nil, false
	}
	b, ok := s.driverOf(e).(*bridge)
	return b, ok && b.publishes()
}

// elements are what the firewall needs for ports that are bound, and for those that are
// asked for where no port of the host stands for them.
func (t targets) elements(bs []bound, asked *PortRequest) []nft.Publish {
	var out []nft.Publish
	if t.four.binds() {
		out = append(out, publishes(t.four.ip, bs)...)
	}
	if t.six.binds() {
		out = append(out, publishes(t.six.ip, bs)...)
	}
	if asked == nil {
		return out
	}
	for _, side := range []target{t.four, t.six} {
		if !side.opens() {
			continue
		}
		for _, p := range asked.published() {
			out = append(out, nft.Publish{Proto: protoNumber(p.Proto()), First: p.Num(), Last: p.Num(), To: side.ip, ToPort: p.Num(), Open: true})
		}
	}
	return out
}

// published are the container's ports that are to be reached from outside.
func (r *PortRequest) published() []network.Port {
	var out []network.Port
	for p := range r.Ports {
		out = append(out, p)
	}
	if r.PublishAll {
		for _, p := range r.Exposed {
			if _, named := r.Ports[p]; !named {
				out = append(out, p)
			}
		}
	}
	slices.SortFunc(out, func(a, b network.Port) int {
		return cmp.Or(cmp.Compare(a.Proto(), b.Proto()), cmp.Compare(a.Num(), b.Num()))
	})
	return out
}
