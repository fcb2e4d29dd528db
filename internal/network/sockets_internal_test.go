package network

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/netlink"
)

// A spare that is being made while the spares are given up, because their bridge has been deleted, is given up, too.
func TestSpareThatIsMadeTooLate(t *testing.T) {
	home, err := netlink.CurrentNS()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(home)
	host := &uplink{ns: home, links: map[string]bool{}}
	defer host.proc.shut()
	p := &sockets{host: host, ready: make(chan *socket, spareSockets)}
	p.prepare = func() (*socket, error) { return host.socket(func(*socket) error { return nil }) }
	if err := p.add(); err != nil || len(p.ready) != 1 {
		t.Fatalf("%d are ready, %v", len(p.ready), err)
	}
	p.prepare = func() (*socket, error) {
		return host.socket(func(*socket) error { p.drain(); return nil })
	}
	if err := p.add(); err != nil || len(p.ready) != 0 || len(host.links) != 0 {
		t.Errorf("%d are ready, %d links are in use, %v", len(p.ready), len(host.links), err)
	}
}
