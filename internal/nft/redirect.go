package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/netlink"
)

// Redirect makes a service of the engine reachable inside a container's network
// namespace: packets to one port of a loopback address go to the sockets that the
// engine has there, at other ports, and what these send seems to come from that port.
// So the port itself stays free for the container's own server.
//
// The packets are rewritten, without connection tracking: a container that tracks
// nothing by itself has no cost of it on all its other traffic.
type Redirect struct {
	Addr netip.Addr // IPv4, of 127.0.0.0/8
	Port uint16
	// UDP and TCP are the ports of the engine's sockets.
	UDP, TCP uint16
}

// redirectTable is the table's name. It is alone in the container's namespace, and
// its family is not that of the engine's own.
const redirectTable = "cleat-names"

// Apply puts the redirection into the namespace that conn belongs to, in one
// transaction. replace takes an earlier one out; without it there must be none.
func (r Redirect) Apply(conn *netlink.Conn, replace bool) error {
	const family = unix.NFPROTO_IPV4
	object := "nftables table ip " + redirectTable
	if !r.Addr.Is4() || !r.Addr.IsLoopback() || r.Port == 0 || r.UDP == 0 || r.TCP == 0 {
		return fmt.Errorf("nft: %s:%d cannot be redirected to ports %d and %d", r.Addr, r.Port, r.UDP, r.TCP)
	}
	table := func(kind uint16, flags uint16) *netlink.Message {
		return newMessage(kind, flags, family, object).Str(unix.NFTA_TABLE_NAME, redirectTable)
	}
	msgs := []*netlink.Message{table(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE)}
	if replace {
		msgs = append(msgs, table(unix.NFT_MSG_DELTABLE, 0), table(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE))
	}
	for _, c := range r.chains() {
		m := newMessage(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, family, object+" chain "+c.name)
		m.Str(unix.NFTA_CHAIN_TABLE, redirectTable).Str(unix.NFTA_CHAIN_NAME, c.name)
		m.Nest(unix.NFTA_CHAIN_HOOK, func(m *netlink.Message) {
			m.U32BE(unix.NFTA_HOOK_HOOKNUM, c.hook).U32BE(unix.NFTA_HOOK_PRIORITY, uint32(c.priority))
		})
		msgs = append(msgs, m.Str(unix.NFTA_CHAIN_TYPE, c.kind))
		for _, rule := range c.rules {
			msgs = append(msgs, ruleMessage(unix.NLM_F_CREATE|unix.NLM_F_APPEND, family, redirectTable, c.name, rule, object+": "+string(rule.text)))
		}
	}
	return conn.DoBatch(batchBegin(object), batchEnd(object), msgs...)
}

// chains: answers are rewritten before a container's own connection tracking (at
// priority -200) and firewall could see them and queries behind these, so that they
// meet one flow from and to the port.
func (r Redirect) chains() []chain {
	rules := func(addr, port uint32, side string, swap func(uint16) (from, to uint16)) []*rule {
		rs := []*rule{new(rule).outOther()}
		for _, p := range []struct {
			name   string
			number uint8
			port   uint16
		}{{"udp", UDP, r.UDP}, {"tcp", TCP, r.TCP}} {
			from, to := swap(p.port)
			rs = append(rs, new(rule).addrIs(side, addr, r.Addr).portIs(p.name, p.number, side, port, from).setPort(p.name, side, port, to))
		}
		return rs
	}
	const sport, dport = 0, 2
	return []chain{
		{
			name: "answers", kind: "filter", hook: unix.NF_INET_LOCAL_OUT, priority: -300,
			rules: rules(v4().saddr, sport, "s", func(p uint16) (uint16, uint16) { return p, r.Port }),
		},
		{
			name: "queries", kind: "filter", hook: unix.NF_INET_LOCAL_OUT, priority: 300,
			rules: rules(v4().daddr, dport, "d", func(p uint16) (uint16, uint16) { return r.Port, p }),
		},
	}
}

// outOther lets packets that do not go to the loopback link pass at once.
func (r *rule) outOther() *rule {
	const lo = 1 // in every namespace
	r.say(`oif != "lo"`).meta(unix.NFT_META_OIF, reg1)
	return r.cmp(unix.NFT_CMP_NEQ, reg1, binary.NativeEndian.AppendUint32(nil, lo)).accept()
}

func (r *rule) addrIs(side string, offset uint32, a netip.Addr) *rule {
	r.say(fmt.Sprintf("ip %saddr %s", side, a))
	return r.payload(unix.NFT_PAYLOAD_NETWORK_HEADER, offset, 4, reg1).cmp(unix.NFT_CMP_EQ, reg1, a.AsSlice())
}

func (r *rule) portIs(name string, proto uint8, side string, offset uint32, port uint16) *rule {
	r.say(fmt.Sprintf("%s %sport %d", name, side, port))
	r.meta(unix.NFT_META_L4PROTO, reg1).cmp(unix.NFT_CMP_EQ, reg1, []byte{proto})
	r.payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, offset, 2, reg1)
	return r.cmp(unix.NFT_CMP_EQ, reg1, binary.BigEndian.AppendUint16(nil, port))
}

// setPort writes a port of the transport header. The checksum of packets that stay in
// the host is not made yet; where it is, the kernel corrects it.
func (r *rule) setPort(name, side string, offset uint32, port uint16) *rule {
	checksum := uint32(16) // offset in the header
	if name == "udp" {
		checksum = 6
	}
	r.say(fmt.Sprintf("%s %sport set %d", name, side, port))
	r.expr("immediate", func(m *netlink.Message) {
		m.U32BE(unix.NFTA_IMMEDIATE_DREG, reg1)
		m.Nest(unix.NFTA_IMMEDIATE_DATA, func(m *netlink.Message) {
			m.Attr(unix.NFTA_DATA_VALUE, binary.BigEndian.AppendUint16(nil, port))
		})
	})
	return r.expr("payload", func(m *netlink.Message) {
		m.U32BE(unix.NFTA_PAYLOAD_SREG, reg1).U32BE(unix.NFTA_PAYLOAD_BASE, unix.NFT_PAYLOAD_TRANSPORT_HEADER)
		m.U32BE(unix.NFTA_PAYLOAD_OFFSET, offset).U32BE(unix.NFTA_PAYLOAD_LEN, 2)
		m.U32BE(unix.NFTA_PAYLOAD_CSUM_TYPE, unix.NFT_PAYLOAD_CSUM_INET).U32BE(unix.NFTA_PAYLOAD_CSUM_OFFSET, checksum)
	})
}
