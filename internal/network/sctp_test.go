package network_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/network"
)

// sctpSocket is one of IPv4 in a namespace; ok is false where the kernel has no SCTP.
func (h *host) sctpSocket(ns int) (fd int, ok bool) {
	h.t.Helper()
	var err error
	h.in(ns, func() error {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
		return nil
	})
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return -1, false
	}
	must(h.t, err)
	limit := unix.NsecToTimeval(int64(patience))
	must(h.t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit))
	h.t.Cleanup(func() { unix.Close(fd) })
	return fd, true
}

// Diameter and what mobile networks speak: a port of SCTP is published as the others are,
// where the kernel has the protocol, and refused where it has not.
func TestSCTP(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	server, ok := h.sctpSocket(h.home)
	if !ok {
		t.Log("this kernel has no SCTP: what is seen is how it is refused")
		_, err := h.tryAttach(s, "3868:3868/sctp")
		wantError(t, err, errdefs.ErrNotImplemented, "3868/sctp", "kernel has no SCTP")
		_, err = h.tryAttach(s, "0:8080/sctp") // at any port of the host
		wantError(t, err, errdefs.ErrNotImplemented, "8080/sctp", "kernel has no SCTP")
		return
	}
	a := h.attach(s, "3868:3868/sctp", "3868:80/tcp")
	_, err := h.tryAttach(s, "3868:3868/sctp")
	wantError(t, err, errdefs.ErrConflict, "Bind for 0.0.0.0:3868 failed: port is already allocated", a.Name)
	_, err = h.request(s, network.Request{ContainerID: "x", Ports: on6("80/sctp", "::1", "80")})
	wantError(t, err, errdefs.ErrNotImplemented, "80/sctp", "::1", "tcp and udp only")
	if got := a.Ports[api.MustParsePort("3868/sctp")]; len(got) != 1 || got[0].HostIP.String() != "0.0.0.0" {
		t.Errorf("shown: %v", got)
	}
	server, _ = h.sctpSocket(a.ns)
	must(t, unix.Bind(server, &unix.SockaddrInet4{Port: 3868}))
	must(t, unix.Listen(server, 8))
	for name, from := range map[string]int{"outside": h.outside, "the host": h.home} {
		client, _ := h.sctpSocket(from)
		to := netip.MustParseAddr(hostAddr)
		must(t, unix.Connect(client, &unix.SockaddrInet4{Port: 3868, Addr: to.As4()}))
		_, err := unix.Write(client, []byte("hello"))
		must(t, err)
		conn, peer, err := unix.Accept(server)
		must(t, err)
		defer unix.Close(conn)
		buf := make([]byte, 16)
		n, err := unix.Read(conn, buf)
		must(t, err)
		h.expect("from "+name, string(buf[:n]), "hello")
		if got := netip.AddrFrom4(peer.(*unix.SockaddrInet4).Addr).String(); name == "outside" && got != outsideAddr {
			t.Errorf("the container sees %s", got)
		}
	}
	if text := ruleset(t); !strings.Contains(text, "sctp . 3868 : "+a.IP.String()+" . 3868") && !strings.Contains(text, "132 . 3868 : "+a.IP.String()+" . 3868") {
		t.Errorf("no element:\n%s", text)
	}
	h.detach(s, a)
	h.attach(s, "3868:3868/sctp")
}
