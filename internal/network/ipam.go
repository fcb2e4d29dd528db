package network

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/internal/failure"
)

// Subnet is one range of addresses of a network.
type Subnet struct {
	Prefix netip.Prefix
	// Range is what addresses are given from; zero: all of Prefix.
	Range netip.Prefix `json:",omitzero"`
	// Gateway is the network's own address; zero where it has none.
	Gateway netip.Addr            `json:",omitzero"`
	Aux     map[string]netip.Addr `json:",omitempty"`
	// Chosen by the engine: containers cannot ask for addresses of it, as those would
	// be of another subnet when the network is made anew.
	Chosen bool `json:",omitempty"`
}

// Auxiliary addresses of these names are what the default routes of a subnet's
// containers lead through, in place of the network's own address: Docker's names.
const (
	auxGateway  = "DefaultGatewayIPv4"
	auxGateway6 = "DefaultGatewayIPv6"
)

// route is what a container's default route leads through.
func (s Subnet) route() netip.Addr {
	name := auxGateway
	if s.Prefix.Addr().Is6() {
		name = auxGateway6
	}
	if via, ok := s.Aux[name]; ok {
		return via
	}
	return s.Gateway
}

// defaultPools are Docker's, and one more for hosts with many networks.
func defaultPools() []AddressPool {
	pool := func(base string, size int) AddressPool { return AddressPool{netip.MustParsePrefix(base), size} }
	return []AddressPool{
		pool("172.17.0.0/16", 16), pool("172.18.0.0/16", 16), pool("172.19.0.0/16", 16), pool("172.20.0.0/14", 16),
		pool("172.24.0.0/14", 16), pool("172.28.0.0/14", 16), pool("192.168.0.0/16", 20), pool("10.64.0.0/11", 20),
	}
}

// checkPools refuses pools that no subnet can be cut from.
func checkPools(pools []AddressPool) error {
	for _, p := range pools {
		switch {
		case !p.Base.IsValid() || p.Base.Masked() != p.Base || p.Base.Addr().Is4In6():
			return failure.Invalid("invalid default address pool %s: want a network such as 10.0.0.0/8", p.Base)
		case p.Size < p.Base.Bits() || p.Size > p.Base.Addr().BitLen()-2:
			return failure.Invalid("invalid size %d of default address pool %s: want a prefix length from %d to %d", p.Size, p.Base, p.Base.Bits(), p.Base.Addr().BitLen()-2)
		}
	}
	return nil
}

// planner decides about the subnets of a new network. It changes nothing.
type planner struct {
	pools  []AddressPool
	ula    netip.Prefix            // /48 that IPv6 subnets are cut from
	taken  map[netip.Prefix]string // subnets of the engine's networks, with their names
	routes map[netip.Prefix]string // of the host over other links, with the links' names
}

// plan completes what a request says about addresses.
func (p *planner) plan(rec *Record, configs []network.IPAMConfig) (subnets []Subnet, warnings []string, err error) {
	var have4, have6 bool
	for _, c := range configs {
		s, warning, err := p.requested(c)
		if err != nil {
			return nil, nil, err
		}
		if warning != "" {
			warnings = append(warnings, warning)
		}
		six := s.Prefix.Addr().Is6()
		if six && !rec.EnableIPv6 || !six && !rec.EnableIPv4 {
			continue // Docker's: it is kept in the request only
		}
		have4, have6 = have4 || !six, have6 || six
		subnets = append(subnets, s)
		p.taken[s.Prefix] = rec.Name
	}
	for _, f := range []struct {
		want, have, six bool
	}{{rec.EnableIPv4, have4, false}, {rec.EnableIPv6, have6, true}} {
		if !f.want || f.have {
			continue
		}
		s, err := p.choose(f.six, 0)
		if err != nil {
			return nil, nil, err
		}
		subnets = append(subnets, s)
	}
	return subnets, warnings, nil
}

