package network_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	api "github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/internal/network"
	"github.com/cleatlabs/cleat/test/expect"
)

// Who takes an ended container's place has its address at once, and all who knew that reach
// it, even while the namespace of the old one still answers.
func TestNextContainerHasTheAddress(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	h.create(s, api.CreateRequest{Name: "n", EnableIPv6: yes(), IPAM: subnets("10.77.0.0/24", "fd00:77::/64")})
	friend := h.join(s, on("friend", "n"))
	publish := func(name, mac string) *box {
		req := on(name, "n")
		req.Ports = ports("80/tcp", "8080")
		if mac != "" {
			hw, err := net.ParseMAC(mac)
			must(t, err)
			req.Endpoints[0].MAC = api.HardwareAddr(hw)
		}
		b := h.join(s, req)
		h.listen6(b.ns, name, ":80")
		return b
	}
	reach := func(b *box) {
		t.Helper()
		h.meets("neighbour of "+b.Name, friend.ns, "tcp4", b.IP.String()+":80", b.Name+" sees "+friend.IP.String())
		h.meets("neighbour of "+b.Name+", IPv6", friend.ns, "tcp6", "["+b.IP6.String()+"]:80", b.Name+" sees "+friend.IP6.String())
		h.meets("outside of "+b.Name, h.outside, "tcp4", hostAddr+":8080", b.Name+" sees "+outsideAddr)
		h.meets("host of "+b.Name+", IPv6", h.home, "tcp6", "[::1]:8080", b.Name+" sees "+h.gateway6(s, "n"))
	}
	first := publish("first", "")
	reach(first)
	// Its namespace and its server are still there.
	must(t, s.Detach(context.Background(), first.Sandbox))
	defer first.close()
	for _, c := range []struct{ name, mac string }{{"second", ""}, {"third", "02:42:00:00:00:99"}, {"fourth", "02:42:00:00:00:98"}, {"fifth", ""}} {
		b := publish(c.name, c.mac)
		h.expect("address of "+c.name, b.IP.String()+" "+b.IP6.String(), first.IP.String()+" "+first.IP6.String())
		reach(b)
		must(t, s.Detach(context.Background(), b.Sandbox))
		defer b.close()
	}
	// A container with an IPv4 address of its own has the same IPv6 address, but not the same
	// hardware address.
	for _, own := range []string{"10.77.0.77", ""} {
		req := on("own", "n")
		if own != "" {
			req.Endpoints[0].IP = netip.MustParseAddr(own)
		}
		b := h.join(s, req)
		h.listen6(b.ns, "own", ":80")
		h.expect("IPv6 address", b.IP6.String(), first.IP6.String())
		h.meets("neighbour", friend.ns, "tcp6", "["+b.IP6.String()+"]:80", "own sees "+friend.IP6.String())
		must(t, s.Detach(context.Background(), b.Sandbox))
		defer b.close()
	}
}

// The namespace of a container that has ended stays unheard for as long as it lasts, on bridges that change the state of
// their ports after a while, too: by default half a minute after the container came.
func TestEndedContainerStaysUnheard(t *testing.T) {
	const delay, over = "80", 2 * 800 * time.Millisecond // it listens, and then learns, for so many hundredths of a second each
	for _, foreign := range []bool{false, true} {
		t.Run(fmt.Sprint("foreign=", foreign), func(t *testing.T) {
			h := newHost(t)
			cfg := h.config()
			if foreign {
				h.run(h.home, "ip", "link", "add", cfg.Bridge, "type", "bridge", "forward_delay", delay)
				t.Cleanup(func() { _ = exec.Command("ip", "link", "del", cfg.Bridge).Run() })
			} else {
				s := h.open(cfg)
				must(t, s.Close())
				// As engines made it before.
				h.run(h.home, "ip", "link", "set", cfg.Bridge, "type", "bridge", "forward_delay", delay)
			}
			s := h.open(cfg)
			friend, first := h.attach(s), h.attach(s)
			h.listen(first.ns, "first", ":80")
			h.meets("first", friend.ns, "tcp4", first.IP.String()+":80", "first sees "+friend.IP.String())
			must(t, s.Detach(context.Background(), first.Sandbox))
			second := h.attach(s)
			h.expect("address", second.IP.String(), first.IP.String())
			h.listen(second.ns, "second", ":80")
			for end := time.Now().Add(over + 300*time.Millisecond); time.Now().Before(end) && !t.Failed(); time.Sleep(50 * time.Millisecond) {
				h.run(friend.ns, "ip", "neigh", "flush", "all")
				h.meets("second", friend.ns, "tcp4", second.IP.String()+":80", "second sees "+friend.IP.String())
			}
		})
	}
}

