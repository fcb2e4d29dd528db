package network_test

import (
	"net/netip"
	"os"
	"os/exec"
	"testing"
)

func TestBridgeConnectsContainers(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	a, b := h.attach(s), h.attach(s)
	h.expect("first address", a.IP.String(), "172.29.0.2")
	h.expect("gateway", a.Gateway.String(), "172.29.0.1")
	h.expect("MAC", a.MAC.String(), "02:42:ac:1d:00:02")
	h.listen(a.ns, "a", ":80")
	h.listen(h.outside, "outside", ":80")
	h.meets("host to container", h.home, "tcp4", a.IP.String()+":80", "a sees 172.29.0.1")
	h.meets("container to container", b.ns, "tcp4", a.IP.String()+":80", "a sees "+b.IP.String())
	h.meets("container to outside", b.ns, "tcp4", outsideAddr+":80", "outside sees "+hostAddr)
}

// Bridged packets may pass the firewall or not, as another program on the host
// (Kubernetes, Docker) wants it: published ports must work both ways.
func TestPublishedPortFromEverywhere(t *testing.T) {
	const knob = "/proc/sys/net/bridge/bridge-nf-call-iptables"
	for _, filtered := range []string{"0", "1"} {
		t.Run("bridge-nf-call-iptables="+filtered, func(t *testing.T) {
			if err := os.WriteFile(knob, []byte(filtered), 0); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			publishedPortFromEverywhere(t)
		})
	}
}

func publishedPortFromEverywhere(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	a := h.attach(s, "8080:80/tcp", "5353:53/udp", "8000:8000/tcp", "8001:8001/tcp", "127.0.0.1:8088:80/tcp")
	b := h.attach(s)
	h.listen(a.ns, "a", ":80")
	h.listen(a.ns, "range", ":8001")
	h.listenUDP(a.ns, "a", ":53")
	for _, c := range []struct {
		from        string
		ns          int
		proto, addr string
		want        string
	}{
		{"outside", h.outside, "tcp4", hostAddr + ":8080", "a sees " + outsideAddr},
		{"outside, UDP", h.outside, "udp4", hostAddr + ":5353", "a sees " + outsideAddr},
		{"outside, range", h.outside, "tcp4", hostAddr + ":8001", "range sees " + outsideAddr},
		{"outside, port of 127.0.0.1", h.outside, "tcp4", hostAddr + ":8088", "no connection"},
		{"host by 127.0.0.1", h.home, "tcp4", "127.0.0.1:8080", "a sees 172.29.0.1"},
		{"host by 127.0.0.1, own port", h.home, "tcp4", "127.0.0.1:8088", "a sees 172.29.0.1"},
		{"host by 127.0.0.1, UDP", h.home, "udp4", "127.0.0.1:5353", "a sees 172.29.0.1"},
		{"host by 127.0.0.1, range", h.home, "tcp4", "127.0.0.1:8001", "range sees 172.29.0.1"},
		{"host by own address", h.home, "tcp4", hostAddr + ":8080", "a sees " + hostAddr},
		{"host by ::1", h.home, "tcp6", "[::1]:8080", "a sees 172.29.0.1"},
		{"host by ::1, UDP", h.home, "udp6", "[::1]:5353", "a sees 172.29.0.1"},
		{"host by ::1, port of 127.0.0.1", h.home, "tcp6", "[::1]:8088", "no connection"},
		{"the container itself", a.ns, "tcp4", hostAddr + ":8080", "a sees 172.29.0.1"},
		{"the container itself by the gateway", a.ns, "tcp4", "172.29.0.1:8080", "a sees 172.29.0.1"},
		{"another container", b.ns, "tcp4", hostAddr + ":8080", "a sees 172.29.0.1"},
	} {
		h.meets(c.from, c.ns, c.proto, c.addr, c.want)
	}
}

// A bridge that an administrator made takes the lowest hardware address of its ports until it has one of its own: it
// would change with the containers that come and go, and those that are there would not be answered for as long as they
// know the former one.
func TestForeignBridgeKeepsItsAddress(t *testing.T) {
	for _, c := range []struct {
		name  string
		setup func(h *host, bridge string)
	}{
		{"without a port", func(*host, string) {}},
		{"whose ports have gone", func(h *host, bridge string) {
			h.addPort(bridge, "clt-old", "02:00:00:00:00:02")
			h.run(h.home, "ip", "link", "del", "clt-old")
		}},
		{"with a port", func(h *host, bridge string) { h.addPort(bridge, "clt-old", "02:00:00:00:00:02") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t)
			cfg := h.config()
			cfg.BIP = netip.Prefix{}
			h.run(h.home, "ip", "link", "add", cfg.Bridge, "type", "bridge")
			t.Cleanup(func() { _ = exec.Command("ip", "link", "del", cfg.Bridge).Run() })
			h.run(h.home, "ip", "addr", "add", "198.51.100.1/24", "dev", cfg.Bridge)
			c.setup(h, cfg.Bridge)
			t.Cleanup(func() { _ = exec.Command("ip", "link", "del", "clt-old").Run() })
			s := h.open(cfg)
			a := h.attach(s, "8080:80/tcp")
			h.listen(a.ns, "a", ":80")
			h.listen(h.outside, "outside", ":80")
			reach := func(when string) {
				h.meets("outside, "+when, a.ns, "tcp4", outsideAddr+":80", "outside sees "+hostAddr)
				h.meets("published, "+when, h.outside, "tcp4", hostAddr+":8080", "a sees "+outsideAddr)
			}
			reach("at first")
			h.addPort(cfg.Bridge, "clt-low", "02:00:00:00:00:01")
			reach("when a port with a lower address has come")
			h.run(h.home, "ip", "link", "del", "clt-low")
			reach("when it has gone")
		})
	}
}

// addPort makes a port of a bridge as administrators do.
func (h *host) addPort(bridge, name, mac string) {
	h.t.Helper()
	h.run(h.home, "ip", "link", "add", name, "address", mac, "type", "veth", "peer", "name", name+"2")
	h.run(h.home, "ip", "link", "set", name, "master", bridge, "up")
}