// requested checks one configuration of a request.
func (p *planner) requested(c network.IPAMConfig) (s Subnet, warning string, err error) {
	if !c.Subnet.IsValid() {
		return s, "", failure.Invalid("invalid subnet: it is missing; give it with --subnet")
	}
	s = Subnet{Prefix: c.Subnet.Masked(), Range: c.IPRange, Gateway: c.Gateway, Aux: maps.Clone(c.AuxAddress)}
	if c.Subnet.Addr().IsUnspecified() && c.Subnet.Bits() > 0 {
		chosen, err := p.choose(c.Subnet.Addr().Is6(), c.Subnet.Bits())
		if err != nil {
			return s, "", err
		}
		s.Prefix = chosen.Prefix
	} else if warning, err = p.free(s.Prefix); err != nil {
		return s, "", err
	}
	if s.Prefix.Addr().Is4() && s.Prefix.Bits() > 30 || s.Prefix.Addr().Is6() && s.Prefix.Bits() > 126 {
		return s, "", failure.Invalid("subnet %s has no room for a gateway and a container", s.Prefix)
	}
	if !s.Gateway.IsValid() {
		s.Gateway = s.firstFree()
	}
	return s, warning, s.check()
}

// firstFree is the first address that is nobody's.
func (s Subnet) firstFree() netip.Addr {
	taken := slices.Collect(maps.Values(s.Aux))
	a := s.Prefix.Addr().Next()
	for slices.Contains(taken, a) {
		a = a.Next()
	}
	return a
}

// check says what cannot be in what belongs to the subnet.
func (s Subnet) check() error {
	if s.Range.IsValid() && (s.Range.Bits() < s.Prefix.Bits() || !s.Prefix.Contains(s.Range.Addr())) {
		return failure.Invalid("invalid ip-range %s: it is not within subnet %s", s.Range, s.Prefix)
	}
	seen := map[netip.Addr]string{}
	own := func(what string, a netip.Addr) error {
		if !s.Prefix.Contains(a) {
			return failure.Invalid("invalid %s %s: no matching subnet, it is not within %s", what, a, s.Prefix)
		}
		if other, twice := seen[a]; twice {
			return failure.Invalid("invalid %s %s: it is the %s, too", what, a, other)
		}
		if s.Prefix.Addr().Is4() && (a == s.Prefix.Addr() || a == lastAddr(s.Prefix)) {
			return failure.Invalid("invalid %s %s: it is the network's or the broadcast address of %s", what, a, s.Prefix)
		}
		seen[a] = what
		return nil
	}
	if err := own("gateway", s.Gateway); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(s.Aux)) {
		if err := own("auxiliary address "+name, s.Aux[name]); err != nil {
			return err
		}
	}
	return nil
}

// free says whether a subnet that was asked for can be used: not if it is another
// network's, or exactly what a route of the host is for. A route that only overlaps is
// worth a warning, for one of the two will not be reached.
func (p *planner) free(subnet netip.Prefix) (warning string, err error) {
	for other, name := range p.taken {
		if other.Overlaps(subnet) {
			return "", failure.Forbidden("invalid pool request: Pool overlaps with other one on this address space: subnet %s overlaps %s of network %s", subnet, other, name)
		}
	}
	route, link, clash := overlap(subnet, p.routes)
	switch {
	case !clash:
		return "", nil
	case route == subnet:
		return "", failure.Forbidden("subnet %s is the host's own route %s dev %s: containers and that network could not both be reached; choose another subnet", subnet, route, link)
	}
	return fmt.Sprintf("subnet %s overlaps the host's route %s dev %s: of the addresses in both, only one of the two can be reached", subnet, route, link), nil
}

