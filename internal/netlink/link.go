package netlink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Link is one network interface.
type Link struct {
	Index  int
	Name   string
	Kind   string // "bridge", "veth" …; empty for hardware
	Master int    // index of the bridge it is a port of, else 0
	Up     bool   // set up; see Ready
	// Ready means that packets pass: the carrier is there and the kernel has acted on
	// it, which it does a moment after the other end came up.
	Ready bool
	MTU   int
	MAC   net.HardwareAddr
}

// Addr is one IP address of a link. The prefix is not masked.
type Addr struct {
	Index  int
	Prefix netip.Prefix
	// Tentative IPv6 addresses do not answer yet. Those that another one on the link has never will, and are none.
	Tentative bool
}

// Route is one route to a unicast destination. The default route has a prefix of
// length 0.
type Route struct {
	Dst     netip.Prefix
	Gateway netip.Addr
	Index   int // outgoing link, 0 if there are several or none
	Table   int
}

func linkObject(name string) string { return fmt.Sprintf("link %q", name) }

// ifInfo is struct ifinfomsg.
func ifInfo(index int, flags, change uint32) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	binary.NativeEndian.PutUint32(b[8:], flags)
	binary.NativeEndian.PutUint32(b[12:], change)
	return b
}

// NewBridge asks for a bridge that is up. It fails with EEXIST if the name is
// taken. mtu 0 leaves the kernel's default.
func NewBridge(name string, mac net.HardwareAddr, mtu int) *Message {
	m := NewMessage(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, ifInfo(0, unix.IFF_UP, unix.IFF_UP), linkObject(name))
	m.Str(unix.IFLA_IFNAME, name)
	if mac != nil {
		m.Attr(unix.IFLA_ADDRESS, mac)
	}
	if mtu > 0 {
		m.U32(unix.IFLA_MTU, uint32(mtu))
	}
	return m.Nest(unix.IFLA_LINKINFO, func(m *Message) { m.Attr(unix.IFLA_INFO_KIND, []byte("bridge")) })
}

// SetForwardDelay sets how long a bridge's ports listen and learn before they forward, in
// hundredths of a second. It fails with ERANGE for less than two seconds on a bridge that
// runs the spanning tree protocol; without that, the ports forward at once, but a timer of
// this length goes on with a port that was set to another state since; 0 is for none.
func SetForwardDelay(index int, delay uint32) *Message {
	const forwardDelay = 1 // IFLA_BR_FORWARD_DELAY
	m := NewMessage(unix.RTM_NEWLINK, 0, ifInfo(index, 0, 0), fmt.Sprintf("link %d", index))
	return m.Nest(unix.IFLA_LINKINFO, func(m *Message) {
		m.Attr(unix.IFLA_INFO_KIND, []byte("bridge"))
		m.Nest(unix.IFLA_INFO_DATA, func(m *Message) { m.U32(forwardDelay, delay) })
	})
}

// SetBridgeFilters has what a bridge passes on go through the firewalls of IPv4 and IPv6,
// whatever the host says for other bridges.
func SetBridgeFilters(index int) *Message {
	const callIptables, callIP6tables = 36, 37 // IFLA_BR_NF_CALL_*
	m := NewMessage(unix.RTM_NEWLINK, 0, ifInfo(index, 0, 0), fmt.Sprintf("link %d", index))
	return m.Nest(unix.IFLA_LINKINFO, func(m *Message) {
		m.Attr(unix.IFLA_INFO_KIND, []byte("bridge"))
		m.Nest(unix.IFLA_INFO_DATA, func(m *Message) { m.U8(callIptables, 1).U8(callIP6tables, 1) })
	})
}

// Veth is a pair of links, one end a port of a bridge, the other in another
// network namespace.
type Veth struct {
	Name   string // the end in this namespace; it is up at once
	Master int    // index of its bridge, 0 for none
	Peer   string // the other end
	PeerNS int    // file descriptor of the other end's namespace
	MAC    net.HardwareAddr
	MTU    int // of both ends; 0 leaves the kernel's default
}

