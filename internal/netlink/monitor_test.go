package netlink_test

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/netlink"
)

// Of what happens to links, a monitor tells all, or only the kinds that it was asked for.
func TestMonitorOfSomeTypes(t *testing.T) {
	home, ns, conn := space(t)
	open := func(types ...uint16) *netlink.Monitor {
		var m *netlink.Monitor
		err := netlink.InNS(home, ns, func() (err error) {
			if m, err = netlink.NewMonitor(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK); err == nil && len(types) > 0 {
				err = m.Only(types...)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.Close() })
		return m
	}
	all, deleted, both := open(), open(unix.RTM_DELLINK), open(unix.RTM_GETLINK, unix.RTM_DELLINK, unix.RTM_NEWLINK)
	if err := conn.Do(netlink.NewBridge("watched", nil, 0), netlink.DeleteLink("watched")); err != nil {
		t.Fatal(err)
	}
	// told collects what a monitor tells until it has told of the deletion.
	told := func(m *netlink.Monitor) (types []uint16) {
		for !slices.Contains(types, unix.RTM_DELLINK) {
			if err := m.Next(func(typ uint16, _ []byte) { types = append(types, typ) }); err != nil {
				t.Fatal(err)
			}
		}
		return types
	}
	if got := told(deleted); len(got) != 1 {
		t.Errorf("a monitor of deletions tells %v", got)
	}
	for _, m := range []*netlink.Monitor{all, both} {
		if got := told(m); !slices.Contains(got, unix.RTM_NEWLINK) {
			t.Errorf("a monitor of more tells %v", got)
		}
	}
}
