package network

import (
	"encoding/binary"
	"errors"
	"math"
	"math/bits"
	"net/netip"
	"sync"

	"github.com/cleatlabs/cleat/internal/failure"
)

// errFull means that a pool has no address to give out.
var errFull = errors.New("no address is left")

// pool hands out the addresses of one subnet, always the lowest free one, as Docker does:
// a container that takes another's place gets its address, and who has looked that up
// once, as nginx does with its upstreams, goes on. It is safe for concurrent use.
//
// Addresses that are held are kept for containers that asked for them and do not run:
// they are given to who names them, never to who takes any. Those that are leaving are
// given to nobody until they are released, but are nobody's any more.
type pool struct {
	mu      sync.Mutex
	subnet  netip.Prefix
	window  netip.Prefix        // what addresses are given from
	first   netip.Addr          // address of bit 0
	size    uint32              // number of bits
	used    []uint64            // bitmap of what may be taken
	low     uint32              // no bit below is clear
	free    uint32              // clear bits
	outside map[netip.Addr]bool // claimed beyond the bitmap
	held    map[netip.Addr]int
	leaving map[netip.Addr]bool
	barred  map[netip.Addr]bool // never given out: gateway, auxiliary addresses …
}

// Bounds of the bitmap, in addresses: of a larger range the first ones are used.
const (
	maxPool4 = 1 << 20
	maxPool6 = 1 << 16
)

// newPool takes addresses from those of subnet that lie in window, but never the
// network's and broadcast addresses and the barred ones.
func newPool(subnet, window netip.Prefix, barred ...netip.Addr) (*pool, error) {
	subnet = subnet.Masked()
	if !window.IsValid() {
		window = subnet
	}
	window = window.Masked()
	host, limit := uint(32-window.Bits()), uint64(maxPool4)
	if subnet.Addr().Is6() {
		host, limit = uint(128-window.Bits()), maxPool6
	}
	size := limit
	if host < 32 {
		size = min(uint64(1)<<host, limit)
	}
	p := &pool{
		subnet: subnet, window: window, first: window.Addr(), size: uint32(size), free: uint32(size), used: make([]uint64, (size+63)/64),
		outside: map[netip.Addr]bool{}, held: map[netip.Addr]int{}, leaving: map[netip.Addr]bool{}, barred: map[netip.Addr]bool{},
	}
	for i := uint32(size); i < uint32(len(p.used)*64); i++ {
		p.used[i/64] |= 1 << (i % 64)
	}
	if subnet.Addr().Is4() && subnet.Bits() < 31 {
		barred = append(barred, subnet.Addr(), lastAddr(subnet))
	} else if subnet.Addr().Is6() && subnet.Bits() < 127 {
		barred = append(barred, subnet.Addr())
	}
	for _, a := range barred {
		p.barred[a] = true
		p.mark(a)
	}
	if p.free == 0 {
		return nil, failure.Invalid("subnet %s has no room for containers", window)
	}
	return p, nil
}

// lastAddr is the last address of a prefix.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// take gives out the lowest free address. Its only error is errFull.
func (p *pool) take() (netip.Addr, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a, ok := p.lowest()
	if !ok {
		return netip.Addr{}, errFull
	}
	p.mark(a)
	return a, nil
}

// lowest finds what take gives out, if there is any. The caller holds p.mu.
func (p *pool) lowest() (netip.Addr, bool) {
	first := true
	for i, ok := p.search(p.low); ok; i, ok = p.search(i + 1) {
		if first {
			p.low, first = i, false
		}
		if a := p.at(i); p.held[a] == 0 {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// prefers says whether an address that is leaving would be what take gives out, if it were
// free; full that there is nothing else to give out.
func (p *pool) prefers(a netip.Addr) (yes, full bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	low, ok := p.lowest()
	_, inside := p.index(a)
	return inside && p.held[a] == 0 && (!ok || a.Less(low)), !ok
}

// search finds the first clear bit from start on.
func (p *pool) search(start uint32) (uint32, bool) {
	mask := ^uint64(0) << (start % 64)
	for word := start / 64; word < uint32(len(p.used)); word++ {
		if open := ^p.used[word] & mask; open != 0 {
			return word*64 + uint32(bits.TrailingZeros64(open)), true
		}
		mask = ^uint64(0)
	}
	return 0, false
}

// claim takes one certain address.
func (p *pool) claim(a netip.Addr) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case !p.subnet.Contains(a):
		return failure.Invalid("address %s is not in subnet %s", a, p.subnet)
	case p.isUsed(a):
		return failure.Conflict("Address already in use: %s", a)
	}
	p.mark(a)
	return nil
}

// release gives an address back. One that is free, foreign or barred is ignored.
func (p *pool) release(a netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.barred[a] || !p.isUsed(a) {
		return
	}
	delete(p.leaving, a)
	if i, ok := p.index(a); ok {
		p.used[i/64] &^= 1 << (i % 64)
		p.free++
		p.low = min(p.low, i)
		return
	}
	delete(p.outside, a)
}

// leave says that an address will be released.
func (p *pool) leave(a netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.barred[a] && p.isUsed(a) {
		p.leaving[a] = true
	}
}

// hold keeps an address from being given to who takes any; unhold ends that. Both
// count.
func (p *pool) hold(a netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held[a]++
}

func (p *pool) unhold(a netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held[a]--; p.held[a] <= 0 {
		delete(p.held, a)
	}
}

// usage is how many addresses are taken and how many of the window are free to take, or
// will be in a moment.
func (p *pool) usage() (used, free uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	used = uint64(p.size-p.free) + uint64(len(p.outside))
	free = uint64(p.free) + p.width() - uint64(p.size)
	for a := range p.outside {
		if p.window.Contains(a) { // beyond the bitmap
			free--
		}
	}
	for a := range p.leaving {
		used--
		if p.window.Contains(a) {
			free++
		}
	}
	return used, free
}

// width is how many addresses the window has, saturating.
func (p *pool) width() uint64 {
	host := p.first.BitLen() - p.window.Bits()
	if host >= 64 {
		return math.MaxUint64
	}
	return 1 << host
}

func (p *pool) isUsed(a netip.Addr) bool {
	if i, ok := p.index(a); ok {
		return p.used[i/64]&(1<<(i%64)) != 0
	}
	return p.outside[a]
}

func (p *pool) mark(a netip.Addr) {
	i, ok := p.index(a)
	switch {
	case !ok:
		p.outside[a] = true
	case p.used[i/64]&(1<<(i%64)) == 0:
		p.used[i/64] |= 1 << (i % 64)
		p.free--
	}
}

// index is an address's bit, if it has one.
func (p *pool) index(a netip.Addr) (uint32, bool) {
	if a.BitLen() != p.first.BitLen() || a.Less(p.first) {
		return 0, false
	}
	hi, lo := halves(a)
	firstHi, firstLo := halves(p.first)
	if hi != firstHi || lo-firstLo >= uint64(p.size) {
		return 0, false
	}
	return uint32(lo - firstLo), true
}

// at is the address of a bit. The bitmap never reaches beyond 64 bits of an address:
// its first address is that of a prefix.
func (p *pool) at(i uint32) netip.Addr {
	b := p.first.As16()
	binary.BigEndian.PutUint64(b[8:], binary.BigEndian.Uint64(b[8:])+uint64(i))
	a := netip.AddrFrom16(b)
	if p.first.Is4() {
		return a.Unmap()
	}
	return a
}

func halves(a netip.Addr) (hi, lo uint64) {
	b := a.As16()
	return binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
}
