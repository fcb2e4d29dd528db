package network

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/netlink"
	"github.com/cleatlabs/cleat/internal/record"
)

// openBridge makes or adopts the default bridge.
func (s *Service) openBridge(taken map[netip.Prefix]string) error {
	link, err := s.host.conn.LinkByName(s.cfg.Bridge)
	missing := errors.Is(err, unix.ENODEV)
	made := missing || s.state.BridgeMade
	switch {
	case missing:
	case err != nil:
		return fmt.Errorf("bridge: %w", err)
	case link.Kind != "bridge":
		return failure.Invalid("link %q exists and is not a bridge (%s): choose another name with --bridge", s.cfg.Bridge, kindOf(link))
	}
	address, err := s.bridgeAddress(link, made, taken)
	if err != nil {
		return err
	}
	taken[address.Masked()] = ModeBridge
	address6, err := s.bridgeAddress6(link, made, taken)
	if err != nil {
		return err
	}
	subnets, err := s.defaultSubnets(address, address6)
	if err != nil {
		return err
	}
	if missing {
		// Written down first: a bridge that nobody remembers to have made would
		// never be removed.
		s.state.BridgeMade = true
		if err := s.saveState(); err != nil {
			return err
		}
	}
	forwarded := s.cfg.NoForwarding || forwards(ipForward)
	forwarded6 := s.cfg.NoForwarding || !s.cfg.Default.IPv6 || forwards(ipForward6)
	s.bridge = s.defaultBridge(subnets, made)
	if err := s.bridge.up(); err != nil {
		if missing {
			_ = s.bridge.down()
		}
		return err
	}
	if missing {
		record.Failpoint("network.open.after-bridge")
	}
	if !forwarded6 {
		s.warn(forwarding6Warning)
	}
	if !forwarded {
		s.warn("IP forwarding was off and is on now, for containers to reach the network: this host routes between its other networks, too, unless a firewall forbids it")
	}
	s.state.BridgeMade, s.state.Address = made, address
	if address6.IsValid() {
		s.state.Address6 = address6
	}
	return s.saveState()
}

const forwarding6Warning = "IPv6 forwarding was off and is on now, for containers to reach the network: this host routes between its other networks, too, " +
	"unless a firewall forbids it, and takes no router advertisements on links whose accept_ra is not 2"

// saveState writes the state if it is another than the last engine's: an engine must start on a full disk, too.
func (s *Service) saveState() error {
	now, err := json.Marshal(s.state)
	if err != nil {
		return fmt.Errorf("network state: %w", err)
	}
	if there, err := os.ReadFile(s.cfg.StateFile); err == nil && bytes.Equal(there, now) {
		return nil
	}
	if err := record.Write(s.cfg.StateFile, now, 0o600); err != nil {
		return fmt.Errorf("network state: %w", err)
	}
	return nil
}

// defaultSubnets are those of the bridge's addresses, with what the settings say of them.
func (s *Service) defaultSubnets(address, address6 netip.Prefix) ([]Subnet, error) {
	d := s.cfg.Default
	var all []Subnet
	for _, f := range []struct {
		address, within netip.Prefix
		gateway         netip.Addr
		flags           [2]string
		aux             string
	}{
		{address, d.FixedCIDR, d.Gateway, [2]string{"--fixed-cidr", "--default-gateway"}, auxGateway},
		{address6, d.FixedCIDR6, d.Gateway6, [2]string{"--fixed-cidr-v6", "--default-gateway-v6"}, auxGateway6},
	} {
		if !f.address.IsValid() {
			continue
		}
		n := Subnet{Prefix: f.address.Masked(), Gateway: f.address.Addr(), Chosen: true}
		if f.within.IsValid() && f.within.Masked() != n.Prefix {
			n.Range = f.within.Masked()
			if n.Range.Bits() < n.Prefix.Bits() || !n.Prefix.Contains(n.Range.Addr()) {
				return nil, failure.Invalid("%s %s is not within %s, the subnet of bridge %q", f.flags[0], f.within, n.Prefix, s.cfg.Bridge)
			}
		}
		if f.gateway.IsValid() && f.gateway != n.Gateway {
			if !n.Prefix.Contains(f.gateway) {
				return nil, failure.Invalid("%s %s is not within %s, the subnet of bridge %q", f.flags[1], f.gateway, n.Prefix, s.cfg.Bridge)
			}
			n.Aux = map[string]netip.Addr{f.aux: f.gateway}
		}
		if err := n.check(); err != nil {
			return nil, fmt.Errorf("bridge %q: %w", s.cfg.Bridge, err)
		}
		all = append(all, n)
	}
	return all, nil
}

