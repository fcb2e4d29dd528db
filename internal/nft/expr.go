package nft

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/netlink"
)

// Registers. The 32-bit ones overlap the 128-bit ones: reg32_00 to reg32_03 are
// register 1.
const (
	regVerdict = 0
	reg1       = 1
	reg2       = 2
	reg32_01   = 9
	reg32_02   = 10
	reg32_04   = 12 // the start of register 2
	reg32_05   = 13
)

// Verdicts of <linux/netfilter.h>.
const (
	nfDrop   = 0
	nfAccept = 1
)

// Connection tracking: state bits are those of <linux/netfilter/nf_conntrack_common.h>
// as nftables numbers them.
const (
	ctStateEstablished = 2
	ctStateRelated     = 4
	ctStatusDNAT       = 1 << 5
)

// rule is one rule under construction: its text in nft's own language and the
// expressions that nft compiles that text to. Each method appends to both.
type rule struct {
	text  []byte
	exprs []func(*netlink.Message)
	known uint8 // the family, if the rule has asked for it
}

func (r *rule) say(s string) *rule {
	if len(r.text) > 0 {
		r.text = append(r.text, ' ')
	}
	r.text = append(r.text, s...)
	return r
}

// expr appends one expression of the given kind.
func (r *rule) expr(kind string, fill func(*netlink.Message)) *rule {
	r.exprs = append(r.exprs, func(m *netlink.Message) {
		m.Nest(unix.NFTA_LIST_ELEM, func(m *netlink.Message) {
			m.Str(unix.NFTA_EXPR_NAME, kind)
			m.Nest(unix.NFTA_EXPR_DATA, fill)
		})
	})
	return r
}

func (r *rule) meta(key, reg uint32) *rule {
	return r.expr("meta", func(m *netlink.Message) {
		m.U32BE(unix.NFTA_META_DREG, reg).U32BE(unix.NFTA_META_KEY, key)
	})
}

func (r *rule) cmp(op, reg uint32, value []byte) *rule {
	return r.expr("cmp", func(m *netlink.Message) {
		m.U32BE(unix.NFTA_CMP_SREG, reg).U32BE(unix.NFTA_CMP_OP, op)
		m.Nest(unix.NFTA_CMP_DATA, func(m *netlink.Message) { m.Attr(unix.NFTA_DATA_VALUE, value) })
	})
}

func (r *rule) payload(base, offset, length, reg uint32) *rule {
	return r.expr("payload", func(m *netlink.Message) {
		m.U32BE(unix.NFTA_PAYLOAD_DREG, reg).U32BE(unix.NFTA_PAYLOAD_BASE, base)
		m.U32BE(unix.NFTA_PAYLOAD_OFFSET, offset).U32BE(unix.NFTA_PAYLOAD_LEN, length)
	})
}

func (r *rule) lookup(set string, inverted bool) *rule {
	return r.expr("lookup", func(m *netlink.Message) {
		m.Str(unix.NFTA_LOOKUP_SET, set).U32BE(unix.NFTA_LOOKUP_SREG, reg1)
		if inverted {
			m.U32BE(unix.NFTA_LOOKUP_FLAGS, unix.NFT_LOOKUP_F_INV)
		}
	})
}

func (r *rule) lookupMap(set string) *rule {
	return r.expr("lookup", func(m *netlink.Message) {
		m.Str(unix.NFTA_LOOKUP_SET, set).U32BE(unix.NFTA_LOOKUP_SREG, reg1).U32BE(unix.NFTA_LOOKUP_DREG, reg1)
	})
}

// ctBits matches if any of the bits is set in a conntrack field.
func (r *rule) ctBits(key, bits uint32) *rule {
	r.expr("ct", func(m *netlink.Message) {
		m.U32BE(unix.NFTA_CT_DREG, reg1).U32BE(unix.NFTA_CT_KEY, key)
	})
	return r.masked(bits).cmp(unix.NFT_CMP_NEQ, reg1, make([]byte, 4))
}

