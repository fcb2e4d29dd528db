package netlink

import (
	"net"

	"golang.org/x/sys/unix"
)

// Modes of a macvlan link: what its like on the same parent see of each other.
const (
	MacvlanPrivate  = 1 // nothing
	MacvlanVEPA     = 2 // what the switch outside sends back
	MacvlanBridge   = 4 // everything
	MacvlanPassthru = 8 // there is only one
)

// Modes and flags of an ipvlan link.
const (
	IPvlanL2  = 0
	IPvlanL3  = 1
	IPvlanL3S = 2

	IPvlanPrivate = 1
	IPvlanVEPA    = 2
)

// Sublink is a link that shares its parent's wire.
type Sublink struct {
	Name   string // in the namespace NS
	Parent int    // index of the parent, which is in this namespace
	NS     int    // file descriptor of the namespace to make it in; -1 is this one
	MTU    int    // 0 is the parent's
	MAC    net.HardwareAddr
}

func (s Sublink) message(kind string, data func(*Message)) *Message {
	m := NewMessage(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, ifInfo(0, 0, 0), linkObject(s.Name))
	m.Str(unix.IFLA_IFNAME, s.Name).U32(unix.IFLA_LINK, uint32(s.Parent))
	if s.NS >= 0 {
		m.U32(unix.IFLA_NET_NS_FD, uint32(s.NS))
	}
	if s.MTU > 0 {
		m.U32(unix.IFLA_MTU, uint32(s.MTU))
	}
	if len(s.MAC) > 0 {
		m.Attr(unix.IFLA_ADDRESS, s.MAC)
	}
	return m.Nest(unix.IFLA_LINKINFO, func(m *Message) {
		m.Attr(unix.IFLA_INFO_KIND, []byte(kind))
		m.Nest(unix.IFLA_INFO_DATA, data)
	})
}

// NewMacvlan asks for a link with a hardware address of its own on the parent.
func NewMacvlan(s Sublink, mode uint32) *Message {
	const infoMode = 1 // IFLA_MACVLAN_MODE
	return s.message("macvlan", func(m *Message) { m.U32(infoMode, mode) })
}

// NewIPvlan asks for a link with its parent's hardware address.
func NewIPvlan(s Sublink, mode, flags uint16) *Message {
	const infoMode, infoFlags = 1, 2 // IFLA_IPVLAN_MODE, IFLA_IPVLAN_FLAGS
	return s.message("ipvlan", func(m *Message) { m.U16(infoMode, mode).U16(infoFlags, flags) })
}

// NewVLAN asks for the part of the parent's wire that carries the tag id, 1 to 4094.
func NewVLAN(s Sublink, id uint16) *Message {
	const infoID = 1 // IFLA_VLAN_ID
	return s.message("vlan", func(m *Message) { m.U16(infoID, id) })
}

// NewDummy asks for a link that leads nowhere and is up.
func NewDummy(name string) *Message {
	m := NewMessage(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, ifInfo(0, unix.IFF_UP, unix.IFF_UP), linkObject(name))
	m.Str(unix.IFLA_IFNAME, name)
	return m.Nest(unix.IFLA_LINKINFO, func(m *Message) { m.Attr(unix.IFLA_INFO_KIND, []byte("dummy")) })
}
