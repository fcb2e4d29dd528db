package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/netlink"
)

// linkPrefix starts the names of the host's ends of our veths. Reconcile only
// touches links that carry it and are ports of our bridges.
const linkPrefix = "clt"

// uplink is the host's network namespace, and which links in it are in use.
type uplink struct {
	conn  *netlink.Conn
	ns    int
	stays bool // whether it forwards packets is not ours to say
	// direct lets others reach published ports by the containers' own addresses.
	direct bool
	proc   sysctls
	// traffic is of the host's ends of links.
	traffic traffic
	// making is held while a link is made. The kernel makes one at a time anyway, and
	// whoever writes a setting of another meanwhile must try again and again (see attempts).
	making sync.Mutex
	// unused deletes the host's ends of links that no container uses any more.
	unused *removals[string]
	// inners deletes those that can only be deleted from inside the namespace of a container that lives on.
	inners *removals[*innerLink]

	mu    sync.Mutex
	links map[string]bool // host's ends made by this process and still in use
}

func (u *uplink) own(link string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.links[link] = true
}

// disown says that a link is no longer used: if it does not vanish with its
// namespace, it is a stray.
func (u *uplink) disown(link string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.links, link)
}

func (u *uplink) owns(link string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.links[link]
}

// deleteLinks takes 10 to 30 ms each, and gives an error for each. One that is gone is no error.
func (u *uplink) deleteLinks(names []string) []error {
	errs := make([]error, len(names))
	for i, n := range names {
		if err := u.conn.Do(netlink.DeleteLink(n)); err != nil && !errors.Is(err, unix.ENODEV) {
			errs[i] = fmt.Errorf("link %s, which is of no use any more, is still there: %w", n, err)
		}
	}
	return errs
}

// deleteLink is that of one.
func (u *uplink) deleteLink(name string) error { return u.deleteLinks([]string{name})[0] }

// strays are veths of this or an earlier engine on these bridges that nobody uses.
func (u *uplink) strays(bridges map[int]bool) ([]string, error) {
	links, err := u.conn.Links()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, l := range links {
		if bridges[l.Master] && l.Kind == "veth" && strings.HasPrefix(l.Name, linkPrefix) && !u.owns(l.Name) {
			names = append(names, l.Name)
		}
	}
	return names, nil
}

// routes are the host's routes of one family, each with the name of its link, over other
// links than those with an index in but. Only the links that it names are asked for: a
// host with many containers has thousands.
func (u *uplink) routes(family int, but map[int]bool) (map[netip.Prefix]string, error) {
	all, err := u.conn.Routes(family)
	if err != nil {
		return nil, fmt.Errorf("routes of the host: %w", err)
	}
	names := map[int]string{0: "several links"}
	routes := map[netip.Prefix]string{}
	for _, r := range all {
		linkLocal := r.Dst.Addr().Is6() && (r.Dst.Addr().IsLinkLocalUnicast() || r.Dst.Addr().IsMulticast())
		if but[r.Index] || linkLocal || r.Dst.Bits() == 0 {
			continue
		}
		if _, known := names[r.Index]; !known {
			l, err := u.conn.LinkByIndex(r.Index)
			if err != nil {
				continue // it has just gone, with the route
			}
			names[r.Index] = l.Name
		}
		routes[r.Dst.Masked()] = names[r.Index]
	}
	return routes, nil
}

const (
	ipForward  = "/proc/sys/net/ipv4/ip_forward"
	ipForward6 = "/proc/sys/net/ipv6/conf/all/forwarding"
)

// forwards says whether the host routes IPv4 packets between its links.
func forwards(path string) bool {
	v, err := os.ReadFile(path)
	return err == nil && strings.TrimSpace(string(v)) == "1"
}

// hostSysctl is one setting of the host.
type hostSysctl struct {
	path, value string
	optional    bool // may be missing
}

// awaitAddress waits until an IPv6 address of a link is up. The kernel sees to that by
// a work item, even where it does not look for duplicates (accept_dad=0). On a busy machine
// that takes seconds now and then, which are waited for: what is sent before has an address
// of the link itself, or ::1, as its sender's, and a connection keeps that for good. With
// IFA_F_NODAD there would be nothing to tell by that the work is still to be done. On a link
// that has no carrier the kernel does not begin, and it has ended where it found that another
// one has the address. Of link-local ones only own is waited for, if it is one: the others are
// the kernel's.
func awaitAddress(conn *netlink.Conn, index int, own netip.Addr) error {
	const (
		patience          = 10 * time.Second
		withoutCarrier    = 500 * time.Millisecond
		shortest, longest = 100 * time.Microsecond, 10 * time.Millisecond
	)
	begun := time.Now()
	for pause := shortest; ; pause = min(2*pause, longest) {
		all, err := conn.AddrsOf(index)
		if err != nil {
			return err
		}
		waiting := slices.ContainsFunc(all, func(a netlink.Addr) bool {
			return a.Index == index && a.Tentative && (a.Prefix.Addr() == own || !a.Prefix.Addr().IsLinkLocalUnicast())
		})
		waited := time.Since(begun)
		if waiting && waited > withoutCarrier {
			link, err := conn.LinkByIndex(index)
			if err != nil {
				return err
			}
			waiting = link.Ready
		}
		// Too late is no error: it will be up soon.
		if !waiting || waited > patience {
			return nil
		}
		time.Sleep(pause)
	}
}

// awaitCarrier waits until packets pass. The kernel notices by a work item of its
// own that both ends are up; a packet before that is lost, and with it a second until
// ARP asks again. From Linux 6.8 on, asking for a link does that work at once; before,
// it is a matter of microseconds, or some milliseconds on a busy machine. The bridge
// comes last: it has a carrier when a port has. Without in, the container's end is
// known to be ready.
func (b *bridge) awaitCarrier(in *inside, link, peer string) error {
	const patience = 500 * time.Millisecond
	deadline := time.Now().Add(patience)
	type end struct {
		conn *netlink.Conn
		name string
	}
	ends := []end{{b.host.conn, link}, {b.host.conn, b.name()}}
	if in != nil {
		ends = append([]end{{in.conn, peer}}, ends...)
	}
	for _, l := range ends {
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
