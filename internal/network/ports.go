package network

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/nft"
)

// wish is one binding that a request asks for: any host port in first..last, or any
// port at all if both are 0; the same one on all that it names.
type wish struct {
	port        network.Port
	host        netip.Addr // IPv4, or ::1; or invalid
	host6       netip.Addr // IPv6, besides host or instead of it; or invalid
	loopback6   bool       // serve ::1 too, as no host address was named
	first, last uint16
}

// bound is a wish come true: a host port that is reserved for the container.
type bound struct {
	port network.Port
	host netip.Addr
	num  uint16
}

func protoNumber(p network.IPProtocol) uint8 {
	if p == network.UDP {
		return nft.UDP
	}
	return nft.TCP
}

// wishes validates a request's ports, in the order in which they are to be bound:
// fixed ports before those that may be any.
func (s *Service) wishes(asked *PortRequest, t targets) ([]wish, error) {
	if asked == nil {
		return nil, nil
	}
	var ws []wish
	add := func(port network.Port, b network.PortBinding) error {
		w, err := s.wish(port, b, t)
		if err == nil && (w.host.IsValid() || w.host6.IsValid()) {
			ws = append(ws, w)
		}
		return err
	}
	for port, bindings := range asked.Ports {
		if err := checkPort(port); err != nil {
			return nil, err
		}
		if len(bindings) == 0 {
			bindings = []network.PortBinding{{}}
		}
		for _, b := range bindings {
			if err := add(port, b); err != nil {
				return nil, err
			}
		}
	}
	if asked.PublishAll {
		for _, port := range asked.Exposed {
			if _, named := asked.Ports[port]; named {
				continue
			}
			if err := checkPort(port); err != nil {
				return nil, err
			}
			if err := add(port, network.PortBinding{}); err != nil {
				return nil, err
			}
		}
	}
	slices.SortFunc(ws, func(a, b wish) int {
		return cmp.Or(
			cmp.Compare(spread(a), spread(b)),
			cmp.Compare(a.port.Proto(), b.port.Proto()),
			cmp.Compare(a.port.Num(), b.port.Num()),
			a.host.Compare(b.host),
			a.host6.Compare(b.host6),
			cmp.Compare(a.first, b.first),
		)
	})
	return ws, nil
}

// spread is how many host ports would do.
func spread(w wish) int {
	if w.first == 0 {
		return 1 << 16
	}
	return int(w.last-w.first) + 1
}

func checkPort(p network.Port) error {
	switch p.Proto() {
	case network.TCP, network.UDP:
	case network.SCTP:
		return failure.NotImplemented("cannot publish port %s: protocol sctp is not supported, only tcp and udp", p)
	default:
		return failure.Invalid("cannot publish port %s: unknown protocol %q", p, p.Proto())
	}
	if p.Num() == 0 {
		return failure.Invalid("cannot publish port %s: a container port must be from 1 to 65535", p)
	}
	return nil
}

// wish reads one binding. One without an address of the host is a wish for nothing: the
// container's networks publish nothing, or need no port of the host for it.
func (s *Service) wish(port network.Port, b network.PortBinding, t targets) (w wish, err error) {
	w.port = port
	if w.first, w.last, err = hostPorts(b.HostPort); err != nil {
		return wish{}, failure.Invalid("cannot publish port %s: %w", port, err)
	}
	host := b.HostIP.Unmap()
	switch {
	case !host.IsValid():
		s.wishEverywhere(&w, t)
	case host == netip.IPv6Loopback():
		if t.four.binds() || t.six.binds() {
			w.host = host
		}
	case host.Is4() && t.four.binds():
		w.host = host
	case host.Is6() && t.six.binds():
		w.host6 = host
	case host.Is4() && t.six.ip.IsValid() && !t.four.ip.IsValid():
		return wish{}, failure.NotImplemented("cannot publish port %s on %s: network %q has no IPv4; leave out the address or name an IPv6 address", port, host, t.network)
	case host.Is6() && t.four.ip.IsValid() && !t.six.ip.IsValid():
		return wish{}, failure.NotImplemented("cannot publish port %s on %s: network %q has no IPv6; leave out the address (which serves ::1 too) or name an IPv4 address or ::1", port, host, t.network)
	}
	return w, nil
}

