package network

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"sync"

	"github.com/containerd/errdefs"

	"github.com/cleatlabs/cleat/internal/failure"
)

// pool hands out the addresses of one IPv4 subnet. It goes round: an address that
// was freed is not given out again before all others have been, so that a peer's
// stale connection or neighbour entry cannot meet a new container. It is safe for
// concurrent use.
type pool struct {
	mu     sync.Mutex
	subnet netip.Prefix
	first  uint32   // address of bit 0
	size   uint32   // number of bits
	used   []uint64 // bitmap
	free   uint32
	next   uint32 // where the search starts
}

// maxPool bounds the bitmap: of a larger subnet the first million addresses are
// used.
const maxPool = 1 << 20

// newPool excludes the network and broadcast address and the given ones.
func newPool(subnet netip.Prefix, taken ...netip.Addr) (*pool, error) {
	subnet = subnet.Masked()
	if !subnet.Addr().Is4() || subnet.Bits() > 30 {
		return nil, failure.Invalid("subnet %s has no room for containers: an IPv4 subnet of /30 or larger is needed", subnet)
	}
	size := min(uint64(1)<<(32-subnet.Bits()), maxPool)
	p := &pool{subnet: subnet, first: toUint(subnet.Addr()), size: uint32(size), free: uint32(size), used: make([]uint64, (size+63)/64)}
	p.set(0)
	if size < maxPool || subnet.Bits() == 12 {
		p.set(uint32(size) - 1)
	}
	for i := uint32(size); i < uint32(len(p.used)*64); i++ {
		p.used[i/64] |= 1 << (i % 64)
	}
	for _, a := range taken {
		if i, ok := p.index(a); ok {
			p.set(i)
		}
	}
	return p, nil
}

// take gives out a free address.
func (p *pool) take() (netip.Addr, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.free == 0 {
		return netip.Addr{}, failure.New(errdefs.ErrResourceExhausted,
			"no address is left in subnet %s: all are held by containers; remove some, or give the bridge a larger subnet with --bip", p.subnet)
	}
	i := p.search()
	p.set(i)
	p.next = (i + 1) % p.size
	return fromUint(p.first + i), nil
}

// search finds the first free bit from next on, round the end. There is one.
func (p *pool) search() uint32 {
	words := uint32(len(p.used))
	word := p.next / 64
	mask := ^uint64(0) << (p.next % 64)
	for range words + 1 {
		if open := ^p.used[word] & mask; open != 0 {
			return word*64 + uint32(bits.TrailingZeros64(open))
		}
		mask = ^uint64(0)
		word = (word + 1) % words
	}
	panic("network: pool counts a free address that its bitmap does not have")
}

// claim takes one certain address.
func (p *pool) claim(a netip.Addr) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	i, ok := p.index(a)
	if !ok {
		return failure.Invalid("address %s is not in subnet %s", a, p.subnet)
	}
	if p.used[i/64]&(1<<(i%64)) != 0 {
		return failure.Conflict("address %s is already in use", a)
	}
	p.set(i)
	return nil
}

// release gives an address back. One that is free or foreign is ignored.
func (p *pool) release(a netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i, ok := p.index(a)
	if !ok || p.used[i/64]&(1<<(i%64)) == 0 {
		return
	}
	p.used[i/64] &^= 1 << (i % 64)
	p.free++
}

func (p *pool) set(i uint32) {
	if p.used[i/64]&(1<<(i%64)) == 0 {
		p.used[i/64] |= 1 << (i % 64)
		p.free--
	}
}

func (p *pool) index(a netip.Addr) (uint32, bool) {
	if !a.Is4() || !p.subnet.Contains(a) {
		return 0, false
	}
	i := toUint(a) - p.first
	return i, i < p.size
}

func toUint(a netip.Addr) uint32 { b := a.As4(); return binary.BigEndian.Uint32(b[:]) }

func fromUint(v uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, v)))
}

// chooseSubnet returns the bridge's address in the first of Docker's default pools
// that overlaps none of the routes, each with the name of its link.
func chooseSubnet(routes map[netip.Prefix]string) (netip.Prefix, error) {
	var blocked []string
	for _, candidate := range candidates() {
		if route, link, ok := overlap(candidate.Masked(), routes); ok {
			blocked = append(blocked, fmt.Sprintf("%s (route %s dev %s)", candidate.Masked(), route, link))
			continue
		}
		return candidate, nil
	}
	return netip.Prefix{}, failure.New(errdefs.ErrResourceExhausted,
		"every default subnet overlaps a route of this host, the last one being %s; choose one with --bip ADDRESS/BITS", blocked[len(blocked)-1])
}

// candidates are the bridge's addresses in Docker's default pools.
func candidates() []netip.Prefix {
	var ps []netip.Prefix
	for i := 17; i <= 31; i++ {
		ps = append(ps, netip.PrefixFrom(netip.AddrFrom4([4]byte{172, byte(i), 0, 1}), 16))
	}
	for i := 0; i < 256; i += 16 {
		ps = append(ps, netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, byte(i), 1}), 20))
	}
	return ps
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
