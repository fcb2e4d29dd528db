package network

import (
	"fmt"
	"net/netip"
	"slices"
)

// diagnoseRoutes tells of addresses of the container that the host does not reach by their bridge: a VPN's routes cover
// the network's subnet, or the bridge is down.
func (s *Service) diagnoseRoutes(c *Diagnosis, sb *Sandbox) {
	for _, e := range sb.Endpoints {
		s.mu.Lock()
		n := s.networks[e.NetworkID]
		s.mu.Unlock()
		if n == nil {
			continue
		}
		b, ok := n.drv.(*bridge)
		if !ok {
			continue
		}
		for _, a := range []netip.Addr{e.IP, e.IP6} {
			if way := b.strayWay(a); way != "" {
				c.block(sb, func(other *Endpoint) bool { return other == e }, "the host sends what is for "+a.String()+" "+way)
				c.problem(fmt.Sprintf("ip route get %s shows the route: take it away, or make the network anew with a --subnet that nobody else has", a),
					"the host sends what is for the container's address %s %s, not to bridge %s: another program, such as a VPN, has made a route or rule for addresses of network %s", a, way, b.name(), e.NetworkName)
			}
		}
	}
}

// strayWay says where the host sends what is for an address of the bridge's network, if that is not the bridge. Where
// the bridge has no address of its own, the host is not meant to reach it.
func (b *bridge) strayWay(a netip.Addr) string {
	if !slices.ContainsFunc(b.gateways(), func(own netip.Prefix) bool { return own.Contains(a) }) {
		return ""
	}
	index, err := b.host.conn.LinkTo(a)
	if err != nil {
		return fmt.Sprintf("nowhere (%v)", err)
	}
	if index == int(b.index.Load()) {
		return ""
	}
	if l, err := b.host.conn.LinkByIndex(index); err == nil {
		return "to link " + l.Name
	}
	return fmt.Sprintf("to link %d", index)
}
