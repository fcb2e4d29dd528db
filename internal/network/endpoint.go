package network

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/internal/failure"
)

// join makes a container a member of a network, with addresses. The caller holds s.mu.
func (s *Service) join(a *attachment, req *Request, want *EndpointRequest) (*Endpoint, error) {
	n, err := s.wanted(want)
	if err != nil {
		return nil, err
	}
	if n.members[req.ContainerID] != nil {
		return nil, failure.Forbidden("endpoint with name %s already exists in network %s", req.Name, n.rec.Name)
	}
	e := &Endpoint{
		NetworkID: n.rec.ID, NetworkName: n.rec.Name, Driver: n.rec.Driver, EndpointID: newID(), MAC: want.MAC,
		LinkLocal: want.LinkLocal, GwPriority: want.GwPriority, Links: want.Links,
	}
	if n.drv != nil {
		if err := s.furnish(a, n, e, req, want); err != nil {
			return nil, err
		}
	}
	if e.hasNames() {
		e.DNSNames = dnsNames(req, want)
	}
	n.members[req.ContainerID] = &member{endpoint: e}
	return e, nil
}

// wanted is the network that an endpoint is to be on. The caller holds s.mu.
func (s *Service) wanted(want *EndpointRequest) (*netw, error) {
	n := s.networks[want.NetworkID]
	if n == nil || n.busy {
		var err error
		if n, err = s.find(want.Network); err != nil {
			return nil, err
		}
	}
	switch {
	case n.rec.ConfigOnly:
		return nil, failure.Forbidden("network %s is a configuration network: containers cannot be connected to it", n.rec.Name)
	case n.broken != nil:
		return nil, fmt.Errorf("network %s cannot be used: %w", n.rec.Name, n.broken)
	}
	return n, nil
}

// furnish gives an endpoint its interface's name and its addresses. The caller holds
// s.mu.
func (s *Service) furnish(a *attachment, n *netw, e *Endpoint, req *Request, want *EndpointRequest) error {
	opts, err := parseEndpointOptions(want.DriverOpts)
	if err != nil {
		return err
	}
	if e.Interface, err = interfaceName(a.sandbox, n, opts); err != nil {
		return err
	}
	if req.NoIPv6 && (want.IP6.IsValid() || !n.rec.EnableIPv4) {
		return failure.Invalid("container %s cannot have an address of IPv6 on network %s: the sysctl net.ipv6.conf.all.disable_ipv6 switches IPv6 off in it; leave that out", req.Name, n.rec.Name)
	}
	for _, ip := range []netip.Addr{want.IP, want.IP6} {
		if ip.IsValid() {
			if err := n.rec.MayAsk(ip); err != nil {
				return err
			}
		}
	}
	for _, f := range []struct {
		six     bool
		enabled bool
		want    netip.Addr
	}{{false, n.rec.EnableIPv4, want.IP}, {true, n.rec.EnableIPv6 && !req.NoIPv6, want.IP6}} {
		if !f.enabled {
			if f.want.IsValid() {
				n.give(e)
				return failure.Invalid("invalid address %s: network %s has no %s", f.want, n.rec.Name, familyName(f.six))
			}
			continue
		}
		ip, subnet, err := n.addrs.take(f.six, f.want)
		if err != nil {
			n.give(e)
			return s.nameHolder(n, f.want, err)
		}
		gateway := subnet.route()
		if n.rec.Internal {
			gateway = netip.Addr{}
		}
		if f.six {
			e.IP6, e.PrefixLen6, e.Gateway6 = ip, subnet.Prefix.Bits(), gateway
		} else {
			e.IP, e.PrefixLen, e.Gateway = ip, subnet.Prefix.Bits(), gateway
		}
	}
	if err := n.drv.finish(e); err != nil {
		n.give(e)
		return err
	}
	a.options[n.rec.ID] = opts
	return nil
}

// nameHolder adds to "already in use" by whom. The caller holds s.mu.
func (s *Service) nameHolder(n *netw, ip netip.Addr, err error) error {
	for id, m := range n.members {
		if ip.IsValid() && (m.endpoint.IP == ip || m.endpoint.IP6 == ip) {
			if a := s.attachments[id]; a != nil {
				return failure.Conflict("%w, by container %q on network %s", err, a.sandbox.Name, n.rec.Name)
			}
		}
	}
	return err
}