// wishEverywhere is for a binding that names no address: the network's or the engine's
// own choice, else all.
func (s *Service) wishEverywhere(w *wish, t targets) {
	if t.four.binds() {
		w.host = netip.IPv4Unspecified()
		if bind := cmp.Or(t.four.bind, s.cfg.BindIP.Unmap()); bind.IsValid() {
			w.host = bind
		}
	}
	chosen4 := w.host.IsValid() && !w.host.IsUnspecified()
	if t.six.binds() && (t.six.bind.IsValid() || !chosen4) {
		w.host6 = netip.IPv6Unspecified()
		if t.six.bind.IsValid() {
			w.host6 = t.six.bind
		}
	}
	w.loopback6 = (w.host.IsValid() || w.host6.IsValid()) && !chosen4 && (!w.host6.IsValid() || w.host6.IsUnspecified())
}

// hostPorts reads "", "0", "8080" or "8000-8010".
func hostPorts(s string) (first, last uint16, err error) {
	if s == "" {
		return 0, 0, nil
	}
	lo, hi, isRange := strings.Cut(s, "-")
	a, errA := strconv.ParseUint(lo, 10, 16)
	b := a
	if isRange {
		var errB error
		b, errB = strconv.ParseUint(hi, 10, 16)
		errA = errors.Join(errA, errB)
		if errA == nil && (a == 0 || b < a) {
			errA = errors.New("empty range")
		}
	}
	if errA != nil {
		return 0, 0, fmt.Errorf("invalid host port %q: want a number up to 65535 or a range such as 8000-8010", s)
	}
	return uint16(a), uint16(b), nil
}

// publishes turns bound ports into elements of the firewall, runs of ports that keep
// their number into one: those of the family of ip, the container's address. Those on
// ::1 have none: they are served by the engine.
func publishes(ip netip.Addr, bs []bound) []nft.Publish {
	bs = slices.Clone(bs)
	slices.SortFunc(bs, func(a, b bound) int {
		return cmp.Or(a.host.Compare(b.host), cmp.Compare(a.port.Proto(), b.port.Proto()), cmp.Compare(a.num, b.num))
	})
	var ps []nft.Publish
	var prev bound
	for _, b := range bs {
		if b.host.Is4() != ip.Is4() || b.host == netip.IPv6Loopback() {
			continue
		}
		same := b.port.Num() == b.num
		if n := len(ps); n > 0 && same && prev.port.Num() == prev.num && prev.host == b.host &&
			prev.port.Proto() == b.port.Proto() && prev.num+1 == b.num {
			ps[n-1].Last = b.num
		} else {
			ps = append(ps, nft.Publish{HostIP: b.host, Proto: protoNumber(b.port.Proto()), First: b.num, Last: b.num, To: ip, ToPort: b.port.Num()})
		}
		prev = b
	}
	return ps
}

// portMap is what inspect shows: the bound ports and, without bindings, those that
// are exposed only.
func portMap(exposed []network.Port, bs []bound) network.PortMap {
	if len(exposed)+len(bs) == 0 {
		return nil
	}
	m := network.PortMap{}
	for _, p := range exposed {
		m[p] = nil
	}
	for _, b := range bs {
		m[b.port] = append(m[b.port], network.PortBinding{HostIP: b.host, HostPort: strconv.Itoa(int(b.num))})
	}
	return m
}

// boundPorts is the reverse, for a sandbox of an earlier engine.
func boundPorts(m network.PortMap) ([]bound, error) {
	var bs []bound
	for port, bindings := range m {
		for _, b := range bindings {
			n, err := strconv.ParseUint(b.HostPort, 10, 16)
			if err != nil || n == 0 || !b.HostIP.IsValid() {
				return nil, failure.Invalid("port %s is recorded with the impossible binding %s:%s", port, b.HostIP, b.HostPort)
			}
			bs = append(bs, bound{port: port, host: b.HostIP, num: uint16(n)})
		}
	}
	slices.SortFunc(bs, func(a, b bound) int {
		return cmp.Or(cmp.Compare(a.port.Proto(), b.port.Proto()), cmp.Compare(a.port.Num(), b.port.Num()), a.host.Compare(b.host), cmp.Compare(a.num, b.num))
	})
	return bs, nil
}

