package network

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/netlink"
)

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
