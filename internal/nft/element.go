package nft

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// Protocols of published ports, as numbers of the IP header.
const (
	TCP  = unix.IPPROTO_TCP
	UDP  = unix.IPPROTO_UDP
	SCTP = unix.IPPROTO_SCTP
)

// Network is a bridge and its subnets.
type Network struct {
	Bridge string
	// ICC lets its containers reach each other.
	ICC bool
	// Internal lets nothing in and nothing out.
	Internal bool
	Subnets  []Subnet
	// Trusted are links of the host whose neighbours may route to the containers'
	// addresses.
	Trusted []string
}

// Access says who reaches the addresses of a subnet from outside, other than by
// ports of the host.
type Access int

const (
	// Closed subnets can be reached by nobody (gateway mode nat).
	Closed Access = iota
	// Routed ones can be pinged, and reached on ports that are open.
	Routed
	// Unprotected ones can be reached on every port.
	Unprotected
	// Answered ones are closed, but what their containers hear back from outside is
	// addressed to them, as they go out with their own addresses.
	Answered
)

// Subnet is a range of addresses of a network, IPv4 or IPv6.
type Subnet struct {
	Prefix netip.Prefix
	// Masquerade gives outgoing traffic the host's address.
	Masquerade bool
	Access     Access
}

// Publish sends ports of the host to a container. Its addresses are of one family,
// that of To.
type Publish struct {
	HostIP      netip.Addr // the zero Addr, 0.0.0.0 and :: mean every address of the host
	Proto       uint8      // TCP, UDP or SCTP
	First, Last uint16     // host ports, both included
	To          netip.Addr // the container
	// ToPort is the container's port. For more than one port it must equal First:
	// the kernel keeps the ports of a range as they are.
	ToPort uint16
	// Served sends nothing: the ports of IPv6 are served by a program of this host, and what
	// comes to them from elsewhere passes the administrator's chain. To and ToPort are not
	// set; on one address there is one port.
	Served bool
	// Open sends nothing: it lets through what is addressed to the container's port
	// itself. First and Last must be ToPort.
	Open bool
}

// element is one element of a set or map in wire form, strings so that it can be a
// key of a Go map.
type element struct {
	set               string
	key, keyEnd, data string
	end               bool // end (exclusive) of an interval
}

func familyOf(a netip.Addr) family {
	if a.Is4() {
		return v4()
	}
	return v6()
}

func validLink(name string) bool { return name != "" && len(name) < unix.IFNAMSIZ }

func (n Network) elements() ([]element, error) {
	if !validLink(n.Bridge) {
		return nil, fmt.Errorf("nft: bridge %q cannot be a network", n.Bridge)
	}
	name := string(ifname(n.Bridge))
	es := []element{{set: setBridges, key: name}}
	among := setApart
	if n.ICC {
		among = setICC
	}
	es = append(es, element{set: among, key: name + name})
	if n.Internal {
		es = append(es, element{set: setInternal, key: name})
	}
	for _, s := range n.Subnets {
		if !s.Prefix.IsValid() || s.Prefix.Addr().Is4In6() {
			return nil, fmt.Errorf("nft: subnet %s of bridge %q cannot be used", s.Prefix, n.Bridge)
		}
		es = append(es, s.elements()...)
		for _, link := range n.Trusted {
			if !validLink(link) {
				return nil, fmt.Errorf("nft: link %q cannot be trusted", link)
			}
			es = append(es, trustedElement(link, s.Prefix))
		}
	}
	return es, nil
}

// bridge is the one of an element that isolates a network's containers; false for any other element.
func (e element) bridge() (name string, ok bool) {
	switch e.set {
	case setBridges, setICC, setApart, setInternal:
		if len(e.key) >= unix.IFNAMSIZ {
			return strings.TrimRight(e.key[:unix.IFNAMSIZ], "\x00"), true
		}
	}
	return "", false
}

func (s Subnet) elements() []element {
	suffix := familyOf(s.Prefix.Addr()).suffix
	sets := []string{setSubnets}
	switch s.Access {
	case Closed:
		sets = append(sets, setClosed)
	case Routed:
		sets = append(sets, setRouted)
	case Unprotected:
		sets = append(sets, setExposed)
	}
	if s.Masquerade {
		sets = append(sets, setMasquerade)
	}
	var es []element
	for _, set := range sets {
		es = append(es, interval(set+suffix, s.Prefix)...)
	}
	return es
}

