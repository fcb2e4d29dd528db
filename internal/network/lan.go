package network

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/netlink"
	"github.com/cleatlabs/cleat/internal/nft"
)

// Drivers whose containers stand in the network of a link of the host, beside the host.
const (
	driverMacvlan = "macvlan"
	driverIPvlan  = "ipvlan"
)

// Options of such networks.
const (
	optParent      = "parent"
	optMacvlanMode = "macvlan_mode"
	optIPvlanMode  = "ipvlan_mode"
	optIPvlanFlag  = "ipvlan_flag"
)

// lanOptions are the options of a macvlan or ipvlan network, read.
type lanOptions struct {
	parent string
	mode   string
	flag   string
	mtu    int
}

var macvlanModes = map[string]uint32{
	"bridge": netlink.MacvlanBridge, "private": netlink.MacvlanPrivate, "vepa": netlink.MacvlanVEPA, "passthru": netlink.MacvlanPassthru,
}

var ipvlanModes = map[string]uint16{"l2": netlink.IPvlanL2, "l3": netlink.IPvlanL3, "l3s": netlink.IPvlanL3S}

var ipvlanFlags = map[string]uint16{"bridge": 0, "private": netlink.IPvlanPrivate, "vepa": netlink.IPvlanVEPA}

// parseLanOptions reads a record's options.
func parseLanOptions(r *Record) (o lanOptions, err error) {
	o = lanOptions{mode: "bridge"}
	if r.Driver == driverIPvlan {
		o.mode, o.flag = "l2", "bridge"
	}
	for key, value := range r.Options {
		switch {
		case key == optParent:
			o.parent = value
		case key == optMTU:
			if o.mtu, err = strconv.Atoi(value); err != nil || o.mtu != 0 && (o.mtu < 68 || o.mtu > 65535) {
				return o, failure.Invalid("invalid value %q of option %s: want 68 to 65535", value, key)
			}
		case key == optIPv4 || key == optIPv6:
			_, err = boolOption(key, value) // acted on by create
		case key == optMacvlanMode && r.Driver == driverMacvlan:
			o.mode, err = oneOf(key, value, macvlanModes)
		case key == optIPvlanMode && r.Driver == driverIPvlan:
			o.mode, err = oneOf(key, value, ipvlanModes)
		case key == optIPvlanFlag && r.Driver == driverIPvlan:
			o.flag, err = oneOf(key, value, ipvlanFlags)
		default:
			return o, failure.Invalid("option %q is not supported by driver %s", key, r.Driver)
		}
		if err != nil {
			return o, err
		}
	}
	return o, o.checkParent(r.Driver)
}