// choose finds a subnet that nobody uses. bits is its wanted prefix length, 0 for that
// of the pools.
func (p *planner) choose(six bool, bits int) (Subnet, error) {
	pools := p.pools
	if six {
		pools = append([]AddressPool(nil), pools...)
		pools = append(pools, AddressPool{Base: p.ula, Size: 64})
	}
	var blocked string
	obstacles := p.obstacles(six)
	for _, pool := range pools {
		if pool.Base.Addr().Is6() != six || bits != 0 && bits < pool.Base.Bits() {
			continue
		}
		size := pool.Size
		if bits != 0 {
			size = bits
		}
		rest := obstacles
		candidate := netip.PrefixFrom(pool.Base.Addr(), size)
		for candidate.IsValid() && pool.Base.Contains(candidate.Addr()) {
			for len(rest) > 0 && lastAddr(rest[0].prefix).Less(candidate.Addr()) {
				rest = rest[1:]
			}
			if len(rest) == 0 || !rest[0].prefix.Overlaps(candidate) {
				s := Subnet{Prefix: candidate, Chosen: true}
				s.Gateway = s.firstFree()
				return s, nil
			}
			if rest[0].route != "" {
				blocked = fmt.Sprintf("; %s is the host's route dev %s", rest[0].prefix, rest[0].route)
			}
			// Over all that the other covers.
			candidate = nextPrefix(candidate, rest[0].prefix)
		}
	}
	return Subnet{}, failure.New(errdefs.ErrInvalidArgument, "could not find an available, non-overlapping %s address pool among the defaults to assign to the network: "+
		"all predefined address pools have been fully subnetted%s; name a subnet with --subnet", familyName(six), blocked)
}

// obstacle is what a new subnet may not overlap.
type obstacle struct {
	prefix netip.Prefix
	route  string // the link's name, if it is a route of the host
}

// obstacles lists them for one family, in the order of their addresses and without those
// that lie within others, so that a pool is gone through once, however many networks
// there are.
func (p *planner) obstacles(six bool) []obstacle {
	var all []obstacle
	add := func(of map[netip.Prefix]string, routes bool) {
		for prefix, name := range of {
			if prefix.Addr().Is6() != six || routes && prefix.Bits() == 0 {
				continue // the default route is for what nobody has
			}
			o := obstacle{prefix: prefix.Masked()}
			if routes {
				o.route = name
			}
			all = append(all, o)
		}
	}
	add(p.taken, false)
	add(p.routes, true)
	slices.SortFunc(all, func(a, b obstacle) int {
		return cmp.Or(a.prefix.Addr().Compare(b.prefix.Addr()), cmp.Compare(a.prefix.Bits(), b.prefix.Bits()), cmp.Compare(a.route, b.route))
	})
	// Prefixes are within one another or apart: the larger one comes first.
	out := all[:0]
	for _, o := range all {
		if n := len(out); n == 0 || !out[n-1].prefix.Overlaps(o.prefix) {
			out = append(out, o)
		}
	}
	return out
}

func familyName(six bool) string {
	if six {
		return "IPv6"
	}
	return "IPv4"
}

// clashes says whether a subnet overlaps another network's or a route of the host.
func (p *planner) clashes(candidate netip.Prefix) bool {
	for other := range p.taken {
		if other.Overlaps(candidate) {
			return true
		}
	}
	_, _, found := overlap(candidate, p.routes)
	return found
}

