package nft

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/netlink"
)

// Watcher tells of changes to the host's ruleset that others make.
type Watcher struct {
	mon   *netlink.Monitor
	table string
}

// Event is one foreign transaction, or several that were lost.
type Event struct {
	// Ours: something of our table was removed.
	Ours bool
	// Foreign: chains or rules of other tables changed.
	Foreign bool
}

// NewWatcher subscribes to the ruleset of the calling thread's network namespace.
func NewWatcher(table string) (*Watcher, error) {
	mon, err := netlink.NewMonitor(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
	if err != nil {
		return nil, err
	}
	return &Watcher{mon: mon, table: table}, nil
}

// Close ends a waiting Next.
func (w *Watcher) Close() error { return w.mon.Close() }

// Next waits for notifications and says what they were about; it returns
// os.ErrClosed after Close. Removed elements do not count, for that is what the
// engine's own transactions do all the time. Assert removes rules, too: who acts on
// an event asks Intact first.
func (w *Watcher) Next() (Event, error) {
	var ev Event
	err := w.mon.Next(func(typ uint16, body []byte) {
		if typ>>8 == unix.NFNL_SUBSYS_NFTABLES {
			w.note(typ&0xff, body, &ev)
		}
	})
	if errors.Is(err, netlink.ErrOverrun) {
		return Event{Ours: true, Foreign: true}, nil
	}
	if errors.Is(err, os.ErrClosed) {
		return ev, os.ErrClosed
	}
	return ev, err
}

func (w *Watcher) note(kind uint16, body []byte, ev *Event) {
	const genmsg = 4
	if len(body) < genmsg {
		return
	}
	attrs, err := netlink.ParseAttrs(body[genmsg:])
	if err != nil {
		return
	}
	// The table's name is attribute 1 of all these messages.
	ours := false
	for _, a := range attrs {
		if a.Type == unix.NFTA_TABLE_NAME {
			ours = body[0] == familyInet && a.Str() == w.table
		}
	}
	switch kind {
	case unix.NFT_MSG_DELTABLE, unix.NFT_MSG_DELCHAIN, unix.NFT_MSG_DELRULE, unix.NFT_MSG_DELSET:
		ev.Ours = ev.Ours || ours
		ev.Foreign = ev.Foreign || !ours
	case unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_NEWRULE:
		ev.Foreign = ev.Foreign || !ours
	}
}
