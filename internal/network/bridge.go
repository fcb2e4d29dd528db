package network

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/netlink"
	"github.com/cleatlabs/cleat/internal/nft"
)

// Whether the host has bridged packets pass its firewalls; there are no such files where it
// cannot.
const (
	bridgedToFirewall  = "/proc/sys/net/bridge/bridge-nf-call-iptables"
	bridgedToFirewall6 = "/proc/sys/net/bridge/bridge-nf-call-ip6tables"
)

// bridge is the driver of bridge networks: the link on the host, and the way that a
// container's network namespace is connected to it.
type bridge struct {
	host    *uplink
	rec     *Record
	opts    bridgeOptions
	made    bool // by us: down removes it
	index   atomic.Int64
	settled atomic.Bool // its IPv6 address answers
	filters atomic.Bool // the firewall sees what stays within it
	upkeep  upkeep
}

func newBridge(host *uplink, rec *Record) (*bridge, error) {
	opts, err := parseBridgeOptions(rec)
	if err != nil {
		return nil, err
	}
	opts.direct = host.direct
	return &bridge{host: host, rec: rec, opts: opts, made: rec.LinkMade}, nil
}

func (b *bridge) name() string { return b.rec.Link }

// up makes the link if it is missing and gives it what is missing of its addresses.
func (b *bridge) up() error {
	link, err := b.host.conn.LinkByName(b.name())
	switch {
	case errors.Is(err, unix.ENODEV):
		if link, err = b.create(); err != nil {
			return err
		}
	case err != nil:
		return fmt.Errorf("bridge: %w", err)
	case link.Kind != "bridge":
		return failure.Invalid("link %q exists and is not a bridge (%s): choose another name with option %s", b.name(), kindOf(link), optBridgeName)
	}
	return b.complete(link)
}

// complete gives the link what is missing of its state and its addresses.
func (b *bridge) complete(link netlink.Link) error {
	b.index.Store(int64(link.Index))
	b.settled.Store(false)
	if err := b.steady(link); err != nil {
		return err
	}
	if err := b.sysctls(); err != nil {
		return err
	}
	if err := b.filter(link.Index); err != nil {
		return err
	}
	if !link.Up {
		if err := b.host.conn.Do(netlink.SetUp(link.Index)); err != nil {
			return fmt.Errorf("bridge %q: %w", b.name(), err)
		}
	}
	for _, a := range b.own(link.MAC) {
		if err := b.host.conn.Do(netlink.NewAddr(link.Index, a)); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("bridge %q: %w", b.name(), err)
		}
	}
	return nil
}

// gateways are the bridge's own addresses.
func (b *bridge) gateways() []netip.Prefix {
	var all []netip.Prefix
	for _, s := range b.rec.Subnets {
		six := s.Prefix.Addr().Is6()
		bare := !six && (b.opts.inhibit || b.opts.mode == modeIsolated) || six && b.opts.mode6 == modeIsolated
		if s.Gateway.IsValid() && !bare {
			all = append(all, netip.PrefixFrom(s.Gateway, s.Prefix.Bits()))
		}
	}
	return all
}

// own are all addresses of the bridge: of one that we made, and that has IPv6, also the link-local one that the kernel
// gives it by its hardware address, but not once more when somebody has taken it away. Without it the host finds no
// neighbour for whom it forwards.
func (b *bridge) own(mac net.HardwareAddr) []netip.Prefix {
	all := b.gateways()
	if b.made && b.rec.EnableIPv6 && b.opts.mode6 != modeIsolated && len(mac) == 6 {
		eui := [16]byte{0xfe, 0x80, 8: mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]}
		all = append(all, netip.PrefixFrom(netip.AddrFrom16(eui), 64))
	}
	return all
}

func kindOf(l netlink.Link) string {
	if l.Kind == "" {
		return "a device"
	}
	return "a " + l.Kind
}

// create gives the bridge a fixed hardware address: otherwise it takes that of its
// lowest port, and neighbours lose it whenever containers come and go.
func (b *bridge) create() (netlink.Link, error) {
	// Down, so that it gets no IPv6 address before it is known whether it may have one.
	if err := b.host.conn.Do(netlink.NewBridge(b.name(), b.ownMAC(), b.opts.mtu).Down()); err != nil {
		return netlink.Link{}, fmt.Errorf("make bridge: %w", err)
	}
	return b.host.conn.LinkByName(b.name())
}