// reservation holds the sockets that keep a container's host ports from others.
//
// A TCP port is bound but does not listen: whoever binds it too gets EADDRINUSE,
// with or without SO_REUSEADDR, and a packet that the firewall for once does not
// redirect is refused instead of waiting for an accept that never comes. A UDP port
// is bound with the smallest buffer. UDP ports of ::1 belong to the proxy.
type reservation struct {
	fds   []int
	v6    []int    // descriptors that the loopback proxy serves
	local []uint16 // TCP ports of ::1 that it serves
	ports []bound
}

// release closes the sockets.
func (r *reservation) release(p *loopback) {
	p.remove(r.v6)
	p.unroute(r.local)
	share(len(r.fds), func(_, from, to int) { closeAll(r.fds[from:to]) })
	r.fds, r.v6, r.local = nil, nil, nil
}

// add takes over another one.
func (r *reservation) add(o *reservation) {
	r.fds, r.v6 = append(r.fds, o.fds...), append(r.v6, o.v6...)
	r.local, r.ports = append(r.local, o.local...), append(r.ports, o.ports...)
}

// errTaken is why a port could not be bound.
type errTaken struct {
	proto network.IPProtocol
	host  netip.Addr
	port  uint16
}

func (e *errTaken) Error() string {
	return fmt.Sprintf("Bind for %s failed: port is already allocated", netip.AddrPortFrom(e.host, e.port))
}

// sharePorts is from how many ports on their sockets are made and closed on several
// processors.
const sharePorts = 128

// reserve binds all wishes or none.
func (s *Service) reserve(ws []wish, t targets) (*reservation, error) {
	// Those that may have any port have what the others leave.
	certain := ws
	if i := slices.IndexFunc(ws, func(w wish) bool { return spread(w) > 1 }); i >= 0 {
		certain = ws[:i]
	}
	parts := make([]reservation, shares(len(certain)))
	errs := make([]error, len(parts))
	share(len(certain), func(part, from, to int) {
		errs[part] = s.reserveEach(&parts[part], certain[from:to], t)
	})
	r := &reservation{}
	var err error
	for i := range parts {
		r.add(&parts[i])
		err = cmp.Or(err, errs[i])
	}
	if err == nil {
		err = s.reserveEach(r, ws[len(certain):], t)
	}
	if err != nil {
		r.release(s.proxy)
		return nil, err
	}
	return r, nil
}

func (s *Service) reserveEach(r *reservation, ws []wish, t targets) error {
	for _, w := range ws {
		if err := s.reserveOne(r, w, t); err != nil {
			return err
		}
	}
	return nil
}

// shares is into how many parts the work on a number of sockets is divided, which takes the
// kernel some microseconds for each: one for each processor if it is worth that.
func shares(n int) int { return max(1, min(n/(sharePorts/2), runtime.GOMAXPROCS(0))) }

// share has the parts from..to of n done at the same time.
func share(n int, do func(part, from, to int)) {
	parts := shares(n)
	var wg sync.WaitGroup
	for i := 1; i < parts; i++ {
		wg.Go(func() { do(i, n*i/parts, n*(i+1)/parts) })
	}
	do(0, 0, n/parts)
	wg.Wait()
}

func (s *Service) reserveOne(r *reservation, w wish, t targets) error {
	const ephemeralTries = 16
	if w.first == 0 {
		var err error
		for range ephemeralTries {
			if err = s.bindPort(r, w, 0, t); err == nil || !isTaken(err) {
				return err
			}
		}
		return s.describe(err)
	}
	var first error
	for p := int(w.first); p <= int(w.last); p++ {
		err := s.bindPort(r, w, uint16(p), t)
		if err == nil {
			return nil
		}
		if !isTaken(err) {
			return err
		}
		if first == nil {
			first = err
		}
	}
	if w.last > w.first {
		return failure.Conflict("all ports of %d-%d are taken; the first: %w", w.first, w.last, s.describe(first))
	}
	return s.describe(first)
}

func isTaken(err error) bool {
	var t *errTaken
	return errors.As(err, &t)
}

// proxyIP is where the engine sends what comes to ::1: over IPv6 where the container has
// it, as from every other address.
func (t targets) proxyIP() netip.Addr {
	if t.six.binds() {
		return t.six.ip
	}
	return t.four.ip
}

