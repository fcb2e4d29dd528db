package network

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/nft"
)

// reservation holds the sockets that keep a container's host ports from others.
//
// Those of IPv6 are served by the proxy, as far as packets reach them and are not
// redirected before. One of IPv4 alone is bound but does not listen, if it is TCP: whoever
// binds it too gets EADDRINUSE, with or without SO_REUSEADDR, and a packet that the
// firewall for once does not redirect is refused instead of waiting for an accept that
// never comes. A UDP port of IPv4 is bound with the smallest buffer.
type reservation struct {
	fds    []int
	served []*servedSocket // the proxy's, or yet to be
	ports  []bound
}

// release closes the sockets.
func (r *reservation) release(p *proxy) {
	p.remove(r.served)
	share(len(r.fds), func(_, from, to int) { closeAll(r.fds[from:to]) })
	r.fds, r.served = nil, nil
}

// add takes over another one.
func (r *reservation) add(o *reservation) {
	r.fds, r.served, r.ports = append(r.fds, o.fds...), append(r.served, o.served...), append(r.ports, o.ports...)
}

// bindPort takes one host port on all addresses of a wish, or on none; what is the proxy's
// to serve waits until that is given it. A port on all
// addresses of the host is one socket, of both families: a range of a thousand is a
// thousand of them. Where one socket for all is refused, those of either family are tried
// by themselves: they tell whose the port is, and take it past TIME_WAIT. A kernel without
// IPv6 has IPv4 alone.
func (s *Service) bindPort(r *reservation, w wish, port uint16, t targets) error {
	b := &binder{proxy: s.proxy, wish: w, target: netip.AddrPortFrom(t.proxyIP(), w.port.Num()), serve: w.port.Proto() != network.SCTP && (!s.cfg.NoProxy || !t.six.binds())}
	if w.port.Proto() == network.TCP && w.host == netip.IPv4Unspecified() && w.host6 == netip.IPv6Unspecified() {
		done, err := b.bindDual(port)
		if done || err != nil {
			return b.finish(r, err)
		}
	}
	if w.host.IsValid() {
		fd, num, err := b.bindReserved(w.host, port)
		if err != nil {
			return err
		}
		b.reserved(fd, bound{w.port, w.host, num})
		port = num
	}
	var err error
	if w.host6.IsValid() {
		err = b.bindSix(port)
		if errors.Is(err, errNoIPv6) && w.host.IsValid() {
			err = nil
		}
	}
	return b.finish(r, err)
}

// binder takes the sockets of one wish.
type binder struct {
	proxy  *proxy
	wish   wish
	target netip.AddrPort
	serve  bool // by the proxy, what is of IPv6
	got    reservation
}

// finish adds what was taken to a reservation, or gives it back.
func (b *binder) finish(r *reservation, err error) error {
	if err != nil {
		b.got.release(b.proxy)
		return err
	}
	r.add(&b.got)
	return nil
}

func (b *binder) reserved(fd int, ports ...bound) {
	b.got.fds, b.got.ports = append(b.got.fds, fd), append(b.got.ports, ports...)
}

// listens notes a socket of IPv6, which is for the proxy or only held.
func (b *binder) listens(fd int, ports ...bound) {
	if !b.serve {
		b.reserved(fd, ports...)
		return
	}
	served := &servedSocket{fd: fd, proto: b.wish.port.Proto(), port: ports[0].num, target: b.target}
	b.got.served, b.got.ports = append(b.got.served, served), append(b.got.ports, ports...)
}

// bindDual binds a TCP socket on all addresses of both families; port 0 lets the kernel
// choose. Neither done nor an error says that the families are to be tried by themselves.
func (b *binder) bindDual(port uint16) (done bool, err error) {
	fd, err := reservingSocket(network.TCP, unix.AF_INET6, port)
	if errors.Is(err, errNoIPv6) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0); err == nil {
		err = b.bindServed(fd, &unix.SockaddrInet6{Port: int(port)})
	}
	if err != nil {
		unix.Close(fd)
		if errors.Is(err, unix.EADDRINUSE) {
			return false, nil
		}
		return false, bindError(err, network.TCP, netip.IPv4Unspecified(), port)
	}
	num, err := boundPort(fd, port, network.TCP)
	if err != nil {
		return false, err
	}
	b.listens(fd, bound{b.wish.port, b.wish.host, num}, bound{b.wish.port, b.wish.host6, num})
	return true, nil
}

