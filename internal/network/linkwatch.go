package network

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/netlink"
)

// watchLinks makes bridges again that somebody deletes while the engine runs, puts right those that somebody sets down
// or whose addresses he takes, and notes which links have gone with their containers.
func (s *Service) watchLinks() error {
	mon, err := netlink.NewMonitor(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR)
	if err != nil {
		return err
	}
	_ = mon.OnlyLosses() // without it the others are passed over below
	changes := make(chan []int)
	s.group.Go("network-bridge-keeper", func(ctx context.Context) { s.keepBridges(ctx, changes) })
	s.group.Go("network-link-monitor", func(ctx context.Context) {
		stop := context.AfterFunc(ctx, func() { mon.Close() })
		defer stop()
		for {
			missing := false
			var changed []int
			err := mon.Next(func(typ uint16, body []byte) {
				if typ == unix.RTM_DELLINK {
					missing = s.linkGone(body) || missing
				} else if index, ok := lossOf(typ, body); ok && s.bridgeAt(index) != nil {
					changed = append(changed, index)
				}
			})
			if errors.Is(err, os.ErrClosed) {
				return
			}
			if err != nil && !errors.Is(err, netlink.ErrOverrun) {
				s.warn(fmt.Sprintf("changes of bridges by others are no longer noticed: %v", err))
				return
			}
			if err != nil {
				s.leaving.missed()
				changed = slices.Collect(maps.Keys(s.bridgeIndexes()))
			}
			if len(changed) > 0 {
				select {
				case changes <- changed:
				case <-ctx.Done():
					return
				}
			}
			if missing || err != nil {
				s.remake(ctx)
			}
		}
	})
	return nil
}

// lossOf is the index of a link that is set down or loses an address.
func lossOf(typ uint16, body []byte) (index int, ok bool) {
	switch {
	case typ == unix.RTM_DELADDR && len(body) >= unix.SizeofIfAddrmsg:
		return int(binary.NativeEndian.Uint32(body[4:])), true
	case typ == unix.RTM_NEWLINK && len(body) >= unix.SizeofIfInfomsg:
		const up = unix.IFF_UP
		flags, change := binary.NativeEndian.Uint32(body[8:]), binary.NativeEndian.Uint32(body[12:])
		return int(binary.NativeEndian.Uint32(body[4:])), change&up != 0 && flags&up == 0
	}
	return 0, false
}

// linkGone takes note of a link that is deleted or leaves its bridge, and says whether it is a
// bridge of ours.
func (s *Service) linkGone(body []byte) bool {
	if len(body) < unix.SizeofIfInfomsg {
		return false
	}
	attrs, err := netlink.ParseAttrs(body[unix.SizeofIfInfomsg:])
	if err != nil {
		return false
	}
	name, port := "", false
	for _, a := range attrs {
		switch a.Type {
		case unix.IFLA_MASTER:
			port = true // which leaves its bridge
		case unix.IFLA_IFNAME:
			name = a.Str()
		}
	}
	s.leaving.gone(name)
	return name != "" && !port && s.bridgeNamed(name) != nil
}

// bridgeNamed is the bridge of a network in use that we made, nil if there is none.
func (s *Service) bridgeNamed(name string) *bridge {
	return s.madeBridge(func(b *bridge) bool { return b.name() == name })
}

// bridgeAt is that whose link has an index.
func (s *Service) bridgeAt(index int) *bridge {
	return s.madeBridge(func(b *bridge) bool { return b.index.Load() == int64(index) })
}

// madeBridge is one of those that is meant, nil if there is none.
func (s *Service) madeBridge(meant func(*bridge) bool) *bridge {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.networks {
		if b, ok := n.drv.(*bridge); ok && !n.busy && b.made && meant(b) {
			return b
		}
	}
	return nil
}

// remake makes the bridges that are missing, and connects those to them who were.
func (s *Service) remake(ctx context.Context) {
	for _, name := range s.bridges() {
		if ctx.Err() != nil {
			return
		}
		b := s.bridgeNamed(name)
		if b == nil {
			continue
		}
		if _, err := s.host.conn.LinkByName(name); !errors.Is(err, unix.ENODEV) {
			continue
		}
		// What was plugged in is not any more: nobody who comes from now on is to get it.
		s.ahead.drop(b)
		if b == s.bridge {
			s.spares.drain()
		}
		err := b.up()
		if err == nil {
			err = b.reattach(s.linksOn(b.rec.ID))
		}
		if err != nil {
			s.warn(fmt.Sprintf("bridge %s of network %s was deleted and could not be made again: %v", name, b.rec.Name, err))
			continue
		}
		if b == s.bridge {
			s.spares.refill()
		}
	}
}

// linksOn are the host's ends of a network's endpoints.
func (s *Service) linksOn(networkID string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.networks[networkID]
	if n == nil {
		return nil
	}
	var links []string
	for _, m := range n.members {
		if m.endpoint.Link != "" {
			links = append(links, m.endpoint.Link)
		}
	}
	return links
}