// nextPrefix is the prefix of candidate's length behind both.
func nextPrefix(candidate, over netip.Prefix) netip.Prefix {
	last := lastAddr(candidate)
	if l := lastAddr(over); last.Less(l) {
		last = l
	}
	next := last.Next()
	if !next.IsValid() {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(next, candidate.Bits())
}

// overlap finds the most specific route that a subnet overlaps. The default route
// is none.
func overlap(subnet netip.Prefix, routes map[netip.Prefix]string) (route netip.Prefix, link string, found bool) {
	for r, l := range routes {
		if r.Bits() == 0 || !r.Overlaps(subnet) {
			continue
		}
		if !found || r.Bits() > route.Bits() || r.Bits() == route.Bits() && r.Addr().Less(route.Addr()) {
			route, link, found = r, l, true
		}
	}
	return route, link, found
}

// addresses are the pools of one network. They are safe for concurrent use.
type addresses struct {
	network string
	subnets []Subnet
	pools   []*pool // one for each
}

func newAddresses(name string, subnets []Subnet) (*addresses, error) {
	a := &addresses{network: name, subnets: subnets}
	for _, s := range subnets {
		barred := slices.Collect(maps.Values(s.Aux))
		if s.Gateway.IsValid() {
			barred = append(barred, s.Gateway)
		}
		p, err := newPool(s.Prefix, s.Range, barred...)
		if err != nil {
			return nil, err
		}
		a.pools = append(a.pools, p)
	}
	return a, nil
}

// take gives an address of a family: the one that is wanted, or any. The subnet is
// that of the address.
func (a *addresses) take(six bool, want netip.Addr) (netip.Addr, Subnet, error) {
	if want.IsValid() {
		return a.takeThis(want)
	}
	for i, s := range a.subnets {
		if s.Prefix.Addr().Is6() != six {
			continue
		}
		ip, err := a.pools[i].take()
		if err == nil {
			return ip, s, nil
		}
	}
	return netip.Addr{}, Subnet{}, a.full(six)
}

func (a *addresses) full(six bool) error {
	var all []netip.Prefix
	for _, s := range a.subnets {
		if s.Prefix.Addr().Is6() == six {
			all = append(all, cmp.Or(s.Range, s.Prefix))
		}
	}
	hint := "make a network with a larger --subnet"
	if a.network == ModeBridge {
		hint = "give the bridge a larger subnet with --bip"
	}
	return failure.New(errdefs.ErrResourceExhausted, "no available %s addresses on network %s: no address is left in %s: all are held by containers; remove some, or %s",
		familyName(six), a.network, joinPrefixes(all), hint)
}

func joinPrefixes(ps []netip.Prefix) string {
	text := ""
	for i, p := range ps {
		if i > 0 {
			text += ", "
		}
		text += p.String()
	}
	return text
}

func (a *addresses) takeThis(want netip.Addr) (netip.Addr, Subnet, error) {
	i := a.of(want)
	if i < 0 {
		return want, Subnet{}, failure.Invalid("no configured subnet or ip-range of network %s contains the IP address %s", a.network, want)
	}
	err := a.pools[i].claim(want)
	return want, a.subnets[i], err
}

// of is the index of the subnet that holds an address, -1 if none does.
func (a *addresses) of(ip netip.Addr) int {
	return slices.IndexFunc(a.subnets, func(s Subnet) bool { return s.Prefix.Contains(ip) })
}

func (a *addresses) release(ip netip.Addr) {
	if i := a.of(ip); i >= 0 {
		a.pools[i].release(ip)
	}
}

// leave says that an address will be released.
func (a *addresses) leave(ip netip.Addr) {
	if i := a.of(ip); i >= 0 {
		a.pools[i].leave(ip)
	}
}

// prefers says whether an address that is leaving would be the next one to be given, if it
// were free.
func (a *addresses) prefers(ip netip.Addr) bool {
	own := a.of(ip)
	for i, s := range a.subnets {
		if s.Prefix.Addr().Is6() != ip.Is6() {
			continue
		}
		if yes, full := a.pools[i].prefers(ip); i == own || !full {
			return yes
		}
	}
	return false
}

func (a *addresses) hold(ip netip.Addr) {
	if i := a.of(ip); i >= 0 {
		a.pools[i].hold(ip)
	}
}

func (a *addresses) unhold(ip netip.Addr) {
	if i := a.of(ip); i >= 0 {
		a.pools[i].unhold(ip)
	}
}

// status is what inspect tells of the pools.
func (a *addresses) status() network.SubnetStatuses {
	out := network.SubnetStatuses{}
	for i, s := range a.subnets {
		used, free := a.pools[i].usage()
		out[s.Prefix] = network.SubnetStatus{IPsInUse: used, DynamicIPsAvailable: free}
	}
	return out
}
