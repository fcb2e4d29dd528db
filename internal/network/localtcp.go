package network

import (
	"cmp"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/nft"
)

// shortPause is how long nothing is taken once descriptors or memory were short.
const shortPause = 50 * time.Millisecond

// acceptBatch is how many connections are taken from a socket before others have their turn.
const acceptBatch = 64

// route sends TCP connections to a port of ::1 to target from now on. The firewall leads
// them to the one socket that serves all such ports, so the port itself costs no socket
// here; whoever publishes it holds it against others. errNoIPv6 says that the host has no
// ::1 to be served.
func (p *loopback) route(port uint16, target netip.AddrPort) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.listenTCP(); err != nil {
		return err
	}
	p.targets[port] = target
	return nil
}

// unroute ends that. Connections that are through go on until an end closes.
func (p *loopback) unroute(ports []uint16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, port := range ports {
		delete(p.targets, port)
	}
}

// listenTCP makes the socket when it is first wanted: a host may get its ::1 later. The
// caller holds p.mu.
func (p *loopback) listenTCP() error {
	if p.tcpPort != 0 {
		return nil
	}
	fd, port, err := listenUnassigned()
	if err != nil {
		return err
	}
	if err := p.watch(&loopbackSocket{fd: fd, proto: network.TCP}); err != nil {
		unix.Close(fd)
		return err
	}
	p.tcpPort = port
	return nil
}

// listenUnassigned takes one of the ports that IANA has assigned to nobody: so it is in
// the way of no service, nor of those ports that containers get by chance, only root can
// take it while no engine runs, and the next engine is likely to get the same.
func listenUnassigned() (fd int, port uint16, err error) {
	for _, port := range []uint16{4, 6, 8, 10, 12, 14, 16, 26, 28, 30, 32, 34, 36, 40, 60, 0} {
		if fd, port, err = listenLoopback(network.TCP, port, false); err == nil || !isTaken(err) {
			return fd, port, err
		}
	}
	return -1, 0, err
}

// servedAt says whether the port is that of the socket itself, which then holds it against
// others.
func (p *loopback) servedAt(port uint16) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return port != 0 && port == p.tcpPort
}

// elements lead the ports of ::1 that a reservation has to the socket that serves them,
// runs of ports by one element.
func (p *loopback) elements(r *reservation) []nft.Publish {
	p.mu.Lock()
	to := p.tcpPort
	p.mu.Unlock()
	one := netip.IPv6Loopback()
	var ps []nft.Publish
	for _, port := range slices.Sorted(slices.Values(r.local)) {
		if n := len(ps); n > 0 && ps[n-1].Last+1 == port {
			ps[n-1].Last = port
			continue
		}
		ps = append(ps, nft.Publish{HostIP: one, Proto: nft.TCP, First: port, Last: port, To: one, ToPort: to})
	}
	return ps
}