// bindSix takes the port on the wish's IPv6 address.
func (b *binder) bindSix(port uint16) error {
	proto, host := b.wish.port.Proto(), b.wish.host6
	if !b.serve {
		fd, num, err := b.bindReserved(host, port)
		if err != nil {
			return err
		}
		b.reserved(fd, bound{b.wish.port, host, num})
		return nil
	}
	fd, err := reservingSocket(proto, unix.AF_INET6, port)
	if err != nil {
		return err
	}
	if err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err == nil && proto == network.UDP {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
	}
	if err == nil {
		err = b.bindServed(fd, sockaddr(host, port))
	}
	if err != nil {
		unix.Close(fd)
		if errors.Is(err, unix.EADDRNOTAVAIL) && host.IsLoopback() {
			return errNoIPv6
		}
		return bindError(err, proto, host, port)
	}
	num, err := boundPort(fd, port, proto)
	if err != nil {
		return err
	}
	b.listens(fd, bound{b.wish.port, host, num})
	return nil
}

// bind binds a socket, to an address of no interface only for a wish that takes such.
func (b *binder) bind(fd int, sa unix.Sockaddr) error {
	err := unix.Bind(fd, sa)
	if !errors.Is(err, unix.EADDRNOTAVAIL) || !b.wish.absent {
		return err
	}
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		err = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_FREEBIND, 1)
	case *unix.SockaddrInet6:
		if netip.AddrFrom16(a.Addr).IsLoopback() {
			return err // this host has no IPv6, and gets none
		}
		err = unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_FREEBIND, 1)
	}
	if err != nil {
		return err
	}
	return unix.Bind(fd, sa)
}