// NewVeth asks for the pair, the bridge port and the up state in one message.
func NewVeth(v Veth) *Message {
	const infoPeer = 1 // VETH_INFO_PEER
	m := NewMessage(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, ifInfo(0, unix.IFF_UP, unix.IFF_UP), linkObject(v.Name))
	m.Str(unix.IFLA_IFNAME, v.Name)
	if v.Master > 0 {
		m.U32(unix.IFLA_MASTER, uint32(v.Master))
	}
	if v.MTU > 0 {
		m.U32(unix.IFLA_MTU, uint32(v.MTU))
	}
	return m.Nest(unix.IFLA_LINKINFO, func(m *Message) {
		m.Attr(unix.IFLA_INFO_KIND, []byte("veth"))
		m.Nest(unix.IFLA_INFO_DATA, func(m *Message) {
			m.Nest(infoPeer, func(m *Message) {
				m.Raw(ifInfo(0, 0, 0))
				m.Str(unix.IFLA_IFNAME, v.Peer)
				m.U32(unix.IFLA_NET_NS_FD, uint32(v.PeerNS))
				if v.MAC != nil {
					m.Attr(unix.IFLA_ADDRESS, v.MAC)
				}
				if v.MTU > 0 {
					m.U32(unix.IFLA_MTU, uint32(v.MTU))
				}
			})
		})
	})
}

// Port is how a bridge treats one of its ports.
type Port struct {
	// Hairpin lets it send a packet back by the port that it came from.
	Hairpin bool
	// Isolated keeps packets of this port from other isolated ones.
	Isolated bool
}

// SetPort changes how a bridge treats a port.
func SetPort(port string, p Port) *Message {
	const (
		brportMode     = 4  // IFLA_BRPORT_MODE
		brportIsolated = 33 // IFLA_BRPORT_ISOLATED
	)
	flag := func(b bool) uint8 {
		if b {
			return 1
		}
		return 0
	}
	m := NewMessage(unix.RTM_NEWLINK, 0, ifInfo(0, 0, 0), linkObject(port)).Str(unix.IFLA_IFNAME, port)
	return m.Nest(unix.IFLA_LINKINFO, func(m *Message) {
		m.Attr(unix.IFLA_INFO_SLAVE_KIND, []byte("bridge"))
		m.Nest(unix.IFLA_INFO_SLAVE_DATA, func(m *Message) {
			m.U8(brportMode, flag(p.Hairpin))
			if p.Isolated {
				m.U8(brportIsolated, 1)
			}
		})
	})
}

// SilencePort has a bridge take nothing from a port, send nothing there, and forget which
// hardware addresses were seen behind it. It fails with EBUSY on a bridge that runs the
// spanning tree protocol, and lasts only where the bridge's forward delay is 0.
func SilencePort(port string) *Message {
	const (
		brportState = 1  // IFLA_BRPORT_STATE
		brportFlush = 24 // IFLA_BRPORT_FLUSH
		// BR_STATE_LISTENING: a port that is disabled the kernel enables at the next
		// opportunity, and of one that is blocked it decides about itself.
		listening = 1
	)
	m := NewMessage(unix.RTM_NEWLINK, 0, ifInfo(0, 0, 0), linkObject(port)).Str(unix.IFLA_IFNAME, port)
	return m.Nest(unix.IFLA_LINKINFO, func(m *Message) {
		m.Attr(unix.IFLA_INFO_SLAVE_KIND, []byte("bridge"))
		m.Nest(unix.IFLA_INFO_SLAVE_DATA, func(m *Message) { m.U8(brportState, listening).Attr(brportFlush, nil) })
	})
}

// SetMaster asks for a link to be a port of a bridge, or with 0 of none.
func SetMaster(name string, bridge int) *Message {
	return NewMessage(unix.RTM_NEWLINK, 0, ifInfo(0, 0, 0), linkObject(name)).Str(unix.IFLA_IFNAME, name).U32(unix.IFLA_MASTER, uint32(bridge))
}

// SetMTU asks for another largest packet, in bytes.
func SetMTU(name string, mtu int) *Message {
	return NewMessage(unix.RTM_NEWLINK, 0, ifInfo(0, 0, 0), linkObject(name)).Str(unix.IFLA_IFNAME, name).U32(unix.IFLA_MTU, uint32(mtu))
}

// SetNameAndUp asks for a link that is down to be renamed and then to be up.
func SetNameAndUp(index int, name string) *Message {
	return NewMessage(unix.RTM_NEWLINK, 0, ifInfo(index, unix.IFF_UP, unix.IFF_UP), linkObject(name)).Str(unix.IFLA_IFNAME, name)
}

// SetUp asks for a link to be up.
func SetUp(index int) *Message {
	return NewMessage(unix.RTM_NEWLINK, 0, ifInfo(index, unix.IFF_UP, unix.IFF_UP), fmt.Sprintf("link %d", index))
}

// SetDown asks for a link to be down.
func SetDown(index int) *Message {
	return NewMessage(unix.RTM_NEWLINK, 0, ifInfo(index, 0, unix.IFF_UP), fmt.Sprintf("link %d", index))
}

