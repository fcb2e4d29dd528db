package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/netlink"
)

// Attributes and messages of <linux/netfilter/nfnetlink_conntrack.h>.
const (
	ctGet        = 1 // IPCTNL_MSG_CT_GET
	ctDelete     = 2 // IPCTNL_MSG_CT_DELETE
	ctTupleOrig  = 1 // CTA_TUPLE_ORIG
	ctTupleIP    = 1 // CTA_TUPLE_IP
	ctTupleProto = 2 // CTA_TUPLE_PROTO
	ctIPv4Dst    = 2
	ctIPv6Dst    = 4
	ctProtoNum   = 1
	ctProtoDest  = 3
)

// Flows removes entries of connection tracking. A UDP flow has no end: without it, a
// client that goes on sending keeps the redirection, or the lack of one, that its
// first packet met.
type Flows struct {
	conn *netlink.Conn
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

// Forget removes the entries of all flows to published UDP ports and returns how many
// they were. local are the host's addresses (without 127.0.0.0/8), to which a port
// published on every address belongs: a flow to the same port of another machine is
// left alone. TCP flows end by themselves: the other side's packets meet a reset.
func (f *Flows) Forget(ports []Publish, local map[netip.Addr]bool) (int, error) {
	sum := 0
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		var udp []Publish
		for _, p := range ports {
			if p.Proto == UDP && !p.Open && p.To.Is4() == (family == unix.AF_INET) {
				udp = append(udp, p)
			}
		}
		if len(udp) == 0 {
			continue
		}
		found, err := f.find(family, udp, local)
		if err != nil {
			return sum, err
		}
		for _, tuple := range found {
			m := conntrack(family, ctDelete, 0).Attr(ctTupleOrig|unix.NLA_F_NESTED, tuple)
			// Each on its own: one that has expired meanwhile is no matter.
			_ = f.conn.Do(m)
		}
		sum += len(found)
	}
	return sum, nil
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

// find lists the original tuples, in wire form, of the flows to these ports.
func (f *Flows) find(family uint8, ports []Publish, local map[netip.Addr]bool) ([][]byte, error) {
	var found [][]byte
	err := f.conn.Dump(allUDP(family), func(_ uint16, body []byte) error {
		const genmsg = 4
		if len(body) < genmsg {
			return fmt.Errorf("connection tracking: message of %d bytes", len(body))
		}
		attrs, err := netlink.ParseAttrs(body[genmsg:])
		if err != nil {
			return err
		}
		for _, a := range attrs {
			if a.Type == ctTupleOrig && matches(a.Value, ports, local) {
				found = append(found, append([]byte(nil), a.Value...))
			}
		}
		return nil
	})
	return found, err
}

// matches says whether an original tuple goes to one of the ports.
func matches(tuple []byte, ports []Publish, local map[netip.Addr]bool) bool {
	var dst netip.Addr
	var proto uint8
	var dport uint16
	parts, err := netlink.ParseAttrs(tuple)
	if err != nil {
		return false
	}
	for _, p := range parts {
		fields, err := netlink.ParseAttrs(p.Value)
		if err != nil {
			return false
		}
		for _, f := range fields {
			switch {
			case p.Type == ctTupleIP && (f.Type == ctIPv4Dst || f.Type == ctIPv6Dst):
				dst, _ = netip.AddrFromSlice(f.Value)
			case p.Type == ctTupleProto && f.Type == ctProtoNum && len(f.Value) > 0:
				proto = f.Value[0]
			case p.Type == ctTupleProto && f.Type == ctProtoDest && len(f.Value) > 1:
				dport = binary.BigEndian.Uint16(f.Value)
			}
		}
	}
	for _, p := range ports {
		here := dst == p.HostIP
		if p.everywhere() {
			here = local[dst] || dst.IsLoopback()
		}
		if here && proto == p.Proto && p.First <= dport && dport <= p.Last {
			return true
		}
	}
	return false
}