// bindServed binds a socket that the proxy will have wait for clients; until then, being
// bound alone keeps others off. Only where connections in TIME_WAIT, which the proxy or an
// earlier server had on the port, are in the way, it listens from the beginning: they are
// passed with SO_REUSEADDR, and by that others would come past it as well if it did not.
func (b *binder) bindServed(fd int, sa unix.Sockaddr) error {
	err := b.bind(fd, sa)
	if !errors.Is(err, unix.EADDRINUSE) || !b.serve || b.wish.port.Proto() != network.TCP {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	if err := unix.Bind(fd, sa); err != nil {
		return err
	}
	return unix.Listen(fd, unix.SOMAXCONN)
}

// servedElements are what the firewall needs to know of the ports on which the proxy serves
// others than this host, if only those with link-local addresses: what comes to them passes the administrator's chain,
// too.
func (s *Service) servedElements(bs []bound) []nft.Publish {
	if s.cfg.NoProxy {
		return nil
	}
	var out []nft.Publish
	for _, p := range runs(bs, func(b bound) bool { return b.host.Is6() && !b.host.IsLoopback() && b.port.Proto() != network.SCTP }) {
		if p.first.host.IsUnspecified() {
			out = append(out, nft.Publish{Proto: protoNumber(p.first.port.Proto()), First: p.first.num, Last: p.last, Served: true})
			continue
		}
		for num := int(p.first.num); num <= int(p.last); num++ {
			out = append(out, nft.Publish{HostIP: p.first.host, Proto: protoNumber(p.first.port.Proto()), First: uint16(num), Last: uint16(num), Served: true})
		}
	}
	return out
}

var errNoSCTP = errors.New("this host's kernel has no SCTP")

// reservingSocket makes a socket for a port to be reserved with; errNoIPv6 and errNoSCTP say that this
// kernel has none of these.
func reservingSocket(proto network.IPProtocol, domain int, port uint16) (int, error) {
	typ, of := unix.SOCK_STREAM, 0
	switch proto {
	case network.UDP:
		typ = unix.SOCK_DGRAM
	case network.SCTP:
		of = unix.IPPROTO_SCTP
	}
	fd, err := unix.Socket(domain, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, of)
	switch {
	case err == nil:
		return fd, nil
	case errors.Is(err, unix.EPROTONOSUPPORT) && proto == network.SCTP:
		return -1, errNoSCTP
	case errors.Is(err, unix.EAFNOSUPPORT) && domain == unix.AF_INET6:
		return -1, errNoIPv6
	case errors.Is(err, unix.EMFILE):
		return -1, failure.New(errdefs.ErrResourceExhausted, "reserve %s: %w: the engine holds a file for each published port and may have no more; start it with a higher limit (LimitNOFILE of its unit, ulimit -n)", hostPort(port, proto), err)
	}
	return -1, fmt.Errorf("reserve %s: %w", hostPort(port, proto), err)
}

// hostPort is what errors call a port of the host that is asked for.
func hostPort(port uint16, proto network.IPProtocol) string {
	if port == 0 {
		return fmt.Sprintf("a free %s port", proto)
	}
	return fmt.Sprintf("port %d/%s", port, proto)
}

// boundPort is the port that a socket got, which asked for that one or, with 0, for any. If
// it cannot be known the socket is closed.
func boundPort(fd int, asked uint16, proto network.IPProtocol) (uint16, error) {
	if asked != 0 {
		return asked, nil
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		unix.Close(fd)
		return 0, fmt.Errorf("reserve %s: %w", hostPort(0, proto), err)
	}
	return portOf(name), nil
}

// bindReserved binds a socket that nobody is to reach, and which for SCTP has the kernel
// refuse what is not redirected; port 0 lets the kernel choose.
func (b *binder) bindReserved(host netip.Addr, port uint16) (fd int, num uint16, err error) {
	proto, domain := b.wish.port.Proto(), unix.AF_INET
	if host.Is6() {
		domain = unix.AF_INET6
	}
	fd, err = reservingSocket(proto, domain, port)
	if errors.Is(err, errNoSCTP) {
		err = failure.NotImplemented("cannot publish port %s: %w (CONFIG_IP_SCTP, module sctp)", b.wish.port, err)
	}
	if err != nil {
		return -1, 0, err
	}
	if proto == network.UDP {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1)
	}
	if host.Is6() {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	sa := sockaddr(host, port)
	err = b.bind(fd, sa)
	if errors.Is(err, unix.EADDRINUSE) && proto == network.TCP {
		err = bindPastTimeWait(fd, sa)
	}
	if err != nil {
		unix.Close(fd)
		return -1, 0, bindError(err, proto, host, port)
	}
	num, err = boundPort(fd, port, proto)
	return fd, num, err
}

func sockaddr(host netip.Addr, port uint16) unix.Sockaddr {
	if host.Is4() {
		return &unix.SockaddrInet4{Port: int(port), Addr: host.As4()}
	}
	return &unix.SockaddrInet6{Port: int(port), Addr: host.As16()}
}

func portOf(sa unix.Sockaddr) uint16 {
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return uint16(a.Port)
	case *unix.SockaddrInet6:
		return uint16(a.Port)
	}
	return 0
}

// bindPastTimeWait takes a port on which only connections in TIME_WAIT are left, of
// a server that has just ended. SO_REUSEADDR overlooks them, but then only a
// listening socket keeps others off; its filter drops every packet, so that it
// never answers.
func bindPastTimeWait(fd int, sa unix.Sockaddr) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	if err := unix.Bind(fd, sa); err != nil {
		return err
	}
	dropAll := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &dropAll[0]}); err != nil {
		return err
	}
	if err := unix.Listen(fd, 1); err != nil {
		return err
	}
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 0)
}

func bindError(err error, proto network.IPProtocol, host netip.Addr, port uint16) error {
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return &errTaken{proto: proto, host: host, port: port}
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return failure.Invalid("cannot publish on %s: no interface of this host has that address: cannot assign requested address", netip.AddrPortFrom(host, port))
	case errors.Is(err, unix.EINVAL) && host.IsLinkLocalUnicast():
		return failure.Invalid("cannot publish on %s: a link-local address is one of each link: publish on all of the host's addresses, those included, as in -p [::]:%d:PORT", netip.AddrPortFrom(host, port), port)
	}
	return fmt.Errorf("reserve %s/%s: %w", netip.AddrPortFrom(host, port), proto, err)
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
