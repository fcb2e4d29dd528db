package netlink_test

import (
	"net/netip"
	"os/exec"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/netlink"
)

// Of what happens to links, a monitor tells all, or only the kinds that it was asked for.
func TestMonitorOfSomeTypes(t *testing.T) {
	home, ns, conn := space(t)
	open := func(types ...uint16) *netlink.Monitor {
		return monitorIn(t, home, ns, func(m *netlink.Monitor) error {
			if len(types) == 0 {
				return nil
			}
			return m.Only(types...)
		}, unix.RTNLGRP_LINK)
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

// monitorIn is a monitor in a namespace that tells what filter leaves.
func monitorIn(t *testing.T, home, ns int, filter func(*netlink.Monitor) error, groups ...int) *netlink.Monitor {
	t.Helper()
	var m *netlink.Monitor
	err := netlink.InNS(home, ns, func() (err error) {
		if m, err = netlink.NewMonitor(unix.NETLINK_ROUTE, groups...); err == nil {
			err = filter(m)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// Of all that happens when a container's link is made, a monitor of losses tells nothing; it tells of what goes.
func TestMonitorOfLosses(t *testing.T) {
	home, ns, conn := space(t)
	m := monitorIn(t, home, ns, (*netlink.Monitor).OnlyLosses, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR)
	do := func(msgs ...*netlink.Message) {
		t.Helper()
		if err := conn.Do(msgs...); err != nil {
			t.Fatal(err)
		}
	}
	told := func(want ...uint16) {
		t.Helper()
		var got []uint16
		if err := m.Pending(func(typ uint16, _ []byte) { got = append(got, typ) }); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(slices.Compact(got), want) {
			t.Errorf("it tells %v, want %v", got, want)
		}
	}
	do(netlink.NewBridge("bridge", nil, 0).Down())
	bridge, err := conn.LinkByName("bridge")
	if err != nil {
		t.Fatal(err)
	}
	own := netip.MustParsePrefix("192.0.2.1/24")
	do(netlink.SetUp(bridge.Index), netlink.NewAddr(bridge.Index, own))
	do(netlink.NewVeth(netlink.Veth{Name: "link", Peer: "peer", PeerNS: ns, Master: bridge.Index}), netlink.SetMTU("link", 1400))
	told()
	do(netlink.SetDown(bridge.Index))
	told(unix.RTM_NEWLINK)
	do(netlink.SetUp(bridge.Index))
	told()
	if err := netlink.InNS(home, ns, func() error { return exec.Command("ip", "addr", "flush", "dev", "bridge").Run() }); err != nil {
		t.Fatal(err)
	}
	told(unix.RTM_DELADDR)
	do(netlink.DeleteLink("bridge"))
	told(unix.RTM_DELLINK, unix.RTM_NEWLINK, unix.RTM_DELLINK) // its port leaves, it is set down, it goes
}