// gateway6 is a network's own IPv6 address.
func (h *host) gateway6(s *network.Service, name string) string {
	h.t.Helper()
	in, err := s.Inspect(context.Background(), name)
	must(h.t, err)
	for _, c := range in.IPAM.Config {
		if c.Gateway.Is6() {
			return c.Gateway.String()
		}
	}
	return ""
}

// Addresses whose namespace is gone are free without anybody asking for them.
func TestAddressesComeBack(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	h.create(s, api.CreateRequest{Name: "n"})
	var boxes []*box
	for range 5 {
		boxes = append(boxes, h.join(s, on("c", "n", "bridge")))
	}
	for i, b := range boxes {
		if i%2 == 0 {
			b.close() // the links are gone before or after the engine learns of the end
		}
		must(t, s.Detach(context.Background(), b.Sandbox))
	}
	used := func() uint64 {
		in, err := s.Inspect(context.Background(), "n")
		must(t, err)
		var n uint64
		for _, st := range in.Status.IPAM.Subnets {
			n += st.IPsInUse
		}
		return n
	}
	const fixed = 3 // the network's, the broadcast address and the gateway
	if n := used(); n != fixed {
		t.Errorf("%d addresses in use", n)
	}
	expect.Eventually(t, "three of five are gone", func() bool { return s.Leaving() == 2 })
	for _, b := range boxes {
		b.close()
	}
	expect.Eventually(t, "all are gone", func() bool { return s.Leaving() == 0 })
	if n := used(); n != fixed {
		t.Errorf("%d addresses in use", n)
	}
}

// What somebody sends late to a container that has ended, or has left the network, does not reach the next one.
func TestFlowsEndWithTheirContainer(t *testing.T) {
	direct := func(*network.Service) {}
	detach := func(h *host, s *network.Service, b *box) { h.detach(s, b) }
	disconnect := func(h *host, s *network.Service, b *box) {
		req := network.Request{ContainerID: b.ContainerID, Name: b.Name}
		_, err := s.Disconnect(context.Background(), req, b.NetworkID, b.ns, func(*network.Sandbox) error { return nil })
		must(t, err)
	}
	for _, c := range []struct {
		name string
		find func(*network.Service)
		end  func(*host, *network.Service, *box)
	}{
		{"ended", direct, detach}, {"disconnected", direct, disconnect},
		{"ended, kernel before 6.8", (*network.Service).FindFlowsByList, detach},
		{"disconnected, kernel before 6.8", (*network.Service).FindFlowsByList, disconnect},
	} {
		t.Run(c.name, func(t *testing.T) { flowsEnd(t, c.find, c.end) })
	}
}

func flowsEnd(t *testing.T, find func(*network.Service), end func(*host, *network.Service, *box)) {
	h := newHost(t)
	s := h.open(h.config())
	find(s)
	h.create(s, api.CreateRequest{Name: "n"})
	var far net.PacketConn
	h.in(h.outside, func() (err error) {
		far, err = net.ListenPacket("udp4", outsideAddr+":0")
		return err
	})
	defer far.Close()
	patience := time.Now().Add(time.Minute)
	must(t, far.SetDeadline(patience))
	speak := func(b *box) net.PacketConn {
		var c net.PacketConn
		h.in(b.ns, func() (err error) {
			c, err = net.ListenPacket("udp4", ":5000")
			return err
		})
		must(t, c.SetDeadline(patience))
		return c
	}
	first := h.join(s, on("first", "n"))
	c := speak(first)
	_, err := c.WriteTo([]byte("hello"), far.LocalAddr())
	must(t, err)
	buf := make([]byte, 100)
	_, way, err := far.ReadFrom(buf)
	must(t, err)
	_, err = far.WriteTo([]byte("welcome"), way)
	must(t, err)
	n, _, err := c.ReadFrom(buf)
	must(t, err)
	h.expect("answer", string(buf[:n]), "welcome")
	c.Close()
	end(h, s, first)

	second := h.join(s, on("second", "n"))
	h.expect("address", second.IP.String(), first.IP.String())
	c = speak(second)
	defer c.Close()
	_, err = far.WriteTo([]byte("late"), way)
	must(t, err)
	h.in(h.home, func() error {
		own, err := net.Dial("udp4", second.IP.String()+":5000")
		if err != nil {
			return err
		}
		defer own.Close()
		_, err = own.Write([]byte("own"))
		return err
	})
	n, _, err = c.ReadFrom(buf)
	must(t, err)
	h.expect("first datagram", string(buf[:n]), "own")
}

