package network_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/internal/network"
)

// openSockets counts the sockets of this process.
func openSockets(t *testing.T) (n int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return n
}

func thousand(first int) []string {
	var specs []string
	for p := first; p < first+1000; p++ {
		specs = append(specs, fmt.Sprintf("%d:%d/tcp", p, p))
	}
	return specs
}

// What a published port costs is one socket, for 127.0.0.1, all other addresses and ::1
// together: sockets are what a range of ports takes its time for.
func TestPublishedPortIsOneSocket(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	h.attach(s, "8080:80/tcp") // what the first one needs once is there
	before := openSockets(t)
	b := h.attach(s, thousand(20000)...)
	// Spares for later containers come and go meanwhile, some sockets each.
	const spares = 40
	if n := openSockets(t) - before; n < 1000-spares || n > 1000+spares {
		t.Errorf("a thousand ports took %d sockets", n)
	}
	h.listen(b.ns, "b", ":20999")
	h.expect("by 127.0.0.1", h.dial(h.home, "tcp4", "127.0.0.1:20999"), "b sees 172.29.0.1")
	h.expect("by ::1", h.dial(h.home, "tcp6", "[::1]:20999"), "b sees 172.29.0.1")
	if l, err := net.Listen("tcp", "[::1]:20500"); err == nil {
		l.Close()
		t.Error("another process could listen on a published port of ::1")
	}
	h.detach(s, b)
	h.expect("by ::1, freed", h.dial(h.home, "tcp6", "[::1]:20999"), "no connection")
	l, err := net.Listen("tcp", "[::1]:20500")
	must(t, err)
	l.Close()
}

func TestForeignServersOfIPv6(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	h.run(h.home, "ip", "addr", "add", "2001:db8::2/64", "dev", "uplink", "nodad") // goes with the link
	for _, c := range []struct{ addr, refused string }{
		{"[2001:db8::2]:7001", ""}, // none of what the container publishes
		{"[::1]:7001", "[::1]:7001"},
		{"[::]:7001", "[::1]:7001"},
		{"0.0.0.0:7001", "0.0.0.0:7001"},
		{"127.0.0.1:7001", "0.0.0.0:7001"},
	} {
		proto := "tcp4"
		if strings.HasPrefix(c.addr, "[") {
			proto = "tcp6" // alone: Go's "tcp" takes IPv4 along
		}
		l, err := net.Listen(proto, c.addr)
		must(t, err)
		b, err := h.tryAttach(s, "7001:80/tcp")
		if c.refused != "" {
			wantError(t, err, errdefs.ErrConflict, "Bind for "+c.refused+" failed: port is already allocated")
		} else {
			must(t, err)
			h.listen(b.ns, "b", ":80")
			h.expect("beside "+c.addr, h.dial(h.home, "tcp6", "[::1]:7001"), "b sees 172.29.0.1")
			h.detach(s, b)
		}
		l.Close()
	}
}

// The engine's socket on ::1 is not in the way of whoever publishes its port, and serves
// nobody who comes to it otherwise.
func TestPortOfTheLocalSocketCanBePublished(t *testing.T) {
	const own = "4" // the first one that is free
	h := newHost(t)
	s := h.open(h.config())
	h.attach(s, "8080:80/tcp")
	nothing := func(what string) {
		t.Helper()
		// The connection is taken and reset: a client may see either.
		if got := h.dial(h.home, "tcp6", "[::1]:"+own); got != "no answer" && got != "no connection" {
			t.Errorf("%s: %s", what, got)
		}
	}
	nothing("the socket itself")
	a := h.attach(s, own+":80/tcp")
	h.listen(a.ns, "a", ":80")
	h.expect("its port, published", h.dial(h.home, "tcp6", "[::1]:"+own), "a sees 172.29.0.1")
	h.expect("its port, by IPv4", h.dial(h.home, "tcp4", "127.0.0.1:"+own), "a sees 172.29.0.1")
	h.detach(s, a)
	b := h.attach(s, "::1:"+own+":80/tcp")
	h.listen(b.ns, "b", ":80")
	h.expect("its port, published on ::1", h.dial(h.home, "tcp6", "[::1]:"+own), "b sees 172.29.0.1")
	h.detach(s, b)
	nothing("freed")
}

// The next engine may have to serve ::1 at another port, as somebody took the one before.
func TestAdoptedPortsOfLoopback6MoveToTheNewSocket(t *testing.T) {
	h := newHost(t)
	cfg := h.config()
	ranged := ports()
	for p := 6000; p < 6100; p++ {
		ranged[api.MustParsePort(fmt.Sprintf("%d/tcp", p))] = []api.PortBinding{{HostPort: fmt.Sprint(p)}}
	}
	boxes, kill := h.engine(job{Config: cfg, Attach: []network.Request{request(1, ports("80/tcp", "8080")), request(2, ranged), request(3, ports("80/tcp", "8083"))}})
	h.listen(boxes[0].ns, "a", ":80")
	h.listen(boxes[1].ns, "b", ":6050")
	kill()
	h.expect("while no engine runs", h.dial(h.home, "tcp6", "[::1]:8080"), "no connection")
	l, err := net.Listen("tcp6", "[::1]:4")
	must(t, err)
	defer l.Close()
	s := h.open(cfg)
	kept := []*network.Sandbox{boxes[0].Sandbox, boxes[1].Sandbox}
	for _, sb := range kept {
		must(t, s.Adopt(context.Background(), sb, os.Getpid()))
	}
	must(t, s.Reconcile(context.Background(), kept))
	h.expect("a port", h.dial(h.home, "tcp6", "[::1]:8080"), "a sees 172.29.0.1")
	h.expect("a port of a range", h.dial(h.home, "tcp6", "[::1]:6050"), "b sees 172.29.0.1")
	if text := ruleset(t); strings.Contains(text, " : 4") || strings.Contains(text, "tcp . 8083") {
		t.Errorf("elements of before are left:\n%s", text)
	}
}