// defaultBridge describes the default network.
func (s *Service) defaultBridge(subnets []Subnet, made bool) *bridge {
	bind, mtu, d := netip.IPv4Unspecified(), 1500, s.cfg.Default
	var own netip.Addr // of IPv4; one of IPv6 is for all networks that choose none (see wish)
	if s.cfg.BindIP.IsValid() {
		bind = s.cfg.BindIP.Unmap()
	}
	if s.cfg.BindIP.Unmap().Is4() {
		own = bind
	}
	if s.cfg.MTU > 0 {
		mtu = s.cfg.MTU
	}
	return &bridge{
		host: s.host, made: made,
		opts: bridgeOptions{
			icc: !d.NoICC, masquerade: !d.NoMasquerade, mtu: s.cfg.MTU, mode: modeNAT, mode6: modeNAT, prefix: "eth", bind: own, direct: s.cfg.DirectRouting,
		},
		rec: &Record{
			ID: s.state.IDs[ModeBridge], Name: ModeBridge, Driver: driverBridge, Created: s.state.Created, EnableIPv4: true, EnableIPv6: d.IPv6,
			Subnets: subnets, Link: s.cfg.Bridge,
			Options: map[string]string{
				optDefaultBridge: "true", optICC: strconv.FormatBool(!d.NoICC), optMasquerade: strconv.FormatBool(!d.NoMasquerade),
				optHostBinding: bind.String(), optBridgeName: s.cfg.Bridge, optMTU: strconv.Itoa(mtu),
			},
		},
	}
}

// bridgeAddress decides about the default bridge's address: the one that is asked for,
// the one that it has, the one of an earlier run, or one of the pools. Others that a
// bridge of ours has are taken away.
func (s *Service) bridgeAddress(link netlink.Link, made bool, taken map[netip.Prefix]string) (netip.Prefix, error) {
	want := s.cfg.BIP
	have, err := s.addressesOf(link, false)
	if err != nil {
		return want, err
	}
	within := s.cfg.Default.FixedCIDR
	for _, a := range have {
		switch {
		case want.IsValid():
			if a == want {
				return a, nil
			}
		case !within.IsValid() || a.Bits() <= within.Bits() && a.Masked().Contains(within.Addr()):
			return a, nil
		}
	}
	if len(have) > 0 && !made {
		if !want.IsValid() {
			return want, failure.Invalid("bridge %q has address %s, whose subnet does not hold --fixed-cidr %s: leave it out, or change the bridge's address", s.cfg.Bridge, have[0], within)
		}
		return want, failure.Invalid("bridge %q has address %s, not %s as --bip says: leave out --bip, or change the bridge's address", s.cfg.Bridge, have[0], want)
	}
	routes, err := s.host.routes(unix.AF_INET, map[int]bool{link.Index: link.Index != 0})
	if err != nil {
		return want, err
	}
	address, err := s.pickAddress(&planner{pools: s.cfg.AddressPools, taken: taken, routes: routes})
	if err != nil {
		return want, err
	}
	return address, s.dropAddresses(link, have, netip.Prefix{})
}

