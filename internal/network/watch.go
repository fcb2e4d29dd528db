package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/cleatlabs/cleat/internal/nft"
)

// settle is how long the ruleset must have been quiet before it is looked at: a
// firewall that reloads does so in several transactions.
const settle = 50 * time.Millisecond

// watch integrates with a foreign firewall if that was asked for, and keeps our
// rules in place against flushes and reloads of the host's ruleset.
func (s *Service) watch() error {
	w, err := nft.NewWatcher(s.table.Name())
	if err != nil {
		return err
	}
	if s.cfg.FirewallIntegrate {
		if err := nft.Integrate(s.forwarded(), s.table.Name()); err != nil {
			w.Close()
			return fmt.Errorf("integrate with the host's firewall: %w", err)
		}
	}
	events := make(chan nft.Event)
	s.group.Go("network-ruleset-monitor", func(ctx context.Context) {
		stop := context.AfterFunc(ctx, func() { w.Close() })
		defer stop()
		for {
			ev, err := w.Next()
			if errors.Is(err, os.ErrClosed) {
				return
			}
			if err != nil {
				s.warn(fmt.Sprintf("changes of the host's firewall are no longer noticed: %v", err))
				return
			}
			select {
			case events <- ev:
			case <-ctx.Done():
				return
			}
		}
	})
	s.group.Go("network-firewalld", s.keepZone)
	s.group.Go("network-ruleset-keeper", func(ctx context.Context) { s.keepRules(ctx, events) })
	return nil
}

// keepRules puts back what a foreign change removed, once things are quiet.
func (s *Service) keepRules(ctx context.Context, events <-chan nft.Event) {
	var due <-chan time.Time
	var pending nft.Event
	for {
		select {
		case <-ctx.Done():
			return
		case ev := <-events:
			pending.Ours = pending.Ours || ev.Ours
			pending.Foreign = pending.Foreign || ev.Foreign
			if pending.Ours || pending.Foreign && s.cfg.FirewallIntegrate {
				due = time.After(settle)
			}
		case <-due:
			due = nil
			s.restore(pending)
			pending = nft.Event{}
		}
	}
}

func (s *Service) restore(ev nft.Event) {
	if ev.Ours {
		intact, err := s.table.Intact()
		if err == nil && !intact {
			err = s.table.Assert()
		}
		if err != nil {
			s.warn(fmt.Sprintf("the host's firewall was changed and our rules could not be put back: %v", err))
		}
	}
	if ev.Foreign && s.cfg.FirewallIntegrate {
		if err := nft.Integrate(s.forwarded(), s.table.Name()); err != nil {
			s.warn(fmt.Sprintf("the host's firewall was changed and could not be integrated with again: %v", err))
		}
	}
}

// Warnings are sentences for `info` about what keeps the network from working as
// asked, such as a foreign firewall.
func (s *Service) Warnings() []string {
	s.mu.Lock()
	out := append([]string(nil), s.warnings...)
	s.mu.Unlock()
	out = slices.Concat(out, s.removals.warnings(), s.host.unused.warnings(), s.host.inners.warnings(), s.zone.warnings(), s.contested(), s.absent())
	if !forwards(ipForward) {
		out = append(out, "IPv4 forwarding is disabled on this host: containers reach nothing beyond it, and nobody reaches their published ports from outside; allow it with: sysctl net.ipv4.ip_forward=1")
	}
	blockers, err := nft.Blockers(s.forwarded())
	if err != nil {
		return append(out, fmt.Sprintf("the host's firewall could not be read: %v", err))
	}
	for _, b := range blockers {
		out = append(out, fmt.Sprintf("chain %q of nftables table \"%s %s\" drops forwarded traffic, that of containers on %s included; allow it with: %s (or start the engine with --firewall-integrate)",
			b.Chain, b.Family, b.Table, naming("bridge", b.Bridges), b.Allow))
	}
	return out
}

// naming lists some of what there is, and says how many more there are.
func naming(what string, names []string) string {
	const most = 4
	if len(names) <= most {
		return what + " " + strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s %s and %d more", what, strings.Join(names[:most], ", "), len(names)-most)
}

// sweep removes elements and links that belong to no endpoint and none of keep.
func (s *Service) sweep(ctx context.Context, keep []*Sandbox) error {
	published := s.table.Published()
	// Read after the elements: an address is taken before its elements are added.
	live := map[netip.Addr]bool{}
	all := append(s.list(), keep...)
	ports := servedPorts(all)
	for _, sb := range all {
		for _, e := range sb.Endpoints {
			live[e.IP], live[e.IP6] = true, true
		}
	}
	stale := slices.DeleteFunc(published, func(p nft.Publish) bool {
		if p.Served {
			return servesAll(p, ports)
		}
		return live[p.To]
	})
	err := s.table.Apply(nft.Change{Del: stale})
	s.stale.forget(nil, stale)
	strays, e := s.host.strays(s.bridgeIndexes())
	if ctx.Err() != nil {
		return errors.Join(err, e, ctx.Err())
	}
	err = errors.Join(err, e, s.host.unused.now(strays))
	if len(strays) > 0 {
		err = errors.Join(err, s.repair())
	}
	return err
}
