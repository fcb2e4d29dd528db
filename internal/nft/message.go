package nft

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/netlink"
)

// nfgenmsg is the fixed header of nfnetlink messages.
func nfgenmsg(family uint8, resID uint16) []byte {
	return []byte{family, unix.NFNETLINK_V0, byte(resID >> 8), byte(resID)}
}

func newMessage(kind uint16, flags uint16, family uint8, object string) *netlink.Message {
	return netlink.NewMessage(unix.NFNL_SUBSYS_NFTABLES<<8|kind, flags, nfgenmsg(family, 0), object)
}

func batchBegin(object string) *netlink.Message {
	return netlink.NewMessage(unix.NFNL_MSG_BATCH_BEGIN, 0, nfgenmsg(0, unix.NFNL_SUBSYS_NFTABLES), object)
}

func batchEnd(object string) *netlink.Message {
	return netlink.NewMessage(unix.NFNL_MSG_BATCH_END, 0, nfgenmsg(0, unix.NFNL_SUBSYS_NFTABLES), object)
}

func (t *Table) addTable() *netlink.Message {
	return newMessage(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, familyInet, t.object()).Str(unix.NFTA_TABLE_NAME, t.name)
}

func (t *Table) deleteTable() *netlink.Message {
	return newMessage(unix.NFT_MSG_DELTABLE, 0, familyInet, t.object()).Str(unix.NFTA_TABLE_NAME, t.name)
}

func (t *Table) addChain(c chain) *netlink.Message {
	m := newMessage(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, familyInet, t.object()+" chain "+c.name)
	m.Str(unix.NFTA_CHAIN_TABLE, t.name).Str(unix.NFTA_CHAIN_NAME, c.name)
	if c.kind == "" {
		return m
	}
	m.Nest(unix.NFTA_CHAIN_HOOK, func(m *netlink.Message) {
		m.U32BE(unix.NFTA_HOOK_HOOKNUM, c.hook).U32BE(unix.NFTA_HOOK_PRIORITY, uint32(c.priority))
	})
	return m.U32BE(unix.NFTA_CHAIN_POLICY, nfAccept).Str(unix.NFTA_CHAIN_TYPE, c.kind)
}

func (t *Table) flushChain(c chain) *netlink.Message {
	m := newMessage(unix.NFT_MSG_DELRULE, 0, familyInet, t.object()+" chain "+c.name)
	return m.Str(unix.NFTA_RULE_TABLE, t.name).Str(unix.NFTA_RULE_CHAIN, c.name)
}

func (t *Table) addRule(c chain, r *rule) *netlink.Message {
	return ruleMessage(unix.NLM_F_CREATE|unix.NLM_F_APPEND, familyInet, t.name, c.name, r, t.object()+" chain "+c.name+": "+string(r.text))
}

func ruleMessage(flags uint16, family uint8, table, chain string, r *rule, object string) *netlink.Message {
	m := newMessage(unix.NFT_MSG_NEWRULE, flags, family, object)
	m.Str(unix.NFTA_RULE_TABLE, table).Str(unix.NFTA_RULE_CHAIN, chain)
	return m.Nest(unix.NFTA_RULE_EXPRESSIONS, func(m *netlink.Message) {
		for _, e := range r.exprs {
			e(m)
		}
	})
}

// addSet asks for a set. id must be unique in the transaction.
func (t *Table) addSet(s set, id uint32) *netlink.Message {
	const flagConcat = 0x80 // NFT_SET_CONCAT
	const descConcat = 2    // NFTA_SET_DESC_CONCAT
	const fieldLen = 1      // NFTA_SET_FIELD_LEN
	concatRange := s.interval && len(s.key) > 1
	var flags uint32
	if s.interval {
		flags |= unix.NFT_SET_INTERVAL
	}
	if s.data != nil {
		flags |= unix.NFT_SET_MAP
	}
	if concatRange {
		flags |= flagConcat
	}
	m := newMessage(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, familyInet, t.object()+" set "+s.name)
	m.Str(unix.NFTA_SET_TABLE, t.name).Str(unix.NFTA_SET_NAME, s.name).U32BE(unix.NFTA_SET_FLAGS, flags)
	m.U32BE(unix.NFTA_SET_KEY_TYPE, magic(s.key)).U32BE(unix.NFTA_SET_KEY_LEN, width(s.key)).U32BE(unix.NFTA_SET_ID, id)
	if s.data != nil {
		m.U32BE(unix.NFTA_SET_DATA_TYPE, magic(s.data)).U32BE(unix.NFTA_SET_DATA_LEN, width(s.data))
	}
	if s.hostOrder {
		m.Attr(unix.NFTA_SET_USERDATA, keyInHostOrder())
	}
	if concatRange {
		m.Nest(unix.NFTA_SET_DESC, func(m *netlink.Message) {
			m.Nest(descConcat, func(m *netlink.Message) {
				for _, k := range s.key {
					m.Nest(unix.NFTA_LIST_ELEM, func(m *netlink.Message) { m.U32BE(fieldLen, k.size) })
				}
			})
		})
	}
	return m
}

// keyInHostOrder is libnftnl's note for the nft program, without which it prints link
// names as empty strings: tag NFTNL_UDATA_SET_KEYBYTEORDER, length, BYTEORDER_HOST_ENDIAN.
func keyInHostOrder() []byte {
	return binary.NativeEndian.AppendUint32([]byte{0, 4}, 1)
}

func (t *Table) flushSet(name string) *netlink.Message {
	m := newMessage(unix.NFT_MSG_DELSETELEM, 0, familyInet, t.object()+" set "+name)
	return m.Str(unix.NFTA_SET_ELEM_LIST_TABLE, t.name).Str(unix.NFTA_SET_ELEM_LIST_SET, name)
}

// elementMessages adds (unix.NFT_MSG_NEWSETELEM) or deletes elements, in as many
// messages as it takes: one attribute holds at most 64 KiB.
func (t *Table) elementMessages(kind uint16, elements []element) []*netlink.Message {
	const perMessage = 400
	var flags uint16
	if kind == unix.NFT_MSG_NEWSETELEM {
		flags = unix.NLM_F_CREATE
	}
	var msgs []*netlink.Message
	for len(elements) > 0 {
		n := 1
		for n < len(elements) && n < perMessage && elements[n].set == elements[0].set {
			n++
		}
		part := elements[:n]
		elements = elements[n:]
		m := newMessage(kind, flags, familyInet, t.object()+" set "+part[0].set)
		m.Str(unix.NFTA_SET_ELEM_LIST_TABLE, t.name).Str(unix.NFTA_SET_ELEM_LIST_SET, part[0].set)
		m.Nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func(m *netlink.Message) {
			for _, e := range part {
				m.Nest(unix.NFTA_LIST_ELEM, e.fill)
			}
		})
		msgs = append(msgs, m)
	}
	return msgs
}

func (e element) fill(m *netlink.Message) {
	value := func(typ uint16, s string) {
		m.Nest(typ, func(m *netlink.Message) { m.Attr(unix.NFTA_DATA_VALUE, []byte(s)) })
	}
	if e.end {
		m.U32BE(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
	}
	value(unix.NFTA_SET_ELEM_KEY, e.key)
	if e.keyEnd != "" {
		value(elemKeyEnd, e.keyEnd)
	}
	if e.data != "" {
		value(unix.NFTA_SET_ELEM_DATA, e.data)
	}
}

const elemKeyEnd = 10 // NFTA_SET_ELEM_KEY_END
