package network

import (
	"maps"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/netlink"
)

// routes are what the host reaches by other links than the engine's. Those for a network
// whose subnets are chosen may be a moment old in what has gone; none that is new is
// missing. The caller holds s.pools.
func (s *Service) routes(r *Record, chosen bool) (map[netip.Prefix]string, error) {
	if r.ConfigOnly {
		return nil, nil
	}
	ours := s.bridgeIndexes()
	// A network beside the host's own has, as a rule, the very subnet of the parent.
	for _, name := range []string{r.Options[optBridgeName], r.Options[optParent]} {
		if name == "" {
			continue
		}
		chosen = false // what is remembered was asked for without it
		if l, err := s.host.conn.LinkByName(name); err == nil {
			ours[l.Index] = true
		}
	}
	all := map[netip.Prefix]string{}
	for i, f := range []struct {
		family  int
		enabled bool
	}{{unix.AF_INET, r.EnableIPv4}, {unix.AF_INET6, r.EnableIPv6}} {
		if !f.enabled {
			continue
		}
		var routes map[netip.Prefix]string
		var err error
		if chosen {
			routes, err = s.foreign[i].of(s.host, f.family, ours)
		} else {
			routes, err = s.host.routes(f.family, ours)
		}
		if err != nil {
			return nil, err
		}
		maps.Copy(all, routes)
	}
	return all, nil
}

// routesLast is how long routes are remembered that may have gone meanwhile: the kernel
// does not tell of all that go. A subnet is then not chosen though it might be.
const routesLast = time.Second

// foreignRoutes remembers the host's routes of one family by links that are not the
// engine's, for the next of many networks: the kernel lists all, and each network of ours
// has one. It is told of new ones, and asks again when there is one. The zero value is
// ready.
type foreignRoutes struct {
	news   *netlink.Monitor
	at     time.Time
	routes map[netip.Prefix]string
	made   map[int]bool // bridges of networks that were made since, and may be removed by now
}

// madeLink notes that routes by a network's link are no news. The caller holds s.pools.
func (s *Service) madeLink(n *netw) {
	b, ok := n.drv.(*bridge)
	if !ok {
		return
	}
	for i := range s.foreign {
		if f := &s.foreign[i]; f.made != nil {
			f.made[int(b.index.Load())] = true
		}
	}
}

func (f *foreignRoutes) of(host *uplink, family int, ours map[int]bool) (map[netip.Prefix]string, error) {
	if f.news == nil {
		f.subscribe(family)
	}
	if f.news != nil && f.unchanged(ours) && time.Since(f.at) < routesLast {
		return f.routes, nil
	}
	f.at = time.Time{}
	at := time.Now()
	routes, err := host.routes(family, ours)
	if err != nil {
		return nil, err
	}
	f.at, f.routes, f.made = at, routes, map[int]bool{}
	return routes, nil
}

// subscribe leaves news nil if that cannot be: then nothing is remembered.
func (f *foreignRoutes) subscribe(family int) {
	group := unix.RTNLGRP_IPV4_ROUTE
	if family == unix.AF_INET6 {
		group = unix.RTNLGRP_IPV6_ROUTE
	}
	news, err := netlink.NewMonitor(unix.NETLINK_ROUTE, group)
	if err != nil {
		return
	}
	if err := news.Only(unix.RTM_NEWROUTE); err != nil {
		news.Close()
		return
	}
	f.news, f.at = news, time.Time{}
}

// unchanged says whether no route by another link than ours has come since it was asked
// last.
func (f *foreignRoutes) unchanged(ours map[int]bool) bool {
	same := true
	err := f.news.Pending(func(_ uint16, body []byte) {
		if r, ok := netlink.RouteOf(body); ok && !ours[r.Index] && !f.made[r.Index] {
			same = false
		}
	})
	return same && err == nil
}

func (f *foreignRoutes) close() {
	if f.news != nil {
		f.news.Close()
	}
}
