package network

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/netlink"
	"github.com/cleatlabs/cleat/internal/record"
)

// linkPrefix starts the names of the host's ends of our veths. Reconcile only
// touches links that carry it and are ports of our bridge.
const linkPrefix = "clt"

// bridge is the driver of bridge networks: the link on the host, and the way that a
// container's network namespace is connected to it.
type bridge struct {
	name    string
	mtu     int
	conn    *netlink.Conn // in the host's namespace
	home    int           // the host's namespace
	index   int
	address netip.Prefix // the bridge's own, with the subnet's length
	made    bool         // by us: Teardown removes it

	mu    sync.Mutex
	links map[string]bool // host's ends made by this process and still in use
}

// setUp makes or adopts the link and sees to its address. want is the address asked
// for, remembered the one of an earlier run; both may be zero.
func (b *bridge) setUp(want, remembered netip.Prefix, madeBefore bool, announce func() error) error {
	link, err := b.conn.LinkByName(b.name)
	missing := errors.Is(err, unix.ENODEV)
	switch {
	case missing:
		// Written down first: a bridge that nobody remembers to have made would
		// never be removed.
		if err := announce(); err != nil {
			return err
		}
		if link, err = b.create(); err != nil {
			return err
		}
		b.made = true
		record.Failpoint("network.open.after-bridge")
	case err != nil:
		return fmt.Errorf("bridge: %w", err)
	case link.Kind != "bridge":
		return failure.Invalid("link %q exists and is not a bridge (%s): choose another name with --bridge", b.name, kindOf(link))
	default:
		b.made = madeBefore
	}
	b.index = link.Index
	if err := b.setAddress(want, remembered); err != nil {
		if missing {
			_ = b.remove()
		}
		return err
	}
	if !link.Up {
		if err := b.conn.Do(netlink.SetUp(b.index)); err != nil {
			return fmt.Errorf("bridge %q: %w", b.name, err)
		}
	}
	return b.sysctls()
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
	sum := sha256.Sum256([]byte(b.name + "\x00" + hostIdentity()))
	mac := net.HardwareAddr{0x02, 0x42, sum[0], sum[1], sum[2], sum[3]}
	if err := b.conn.Do(netlink.NewBridge(b.name, mac, b.mtu)); err != nil {
		return netlink.Link{}, fmt.Errorf("make bridge: %w", err)
	}
	return b.conn.LinkByName(b.name)
}

// hostIdentity only has to differ between hosts that share a wire.
func hostIdentity() string {
	if id, err := os.ReadFile("/etc/machine-id"); err == nil {
		return string(id)
	}
	name, _ := os.Hostname()
	return name
}

func (b *bridge) setAddress(want, remembered netip.Prefix) error {
	have, err := b.addresses()
	if err != nil {
		return err
	}
	for _, a := range have {
		if !want.IsValid() || a == want {
			b.address = a
			return nil
		}
	}
	if len(have) > 0 && !b.made {
		return failure.Invalid("bridge %q has address %s, not %s as --bip says: leave out --bip, or change the bridge's address", b.name, have[0], want)
	}
	routes, err := b.routes()
	if err != nil {
		return err
	}
	if b.address, err = pickAddress(want, remembered, routes); err != nil {
		return err
	}
	for _, old := range have {
		if err := b.conn.Do(netlink.DeleteAddr(b.index, old)); err != nil {
			return fmt.Errorf("bridge %q: %w", b.name, err)
		}
	}
	if err := b.conn.Do(netlink.NewAddr(b.index, b.address)); err != nil {
		return fmt.Errorf("bridge %q: %w", b.name, err)
	}
	return nil
}

func pickAddress(want, remembered netip.Prefix, routes map[netip.Prefix]string) (netip.Prefix, error) {
	if want.IsValid() {
		if route, link, clash := overlap(want.Masked(), routes); clash {
			return want, failure.Invalid("subnet %s of --bip overlaps the host's route %s dev %s: choose another one", want.Masked(), route, link)
		}
		return want, nil
	}
	if remembered.IsValid() {
		if _, _, clash := overlap(remembered.Masked(), routes); !clash {
			return remembered, nil
		}
	}
	return chooseSubnet(routes)
}