// A container that is made anew a hundred times is reached by its neighbour and from outside, over TCP and UDP, with
// the first packet each time: no attempt waits until somebody asks again for a hardware address, or until a flow of
// the one before has run out. Half of the time the one before lives on for a while, and half of the time it has left
// the network instead of ending.
func TestRecreatedHundredTimes(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	h.create(s, api.CreateRequest{Name: "n", EnableIPv6: yes(), IPAM: subnets("10.77.0.0/24", "fd00:77::/64")})
	friend := h.join(s, on("friend", "n"))
	// The same port of the client each time, as programs have that keep their socket: what the kernel knows of the flow
	// is of the container before.
	var steady net.Conn
	h.in(friend.ns, func() (err error) {
		steady, err = net.ListenUDP("udp4", &net.UDPAddr{Port: 7000})
		return err
	})
	defer steady.Close()
	var address, address6 string
	for i := range 100 {
		name := fmt.Sprint("web", i)
		req := on(name, "n")
		req.Ports = ports("80/tcp", "8080")
		req.Ports[api.MustParsePort("53/udp")] = []api.PortBinding{{HostPort: "5353"}}
		b := h.join(s, req)
		if address == "" {
			address, address6 = b.IP.String(), b.IP6.String()
		}
		h.expect("addresses", b.IP.String()+" "+b.IP6.String(), address+" "+address6)
		h.listen6(b.ns, name, ":80")
		h.listenUDP(b.ns, name, ":53")
		h.meets("neighbour", friend.ns, "tcp4", address+":80", name+" sees "+friend.IP.String())
		h.meets("neighbour, IPv6", friend.ns, "tcp6", "["+address6+"]:80", name+" sees "+friend.IP6.String())
		h.expect("neighbour, UDP", askFrom(steady, address+":53"), name+" sees "+friend.IP.String())
		h.meets("outside", h.outside, "tcp4", hostAddr+":8080", name+" sees "+outsideAddr)
		h.meets("outside, UDP", h.outside, "udp4", hostAddr+":5353", name+" sees "+outsideAddr)
		switch i % 4 {
		case 0:
			h.detach(s, b)
		case 1:
			b.close()
			must(t, s.Detach(context.Background(), b.Sandbox))
		case 2: // its namespace lives on
			must(t, s.Detach(context.Background(), b.Sandbox))
		case 3:
			_, err := s.Disconnect(context.Background(), req, b.NetworkID, b.ns, func(*network.Sandbox) error { return nil })
			must(t, err)
			must(t, s.Detach(context.Background(), b.Sandbox))
		}
		if t.Failed() {
			t.Fatalf("round %d", i)
		}
	}
}

// askFrom sends one datagram and returns the answer.
func askFrom(c net.Conn, to string) string {
	conn := c.(*net.UDPConn)
	addr := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to))
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := conn.WriteTo([]byte("hello"), addr); err != nil {
		return err.Error()
	}
	buf := make([]byte, 100)
	n, _, err := conn.ReadFrom(buf)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(buf[:n]))
}

// A container that shares another's namespace counts for that namespace, not for the one that the other has after a
// restart: with the other its address goes from who shares it then.
func TestGuestsOfAnEarlierNamespace(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	h.create(s, api.CreateRequest{Name: "n"})
	owner := on("owner", "n")
	guest := on("guest", "container:"+owner.ContainerID)
	enter := func() *network.Sandbox {
		t.Helper()
		sb, _, err := s.Attach(context.Background(), guest)
		must(t, err)
		return sb
	}
	before := h.join(s, owner)
	old := enter()
	must(t, s.Detach(context.Background(), before.Sandbox))
	now := h.join(s, owner)
	must(t, s.Detach(context.Background(), old))
	enter()
	must(t, s.Detach(context.Background(), now.Sandbox))
	for _, b := range []*box{before, now} {
		h.in(b.ns, func() error {
			links, err := net.Interfaces()
			if err == nil && (len(links) != 1 || links[0].Name != "lo") {
				t.Errorf("what shares the namespace of %s has its links still: %v", b.IP, links)
			}
			return err
		})
	}
}