// of matches packets of a family, and asks once only.
func (r *rule) of(f family) *rule {
	if r.known == f.number {
		return r
	}
	r.known = f.number
	return r.meta(unix.NFT_META_NFPROTO, reg1).cmp(unix.NFT_CMP_EQ, reg1, []byte{f.number})
}

// protocol is of as a word: for rules in which something else comes before addresses.
func (r *rule) protocol(f family) *rule { return r.say("meta nfproto " + f.protocol).of(f) }

func (r *rule) verdict(code int32, chain string) *rule {
	return r.expr("immediate", func(m *netlink.Message) {
		m.U32BE(unix.NFTA_IMMEDIATE_DREG, regVerdict)
		m.Nest(unix.NFTA_IMMEDIATE_DATA, func(m *netlink.Message) {
			m.Nest(unix.NFTA_DATA_VERDICT, func(m *netlink.Message) {
				m.U32BE(unix.NFTA_VERDICT_CODE, uint32(code))
				if chain != "" {
					m.Str(unix.NFTA_VERDICT_CHAIN, chain)
				}
			})
		})
	})
}

// What follows are the words that the rules of this package are written in.

func (r *rule) inOurs() *rule  { return r.inSet(setBridges) }
func (r *rule) outOurs() *rule { return r.outSet(setBridges) }

func (r *rule) inSet(set string) *rule {
	return r.say("iifname @"+set).meta(unix.NFT_META_IIFNAME, reg1).lookup(set, false)
}

func (r *rule) outSet(set string) *rule {
	return r.say("oifname @"+set).meta(unix.NFT_META_OIFNAME, reg1).lookup(set, false)
}

// overLoopback matches what comes in by the loopback link, whose index is the same in every
// namespace. Nobody but the host itself sends there.
func (r *rule) overLoopback() *rule {
	const lo = 1
	r.say(`iif "lo"`).meta(unix.NFT_META_IIF, reg1)
	return r.cmp(unix.NFT_CMP_EQ, reg1, binary.NativeEndian.AppendUint32(nil, lo))
}

func (r *rule) outForeign() *rule {
	return r.say("oifname != @bridges").meta(unix.NFT_META_OIFNAME, reg1).lookup(setBridges, true)
}

func (r *rule) withinOne() *rule   { return r.within(setICC) }
func (r *rule) withinApart() *rule { return r.within(setApart) }

func (r *rule) within(set string) *rule {
	r.say("iifname . oifname @" + set)
	return r.meta(unix.NFT_META_IIFNAME, reg1).meta(unix.NFT_META_OIFNAME, reg2).lookup(set, false)
}

// marked matches packets that another program of the host has marked.
func (r *rule) marked(m Mark) *rule {
	if m.Mask == math.MaxUint32 {
		r.say(fmt.Sprintf("meta mark 0x%08x", m.Value)).meta(unix.NFT_META_MARK, reg1)
	} else {
		r.say(fmt.Sprintf("meta mark & 0x%08x == 0x%08x", m.Mask, m.Value)).meta(unix.NFT_META_MARK, reg1)
		r.masked(m.Mask)
	}
	return r.cmp(unix.NFT_CMP_EQ, reg1, binary.NativeEndian.AppendUint32(nil, m.Value))
}

// masked keeps some bits of a register.
func (r *rule) masked(bits uint32) *rule {
	return r.maskedBy(binary.NativeEndian.AppendUint32(nil, bits))
}

func (r *rule) maskedBy(mask []byte) *rule {
	return r.expr("bitwise", func(m *netlink.Message) {
		m.U32BE(unix.NFTA_BITWISE_SREG, reg1).U32BE(unix.NFTA_BITWISE_DREG, reg1).U32BE(unix.NFTA_BITWISE_LEN, uint32(len(mask)))
		m.Nest(unix.NFTA_BITWISE_MASK, func(m *netlink.Message) { m.Attr(unix.NFTA_DATA_VALUE, mask) })
		m.Nest(unix.NFTA_BITWISE_XOR, func(m *netlink.Message) { m.Attr(unix.NFTA_DATA_VALUE, make([]byte, len(mask))) })
	})
}

