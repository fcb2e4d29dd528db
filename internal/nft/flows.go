package nft

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/netlink"
)

// Attributes and messages of <linux/netfilter/nfnetlink_conntrack.h>.
const (
	ctGet        = 1 // IPCTNL_MSG_CT_GET
	ctDelete     = 2 // IPCTNL_MSG_CT_DELETE
	ctTupleOrig  = 1 // CTA_TUPLE_ORIG
	ctTupleReply = 2 // CTA_TUPLE_REPLY
	ctTupleIP    = 1 // CTA_TUPLE_IP
	ctTupleProto = 2 // CTA_TUPLE_PROTO
	ctIPv4Src    = 1
	ctIPv4Dst    = 2
	ctIPv6Src    = 3
	ctIPv6Dst    = 4
	ctProtoNum   = 1
	ctProtoDest  = 3
)

// Flows removes entries of connection tracking. A UDP flow has no end: without it, a
// client that goes on sending keeps the redirection, or the lack of one, that its
// first packet met.
type Flows struct {
	conn  *netlink.Conn
	lists atomic.Bool // see FindByList
}

// OpenFlows connects to connection tracking in the calling thread's network
// namespace.
func OpenFlows() (*Flows, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	return &Flows{conn: conn}, nil
}

// Close ends the connection.
func (f *Flows) Close() error { return f.conn.Close() }

// Forget removes the entries of flows to UDP ports that lead elsewhere than to the
// targets of those which were added, or to the targets of those which were freed, and
// returns how many they were: a flow that has begun since is left alone, however late this
// is called. local are the host's addresses (without 127.0.0.0/8), to which a port
// published on every address belongs: a flow to the same port of another machine is
// left alone. TCP flows end by themselves: the other side's packets meet a reset.
func (f *Flows) Forget(added, freed []Publish, local map[netip.Addr]bool) (int, error) {
	sum := 0
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		stale := staleness{added: flowing(added, family), freed: flowing(freed, family), local: local}
		if len(stale.added)+len(stale.freed) == 0 {
			continue
		}
		found, err := f.find(family, stale)
		if err != nil {
			return sum, err
		}
		f.remove(family, found)
		sum += len(found)
	}
	return sum, nil
}