func oneOf[T any](key, value string, known map[string]T) (string, error) {
	if _, ok := known[value]; ok {
		return value, nil
	}
	return "", failure.Invalid("unknown value %q of option %s: there are %s", value, key, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
}

// checkParent refuses what can never be the name of a parent.
func (o *lanOptions) checkParent(driver string) error {
	switch _, err := net.ParseMAC(o.parent); {
	case o.parent == "":
		return nil
	case o.parent == "lo":
		return failure.Invalid("loopback interface is not a valid %s parent link", driver)
	case err == nil:
		return failure.Invalid("option parent is the name of a link of the host, such as eth0, not a hardware address (%s): `ip -br link` shows which link has it", o.parent)
	case !validLinkName(o.parent):
		return failure.Invalid("invalid value %q of option parent: a link's name has 1 to 15 characters without blanks, '/', ':' or '%%'", o.parent)
	}
	return nil
}

// lan is the driver of macvlan and ipvlan networks: each container has a link of its
// own on the parent. Nothing of it passes the host's firewall, nor can the host itself
// reach the containers by the parent: that is how the kernel makes these links.
type lan struct {
	host *uplink
	rec  *Record
	opts lanOptions
}

func newLan(host *uplink, rec *Record) (*lan, error) {
	opts, err := parseLanOptions(rec)
	if err != nil {
		return nil, err
	}
	return &lan{host: host, rec: rec, opts: opts}, nil
}

// internal says whether the parent leads nowhere: then there is no way out, either.
func (l *lan) internal() bool { return l.opts.parent == "" || l.rec.Internal }

// up checks the parent, or makes it: the part of a link that carries a VLAN's tag, or
// one that leads nowhere if none was named.
func (l *lan) up() error {
	name := l.rec.Link
	link, err := l.host.conn.LinkByName(name)
	switch {
	case errors.Is(err, unix.ENODEV) && l.opts.parent == "":
		err = l.host.conn.Do(netlink.NewDummy(name))
		if errors.Is(err, unix.EOPNOTSUPP) {
			// A kernel without dummy links: a bridge without ports leads nowhere, too.
			err = l.host.conn.Do(netlink.NewBridge(name, nil, 0))
		}
		return l.explain(err)
	case errors.Is(err, unix.ENODEV):
		return l.makeVLAN(name)
	case err != nil:
		return l.explain(err)
	case !link.Up && l.rec.LinkMade:
		return l.raise(link.Index)
	}
	return nil
}

// raise has a made parent carry traffic: as soon as the link does that it is part of, which Linux sees to.
func (l *lan) raise(index int) error {
	err := l.host.conn.Do(netlink.SetUp(index))
	if errors.Is(err, unix.ENETDOWN) {
		return nil
	}
	return l.explain(err)
}

// makeVLAN makes a missing parent whose name is another link's with a VLAN's number.
func (l *lan) makeVLAN(name string) error {
	base, number, found := strings.Cut(name, ".")
	if !found {
		return failure.Invalid("network %s: the parent link %q does not exist: choose one of %s", l.rec.Name, name, l.host.candidates())
	}
	id, err := strconv.ParseUint(number, 10, 16)
	if err != nil || id < 1 || id > 4094 {
		return failure.Invalid("network %s: invalid subinterface vlan name %s, example formatting is eth0.10 with 1 to 4094 after the dot", l.rec.Name, name)
	}
	parent, err := l.host.conn.LinkByName(base)
	if errors.Is(err, unix.ENODEV) {
		return failure.Invalid("network %s: the parent link %q of %s does not exist: choose one of %s", l.rec.Name, base, name, l.host.candidates())
	}
	if err == nil {
		err = l.host.conn.Do(netlink.NewVLAN(netlink.Sublink{Name: name, Parent: parent.Index, NS: -1}, uint16(id)))
	}
	if err != nil {
		return l.explain(err)
	}
	link, err := l.host.conn.LinkByName(name)
	if err != nil {
		return l.explain(err)
	}
	return l.raise(link.Index)
}

// explain says what the kernel's refusals mean here.
func (l *lan) explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EOPNOTSUPP):
		return failure.NotImplemented("network %s: the kernel cannot make this kind of link (%w): driver %s needs its module, and a parent such as eth0.10 the module 8021q", l.rec.Name, err, l.rec.Driver)
	case errors.Is(err, unix.EBUSY):
		return failure.Conflict("network %s: the parent link %s is a bridge's port, has links of another kind or of mode passthru already: choose another parent (%w)", l.rec.Name, l.rec.Link, err)
	case errors.Is(err, unix.EINVAL):
		return failure.Invalid("network %s: the link %s cannot be a parent in this way: %w", l.rec.Name, l.rec.Link, err)
	}
	return fmt.Errorf("network %s, parent link %s: %w", l.rec.Name, l.rec.Link, err)
}

// candidates lists links that could be parents, for an error.
func (u *uplink) candidates() string {
	links, err := u.conn.Links()
	if err != nil {
		return "those that `ip -br link` shows"
	}
	var names []string
	for _, l := range links {
		if l.Name != "lo" && l.Master == 0 && l.Kind != "veth" {
			names = append(names, l.Name)
		}
	}
	return strings.Join(names, ", ")
}

// down deletes a parent that was made for the network. The service sees to it that no
// other network is on it.
func (l *lan) down() error {
	if !l.rec.LinkMade {
		return nil
	}
	return l.host.deleteLink(l.rec.Link)
}

func (l *lan) firewall() (nft.Network, bool) { return nft.Network{}, false }

// settle has nothing to wait for: the gateway is another machine's.
func (l *lan) settle(e *Endpoint) error { return nil }

func (l *lan) outside() bool { return true }

// finish gives an ipvlan endpoint its parent's hardware address, by not giving it any,
// and where it routes by itself a default route without a gateway.
func (l *lan) finish(e *Endpoint) error {
	if l.rec.Driver == driverIPvlan && len(e.MAC) > 0 {
		return failure.Invalid("ipvlan interfaces do not support custom mac address assignment: network %s has its parent's", l.rec.Name)
	}
	if l.rec.Driver == driverMacvlan && len(e.MAC) == 0 {
		e.MAC = macOf(e)
	}
	switch {
	case l.internal():
		e.Gateway, e.Gateway6 = noAddr, noAddr
	case l.rec.Driver == driverIPvlan && l.opts.mode != "l2":
		e.Gateway, e.Gateway6, e.Direct = noAddr, noAddr, true
	}
	return nil
}