// bridgeAddress6 is the same for IPv6: zero if the default network has none.
func (s *Service) bridgeAddress6(link netlink.Link, made bool, taken map[netip.Prefix]string) (netip.Prefix, error) {
	d := s.cfg.Default
	if !d.IPv6 {
		return netip.Prefix{}, nil
	}
	have, err := s.addressesOf(link, true)
	if err != nil {
		return netip.Prefix{}, err
	}
	address := d.BIP6
	if within := d.FixedCIDR6; !address.IsValid() && within.IsValid() {
		address = netip.PrefixFrom(within.Masked().Addr().Next(), within.Bits())
	}
	if !address.IsValid() && len(have) > 0 && !made {
		address = have[0]
	}
	routes, err := s.host.routes(unix.AF_INET6, map[int]bool{link.Index: link.Index != 0})
	if err != nil {
		return address, err
	}
	p := &planner{pools: s.cfg.AddressPools, ula: s.state.ULA, taken: taken, routes: routes}
	if !address.IsValid() && s.state.Address6.IsValid() {
		if !p.clashes(s.state.Address6.Masked()) {
			address = s.state.Address6
		}
	}
	if !address.IsValid() {
		chosen, err := p.choose(true, 0)
		if err != nil {
			return address, fmt.Errorf("%w, for the default bridge with --fixed-cidr-v6", err)
		}
		address = netip.PrefixFrom(chosen.Gateway, chosen.Prefix.Bits())
	} else if route, dev, clash := overlap(address.Masked(), p.routes); clash {
		return address, failure.Invalid("subnet %s of the default bridge overlaps the host's route %s dev %s: choose another one with --fixed-cidr-v6", address.Masked(), route, dev)
	}
	if made {
		err = s.dropAddresses(link, have, address)
	}
	return address, err
}

// dropAddresses takes addresses of the bridge away, but for one.
func (s *Service) dropAddresses(link netlink.Link, have []netip.Prefix, but netip.Prefix) error {
	for _, old := range have {
		if old == but {
			continue
		}
		if err := s.host.conn.Do(netlink.DeleteAddr(link.Index, old)); err != nil {
			return fmt.Errorf("bridge %q: %w", s.cfg.Bridge, err)
		}
	}
	return nil
}

// addressesOf are the addresses of one family that a link has, other than link-local
// ones of IPv6. A link that is not there has none.
func (s *Service) addressesOf(link netlink.Link, six bool) ([]netip.Prefix, error) {
	if link.Index == 0 {
		return nil, nil
	}
	all, err := s.host.conn.AddrsOf(link.Index)
	if err != nil {
		return nil, fmt.Errorf("bridge %q: %w", link.Name, err)
	}
	var own []netip.Prefix
	for _, a := range all {
		ip := a.Prefix.Addr()
		if a.Index == link.Index && ip.Is6() == six && !(six && ip.IsLinkLocalUnicast()) {
			own = append(own, a.Prefix)
		}
	}
	return own, nil
}

func (s *Service) pickAddress(p *planner) (netip.Prefix, error) {
	if want := s.cfg.BIP; want.IsValid() {
		if route, link, clash := overlap(want.Masked(), p.routes); clash {
			return want, failure.Invalid("subnet %s of --bip overlaps the host's route %s dev %s: choose another one", want.Masked(), route, link)
		}
		return want, nil
	}
	if within := s.cfg.Default.FixedCIDR; within.IsValid() {
		if route, link, clash := overlap(within.Masked(), p.routes); clash {
			return within, failure.Invalid("subnet %s of --fixed-cidr overlaps the host's route %s dev %s: choose another one", within.Masked(), route, link)
		}
		return netip.PrefixFrom(within.Masked().Addr().Next(), within.Bits()), nil
	}
	if before := s.state.Address; before.IsValid() {
		if !p.clashes(before.Masked()) {
			return before, nil
		}
	}
	chosen, err := p.choose(false, 0)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%w, for the default bridge with --bip ADDRESS/BITS", err)
	}
	return netip.PrefixFrom(chosen.Gateway, chosen.Prefix.Bits()), nil
}
