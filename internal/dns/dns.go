// Package dns answers the name lookups of containers: in the engine's own process,
// at sockets that the caller made inside each container's network namespace.
//
// # What it promises
//
//   - Names of containers are answered from memory, without a lock that anything
//     slow holds, and without an entry that outlives its container: the time to live
//     is one second.
//   - A name that exists has no NXDOMAIN: asked for a family that it has no address
//     in, or for another type, the answer is empty. What belongs to the engine alone
//     (names below docker.internal, localhost, addresses of the container's own
//     networks) never leaves the host, and from a container that may not reach the
//     outside nothing does.
//   - Everything else goes on to the container's name servers, byte for byte but for
//     the message's id. The first server is asked first, the next ones a moment later
//     or as soon as one before them failed; a slow or dead server delays nobody by
//     more than that moment, and an answer comes within Patience or is SERVFAIL.
//   - Questions that are the same are asked once at a time. So a resolver that sends a
//     question round in a circle waits for itself and ends, instead of multiplying it.
//   - Packets are hostile input. What one container can occupy is bounded: goroutines,
//     connections, memory; the rest is refused to that container.
//
// Docker's rules of names hold: a container has its name, its short id and its
// aliases on each network, each also with the network's name behind a dot; a name
// that several containers have is answered with all their addresses in turning order,
// from the first of the asker's networks that knows the name.
package dns

import (
	"context"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// TTL of the answers about containers, in seconds. Docker's is 600; but resolvers that
// cache (nginx's) would go on sending to an address that is gone or another's.
const TTL = 1

// Patience is how long a container waits for an answer from outside at most. The
// resolvers of glibc and musl give up after 5 seconds.
const Patience = 4 * time.Second

// Names that every container on a network can look up: the host, as Docker Desktop
// names it.
const (
	HostName    = "host.docker.internal"
	GatewayName = "gateway.docker.internal"
)

// Dialer opens a connection to a name server: network is "udp" or "tcp". It must
// return soon after ctx ends.
type Dialer func(ctx context.Context, network string, server netip.AddrPort) (net.Conn, error)

// View is what one container sees. It must not be changed after it was handed over.
type View struct {
	// Networks are the ids of its networks, the one asked first in front.
	Networks []string
	// Hosts are names that only this container has, in lower case without a dot at
	// the end: those of the host, legacy links, extra hosts.
	Hosts map[string][]netip.Addr
	// Aliases are names that only this container has for others on its networks, both
	// in lower case.
	Aliases map[string]string
	// Servers lists its name servers at the time of a question. A nil function, like
	// an empty list, means that nothing is forwarded.
	Servers func() []Upstream
}

// Upstream is a name server.
type Upstream struct {
	Addr netip.AddrPort
	// Dial reaches it. Where two upstreams with one address are different servers,
	// as 127.0.0.1 of two namespaces, Via must differ.
	Dial Dialer
	Via  string
}

// Dial is the Dialer of the calling process's own network namespace.
func Dial(ctx context.Context, network string, server netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { HearUnreachable(int(fd), server.Addr()) })
	}}
	return d.DialContext(ctx, network, server.String())
}

// HearUnreachable has a socket to an address fail when a router says that there is no
// way there. By itself a UDP socket hears only of closed ports, and a host that is not
// connected to anything would make every lookup wait to the end.
func HearUnreachable(fd int, to netip.Addr) {
	// A socket that cannot waits as it did: no reason to fail.
	if to.Is6() {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1)
		return
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVERR, 1)
}