func (r *rule) inName(name string) *rule {
	return r.say(`iifname "`+name+`"`).meta(unix.NFT_META_IIFNAME, reg1).cmp(unix.NFT_CMP_EQ, reg1, ifname(name))
}

func (r *rule) outName(name string) *rule {
	return r.say(`oifname "`+name+`"`).meta(unix.NFT_META_OIFNAME, reg1).cmp(unix.NFT_CMP_EQ, reg1, ifname(name))
}

func (r *rule) fromLoopback() *rule { return r.loopback("ip saddr", v4().saddr) }
func (r *rule) toLoopback() *rule   { return r.loopback("ip daddr", v4().daddr) }

func (r *rule) loopback(field string, offset uint32) *rule {
	r.say(field + " 127.0.0.0/8").of(v4())
	return r.payload(unix.NFT_PAYLOAD_NETWORK_HEADER, offset, 1, reg1).cmp(unix.NFT_CMP_EQ, reg1, []byte{127})
}

func (r *rule) toLoopback6() *rule {
	one := netip.IPv6Loopback().As16()
	r.say("ip6 daddr ::1").of(v6())
	return r.payload(unix.NFT_PAYLOAD_NETWORK_HEADER, v6().daddr, 16, reg1).cmp(unix.NFT_CMP_EQ, reg1, one[:])
}

// fromLinkLocal6 matches fe80::/10.
func (r *rule) fromLinkLocal6() *rule {
	const size = 16
	mask, prefix := [size]byte{0xff, 0xc0}, [size]byte{0xfe, 0x80}
	r.say("ip6 saddr fe80::/10").of(v6()).payload(unix.NFT_PAYLOAD_NETWORK_HEADER, v6().saddr, size, reg1)
	return r.maskedBy(mask[:]).cmp(unix.NFT_CMP_EQ, reg1, prefix[:])
}

func (r *rule) daddrIn(f family, set string) *rule {
	r.say(f.word + " daddr @" + set + f.suffix).of(f)
	return r.payload(unix.NFT_PAYLOAD_NETWORK_HEADER, f.daddr, f.addr.size, reg1).lookup(set+f.suffix, false)
}

func (r *rule) saddrIn(f family, set string) *rule {
	r.say(f.word + " saddr @" + set + f.suffix).of(f)
	return r.payload(unix.NFT_PAYLOAD_NETWORK_HEADER, f.saddr, f.addr.size, reg1).lookup(set+f.suffix, false)
}

// untrusted matches packets from a link whose neighbours may not use a network's
// addresses.
func (r *rule) untrusted(f family) *rule {
	set := setTrusted + f.suffix
	r.say("iifname . "+f.word+" daddr != @"+set).of(f).meta(unix.NFT_META_IIFNAME, reg1)
	return r.payload(unix.NFT_PAYLOAD_NETWORK_HEADER, f.daddr, f.addr.size, reg2).lookup(set, true)
}

// open matches packets to a container's port that is open to those who route to it.
func (r *rule) open(f family) *rule {
	set := setOpen + f.suffix
	r.say(f.word + " daddr . meta l4proto . th dport @" + set)
	return r.destination(f).lookup(set, false)
}

// destination loads address, protocol and port for a lookup. The address goes first
// and the others behind it, as far as it is long.
func (r *rule) destination(f family) *rule {
	proto, port := uint32(reg32_01), uint32(reg32_02)
	if f.addr.size == 16 {
		proto, port = reg32_04, reg32_05
	}
	r.of(f).payload(unix.NFT_PAYLOAD_NETWORK_HEADER, f.daddr, f.addr.size, reg1)
	return r.meta(unix.NFT_META_L4PROTO, proto).payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, port)
}

// toServed matches packets to ports that the engine serves itself, on all addresses.
func (r *rule) toServed() *rule      { return r.toPortIn(setServed) }
func (r *rule) toServedRange() *rule { return r.toPortIn(setServedRng) }

