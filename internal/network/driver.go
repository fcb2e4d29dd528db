package network

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/netlink"
	"github.com/cleatlabs/cleat/internal/nft"
)

// driver connects network namespaces to one network. Its methods are safe for
// concurrent use.
type driver interface {
	// up makes what the network needs on the host, as far as it is missing.
	up() error
	// down removes what up made. What is gone already is no error.
	down() error
	// finish completes an endpoint that has its addresses, or says which of its wishes
	// the driver cannot do.
	finish(e *Endpoint) error
	// plug gives the namespace an interface for e, sets e.Link or e.Index and returns the
	// interface's index. The interface is up and has no address yet.
	plug(in *inside, e *Endpoint) (index int, err error)
	// unplug removes the interface of an endpoint whose namespace lives on: ns, which is
	// -1 if it is not at hand.
	unplug(ns int, e *Endpoint) error
	// silence has nothing heard any more of an endpoint whose container has ended, while
	// the kernel takes its namespace, which is as for unplug, down.
	silence(ns int, e *Endpoint) error
	// firewall is what the rules need to know; false if they need nothing.
	firewall() (nft.Network, bool)
	// settle waits until the driver's own end of the network answers an endpoint that has
	// its addresses.
	settle(e *Endpoint) error
	// outside says whether the containers stand in a network beside the host's own, of
	// which the host's routes by the link say nothing, and whose interfaces can only be
	// removed from inside.
	outside() bool
}

var noAddr netip.Addr

// inside is a container's network namespace, seen from the engine.
type inside struct {
	ns   int           // file descriptor
	conn *netlink.Conn // in the namespace
	home int
	proc *sysctls
	// names are sockets for lookups that were made ahead of time, or nil.
	names *nameSockets
}

// enter opens a connection to a namespace.
func (u *uplink) enter(ns int) (*inside, error) {
	in := &inside{ns: ns, home: u.ns, proc: &u.proc}
	err := netlink.InNS(u.ns, ns, func() (err error) {
		in.conn, err = netlink.Dial(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, err
	}
	return in, nil
}

func (in *inside) close() {
	in.conn.Close()
	if in.names != nil {
		in.names.close()
	}
}

// do runs f on a thread in the namespace.
func (in *inside) do(f func() error) error { return netlink.InNS(in.home, in.ns, f) }

// prepare sets what an endpoint's interface needs before it has addresses. Mostly that
// is nothing, and costs nothing.
func (in *inside) prepare(e *Endpoint, o endpointOptions) error {
	if !e.IP6.IsValid() && len(o.sysctls) == 0 && !slices.ContainsFunc(e.LinkLocal, netip.Addr.Is6) {
		return nil
	}
	return in.do(func() error { return interfaceSysctls(in.proc, e, o) })
}

// addressing asks for an endpoint's addresses on its interface.
func addressing(index int, e *Endpoint) []*netlink.Message {
	var msgs []*netlink.Message
	if len(e.MAC) > 0 {
		msgs = append(msgs, netlink.SetMAC(index, net.HardwareAddr(e.MAC)))
	}
	if e.IP.IsValid() {
		msgs = append(msgs, netlink.NewAddr(index, netip.PrefixFrom(e.IP, e.PrefixLen)))
	}
	if e.IP6.IsValid() {
		msgs = append(msgs, netlink.NewAddr(index, netip.PrefixFrom(e.IP6, e.PrefixLen6)))
	}
	for _, ll := range e.LinkLocal {
		bits := 16
		if ll.Is6() {
			bits = 64
		}
		msgs = append(msgs, netlink.NewAddr(index, netip.PrefixFrom(ll, bits)))
	}
	return msgs
}

// settle waits until an endpoint's addresses answer.
func (in *inside) settle(d driver, index int, e *Endpoint) error {
	if !e.IP6.IsValid() {
		return nil
	}
	if err := awaitAddress(in.conn, index, e.IP6); err != nil {
		return fmt.Errorf("in the container's namespace: %w", err)
	}
	return d.settle(e)
}

// interfaceSysctls are those of one interface, on a thread in the namespace. IPv6 is off
// in a namespace until an endpoint has it; duplicate addresses need not be looked for
// where the engine gives all of them out, and would hold a start up for a second.
func interfaceSysctls(proc *sysctls, e *Endpoint, o endpointOptions) error {
	var all []sysctl
	if e.IP6.IsValid() || slices.ContainsFunc(e.LinkLocal, netip.Addr.Is6) {
		all = append(all, sysctl{"/proc/sys/net/ipv6/conf/%s/accept_dad", "0"}, sysctl{"/proc/sys/net/ipv6/conf/%s/disable_ipv6", "0"})
	}
	for _, s := range append(all, o.sysctls...) {
		path := fmt.Sprintf(s.key, e.Interface)
		if err := proc.writeInTurn(path, s.value); err != nil {
			return fmt.Errorf("set %s to %s in the container's namespace: %w", strings.TrimPrefix(path, "/proc/sys/"), s.value, err)
		}
	}
	return nil
}