// steady has the bridge change nothing by itself later on: of one of ours the ports, which
// are silenced for good (see silence), of another its hardware address.
func (b *bridge) steady(link netlink.Link) error {
	if !b.made {
		return b.pin(link)
	}
	err := b.host.conn.Do(netlink.SetForwardDelay(link.Index, 0))
	if err != nil && !errors.Is(err, unix.ERANGE) { // the administrator has turned STP on
		return fmt.Errorf("bridge %q: %w", b.name(), err)
	}
	return nil
}

// pin has a bridge that is not ours keep the hardware address that it has: one that
// was set stays as it is; one that only follows the ports (see create) would follow the
// containers' from now on, and containers that are there send to the former one for half
// a minute. A bridge whose ports have all gone has none (all zero) and gets one.
func (b *bridge) pin(link netlink.Link) error {
	mac := link.MAC
	if bytes.Count(mac, []byte{0}) == len(mac) {
		mac = b.ownMAC()
	}
	if err := b.host.conn.Do(netlink.SetMAC(link.Index, mac)); err != nil {
		return fmt.Errorf("bridge %q: keep its hardware address: %w", b.name(), err)
	}
	return nil
}

// ownMAC is the same whenever a bridge of this name is made on this host.
func (b *bridge) ownMAC() net.HardwareAddr {
	sum := sha256.Sum256([]byte(b.name() + "\x00" + hostIdentity()))
	return net.HardwareAddr{0x02, 0x42, sum[0], sum[1], sum[2], sum[3]}
}

// hostIdentity only has to differ between hosts that share a wire.
func hostIdentity() string {
	if id, err := os.ReadFile("/etc/machine-id"); err == nil {
		return string(id)
	}
	name, _ := os.Hostname()
	return name
}

// sysctls of the host: DNAT of 127.0.0.1 to the bridge, and IPv6 on it only if its
// network has that. The addresses are the engine's: nobody else has them, and routers
// among the containers are not listened to.
func (b *bridge) sysctls() error {
	four, six := "/proc/sys/net/ipv4/conf/"+b.name()+"/", "/proc/sys/net/ipv6/conf/"+b.name()+"/"
	set := []hostSysctl{{path: four + "route_localnet", value: "1"}}
	if !b.host.stays {
		set = append(set, hostSysctl{path: ipForward, value: "1"})
	}
	if !b.rec.EnableIPv6 {
		set = append(set, hostSysctl{six + "disable_ipv6", "1", true})
	} else {
		if !b.host.stays {
			set = append(set, hostSysctl{ipForward6, "1", false})
		}
		set = append(set, hostSysctl{six + "accept_ra", "0", false},
			hostSysctl{six + "accept_dad", "0", false}, hostSysctl{six + "disable_ipv6", "0", false})
	}
	for _, s := range set {
		if err := b.host.proc.set(s); err != nil {
			return fmt.Errorf("bridge %q: %w", b.name(), err)
		}
	}
	return nil
}

// down deletes the link, unless it was there before.
func (b *bridge) down() error {
	if !b.made {
		return nil
	}
	return b.host.deleteLink(b.name())
}

func (b *bridge) firewall() (nft.Network, bool) { return b.opts.firewall(b.rec), true }

func (b *bridge) forwarded() nft.Forwarded {
	return nft.Forwarded{Bridge: b.name(), IPv4: b.rec.EnableIPv4, IPv6: b.rec.EnableIPv6}
}

// settle is about the bridge's own IPv6 address, which the kernel takes into use when
// the first container is connected.
func (b *bridge) settle(e *Endpoint) error {
	if b.settled.Load() {
		return nil
	}
	defer b.settled.Store(true)
	return awaitAddress(b.host.conn, int(b.index.Load()), e.Gateway6)
}

// publishes says whether ports of the host can lead to containers of the network.
func (b *bridge) publishes() bool { return !b.rec.Internal }

func (b *bridge) outside() bool { return false }

func (b *bridge) finish(e *Endpoint) error {
	if len(e.MAC) == 0 {
		e.MAC = macOf(e)
	}
	return nil
}