func (b *bridge) addresses() ([]netip.Prefix, error) {
	all, err := b.conn.Addrs()
	if err != nil {
		return nil, fmt.Errorf("bridge %q: %w", b.name, err)
	}
	var own []netip.Prefix
	for _, a := range all {
		if a.Index == b.index && a.Prefix.Addr().Is4() {
			own = append(own, a.Prefix)
		}
	}
	return own, nil
}

// routes are the host's IPv4 routes over other links.
func (b *bridge) routes() (map[netip.Prefix]string, error) {
	all, err := b.conn.Routes(unix.AF_INET)
	if err != nil {
		return nil, fmt.Errorf("bridge %q: %w", b.name, err)
	}
	links, err := b.conn.Links()
	if err != nil {
		return nil, fmt.Errorf("bridge %q: %w", b.name, err)
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Index] = l.Name
	}
	routes := map[netip.Prefix]string{}
	for _, r := range all {
		if r.Index != b.index {
			routes[r.Dst.Masked()] = names[r.Index]
		}
	}
	return routes, nil
}

const ipForward = "/proc/sys/net/ipv4/ip_forward"

// forwards says whether the host routes IPv4 packets between its links.
func forwards() bool {
	v, err := os.ReadFile(ipForward)
	return err == nil && strings.TrimSpace(string(v)) == "1"
}

// sysctls of the host: forwarding, DNAT of 127.0.0.1 to the bridge, and no IPv6 on
// a bridge whose network has none.
func (b *bridge) sysctls() error {
	for _, s := range []struct {
		path, value string
		optional    bool
	}{
		{ipForward, "1", false},
		{"/proc/sys/net/ipv4/conf/" + b.name + "/route_localnet", "1", false},
		{"/proc/sys/net/ipv6/conf/" + b.name + "/disable_ipv6", "1", true},
	} {
		err := setSysctl(s.path, s.value)
		if s.optional && errors.Is(err, os.ErrNotExist) {
			continue // the kernel has no IPv6
		}
		if err != nil {
			return fmt.Errorf("bridge %q: %w", b.name, err)
		}
	}
	return nil
}

// setSysctl writes only what differs: where /proc/sys is read-only but already
// right, as in a container, all is well.
func setSysctl(path, value string) error {
	have, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if strings.TrimSpace(string(have)) == value {
		return nil
	}
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		return fmt.Errorf("set %s to %s: %w", path, value, err)
	}
	return nil
}

// socket is a network namespace that is plugged into the bridge: eth0 and lo are up,
// the sysctls are set, only address and route are missing.
type socket struct {
	ns     int           // file descriptor
	inside *netlink.Conn // in the namespace
	link   string        // the host's end
	eth0   int           // index of the other
}

// discard gives the socket up; its links go with the namespace.
func (k *socket) discard() {
	k.inside.Close()
	unix.Close(k.ns)
}