// ForgetAddress removes the entries of all flows that an address has begun or that lead to
// it. They are another container's when it is given out again: what a peer of the earlier
// one sends late would be let through and reach the next one.
func (f *Flows) ForgetAddress(a netip.Addr) error {
	if a.Is6() {
		// Linux takes a filter by an address of IPv6 the wrong way round, at least up to 6.18: it would remove, or
		// list, the flows of all others.
		return f.forgetListed(a, conntrack(unix.AF_INET6, ctGet, 0))
	}
	for _, direction := range []uint16{ctTupleOrig, ctTupleReply} {
		err := error(unix.EINVAL)
		if !f.lists.Load() {
			err = f.conn.Do(flowsFrom(a, direction, ctDelete))
		}
		if errors.Is(err, unix.EINVAL) {
			f.FindByList()
			err = f.forgetListed(a, flowsFrom(a, direction, ctGet))
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return nil
}

// FindByList has flows of IPv4 listed first, too, which takes the processor ten milliseconds for each address and
// direction: more than the whole life of a container. Kernels before Linux 6.8 need that, which is known when
// ForgetAddress was called once.
func (f *Flows) FindByList() { f.lists.Store(true) }

// forgetListed removes those entries of a list one by one which an address has begun or which lead to it.
func (f *Flows) forgetListed(a netip.Addr, list *netlink.Message) error {
	var found [][]byte
	err := f.conn.Dump(list, func(_ uint16, body []byte) error {
		original, reply, err := tuples(body)
		if err == nil && (parseTuple(original).src == a || parseTuple(reply).src == a) {
			found = append(found, bytes.Clone(original))
		}
		return err
	})
	if err != nil {
		return err
	}
	family := uint8(unix.AF_INET)
	if a.Is6() {
		family = unix.AF_INET6
	}
	f.remove(family, found)
	return nil
}

// remove deletes entries by their original tuples, each on its own: one that has expired
// meanwhile is no matter.
func (f *Flows) remove(family uint8, found [][]byte) {
	for _, tuple := range found {
		_ = f.conn.Do(conntrack(family, ctDelete, 0).Attr(ctTupleOrig|unix.NLA_F_NESTED, tuple))
	}
}

// flowsFrom asks for the flows one direction of which comes from an address of IPv4.
func flowsFrom(a netip.Addr, direction, kind uint16) *netlink.Message {
	const (
		ctFilter     = 25 // CTA_FILTER
		filterOrig   = 1  // CTA_FILTER_ORIG_FLAGS
		filterReply  = 2  // CTA_FILTER_REPLY_FLAGS
		filterSource = 1  // CTA_FILTER_F_CTA_IP_SRC
	)
	flags := uint16(filterOrig)
	if direction == ctTupleReply {
		flags = filterReply
	}
	m := conntrack(unix.AF_INET, kind, 0).Nest(direction, func(m *netlink.Message) {
		m.Nest(ctTupleIP, func(m *netlink.Message) { m.Attr(ctIPv4Src, a.AsSlice()) })
	})
	return m.Nest(ctFilter, func(m *netlink.Message) { m.U32(flags, filterSource) })
}

// flowing are the ports that can have flows of a family.
func flowing(ports []Publish, family uint8) []Publish {
	var udp []Publish
	for _, p := range ports {
		if p.Proto == UDP && !p.Open && p.To.Is4() == (family == unix.AF_INET) {
			udp = append(udp, p)
		}
	}
	return udp
}

func conntrack(family uint8, kind, flags uint16) *netlink.Message {
	return netlink.NewMessage(unix.NFNL_SUBSYS_CTNETLINK<<8|kind, flags, nfgenmsg(family, 0), "connection tracking")
}

// allUDP asks for the UDP flows only: a busy host has a hundred thousand others.
func allUDP(family uint8) *netlink.Message {
	const (
		ctFilter     = 25     // CTA_FILTER
		filterOrig   = 1      // CTA_FILTER_ORIG_FLAGS
		filterByType = 1 << 3 // CTA_FILTER_F_CTA_PROTO_NUM
	)
	m := conntrack(family, ctGet, 0).Nest(ctTupleOrig, func(m *netlink.Message) {
		m.Nest(ctTupleProto, func(m *netlink.Message) { m.U8(ctProtoNum, UDP) })
	})
	return m.Nest(ctFilter, func(m *netlink.Message) { m.U32(filterOrig, filterByType) })
}

// find lists the original tuples, in wire form, of the stale flows.
func (f *Flows) find(family uint8, stale staleness) ([][]byte, error) {
	var found [][]byte
	err := f.conn.Dump(allUDP(family), func(_ uint16, body []byte) error {
		original, reply, err := tuples(body)
		if err == nil && stale.is(parseTuple(original), parseTuple(reply)) {
			found = append(found, bytes.Clone(original))
		}
		return err
	})
	return found, err
}

// tuples are the two directions of an entry, in wire form and within body.
func tuples(body []byte) (original, reply []byte, err error) {
	const genmsg = 4
	if len(body) < genmsg {
		return nil, nil, fmt.Errorf("connection tracking: message of %d bytes", len(body))
	}
	attrs, err := netlink.ParseAttrs(body[genmsg:])
	for _, a := range attrs {
		switch a.Type {
		case ctTupleOrig:
			original = a.Value
		case ctTupleReply:
			reply = a.Value
		}
	}
	return original, reply, err
}

// tuple is one direction of a flow.
type tuple struct {
	src, dst netip.Addr
	proto    uint8
	dport    uint16
}

// parseTuple reads one from its wire form; what is damaged is the zero tuple, which no
// port matches.
func parseTuple(wire []byte) (t tuple) {
	parts, err := netlink.ParseAttrs(wire)
	if err != nil {
		return tuple{}
	}
	for _, p := range parts {
		fields, err := netlink.ParseAttrs(p.Value)
		if err != nil {
			return tuple{}
		}
		for _, f := range fields {
			switch {
			case p.Type == ctTupleIP && (f.Type == ctIPv4Src || f.Type == ctIPv6Src):
				t.src, _ = netip.AddrFromSlice(f.Value)
			case p.Type == ctTupleIP && (f.Type == ctIPv4Dst || f.Type == ctIPv6Dst):
				t.dst, _ = netip.AddrFromSlice(f.Value)
			case p.Type == ctTupleProto && f.Type == ctProtoNum && len(f.Value) > 0:
				t.proto = f.Value[0]
			case p.Type == ctTupleProto && f.Type == ctProtoDest && len(f.Value) > 1:
				t.dport = binary.BigEndian.Uint16(f.Value)
			}
		}
	}
	return t
}

// staleness says which flows lead where they should not any more.
type staleness struct {
	added, freed []Publish
	local        map[netip.Addr]bool
}

// is compares where the first packet went to with where answers come from.
func (s staleness) is(original, reply tuple) bool {
	for _, p := range s.added {
		if s.meant(p, original) && reply.src != p.To {
			return true
		}
	}
	for _, p := range s.freed {
		if s.meant(p, original) && reply.src == p.To {
			return true
		}
	}
	return false
}

// meant says whether a flow goes to a port.
func (s staleness) meant(p Publish, t tuple) bool {
	here := t.dst == p.HostIP
	if p.everywhere() {
		here = s.local[t.dst] || t.dst.IsLoopback()
	}
	return here && t.proto == p.Proto && p.First <= t.dport && t.dport <= p.Last
}