func (r *rule) toPortIn(set string) *rule {
	r.say("meta l4proto . th dport @"+set).meta(unix.NFT_META_L4PROTO, reg1)
	return r.payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, reg32_01).lookup(set, false)
}

// toServedAddr matches those to one address.
func (r *rule) toServedAddr() *rule {
	r.say(v6().word + " daddr . meta l4proto . th dport @" + setServedAddr)
	return r.destination(v6()).lookup(setServedAddr, false)
}

// notFromHere matches packets that came by a link, not from this host itself.
func (r *rule) notFromHere() *rule {
	return r.say(`iifname != "lo"`).meta(unix.NFT_META_IIFNAME, reg1).cmp(unix.NFT_CMP_NEQ, reg1, ifname("lo"))
}

// ping matches the family's control messages.
func (r *rule) ping(f family) *rule {
	return r.say("meta l4proto "+f.icmpOf).meta(unix.NFT_META_L4PROTO, reg1).cmp(unix.NFT_CMP_EQ, reg1, []byte{f.icmp})
}

func (r *rule) daddrLocal(local bool) *rule {
	op, text := uint32(unix.NFT_CMP_EQ), "fib daddr type local"
	if !local {
		op, text = unix.NFT_CMP_NEQ, "fib daddr type != local"
	}
	r.say(text).expr("fib", func(m *netlink.Message) {
		m.U32BE(unix.NFTA_FIB_DREG, reg1).U32BE(unix.NFTA_FIB_RESULT, unix.NFT_FIB_RESULT_ADDRTYPE)
		m.U32BE(unix.NFTA_FIB_FLAGS, unix.NFTA_FIB_F_DADDR)
	})
	return r.cmp(op, reg1, binary.NativeEndian.AppendUint32(nil, unix.RTN_LOCAL))
}

func (r *rule) established() *rule {
	return r.say("ct state established,related").ctBits(unix.NFT_CT_STATE, ctStateEstablished|ctStateRelated)
}

func (r *rule) published() *rule {
	return r.say("ct status dnat").ctBits(unix.NFT_CT_STATUS, ctStatusDNAT)
}

func (r *rule) masquerade() *rule {
	return r.say("masquerade").expr("masq", func(*netlink.Message) {})
}

// dnat sends the packet to where a map has it go. byAddr: the map's key starts with
// the destination address; toPort: its value holds a port behind the address.
func (r *rule) dnat(f family, set string, byAddr, toPort bool) *rule {
	set += f.suffix
	key := "meta l4proto . th dport"
	if byAddr {
		key = f.word + " daddr . " + key
	}
	r.say("dnat " + f.word + " to " + key + " map @" + set)
	if byAddr {
		r.destination(f)
	} else {
		r.meta(unix.NFT_META_L4PROTO, reg1).payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, reg32_01)
	}
	portReg := uint32(reg32_01)
	if f.addr.size == 16 {
		portReg = reg32_04
	}
	return r.lookupMap(set).expr("nat", func(m *netlink.Message) {
		m.U32BE(unix.NFTA_NAT_TYPE, unix.NFT_NAT_DNAT).U32BE(unix.NFTA_NAT_FAMILY, uint32(f.number))
		m.U32BE(unix.NFTA_NAT_REG_ADDR_MIN, reg1)
		if toPort {
			m.U32BE(unix.NFTA_NAT_REG_PROTO_MIN, portReg)
		}
	})
}

func (r *rule) accept() *rule       { return r.say("accept").verdict(nfAccept, "") }
func (r *rule) drop() *rule         { return r.say("drop").verdict(nfDrop, "") }
func (r *rule) goBack() *rule       { return r.say("return").verdict(unix.NFT_RETURN, "") }
func (r *rule) jump(c string) *rule { return r.say("jump "+c).verdict(unix.NFT_JUMP, c) }
func (r *rule) goTo(c string) *rule { return r.say("goto "+c).verdict(unix.NFT_GOTO, c) }

// ifname is a link's name as a key or value of nftables: zero-padded.
func ifname(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}
