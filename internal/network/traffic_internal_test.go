package network

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/netlink"
)

// A link from which something came is told from one that is mute, and from one of which nothing is known. The links are
// in a network namespace of the test's own, which is the engine's there.
func TestTraffic(t *testing.T) {
	in := ownUplink(t).namespace(t)
	if err := in.do(func() error { return testTraffic(t, in.conn, in.ns) }); err != nil {
		t.Fatal(err)
	}
}

func testTraffic(t *testing.T, conn *netlink.Conn, own int) error {
	var c traffic
	c.open()
	defer c.shut()
	for _, name := range []string{"quiet", "loud"} {
		if err := conn.Do(netlink.NewVeth(netlink.Veth{Name: name, Peer: name + "p", PeerNS: own}), netlink.SetUpNamed(name+"p")); err != nil {
			return err
		}
	}
	if c.mute("absent") || c.mute("") {
		t.Error("nothing came from a link that there is not")
	}
	for _, l := range []string{"quiet", "loud"} {
		if !c.mute(l) {
			t.Errorf("something came from %s", l)
		}
	}
	sock, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(sock)
	send := func(name string) error {
		l, err := conn.LinkByName(name)
		if err != nil {
			return err
		}
		to := &unix.SockaddrLinklayer{Ifindex: l.Index, Protocol: 0x0008, Halen: 6, Addr: [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}
		return unix.Sendto(sock, make([]byte, 64), 0, to)
	}
	if err := errors.Join(send("loudp"), send("quiet")); err != nil {
		return err
	}
	if c.mute("loud") {
		t.Error("what came was missed")
	}
	if !c.mute("quiet") {
		t.Error("what was sent there came from quiet")
	}
	if err := conn.Do(netlink.DeleteLink("quiet")); err != nil {
		return err
	}
	if c.mute("quiet") {
		t.Error("nothing came from a link that is gone")
	}
	return nil
}