// bindPort takes one host port on all addresses of a wish, or on none.
func (s *Service) bindPort(r *reservation, w wish, port uint16, t targets) (err error) {
	if w.loopback6 && w.port.Proto() == network.TCP {
		return s.bindEverywhere(r, w, port, t)
	}
	if w.host == netip.IPv6Loopback() {
		return s.bindLoopback6(r, w, port, t)
	}
	var fds, proxies []int
	var got []bound
	defer func() {
		if err == nil {
			r.fds, r.v6, r.ports = append(r.fds, fds...), append(r.v6, proxies...), append(r.ports, got...)
			return
		}
		s.proxy.remove(proxies)
		closeAll(fds)
	}()
	for _, host := range []netip.Addr{w.host, w.host6} {
		if !host.IsValid() {
			continue
		}
		fd, num, err := bindReserved(w.port.Proto(), host, port, w.loopback6 && host.Is6())
		if errors.Is(err, errNoIPv6) && len(got) > 0 {
			continue
		}
		if err != nil {
			return err
		}
		port = num
		fds, got = append(fds, fd), append(got, bound{w.port, host, num})
	}
	if w.loopback6 {
		fd, _, err := s.serveUDP(port, netip.AddrPortFrom(t.proxyIP(), w.port.Num()), w.host6.IsValid())
		switch {
		case errors.Is(err, errNoIPv6):
		case err != nil:
			return err
		default:
			proxies = append(proxies, fd)
		}
	}
	if w.loopback6 && w.host6.IsValid() {
		for _, fd := range fds {
			// From here on nobody shares the port.
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 0)
		}
	}
	return nil
}

// bindLoopback6 takes a port of ::1 alone.
func (s *Service) bindLoopback6(r *reservation, w wish, port uint16, t targets) error {
	target := netip.AddrPortFrom(t.proxyIP(), w.port.Num())
	if w.port.Proto() == network.UDP {
		fd, num, err := s.serveUDP(port, target, false)
		if err != nil {
			return err
		}
		r.v6, r.ports = append(r.v6, fd), append(r.ports, bound{w.port, w.host, num})
		return nil
	}
	num := port
	var fds []int
	if !s.proxy.servedAt(port) {
		fd, chosen, err := bindReserved(network.TCP, w.host, port, false)
		if err != nil {
			return err
		}
		num, fds = chosen, []int{fd}
	}
	if err := s.proxy.route(num, target); err != nil {
		closeAll(fds)
		return err
	}
	r.fds, r.local, r.ports = append(r.fds, fds...), append(r.local, num), append(r.ports, bound{w.port, w.host, num})
	return nil
}

// reservingSocket makes a socket for a port to be reserved with; errNoIPv6 says that this
// kernel has none of IPv6.
func reservingSocket(proto network.IPProtocol, domain int, port uint16) (int, error) {
	typ := unix.SOCK_STREAM
	if proto == network.UDP {
		typ = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(domain, typ|unix.SOCK_CLOEXEC, 0)
	switch {
	case err == nil:
		return fd, nil
	case errors.Is(err, unix.EAFNOSUPPORT) && domain == unix.AF_INET6:
		return -1, errNoIPv6
	case errors.Is(err, unix.EMFILE):
		return -1, failure.New(errdefs.ErrResourceExhausted, "reserve port %d/%s: %w: the engine holds a file for each published port and may have no more; start it with a higher limit (LimitNOFILE of its unit, ulimit -n)", port, proto, err)
	}
	return -1, fmt.Errorf("reserve port %d/%s: %w", port, proto, err)
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
		return 0, fmt.Errorf("reserve a free port/%s: %w", proto, err)
	}
	return portOf(name), nil
}

// bindReserved binds a socket; port 0 lets the kernel choose. shared lets a socket on
// one address of the host have the port, too, until SO_REUSEADDR is taken back.
func bindReserved(proto network.IPProtocol, host netip.Addr, port uint16, shared bool) (fd int, num uint16, err error) {
	domain := unix.AF_INET
	if host.Is6() {
		domain = unix.AF_INET6
	}
	if fd, err = reservingSocket(proto, domain, port); err != nil {
		return -1, 0, err
	}
	if proto == network.UDP {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1)
	}
	if host.Is6() {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	if shared {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	sa := sockaddr(host, port)
	err = unix.Bind(fd, sa)
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
	}
	return fmt.Errorf("reserve %s/%s: %w", netip.AddrPortFrom(host, port), proto, err)
}
