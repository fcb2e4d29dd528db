package network

import (
	"errors"
	"fmt"
	"net/netip"
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
	if missing {
		// Written down first: a bridge that nobody remembers to have made would
		// never be removed.
		s.state.BridgeMade = true
		if err := s.saveState(); err != nil {
			return err
		}
	}
	forwarded := forwards(ipForward)
	s.bridge = s.defaultBridge(address, made)
	if err := s.bridge.up(); err != nil {
		if missing {
			_ = s.bridge.down()
		}
		return err
	}
	if missing {
		record.Failpoint("network.open.after-bridge")
	}
	if !forwarded {
		s.warn("IP forwarding was off and is on now, for containers to reach the network: this host routes between its other networks, too, unless a firewall forbids it")
	}
	s.state.BridgeMade, s.state.Address = made, address
	return s.saveState()
}

func (s *Service) saveState() error {
	if err := record.WriteJSON(s.cfg.StateFile, s.state, 0o600); err != nil {
		return fmt.Errorf("network state: %w", err)
	}
	return nil
}

// defaultBridge describes the default network.
func (s *Service) defaultBridge(address netip.Prefix, made bool) *bridge {
	bind, mtu := netip.IPv4Unspecified(), 1500
	if s.cfg.BindIP.IsValid() {
		bind = s.cfg.BindIP
	}
	if s.cfg.MTU > 0 {
		mtu = s.cfg.MTU
	}
	return &bridge{
		host: s.host, made: made,
		opts: bridgeOptions{icc: true, masquerade: true, mtu: s.cfg.MTU, mode: modeNAT, mode6: modeNAT, prefix: "eth", bind: s.cfg.BindIP},
		rec: &Record{
			ID: s.state.IDs[ModeBridge], Name: ModeBridge, Driver: driverBridge, Created: s.state.Created, EnableIPv4: true,
			Subnets: []Subnet{{Prefix: address.Masked(), Gateway: address.Addr(), Chosen: true}}, Link: s.cfg.Bridge,
			Options: map[string]string{
				optDefaultBridge: "true", optICC: "true", optMasquerade: "true",
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
	var have []netip.Prefix
	if link.Index != 0 {
		var err error
		if have, err = s.addressesOf(link); err != nil {
			return want, err
		}
	}
	for _, a := range have {
		if !want.IsValid() || a == want {
			return a, nil
		}
	}
	if len(have) > 0 && !made {
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
	for _, old := range have {
		if err := s.host.conn.Do(netlink.DeleteAddr(link.Index, old)); err != nil {
			return want, fmt.Errorf("bridge %q: %w", s.cfg.Bridge, err)
		}
	}
	return address, nil
}

func (s *Service) addressesOf(link netlink.Link) ([]netip.Prefix, error) {
	all, err := s.host.conn.Addrs()
	if err != nil {
		return nil, fmt.Errorf("bridge %q: %w", link.Name, err)
	}
	var own []netip.Prefix
	for _, a := range all {
		if a.Index == link.Index && a.Prefix.Addr().Is4() {
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
	if before := s.state.Address; before.IsValid() {
		if clash, _ := p.clash(before.Masked()); !clash.IsValid() {
			return before, nil
		}
	}
	chosen, err := p.choose(false, 0)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%w, for the default bridge with --bip ADDRESS/BITS", err)
	}
	return netip.PrefixFrom(chosen.Gateway, chosen.Prefix.Bits()), nil
}
