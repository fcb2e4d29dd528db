package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/netlink"
)

// upkeep is how often a bridge was put right that somebody set down, or whose addresses somebody took: network managers
// do so to links that they do not know, once in a while. Who does it again at once means it, and is not fought with.
type upkeep struct {
	mu        sync.Mutex
	repairs   []time.Time // of the last while
	contested bool        // it is left as it is
}

// A bridge is put right so often in so much time.
const (
	mostRepairs = 3
	repairsLast = 10 * time.Second
)

// due says whether the bridge is to be put right once more, and notes it.
func (u *upkeep) due(now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.repairs = slices.DeleteFunc(u.repairs, func(at time.Time) bool { return now.Sub(at) >= repairsLast })
	u.contested = len(u.repairs) >= mostRepairs
	if !u.contested {
		u.repairs = append(u.repairs, now)
	}
	return !u.contested
}

func (u *upkeep) isContested() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.contested
}

// keepBridges puts bridges right of which something was lost, by the indexes of their links, once things are quiet:
// what takes a link's addresses does so one by one, and looks whether any is left.
func (s *Service) keepBridges(ctx context.Context, changes <-chan []int) {
	var due <-chan time.Time
	changed := map[int]bool{}
	for {
		select {
		case <-ctx.Done():
			return
		case indexes := <-changes:
			for _, i := range indexes {
				changed[i] = true
			}
			due = time.After(settle)
		case <-due:
			s.maintain(changed)
			clear(changed)
		}
	}
}

func (s *Service) maintain(changed map[int]bool) {
	for index := range changed {
		b := s.bridgeAt(index)
		if b == nil {
			continue
		}
		if err := b.maintain(); err != nil {
			s.warn(fmt.Sprintf("bridge %s of network %s was changed by another program and could not be put right: %v", b.name(), b.rec.Name, err))
		}
	}
}

// maintain puts the bridge right if it is down or has lost an address. One that has gone is not made again here.
func (b *bridge) maintain() error {
	link, whole, err := b.look()
	if err == nil && !whole && b.upkeep.due(time.Now()) {
		err = b.complete(link)
	}
	if errors.Is(err, unix.ENODEV) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// look says whether the bridge is up and has its addresses.
func (b *bridge) look() (link netlink.Link, whole bool, err error) {
	if link, err = b.host.conn.LinkByName(b.name()); err != nil {
		return link, false, fmt.Errorf("bridge %q: %w", b.name(), err)
	}
	addrs, err := b.host.conn.AddrsOf(link.Index)
	if err != nil {
		return link, false, fmt.Errorf("bridge %q: %w", b.name(), err)
	}
	whole = link.Up
	for _, own := range b.own(link.MAC) {
		whole = whole && slices.ContainsFunc(addrs, func(a netlink.Addr) bool { return a.Prefix == own })
	}
	return link, whole, nil
}

// contested are sentences about bridges that are left as somebody wants them, for as long as they are so.
func (s *Service) contested() []string {
	s.mu.Lock()
	var all []*bridge
	for _, n := range s.networks {
		if b, ok := n.drv.(*bridge); ok && !n.busy && b.upkeep.isContested() {
			all = append(all, b)
		}
	}
	s.mu.Unlock()
	var out []string
	for _, b := range all {
		if _, whole, err := b.look(); err == nil && !whole {
			out = append(out, fmt.Sprintf("bridge %s of network %s is down or without its addresses: another program has taken them again and again (is it to be managed by NetworkManager, systemd-networkd?); "+
				"when nobody does so any more, start the engine anew", b.name(), b.rec.Name))
		}
	}
	slices.Sort(out)
	return out
}