// SetDownNamed asks for a link to be down.
func SetDownNamed(name string) *Message {
	return NewMessage(unix.RTM_NEWLINK, 0, ifInfo(0, 0, unix.IFF_UP), linkObject(name)).Str(unix.IFLA_IFNAME, name)
}

// SetUpNamed is SetUp for a link whose index is not known.
func SetUpNamed(name string) *Message {
	return NewMessage(unix.RTM_NEWLINK, 0, ifInfo(0, unix.IFF_UP, unix.IFF_UP), linkObject(name)).Str(unix.IFLA_IFNAME, name)
}

// Down leaves the link down that a message asks for.
func (m *Message) Down() *Message {
	const flags = headerLen + 8 // in struct ifinfomsg; the mask follows
	clear(m.b[flags : flags+8])
	return m
}

// SetMAC asks for another hardware address of a link.
func SetMAC(index int, mac net.HardwareAddr) *Message {
	return NewMessage(unix.RTM_NEWLINK, 0, ifInfo(index, 0, 0), fmt.Sprintf("hardware address %s", mac)).Attr(unix.IFLA_ADDRESS, mac)
}

// SetGroup puts a link into a group of links.
func SetGroup(name string, group uint32) *Message {
	return NewMessage(unix.RTM_NEWLINK, 0, ifInfo(0, 0, 0), linkObject(name)).Str(unix.IFLA_IFNAME, name).U32(unix.IFLA_GROUP, group)
}

// DeleteGroup asks for all links of a group to be deleted. The kernel waits once for all of them.
func DeleteGroup(group uint32) *Message {
	return NewMessage(unix.RTM_DELLINK, 0, ifInfo(0, 0, 0), fmt.Sprintf("links of group %d", group)).U32(unix.IFLA_GROUP, group)
}

// DeleteLink asks for a link's removal. The kernel takes 10 to 30 ms for it:
// never on a request's path.
func DeleteLink(name string) *Message {
	return NewMessage(unix.RTM_DELLINK, 0, ifInfo(0, 0, 0), linkObject(name)).Str(unix.IFLA_IFNAME, name)
}

// DeleteLinkIndex is DeleteLink for a link whose name others may have changed.
func DeleteLinkIndex(index int) *Message {
	return NewMessage(unix.RTM_DELLINK, 0, ifInfo(index, 0, 0), fmt.Sprintf("link %d", index))
}

// NewAddr asks for an address on a link. It fails with EEXIST if it is there.
func NewAddr(index int, p netip.Prefix) *Message {
	h := make([]byte, unix.SizeofIfAddrmsg)
	h[0] = family(p.Addr())
	h[1] = byte(p.Bits())
	binary.NativeEndian.PutUint32(h[4:], uint32(index))
	m := NewMessage(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, h, fmt.Sprintf("address %s", p))
	ip := p.Addr().AsSlice()
	m.Attr(unix.IFA_LOCAL, ip).Attr(unix.IFA_ADDRESS, ip)
	if p.Addr().Is4() && p.Bits() < 31 {
		m.Attr(unix.IFA_BROADCAST, broadcast(p))
	}
	return m
}

// DeleteAddr asks for an address's removal.
func DeleteAddr(index int, p netip.Prefix) *Message {
	h := make([]byte, unix.SizeofIfAddrmsg)
	h[0] = family(p.Addr())
	h[1] = byte(p.Bits())
	binary.NativeEndian.PutUint32(h[4:], uint32(index))
	return NewMessage(unix.RTM_DELADDR, 0, h, fmt.Sprintf("address %s", p)).Attr(unix.IFA_LOCAL, p.Addr().AsSlice())
}

// NewRoute asks for a route in the main table, in place of one to the same destination.
// A gateway that is not valid makes the destination directly reachable on the link.
func NewRoute(index int, dst netip.Prefix, gateway netip.Addr) *Message {
	h := make([]byte, unix.SizeofRtMsg)
	h[0] = family(dst.Addr())
	h[1] = byte(dst.Bits())
	h[4] = unix.RT_TABLE_MAIN
	h[5] = unix.RTPROT_BOOT
	h[6] = unix.RT_SCOPE_UNIVERSE
	if !gateway.IsValid() && dst.Addr().Is4() {
		h[6] = unix.RT_SCOPE_LINK
	}
	h[7] = unix.RTN_UNICAST
	m := NewMessage(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, h, fmt.Sprintf("route to %s", dst))
	m.U32(unix.RTA_OIF, uint32(index))
	if dst.Bits() > 0 {
		m.Attr(unix.RTA_DST, dst.Addr().AsSlice())
	}
	if gateway.IsValid() {
		m.Attr(unix.RTA_GATEWAY, gateway.AsSlice())
	}
	return m
}