// interval is a prefix as start and exclusive end. A prefix that ends with the last
// address has no end.
func interval(set string, p netip.Prefix) []element {
	p = p.Masked()
	es := []element{{set: set, key: string(p.Addr().AsSlice())}}
	if end := lastOf(p).Next(); end.IsValid() {
		es = append(es, element{set: set, key: string(end.AsSlice()), end: true})
	}
	return es
}

// lastOf is the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func trustedElement(link string, p netip.Prefix) element {
	name := string(ifname(link))
	return element{
		set: setTrusted + familyOf(p.Addr()).suffix,
		key: name + string(p.Masked().Addr().AsSlice()), keyEnd: name + string(lastOf(p).AsSlice()),
	}
}

func (p Publish) check() error {
	any := p.everywhere()
	switch {
	case p.Proto != TCP && p.Proto != UDP && p.Proto != SCTP:
		return fmt.Errorf("nft: protocol %d cannot be published", p.Proto)
	case p.Served && (p.To.IsValid() || p.ToPort != 0 || p.Open || p.First == 0 || p.Last < p.First || !any && (!p.HostIP.Is6() || p.First != p.Last)):
		return fmt.Errorf("nft: ports %d-%d of %s cannot be served here", p.First, p.Last, p.HostIP)
	case p.Served:
	case !p.To.IsValid() || p.To.Is4In6() || !any && p.HostIP.Is4() != p.To.Is4():
		return fmt.Errorf("nft: publish %s to %s: not of one family", p.HostIP, p.To)
	case p.First == 0 || p.Last < p.First || p.ToPort == 0:
		return fmt.Errorf("nft: ports %d-%d to %d cannot be published", p.First, p.Last, p.ToPort)
	case (p.Last > p.First || p.Open) && p.ToPort != p.First, p.Open && p.First != p.Last:
		return fmt.Errorf("nft: range %d-%d cannot be shifted to %d", p.First, p.Last, p.ToPort)
	}
	return nil
}

func (p Publish) everywhere() bool { return !p.HostIP.IsValid() || p.HostIP.IsUnspecified() }

func (p Publish) element() (element, error) {
	if err := p.check(); err != nil {
		return element{}, err
	}
	if p.Served {
		return p.servedElement(), nil
	}
	suffix := familyOf(p.To).suffix
	to := string(p.To.AsSlice())
	switch {
	case p.Open:
		return element{set: setOpen + suffix, key: to + protoPort(p.Proto, p.ToPort)}, nil
	case p.Last > p.First:
		from, end := wholeFamily(p.To)
		if !p.everywhere() {
			from, end = p.HostIP, p.HostIP
		}
		return element{
			set:    mapRanges + suffix,
			key:    string(from.AsSlice()) + protoPort(p.Proto, p.First),
			keyEnd: string(end.AsSlice()) + protoPort(p.Proto, p.Last),
			data:   to,
		}, nil
	}
	to += padPort(p.ToPort)
	if p.everywhere() {
		return element{set: mapPorts + suffix, key: protoPort(p.Proto, p.First), data: to}, nil
	}
	return element{set: mapAddrPorts + suffix, key: string(p.HostIP.AsSlice()) + protoPort(p.Proto, p.First), data: to}, nil
}

func (p Publish) servedElement() element {
	switch first := protoPort(p.Proto, p.First); {
	case !p.everywhere():
		return element{set: setServedAddr, key: string(p.HostIP.AsSlice()) + first}
	case p.First == p.Last:
		return element{set: setServed, key: first}
	default:
		return element{set: setServedRng, key: first, keyEnd: protoPort(p.Proto, p.Last)}
	}
}

// servedPublish is the reverse.
func servedPublish(e element) (Publish, bool) {
	p, key := Publish{Served: true}, e.key
	if e.set == setServedAddr && len(key) == 16+8 {
		p.HostIP, key = addr(key[:16]), key[16:]
	}
	end := cmp.Or(e.keyEnd, key)
	if len(key) != 8 || len(end) != 8 {
		return Publish{}, false
	}
	p.Proto, p.First, p.Last = key[0], port(key[4:]), port(end[4:])
	return p, true
}

// wholeFamily is the first and last address of a's family.
func wholeFamily(a netip.Addr) (first, last netip.Addr) {
	first = netip.IPv6Unspecified()
	if a.Is4() {
		first = netip.IPv4Unspecified()
	}
	return first, lastOf(netip.PrefixFrom(first, 0))
}

