package dns

import (
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// Sizes of messages in bytes: what a client without EDNS takes by UDP, and the most
// that we send to or take from one by UDP. The way is the loopback link, on which
// nothing is fragmented.
const (
	plainUDP  = dns.MinMsgSize
	largeUDP  = 4096
	queryMax  = 4096
	headerLen = 12
)

// verdict is what becomes of a query.
type verdict int

const (
	drop    verdict = iota // not even an error: it is no query
	answer                 // the message is the answer
	forward                // the name servers know
)

// resolve answers a query, or says that it is to be forwarded. room is the size of
// message that the client takes, in bytes.
func (d *Directory) resolve(v *View, raw []byte, room int) (*dns.Msg, int, verdict) {
	var q dns.Msg
	if len(raw) < headerLen || raw[2]&0x80 != 0 {
		return nil, 0, drop // too short to answer, or an answer itself
	}
	if err := q.Unpack(raw); err != nil {
		return refusal(raw, dns.RcodeFormatError), plainUDP, answer
	}
	reply := &dns.Msg{Compress: true}
	switch {
	case q.Opcode != dns.OpcodeQuery:
		return reply.SetRcode(&q, dns.RcodeNotImplemented), room, answer
	case len(q.Question) != 1 || len(q.Answer) > 0 || len(q.Ns) > 0:
		return reply.SetRcode(&q, dns.RcodeFormatError), room, answer
	}
	room = clientRoom(&q, room)
	question := q.Question[0]
	if opt := q.IsEdns0(); opt != nil && opt.Version() != 0 {
		reply.SetRcode(&q, dns.RcodeBadVers)
		return withEDNS(reply, &q), room, answer
	}
	switch question.Qtype {
	case dns.TypeAXFR, dns.TypeIXFR:
		return withEDNS(reply.SetRcode(&q, dns.RcodeRefused), &q), room, answer
	}
	if question.Qclass != dns.ClassINET {
		return withEDNS(reply.SetRcode(&q, dns.RcodeRefused), &q), room, answer
	}
	reply.SetReply(&q)
	reply.RecursionAvailable = true
	if !d.lookUp(v, question, reply) {
		return nil, room, forward
	}
	reply.Authoritative = true
	return withEDNS(reply, &q), room, answer
}

// lookUp fills in the answer, if the name is one of ours.
func (d *Directory) lookUp(v *View, q dns.Question, reply *dns.Msg) bool {
	name := strings.ToLower(strings.TrimSuffix(q.Name, "."))
	if a, ok := reverseAddr(name); ok {
		return d.lookUpAddr(v, a, q, reply)
	}
	if target, ok := v.Aliases[name]; ok {
		name = target
	}
	addrs, found := v.Hosts[name]
	if !found {
		addrs, found = d.find(v.Networks, name)
	}
	if !found {
		addrs, found = loopbackNames(name)
	}
	if found {
		addAddrs(reply, q, addrs)
		return true
	}
	if name == "docker.internal" || strings.HasSuffix(name, ".docker.internal") {
		reply.Rcode = dns.RcodeNameError
		return true
	}
	return false
}

// loopbackNames are the names of RFC 6761 that must not be asked for outside.
func loopbackNames(name string) ([]netip.Addr, bool) {
	if name != "localhost" && !strings.HasSuffix(name, ".localhost") {
		return nil, false
	}
	return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}, true
}

func addAddrs(reply *dns.Msg, q dns.Question, addrs []netip.Addr) {
	for _, a := range addrs {
		h := dns.RR_Header{Name: q.Name, Class: dns.ClassINET, Ttl: TTL}
		switch a = a.Unmap(); {
		case a.Is4() && (q.Qtype == dns.TypeA || q.Qtype == dns.TypeANY):
			h.Rrtype = dns.TypeA
			reply.Answer = append(reply.Answer, &dns.A{Hdr: h, A: a.AsSlice()})
		case a.Is6() && (q.Qtype == dns.TypeAAAA || q.Qtype == dns.TypeANY):
			h.Rrtype = dns.TypeAAAA
			reply.Answer = append(reply.Answer, &dns.AAAA{Hdr: h, AAAA: a.WithZone("").AsSlice()})
		}
	}
}

// lookUpAddr answers a reverse lookup of an address of the asker's networks. Those
// that nobody has are nobody's business outside either.
func (d *Directory) lookUpAddr(v *View, a netip.Addr, q dns.Question, reply *dns.Msg) bool {
	name, local := d.owner(v.Networks, a)
	switch {
	case name != "":
		if q.Qtype == dns.TypePTR || q.Qtype == dns.TypeANY {
			h := dns.RR_Header{Name: q.Name, Rrtype: dns.TypePTR, Class: dns.ClassINET, Ttl: TTL}
			reply.Answer = append(reply.Answer, &dns.PTR{Hdr: h, Ptr: dns.Fqdn(name)})
		}
		return true
	case local:
		reply.Rcode = dns.RcodeNameError
		return true
	}
	return false
}

// reverseAddr reads the names of in-addr.arpa and ip6.arpa that are whole addresses.
func reverseAddr(name string) (netip.Addr, bool) {
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		f := strings.Split(rest, ".")
		if len(f) != 4 {
			return netip.Addr{}, false
		}
		a, err := netip.ParseAddr(f[3] + "." + f[2] + "." + f[1] + "." + f[0])
		return a, err == nil
	}
	rest, ok := strings.CutSuffix(name, ".ip6.arpa")
	const nibbles = 32
	if !ok || len(rest) != 2*nibbles-1 {
		return netip.Addr{}, false
	}
	var b [16]byte
	for i := range nibbles {
		c := strings.IndexByte("0123456789abcdef", rest[2*(nibbles-1-i)])
		if c < 0 || i > 0 && rest[2*(nibbles-i)-1] != '.' {
			return netip.Addr{}, false
		}
		b[i/2] = b[i/2]<<4 | byte(c)
	}
	return netip.AddrFrom16(b), true
}

// clientRoom is the size of answer that the client takes; by TCP it is what it was.
func clientRoom(q *dns.Msg, room int) int {
	if room > largeUDP {
		return room
	}
	opt := q.IsEdns0()
	if opt == nil {
		return plainUDP
	}
	return min(max(int(opt.UDPSize()), plainUDP), largeUDP)
}

// withEDNS answers an EDNS query in kind.
func withEDNS(reply, q *dns.Msg) *dns.Msg {
	opt := q.IsEdns0()
	if opt == nil {
		return reply
	}
	reply.SetEdns0(largeUDP, opt.Do())
	if reply.Rcode > 0xf {
		reply.IsEdns0().SetExtendedRcode(uint16(reply.Rcode))
	}
	return reply
}

// refusal answers a message that could not be read: with its id and nothing else.
func refusal(raw []byte, rcode int) *dns.Msg {
	m := &dns.Msg{}
	m.Id = uint16(raw[0])<<8 | uint16(raw[1])
	m.Response, m.RecursionAvailable, m.Rcode = true, true, rcode
	m.RecursionDesired = raw[2]&1 != 0
	return m
}

// pack makes the message fit and writes it; nil if it cannot be written, which a
// message of ours never is.
func pack(m *dns.Msg, room int) []byte {
	m.Truncate(room)
	b, err := m.Pack()
	if err != nil {
		return nil
	}
	return b
}