// plug makes a veth, one end a port of the bridge, the other the container's interface.
func (b *bridge) plug(in *inside, e *Endpoint) (int, error) {
	e.Link = linkPrefix + newID()[:10]
	b.host.own(e.Link)
	index, err := b.join(in, e.Link, e.Interface)
	if err != nil {
		b.host.disown(e.Link)
	}
	return index, err
}

func (b *bridge) join(in *inside, link, peer string) (int, error) {
	v := netlink.Veth{Name: link, Master: int(b.index.Load()), Peer: peer, PeerNS: in.ns, MTU: b.opts.mtu}
	if err := b.host.veth(v, b.port(link)); err != nil {
		return 0, fmt.Errorf("connect to bridge %q: %w", b.name(), err)
	}
	got, err := in.conn.LinkByName(peer)
	if err != nil {
		return 0, fmt.Errorf("in the container's namespace: %w", err)
	}
	if err := in.conn.Do(netlink.SetUp(got.Index)); err != nil {
		return 0, fmt.Errorf("in the container's namespace: %w", err)
	}
	return got.Index, b.awaitCarrier(in, link, peer)
}

// port is how the bridge treats a container's port: packets may go back by the port
// that they came from, as those to a container's own published port must when the
// kernel filters bridged packets, and containers that must not reach each other are
// kept apart by the bridge itself where the firewall does not see what stays within it.
func (b *bridge) port(link string) *netlink.Message {
	return netlink.SetPort(link, netlink.Port{Hairpin: true, Isolated: !b.opts.icc && !b.filters.Load()})
}

// filter is for a bridge whose containers must not reach each other but by published
// ports, on a host that filters bridged packets (as Kubernetes and Docker have it): there
// the kernel bridges what it has redirected to a neighbour, and a port of the bridge that
// is isolated would not let it through. So it is left to the firewall, for this bridge
// also when the host ceases to filter those of others.
func (b *bridge) filter(index int) error {
	b.filters.Store(false)
	if b.opts.icc {
		return nil
	}
	for _, path := range []string{bridgedToFirewall, bridgedToFirewall6} {
		value, err := b.host.proc.read(path)
		if errors.Is(err, os.ErrNotExist) || err == nil && value != "1" {
			return nil
		}
		if err != nil {
			return fmt.Errorf("bridge %q: %w", b.name(), err)
		}
	}
	if err := b.host.conn.Do(netlink.SetBridgeFilters(index)); err != nil {
		return fmt.Errorf("bridge %q: %w", b.name(), err)
	}
	b.filters.Store(true)
	return nil
}

// adopt makes the host's end of a loose veth a port of the bridge.
func (b *bridge) adopt(k *socket) error {
	msgs := []*netlink.Message{netlink.SetMaster(k.link, int(b.index.Load())), b.port(k.link)}
	if b.opts.mtu > 0 {
		msgs = append([]*netlink.Message{netlink.SetMTU(k.link, b.opts.mtu)}, msgs...)
		if err := k.in.conn.Do(netlink.SetMTU("eth0", b.opts.mtu)); err != nil {
			return fmt.Errorf("in the container's namespace: %w", err)
		}
	}
	if err := b.host.conn.Do(msgs...); err != nil {
		return fmt.Errorf("connect to bridge %q: %w", b.name(), err)
	}
	return b.awaitCarrier(nil, k.link, "")
}

// reattach makes ports of the bridge again what a bridge that was deleted has lost.
func (b *bridge) reattach(links []string) error {
	var errs []error
	for _, l := range links {
		err := b.host.conn.Do(netlink.SetMaster(l, int(b.index.Load())), b.port(l))
		if err != nil && !errors.Is(err, unix.ENODEV) {
			errs = append(errs, fmt.Errorf("connect to bridge %q: %w", b.name(), err))
		}
	}
	return errors.Join(errs...)
}

// unplug deletes the veth of a container that lives on. While it cannot be deleted, the container is kept off the
// network nevertheless.
func (b *bridge) unplug(_ int, e *Endpoint) error {
	if e.Link == "" {
		return nil
	}
	b.host.disown(e.Link)
	err := b.host.unused.now([]string{e.Link})
	if err != nil {
		err = errors.Join(err, b.mute(e.Link))
	}
	return err
}