// MayAsk refuses an address that containers of the network can never ask for.
func (r *Record) MayAsk(ip netip.Addr) error {
	if r.predefined() {
		return failure.Invalid("user specified IP address is supported on user defined networks only, not on %s: leave out %s", r.Name, ip)
	}
	i := slices.IndexFunc(r.Subnets, func(s Subnet) bool { return s.Prefix.Contains(ip) })
	if i < 0 {
		return failure.Invalid("no configured subnet or ip-range contain the IP address %s: network %s has %v", ip, r.Name, r.prefixes())
	}
	if r.Subnets[i].Chosen {
		return failure.Invalid("user specified IP address is supported only when connecting to networks with user configured subnets: "+
			"make network %s anew with --subnet %s, or leave out %s", r.Name, r.Subnets[i].Prefix, ip)
	}
	return nil
}

// interfaceName is the name of the next interface of a container on n.
func interfaceName(sb *Sandbox, n *netw, opts endpointOptions) (string, error) {
	taken := map[string]bool{}
	for _, e := range sb.Endpoints {
		taken[e.Interface] = true
	}
	if opts.name != "" {
		if taken[opts.name] {
			return "", failure.Invalid("interface %q of network %s is that of another network", opts.name, n.rec.Name)
		}
		return opts.name, nil
	}
	prefix := "eth"
	if b, ok := n.drv.(*bridge); ok {
		prefix = b.opts.prefix
	}
	for i := 0; ; i++ {
		if name := prefix + strconv.Itoa(i); !taken[name] {
			return name, nil
		}
	}
}

// dnsNames are the names of a container on a network.
func dnsNames(req *Request, want *EndpointRequest) []string {
	return DNSNames(req.Name, want.Aliases, req.ContainerID, req.Hostname)
}

// DNSNames are the names that others on a network find a container by, each once; the first is the one that its address
// has. Each list of containers asks for them, and the aliases are as many as the container's creator likes.
func DNSNames(name string, aliases []string, id, hostname string) []string {
	seen := map[string]bool{"": true}
	var out []string
	for _, n := range slices.Concat([]string{name}, aliases, []string{id[:min(12, len(id))], hostname}) {
		if !seen[n] {
			seen[n] = true
			out = append(out, n)
		}
	}
	return out
}

// macOf is the hardware address that goes with an endpoint's address. One of IPv6 is longer: what the first addresses of a
// subnet differ by fits in, and of others there is a hash, so that no two of a network have the same.
func macOf(e *Endpoint) network.HardwareAddr {
	if e.IP.IsValid() {
		b := e.IP.As4()
		return network.HardwareAddr{0x02, 0x42, b[0], b[1], b[2], b[3]}
	}
	b := e.IP6.As16()
	const within = 64 / 8 // bytes of the prefix of most subnets, that all addresses of one share
	if e.PrefixLen6 < 8*within || !bytes.Equal(b[within:13], make([]byte, 13-within)) {
		sum := sha256.Sum256(b[:])
		return network.HardwareAddr{0x06, sum[0], sum[1], sum[2], sum[3], sum[4]}
	}
	return network.HardwareAddr{0x02, 0x42, b[7], b[13], b[14], b[15]}
}

func (s *Service) driverOf(e *Endpoint) driver {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.networks[e.NetworkID]; n != nil {
		return n.drv
	}
	return nil
}

// part ends a membership; false if it had ended. The caller holds s.mu.
func (s *Service) part(containerID string, e *Endpoint) bool {
	n := s.networks[e.NetworkID]
	if n == nil {
		return false
	}
	m := n.members[containerID]
	if m == nil || m.endpoint.EndpointID != e.EndpointID {
		return false
	}
	delete(n.members, containerID)
	return true
}

// give takes an endpoint's addresses back.
func (n *netw) give(e *Endpoint) {
	n.remember(e)
	for _, ip := range []netip.Addr{e.IP, e.IP6} {
		if ip.IsValid() {
			n.addrs.release(ip)
		}
	}
}