// publish is the reverse of Publish.element; false for an element of another set.
func (e element) publish() (Publish, bool) {
	if e.set == "" {
		return Publish{}, false
	}
	name, size := e.set[:len(e.set)-1], 4
	if strings.HasSuffix(e.set, "6") {
		size = 16
	}
	var p Publish
	key, end := e.key, e.keyEnd
	switch {
	case e.set == setServed || e.set == setServedRng || e.set == setServedAddr:
		return servedPublish(e)
	case name == setOpen && len(key) == size+8:
		p.Open, p.To, p.ToPort = true, addr(key[:size]), port(key[size+4:])
		p.Proto, p.First, p.Last = key[size], p.ToPort, p.ToPort
		return p, true
	case name == mapPorts && len(key) == 8 && len(e.data) == size+4:
		p.ToPort = port(e.data[size:])
	case name == mapAddrPorts && len(key) == size+8 && len(e.data) == size+4:
		p.HostIP = addr(key[:size])
		key, p.ToPort = key[size:], port(e.data[size:])
	case name == mapRanges && len(key) == size+8 && len(end) == size+8 && len(e.data) == size:
		if key[:size] == end[:size] {
			p.HostIP = addr(key[:size])
		}
		key, p.ToPort = key[size:], port(key[size+4:])
	default:
		return Publish{}, false
	}
	p.Proto, p.First = key[0], port(key[4:])
	p.Last = p.First
	if name == mapRanges {
		p.Last = port(end[size+4:])
	}
	p.To = addr(e.data[:size])
	return p, true
}

// text is the element as nft writes it. The ends of intervals have none.
func (e element) text() string {
	switch e.set {
	case setBridges, setInternal:
		return `"` + cstr(e.key) + `"`
	case setICC, setApart:
		return fmt.Sprintf("%q . %q", cstr(e.key[:unix.IFNAMSIZ]), cstr(e.key[unix.IFNAMSIZ:]))
	}
	if strings.HasPrefix(e.set, setTrusted) {
		return fmt.Sprintf("%q . %s", cstr(e.key[:unix.IFNAMSIZ]), prefixBetween(e.key[unix.IFNAMSIZ:], e.keyEnd[unix.IFNAMSIZ:]))
	}
	p, ok := e.publish()
	if !ok {
		return ""
	}
	proto := "tcp"
	switch p.Proto {
	case UDP:
		proto = "udp"
	case SCTP:
		proto = "sctp"
	}
	to := p.To.String()
	switch e.set {
	case setServed:
		return fmt.Sprintf("%s . %d", proto, p.First)
	case setServedRng:
		return fmt.Sprintf("%s . %d-%d", proto, p.First, p.Last)
	case setServedAddr:
		return fmt.Sprintf("%s . %s . %d", p.HostIP, proto, p.First)
	}
	switch e.set[:len(e.set)-1] {
	case setOpen:
		return fmt.Sprintf("%s . %s . %d", to, proto, p.ToPort)
	case mapPorts:
		return fmt.Sprintf("%s . %d : %s . %d", proto, p.First, to, p.ToPort)
	case mapAddrPorts:
		return fmt.Sprintf("%s . %s . %d : %s . %d", p.HostIP, proto, p.First, to, p.ToPort)
	}
	first, _ := wholeFamily(p.To)
	host := first.String() + "/0"
	if p.HostIP.IsValid() {
		host = p.HostIP.String()
	}
	return fmt.Sprintf("%s . %s . %d-%d : %s", host, proto, p.First, p.Last, to)
}

// intervalText is the prefix that starts at e, whose exclusive end is next.
func intervalText(e, next element) string {
	_, last := wholeFamily(addr(e.key))
	if next.end {
		last = addr(next.key).Prev()
	}
	return prefixBetween(e.key, string(last.AsSlice())).String()
}

// prefixBetween is the prefix from one address to another.
func prefixBetween(first, last string) netip.Prefix {
	bits := 8 * len(first)
	for i := range first {
		if d := first[i] ^ last[i]; d != 0 {
			bits = 8 * i
			for ; d&0x80 == 0; d <<= 1 {
				bits++
			}
			break
		}
	}
	return netip.PrefixFrom(addr(first), bits)
}

// protoPort and padPort fill each field up to a register of 4 bytes.
func protoPort(proto uint8, p uint16) string { return string([]byte{proto, 0, 0, 0}) + padPort(p) }
func padPort(p uint16) string                { return string([]byte{byte(p >> 8), byte(p), 0, 0}) }

func port(s string) uint16 { return binary.BigEndian.Uint16([]byte(s)) }

func addr(s string) netip.Addr { a, _ := netip.AddrFromSlice([]byte(s)); return a }

func cstr(s string) string { s, _, _ = strings.Cut(s, "\x00"); return s }