// acceptTCP takes connections and finds out which port their clients meant. It reports
// that descriptors or memory are short: what waits is told of again at once, though it
// cannot be taken for a while. The caller holds p.mu.
func (p *loopback) acceptTCP(s *loopbackSocket) (short bool) {
	for range acceptBatch {
		fd, _, err := unix.Accept4(s.fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		switch err {
		case nil:
			p.takeTCP(fd)
		case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM:
			return true
		default:
			return false // there are no more, or the client has gone
		}
	}
	return false
}

func (p *loopback) takeTCP(fd int) {
	target, published := p.targets[meantPort(fd)]
	if !published {
		// Somebody found the socket itself, or the port has just been freed.
		_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		unix.Close(fd)
		return
	}
	client, err := connOf(fd)
	if err != nil {
		return
	}
	if !p.relayed(client, target) {
		client.Close()
	}
}

// meantPort is the port that a redirected connection was made to, 0 if it was not
// redirected. The kernel answers with a sockaddr_in6, which is the first part of the type
// here.
func meantPort(fd int) uint16 {
	const originalDst = 80 // IP6T_SO_ORIGINAL_DST
	info, err := unix.GetsockoptIPv6MTUInfo(fd, unix.SOL_IPV6, originalDst)
	if err != nil {
		return 0
	}
	return info.Addr.Port<<8 | info.Addr.Port>>8
}

// bindEverywhere reserves a TCP port on all addresses of the host and serves it on ::1. A
// port is one socket, of both families: a range of a thousand is a thousand of them.
func (s *Service) bindEverywhere(r *reservation, w wish, port uint16, t targets) error {
	fds, got, err := bindBoth(w, port, s.proxy.servedAt(port))
	if err != nil {
		return err
	}
	num := got[0].num
	err = s.proxy.route(num, netip.AddrPortFrom(t.proxyIP(), w.port.Num()))
	switch {
	case err == nil:
		r.local = append(r.local, num)
	case !errors.Is(err, errNoIPv6):
		closeAll(fds)
		return err
	}
	r.fds, r.ports = append(r.fds, fds...), append(r.ports, got...)
	return nil
}

// bindBoth binds the port on what w names, and on ::1 in any case. A kernel without IPv6
// has IPv4 alone. Where one socket for all is refused, those of either family are tried by
// themselves: they tell whose the port is, take it past TIME_WAIT, and a container
// without IPv6 leaves a server on another address of IPv6 alone. served says that the port
// of ::1 is held already.
func bindBoth(w wish, port uint16, served bool) (fds []int, got []bound, err error) {
	add := func(fd int, err error, hosts ...netip.Addr) error {
		if err != nil {
			return err
		}
		fds = append(fds, fd)
		for _, h := range hosts {
			if h.IsValid() {
				got = append(got, bound{w.port, h, port})
			}
		}
		return nil
	}
	defer func() {
		if err != nil {
			closeAll(fds)
		}
	}()
	if !w.host.IsValid() && served {
		return nil, []bound{{w.port, w.host6, port}}, nil
	}
	if !w.host.IsValid() {
		fd, num, err := bindReserved(network.TCP, w.host6, port, false)
		port = num
		return fds, got, add(fd, err, w.host6)
	}
	fd, num, err := bindDual(port)
	if err == nil {
		port = num
		return fds, got, add(fd, nil, w.host, w.host6)
	}
	alone := errors.Is(err, errNoIPv6)
	if !alone && !isTaken(err) {
		return nil, nil, err
	}
	fd, num, err = bindReserved(network.TCP, w.host, port, false)
	if err == nil {
		port = num
	}
	if err = add(fd, err, w.host); err != nil || alone {
		return fds, got, err
	}
	if served {
		if w.host6.IsValid() {
			got = append(got, bound{w.port, w.host6, port})
		}
		return fds, got, nil
	}
	fd, _, err = bindReserved(network.TCP, cmp.Or(w.host6, netip.IPv6Loopback()), port, false)
	if errors.Is(err, errNoIPv6) {
		return fds, got, nil
	}
	return fds, got, add(fd, err, w.host6)
}

// bindDual binds a TCP socket on all addresses of both families; port 0 lets the kernel
// choose.
func bindDual(port uint16) (fd int, num uint16, err error) {
	fd, err = reservingSocket(network.TCP, unix.AF_INET6, port)
	if err != nil {
		return -1, 0, err
	}
	if err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0); err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet6{Port: int(port)})
	}
	if err != nil {
		unix.Close(fd)
		return -1, 0, bindError(err, network.TCP, netip.IPv4Unspecified(), port)
	}
	num, err = boundPort(fd, port, network.TCP)
	return fd, num, err
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// localPorts are the TCP ports that containers publish.
func localPorts(sandboxes []*Sandbox) map[uint16]bool {
	all := map[uint16]bool{}
	for _, sb := range sandboxes {
		bs, err := boundPorts(sb.Ports)
		if err != nil {
			continue
		}
		for _, b := range bs {
			if b.port.Proto() == network.TCP {
				all[b.num] = true
			}
		}
	}
	return all
}

// servesAll says whether every port of an element of ::1 is one of these.
func servesAll(p nft.Publish, ports map[uint16]bool) bool {
	for port := int(p.First); port <= int(p.Last); port++ {
		if !ports[uint16(port)] {
			return false
		}
	}
	return true
}
