package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// Protocols of published ports, as numbers of the IP header.
const (
	TCP = unix.IPPROTO_TCP
	UDP = unix.IPPROTO_UDP
)

// Network is a bridge and its subnet.
type Network struct {
	Bridge string
	Subnet netip.Prefix // IPv4
	// ICC lets its containers reach each other.
	ICC bool
	// Masquerade gives outgoing traffic the host's address.
	Masquerade bool
}

// Publish sends ports of the host to a container.
type Publish struct {
	HostIP      netip.Addr // IPv4; the zero Addr and 0.0.0.0 mean every address of the host
	Proto       uint8      // TCP or UDP
	First, Last uint16     // host ports, both included
	To          netip.Addr // the container
	// ToPort is the container's port. For more than one port it must equal First:
	// the kernel keeps the ports of a range as they are.
	ToPort uint16
}

// element is one element of a set or map in wire form, strings so that it can be a
// key of a Go map.
type element struct {
	set               string
	key, keyEnd, data string
	end               bool // end (exclusive) of an interval
}

func (n Network) elements() ([]element, error) {
	if n.Bridge == "" || len(n.Bridge) >= unix.IFNAMSIZ || !n.Subnet.IsValid() || !n.Subnet.Addr().Is4() {
		return nil, fmt.Errorf("nft: bridge %q with subnet %s cannot be a network", n.Bridge, n.Subnet)
	}
	name := string(ifname(n.Bridge))
	es := append([]element{{set: setBridges, key: name}}, interval(setSubnets, n.Subnet)...)
	if n.ICC {
		es = append(es, element{set: setICC, key: name + name})
	}
	if n.Masquerade {
		es = append(es, interval(setMasquerade, n.Subnet)...)
	}
	return es, nil
}

// interval is a prefix as start and exclusive end. A prefix that ends with the last
// address has no end.
func interval(set string, p netip.Prefix) []element {
	start := binary.BigEndian.Uint32(p.Masked().Addr().AsSlice())
	es := []element{{set: set, key: be32(start)}}
	if end := uint64(start) + 1<<(32-p.Bits()); end <= 0xffffffff {
		es = append(es, element{set: set, key: be32(uint32(end)), end: true})
	}
	return es
}

func (p Publish) element() (element, error) {
	any := !p.HostIP.IsValid() || p.HostIP.IsUnspecified()
	switch {
	case p.Proto != TCP && p.Proto != UDP:
		return element{}, fmt.Errorf("nft: protocol %d cannot be published", p.Proto)
	case !any && !p.HostIP.Is4(), !p.To.Is4():
		return element{}, fmt.Errorf("nft: publish %s to %s: not IPv4", p.HostIP, p.To)
	case p.First == 0 || p.Last < p.First || p.ToPort == 0:
		return element{}, fmt.Errorf("nft: ports %d-%d to %d cannot be published", p.First, p.Last, p.ToPort)
	case p.Last > p.First && p.ToPort != p.First:
		return element{}, fmt.Errorf("nft: range %d-%d cannot be shifted to %d", p.First, p.Last, p.ToPort)
	}
	to := string(p.To.AsSlice())
	if p.Last > p.First {
		from, end := netip.IPv4Unspecified(), netip.AddrFrom4([4]byte{255, 255, 255, 255})
		if !any {
			from, end = p.HostIP, p.HostIP
		}
		return element{
			set:    mapRanges,
			key:    string(from.AsSlice()) + protoPort(p.Proto, p.First),
			keyEnd: string(end.AsSlice()) + protoPort(p.Proto, p.Last),
			data:   to,
		}, nil
	}
	to += padPort(p.ToPort)
	if any {
		return element{set: mapPorts, key: protoPort(p.Proto, p.First), data: to}, nil
	}
	return element{set: mapAddrPorts, key: string(p.HostIP.AsSlice()) + protoPort(p.Proto, p.First), data: to}, nil
}

// publish is the reverse of Publish.element; false for an element of another set.
func (e element) publish() (Publish, bool) {
	var p Publish
	key, end := e.key, e.keyEnd
	switch {
	case e.set == mapPorts && len(key) == 8 && len(e.data) == 8:
		p.ToPort = port(e.data[4:])
	case e.set == mapAddrPorts && len(key) == 12 && len(e.data) == 8:
		p.HostIP = addr(key)
		key, p.ToPort = key[4:], port(e.data[4:])
	case e.set == mapRanges && len(key) == 12 && len(end) == 12 && len(e.data) == 4:
		if key[:4] == end[:4] {
			p.HostIP = addr(key)
		}
		key, p.ToPort = key[4:], port(key[8:])
	default:
		return Publish{}, false
	}
	p.Proto, p.First = key[0], port(key[4:])
	p.Last = p.First
	if e.set == mapRanges {
		p.Last = port(end[8:])
	}
	p.To = addr(e.data)
	return p, true
}

// text is the element as nft writes it. The ends of intervals have none.
func (e element) text() string {
	switch e.set {
	case setBridges:
		return `"` + cstr(e.key) + `"`
	case setICC:
		return fmt.Sprintf("%q . %q", cstr(e.key[:unix.IFNAMSIZ]), cstr(e.key[unix.IFNAMSIZ:]))
	}
	p, ok := e.publish()
	if !ok {
		return ""
	}
	proto := "tcp"
	if p.Proto == UDP {
		proto = "udp"
	}
	switch e.set {
	case mapPorts:
		return fmt.Sprintf("%s . %d : %s . %d", proto, p.First, p.To, p.ToPort)
	case mapAddrPorts:
		return fmt.Sprintf("%s . %s . %d : %s . %d", p.HostIP, proto, p.First, p.To, p.ToPort)
	}
	host := "0.0.0.0/0"
	if p.HostIP.IsValid() {
		host = p.HostIP.String()
	}
	return fmt.Sprintf("%s . %s . %d-%d : %s", host, proto, p.First, p.Last, p.To)
}

// intervalText is the prefix that starts at e, whose exclusive end is next.
func intervalText(e, next element) string {
	start := binary.BigEndian.Uint32([]byte(e.key))
	size := uint32(0) - start
	if next.end {
		size = binary.BigEndian.Uint32([]byte(next.key)) - start
	}
	bits := 32
	for size > 1 {
		size >>= 1
		bits--
	}
	return netip.PrefixFrom(addr(e.key), bits).String()
}

func be32(v uint32) string { return string(binary.BigEndian.AppendUint32(nil, v)) }

// protoPort and padPort fill each field up to a register of 4 bytes.
func protoPort(proto uint8, p uint16) string { return string([]byte{proto, 0, 0, 0}) + padPort(p) }
func padPort(p uint16) string                { return string([]byte{byte(p >> 8), byte(p), 0, 0}) }

func port(s string) uint16 { return uint16(s[0])<<8 | uint16(s[1]) }

func addr(s string) netip.Addr { return netip.AddrFrom4([4]byte([]byte(s[:4]))) }

func cstr(s string) string { s, _, _ = strings.Cut(s, "\x00"); return s }
