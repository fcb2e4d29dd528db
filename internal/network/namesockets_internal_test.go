package network

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/netlink"
)

// A lookup that lasts longer than its container asks nobody any more: not from the namespace whose descriptor has got the
// number of that container's.
func TestLookupOutlastsItsContainer(t *testing.T) {
	home, err := netlink.CurrentNS()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(home)
	other, err := netlink.NewNS(home, func() error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(other)
	kept, err := keepNamespace(home, "ended")
	if err != nil {
		t.Fatal(err)
	}
	number := int(kept.Fd())
	s := &Service{host: &uplink{ns: home}}
	dial := s.dialInside(kept)
	server := netip.MustParseAddrPort("127.0.0.1:53") // a UDP socket is connected whether somebody is there or not
	conn, err := dial(t.Context(), "udp", server)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	kept.Close()
	if again, err := unix.FcntlInt(uintptr(other), unix.F_DUPFD_CLOEXEC, number); err != nil || again != number {
		t.Fatalf("descriptor %d, not %d: %v", again, number, err)
	} else {
		defer unix.Close(again)
	}
	if conn, err := dial(t.Context(), "udp", server); !errors.Is(err, context.Canceled) {
		t.Errorf("from the namespace of a container that has ended: %v, %v", conn, err)
	}
}

// BenchmarkOpenNameSockets is what a start on a user-defined network has more to do.
func BenchmarkOpenNameSockets(b *testing.B) {
	home, err := netlink.CurrentNS()
	if err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	for range b.N {
		ns, err := netlink.NewNS(home, func() error {
			c, err := netlink.Dial(unix.NETLINK_ROUTE)
			if err != nil {
				return err
			}
			defer c.Close()
			return c.Do(netlink.SetUp(1))
		})
		if err != nil {
			b.Fatal(err)
		}
		var n *nameSockets
		b.StartTimer()
		err = netlink.InNS(home, ns, func() (err error) { n, err = openNameSockets(false); return err })
		b.StopTimer()
		if err != nil {
			b.Fatal(err)
		}
		n.close()
		unix.Close(ns)
	}
}