// plug makes a socket. On failure nothing is left.
func (b *bridge) plug() (*socket, error) {
	k := &socket{link: linkPrefix + newID()[:10]}
	var err error
	k.ns, err = netlink.NewNS(b.home, func() (err error) {
		if err = namespaceSysctls(); err != nil {
			return err
		}
		k.inside, err = netlink.Dial(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, err
	}
	b.own(k.link)
	if err := b.join(k); err != nil {
		b.disown(k.link)
		k.discard()
		return nil, err
	}
	return k, nil
}

func (b *bridge) own(link string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.links[link] = true
}

// disown says that a link is no longer used: if it does not vanish with its
// namespace, it is a stray.
func (b *bridge) disown(link string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.links, link)
}

func (b *bridge) owns(link string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.links[link]
}

func (b *bridge) join(k *socket) error {
	v := netlink.Veth{Name: k.link, Master: b.index, Peer: "eth0", PeerNS: k.ns, MTU: b.mtu}
	if err := b.conn.Do(netlink.NewVeth(v), netlink.SetHairpin(k.link)); err != nil {
		return fmt.Errorf("connect to bridge %q: %w", b.name, err)
	}
	eth0, err := k.inside.LinkByName("eth0")
	if err != nil {
		return fmt.Errorf("in the container's namespace: %w", err)
	}
	k.eth0 = eth0.Index
	const lo = 1 // always
	if err := k.inside.Do(netlink.SetUp(lo), netlink.SetUp(k.eth0)); err != nil {
		return fmt.Errorf("in the container's namespace: %w", err)
	}
	return b.awaitCarrier(k.inside, k.link)
}

// configure gives the socket's eth0 its address and default route.
func (b *bridge) configure(k *socket, ip netip.Addr, mac net.HardwareAddr) error {
	err := k.inside.Do(
		netlink.SetMAC(k.eth0, mac),
		netlink.NewAddr(k.eth0, netip.PrefixFrom(ip, b.address.Bits())),
		netlink.NewRoute(k.eth0, netip.PrefixFrom(netip.IPv4Unspecified(), 0), b.address.Addr()),
	)
	if err != nil {
		return fmt.Errorf("in the container's namespace: %w", err)
	}
	return nil
}

// awaitCarrier waits until packets pass. The kernel notices by a work item of its
// own that both ends are up; a packet before that is lost, and with it a second until
// ARP asks again. From Linux 6.8 on, asking for a link does that work at once; before,
// it is a matter of microseconds, or some milliseconds on a busy machine. The bridge
// comes last: it has a carrier when a port has.
func (b *bridge) awaitCarrier(inside *netlink.Conn, link string) error {
	const patience = 500 * time.Millisecond
	deadline := time.Now().Add(patience)
	for _, l := range []struct {
		conn *netlink.Conn
		name string
	}{{inside, "eth0"}, {b.conn, link}, {b.conn, b.name}} {
		for {
			got, err := l.conn.LinkByName(l.name)
			if err != nil {
				return err
			}
			// Too late is no error: the packets will pass soon.
			if got.Ready || time.Now().After(deadline) {
				break
			}
			time.Sleep(100 * time.Microsecond)
		}
	}
	return nil
}

// namespaceSysctls are Docker's settings inside a container's namespace. IPv6 is off
// for links that come, and stays on for lo, which is there already.
func namespaceSysctls() error {
	for _, s := range []struct {
		path, value string
		optional    bool
	}{
		{"/proc/sys/net/ipv4/ip_unprivileged_port_start", "0", false},
		{"/proc/sys/net/ipv4/ping_group_range", "0 2147483647", false},
		{"/proc/sys/net/ipv6/conf/default/disable_ipv6", "1", true},
	} {
		err := os.WriteFile(s.path, []byte(s.value), 0)
		if s.optional && errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("set %s in the container's namespace: %w", s.path, err)
		}
	}
	return nil
}

// strays are veths of this or an earlier engine on the bridge that nobody uses.
func (b *bridge) strays() ([]string, error) {
	links, err := b.conn.Links()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, l := range links {
		if l.Master == b.index && l.Kind == "veth" && strings.HasPrefix(l.Name, linkPrefix) && !b.owns(l.Name) {
			names = append(names, l.Name)
		}
	}
	return names, nil
}

// deleteLinks takes 10 to 30 ms each. One that is gone is no error.
func (b *bridge) deleteLinks(names []string) error {
	var errs []error
	for _, n := range names {
		if err := b.conn.Do(netlink.DeleteLink(n)); err != nil && !errors.Is(err, unix.ENODEV) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// remove deletes the bridge. One that is gone is no error.
func (b *bridge) remove() error {
	return b.deleteLinks([]string{b.name})
}