func family(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func broadcast(p netip.Prefix) []byte {
	ip := binary.BigEndian.Uint32(p.Addr().AsSlice())
	return binary.BigEndian.AppendUint32(nil, ip|uint32(1<<(32-p.Bits())-1))
}

// LinkByName finds one link; the error of a missing one is ENODEV.
func (c *Conn) LinkByName(name string) (Link, error) {
	m := NewMessage(unix.RTM_GETLINK, 0, ifInfo(0, 0, 0), linkObject(name)).Str(unix.IFLA_IFNAME, name)
	body, err := c.Query(m)
	if err != nil {
		return Link{}, err
	}
	return parseLink(body)
}

// LinkByIndex finds one link; the error of a missing one is ENODEV.
func (c *Conn) LinkByIndex(index int) (Link, error) {
	body, err := c.Query(NewMessage(unix.RTM_GETLINK, 0, ifInfo(index, 0, 0), fmt.Sprintf("link %d", index)))
	if err != nil {
		return Link{}, err
	}
	return parseLink(body)
}

// withoutCounters is RTEXT_FILTER_SKIP_STATS of linux/rtnetlink.h.
const withoutCounters = 1 << 3

// Links lists all links of the namespace.
func (c *Conn) Links() ([]Link, error) {
	// Without their counters, a quarter of what the kernel has to tell, so that the list takes fewer pieces.
	header := binary.NativeEndian.AppendUint16(ifInfo(0, 0, 0), attrLen+4)
	header = binary.NativeEndian.AppendUint16(header, unix.IFLA_EXT_MASK)
	header = binary.NativeEndian.AppendUint32(header, withoutCounters)
	return dump(c, unix.RTM_GETLINK, unix.RTM_NEWLINK, header, "list of links", parseLink)
}

// Addrs lists all IPv4 and IPv6 addresses of the namespace.
func (c *Conn) Addrs() ([]Addr, error) {
	return dump(c, unix.RTM_GETADDR, unix.RTM_NEWADDR, make([]byte, unix.SizeofIfAddrmsg), "list of addresses", parseAddr)
}

// AddrsOf lists the addresses of one link of the namespace, by its index.
func (c *Conn) AddrsOf(index int) ([]Addr, error) {
	h := make([]byte, unix.SizeofIfAddrmsg)
	binary.NativeEndian.PutUint32(h[4:], uint32(index))
	return dump(c, unix.RTM_GETADDR, unix.RTM_NEWADDR, h, "list of addresses", parseAddr)
}

// Routes lists the unicast routes of one family (unix.AF_INET, unix.AF_INET6) in
// all tables but the local one.
func (c *Conn) Routes(family int) ([]Route, error) {
	h := make([]byte, unix.SizeofRtMsg)
	h[0], h[7] = byte(family), unix.RTN_UNICAST
	all, err := dump(c, unix.RTM_GETROUTE, unix.RTM_NEWROUTE, h, "list of routes", parseRoute)
	if err != nil {
		return nil, err
	}
	routes := all[:0]
	for _, r := range all {
		if r.Dst.IsValid() {
			routes = append(routes, r)
		}
	}
	return routes, nil
}

// LinkTo is the index of the link by which the namespace sends what is for an address. It is an error that unwraps to
// the kernel's, such as ENETUNREACH, where there is no way.
func (c *Conn) LinkTo(a netip.Addr) (int, error) {
	h := make([]byte, unix.SizeofRtMsg)
	h[0], h[1] = family(a), byte(a.BitLen())
	body, err := c.Query(NewMessage(unix.RTM_GETROUTE, 0, h, fmt.Sprintf("route to %s", a)).Attr(unix.RTA_DST, a.AsSlice()))
	if err != nil {
		return 0, err
	}
	r, err := parseRoute(body)
	return r.Index, err
}

// RouteOf reads a notification of a route. ok is false for what Routes would not list.
func RouteOf(body []byte) (r Route, ok bool) {
	r, err := parseRoute(body)
	return r, err == nil && r.Dst.IsValid()
}

const (
	// dumpAtOnce is how often an interrupted list is repeated at once: most changes are single ones.
	dumpAtOnce = 5
	// dumpTries bounds how often it is repeated in all, with pauses that grow: where containers come and go without an end,
	// as on a machine with many engines or pods, each list may meet a change for a while. On an idle processor that is six
	// seconds; where the engine seldom gets one, each try takes long, and as many are wanted.
	dumpTries    = 300
	dumpPauseMax = 20 * time.Millisecond
)

// dump repeats a list that a change interrupted, so that what it returns is a state
// that the kernel was in.
func dump[T any](c *Conn, request, reply uint16, header []byte, object string, parse func([]byte) (T, error)) ([]T, error) {
	var all []T
	err := repeated(func() error {
		all = nil
		return c.Dump(NewMessage(request, 0, header, object), func(typ uint16, body []byte) error {
			if typ != reply {
				return nil
			}
			v, err := parse(body)
			if err != nil {
				return err
			}
			all = append(all, v)
			return nil
		})
	})
	return all, err
}

// repeated calls list until no change interrupts it, dumpTries times at most.
func repeated(list func() error) error {
	for try := 1; ; try++ {
		err := list()
		if !errors.Is(err, unix.EINTR) || try == dumpTries {
			return err
		}
		if try > dumpAtOnce {
			time.Sleep(min(time.Duration(try-dumpAtOnce)*time.Millisecond, dumpPauseMax))
		}
	}
}

func parseLink(b []byte) (Link, error) {
	if len(b) < unix.SizeofIfInfomsg {
		return Link{}, fmt.Errorf("netlink: link message of %d bytes", len(b))
	}
	l := Link{
		Index: int(binary.NativeEndian.Uint32(b[4:])),
		Up:    binary.NativeEndian.Uint32(b[8:])&unix.IFF_UP != 0,
	}
	attrs, err := ParseAttrs(b[unix.SizeofIfInfomsg:])
	if err != nil {
		return Link{}, err
	}
	for _, a := range attrs {
		switch a.Type {
		case unix.IFLA_IFNAME:
			l.Name = a.Str()
		case unix.IFLA_MASTER:
			l.Master = int(a.U32())
		case unix.IFLA_MTU:
			l.MTU = int(a.U32())
		case unix.IFLA_OPERSTATE:
			const operUp = 6 // IF_OPER_UP
			l.Ready = len(a.Value) > 0 && a.Value[0] == operUp
		case unix.IFLA_ADDRESS:
			l.MAC = append(net.HardwareAddr(nil), a.Value...)
		case unix.IFLA_LINKINFO:
			info, err := ParseAttrs(a.Value)
			if err != nil {
				return Link{}, err
			}
			for _, i := range info {
				if i.Type == unix.IFLA_INFO_KIND {
					l.Kind = i.Str()
				}
			}
		}
	}
	return l, nil
}

func parseAddr(b []byte) (Addr, error) {
	if len(b) < unix.SizeofIfAddrmsg {
		return Addr{}, fmt.Errorf("netlink: address message of %d bytes", len(b))
	}
	state := b[2] & (unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED)
	a := Addr{Index: int(binary.NativeEndian.Uint32(b[4:])), Tentative: state == unix.IFA_F_TENTATIVE}
	bits := int(b[1])
	attrs, err := ParseAttrs(b[unix.SizeofIfAddrmsg:])
	if err != nil {
		return Addr{}, err
	}
	for _, at := range attrs {
		// On point-to-point links IFA_ADDRESS is the other side's address.
		if at.Type == unix.IFA_LOCAL || at.Type == unix.IFA_ADDRESS && !a.Prefix.IsValid() {
			if ip, ok := netip.AddrFromSlice(at.Value); ok {
				a.Prefix = netip.PrefixFrom(ip, bits)
			}
		}
	}
	return a, nil
}

func parseRoute(b []byte) (Route, error) {
	if len(b) < unix.SizeofRtMsg {
		return Route{}, fmt.Errorf("netlink: route message of %d bytes", len(b))
	}
	fam, bits, typ := b[0], int(b[1]), b[7]
	r := Route{Table: int(b[4])}
	dst := netip.IPv4Unspecified()
	if fam == unix.AF_INET6 {
		dst = netip.IPv6Unspecified()
	}
	attrs, err := ParseAttrs(b[unix.SizeofRtMsg:])
	if err != nil {
		return Route{}, err
	}
	for _, a := range attrs {
		switch a.Type {
		case unix.RTA_DST:
			if ip, ok := netip.AddrFromSlice(a.Value); ok {
				dst = ip
			}
		case unix.RTA_GATEWAY:
			r.Gateway, _ = netip.AddrFromSlice(a.Value)
		case unix.RTA_OIF:
			r.Index = int(a.U32())
		case unix.RTA_TABLE:
			r.Table = int(a.U32())
		}
	}
	if typ == unix.RTN_UNICAST && r.Table != unix.RT_TABLE_LOCAL {
		r.Dst = netip.PrefixFrom(dst, bits)
	}
	return r, nil
}