// plug makes the link in the container's namespace. The parent is looked up each time:
// it may have been deleted and made again.
func (l *lan) plug(in *inside, e *Endpoint) (int, error) {
	parent, err := l.host.conn.LinkByName(l.rec.Link)
	if errors.Is(err, unix.ENODEV) {
		if err := l.up(); err != nil {
			return 0, err // it is explained
		}
		parent, err = l.host.conn.LinkByName(l.rec.Link)
	}
	if err != nil {
		return 0, l.explain(err)
	}
	sub := netlink.Sublink{Name: passingName(e), Parent: parent.Index, NS: in.ns, MTU: l.opts.mtu, MAC: net.HardwareAddr(e.MAC)}
	m := netlink.NewMacvlan(sub, macvlanModes[l.opts.mode])
	if l.rec.Driver == driverIPvlan {
		m = netlink.NewIPvlan(sub, ipvlanModes[l.opts.mode], ipvlanFlags[l.opts.flag])
	}
	if err := l.host.conn.Do(m); err != nil {
		return 0, l.explain(err)
	}
	got, err := in.conn.LinkByName(sub.Name)
	if err == nil {
		if err = in.conn.Do(netlink.SetNameAndUp(got.Index, e.Interface)); err != nil {
			_ = in.conn.Do(netlink.DeleteLink(sub.Name))
		}
	}
	if err != nil {
		return 0, fmt.Errorf("in the container's namespace: %w", err)
	}
	e.Index = got.Index
	return got.Index, nil
}

// passingName is what a link is called while it is made. Before Linux 6.14 the kernel looks for the name of a link that
// is to be made in another namespace among the links of this one, too, and the host's own may well be called eth0.
func passingName(e *Endpoint) string {
	const prefix = "ln-"
	return prefix + e.EndpointID[:nameSize-len(prefix)]
}

// nameSize is how long the name of a link can be.
const nameSize = unix.IFNAMSIZ - 1

// unplug deletes the link from inside: outside there is nothing of it. While it cannot be deleted, it is down.
func (l *lan) unplug(ns int, e *Endpoint) error {
	link, err := l.inner(ns, e)
	if link == nil || err != nil {
		return err
	}
	if err = l.host.inners.now([]*innerLink{link}); err != nil {
		// By the index in a namespace that is still the caller's: link's may be given up by now.
		in, e := l.host.enter(ns)
		if e == nil {
			defer in.close()
			e = in.conn.Do(netlink.SetDown(link.index))
		}
		err = errors.Join(err, e)
	}
	return err
}

// lanLink is the name of a macvlan or ipvlan network's parent. The caller holds s.mu.
func (s *Service) lanLink(rec *Record) error {
	opts, err := parseLanOptions(rec)
	if err != nil {
		return err
	}
	if opts.parent == "" {
		rec.Link, rec.LinkMade = "dm-"+rec.ID[:12], true
		return nil
	}
	rec.Link = opts.parent
	for _, other := range s.networks {
		if other.rec.Link != rec.Link {
			continue
		}
		o, ok := other.drv.(*lan)
		switch {
		case !ok:
		case other.rec.Driver != rec.Driver:
			return failure.Forbidden("network %s is already using parent interface %s with driver %s: a link can be the parent of one kind only", other.rec.Name, rec.Link, other.rec.Driver)
		case o.opts.mode == "passthru" || opts.mode == "passthru":
			return failure.Forbidden("network %s is already using parent interface %s: with mode passthru there can be one network only", other.rec.Name, rec.Link)
		case rec.Driver == driverIPvlan && (o.opts.mode != opts.mode || o.opts.flag != opts.flag):
			return failure.Forbidden("network %s is already using parent interface %s in mode %s: all ipvlan networks of a parent have the same mode and flag", other.rec.Name, rec.Link, o.opts.mode)
		}
		// Who made the parent made it for all.
		rec.LinkMade = rec.LinkMade || other.rec.LinkMade
	}
	if _, err := s.host.conn.LinkByName(rec.Link); errors.Is(err, unix.ENODEV) {
		rec.LinkMade = true
	}
	return nil
}

// shared says whether another network is on the link of n.
func (s *Service) shared(n *netw) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, other := range s.networks {
		if other != n && other.rec.Link != "" && other.rec.Link == n.rec.Link {
			return true
		}
	}
	return false
}
