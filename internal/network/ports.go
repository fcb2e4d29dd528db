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

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/nft"
	"github.com/moby/moby/api/types/network"
)

// wish is one binding that a request asks for: any host port in first..last, or any
// port at all if both are 0; the same one on all that it names.
type wish struct {
	port        network.Port
	host        netip.Addr // IPv4, or invalid
	host6       netip.Addr // IPv6, besides host or instead of it; or invalid
	first, last uint16
	absent      bool // also on an address that no interface has
}

// evenAbsent has wishes hold for addresses, too, that no interface has now.
func evenAbsent(ws []wish) {
	for i := range ws {
		ws[i].absent = true
	}
}

// bound is a wish come true: a host port that is reserved for the container.
type bound struct {
	port network.Port
	host netip.Addr
	num  uint16
}

func protoNumber(p network.IPProtocol) uint8 {
	switch p {
	case network.UDP:
		return nft.UDP
	case network.SCTP:
		return nft.SCTP
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
	case network.TCP, network.UDP, network.SCTP:
	default:
		return failure.Invalid("cannot publish port %s: unknown protocol %q", p, p.Proto())
	}
	if p.Num() == 0 {
		return failure.Invalid("cannot publish port %s: a container port must be from 1 to 65535", p)
	}
	return nil
}

// wish reads one binding. What comes out without an address of the host is a wish for nothing: the
// container's networks publish nothing, or need no port of the host for it. Where the engine's own
// choice of an address is one of IPv6, it is as if the binding had named it: nothing is published
// on IPv4, as with dockerd.
func (s *Service) wish(port network.Port, b network.PortBinding, t targets) (w wish, err error) {
	w.port = port
	if w.first, w.last, err = hostPorts(b.HostPort); err != nil {
		return wish{}, failure.Invalid("cannot publish port %s: %w", port, err)
	}
	host, instead := b.HostIP.Unmap(), "leave out the address or name one of IPv4"
	if d := s.cfg.BindIP.Unmap(); !host.IsValid() && d.Is6() && !t.four.bind.IsValid() && !t.six.bind.IsValid() {
		host, instead = d, fmt.Sprintf("name an address of IPv4, as in -p 0.0.0.0:PORT:%d", port.Num())
	}
	switch {
	case !host.IsValid():
		s.wishEverywhere(&w, t)
	case host.Is4() && t.four.binds():
		w.host = host
	case host.Is4() && t.six.ip.IsValid() && !t.four.ip.IsValid():
		return wish{}, failure.NotImplemented("cannot publish port %s on %s: network %q has no IPv4; leave out the address or name an IPv6 address", port, host, t.network)
	case host.Is6() && s.servedOnly(host, t):
		if port.Proto() == network.SCTP {
			return wish{}, failure.NotImplemented("cannot publish port %s on %s: the engine would have to relay it, as %s, and relays tcp and udp only; %s", port, host, whyServed(host, t), instead)
		}
		if s.cfg.NoProxy {
			return wish{}, failure.NotImplemented("cannot publish port %s on %s: the engine would have to serve it itself, as %s, and does not with --userland-proxy=false; %s", port, host, whyServed(host, t), instead)
		}
		w.host6 = host
	case host.Is6() && t.six.binds():
		w.host6 = host
	}
	return w, nil
}

// servedOnly says whether nobody but the proxy can have a port of that IPv6 address lead to
// the container.
func (s *Service) servedOnly(host netip.Addr, t targets) bool {
	if host.IsLoopback() {
		return t.four.binds() || t.six.binds()
	}
	return t.four.binds() && !t.six.ip.IsValid()
}

func whyServed(host netip.Addr, t targets) string {
	if host.IsLoopback() {
		return "there is no way from ::1 to a container"
	}
	return fmt.Sprintf("network %q has no IPv6", t.network)
}

// wishEverywhere is for a binding that names no address: the network's or the engine's
// own choice of one of IPv4, else all.
func (s *Service) wishEverywhere(w *wish, t targets) {
	if t.four.binds() {
		w.host = netip.IPv4Unspecified()
		if bind := cmp.Or(t.four.bind, s.cfg.BindIP.Unmap()); bind.IsValid() {
			w.host = bind
		}
	}
	chosen4 := w.host.IsValid() && !w.host.IsUnspecified()
	relays := !s.cfg.NoProxy && w.port.Proto() != network.SCTP
	six := t.six.binds() || relays && s.servedOnly(netip.IPv6Unspecified(), t)
	if six && (t.six.bind.IsValid() || !chosen4) {
		w.host6 = netip.IPv6Unspecified()
		if t.six.bind.IsValid() {
			w.host6 = t.six.bind
		}
	}
}

// CheckPorts refuses ports to be published that there cannot be.
func CheckPorts(ports network.PortMap) error {
	for port, bindings := range ports {
		if err := checkPort(port); err != nil {
			return err
		}
		for _, b := range bindings {
			if _, _, err := hostPorts(b.HostPort); err != nil {
				return failure.Invalid("cannot publish port %s: %w", port, err)
			}
		}
	}
	return nil
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

// run are bound ports that follow one another, of one address and protocol.
type run struct {
	first bound
	last  uint16
}

// runs puts ports together, those that keep their number apart from those that do not.
func runs(bs []bound, wanted func(bound) bool) []run {
	bs = slices.DeleteFunc(slices.Clone(bs), func(b bound) bool { return !wanted(b) })
	slices.SortFunc(bs, func(a, b bound) int {
		return cmp.Or(a.host.Compare(b.host), cmp.Compare(a.port.Proto(), b.port.Proto()), cmp.Compare(a.num, b.num))
	})
	var out []run
	for _, b := range bs {
		if n := len(out) - 1; n >= 0 && out[n].continuedBy(b) {
			out[n].last = b.num
			continue
		}
		out = append(out, run{b, b.num})
	}
	return out
}

func (r run) continuedBy(b bound) bool {
	return r.first.host == b.host && r.first.port.Proto() == b.port.Proto() && r.last+1 == b.num &&
		r.first.port.Num() == r.first.num && b.port.Num() == b.num
}

// publishes turns bound ports into elements of the firewall, runs of ports that keep
// their number into one: those of the family of ip, the container's address. Those on
// ::1 have none: they are served by the engine.
func publishes(ip netip.Addr, bs []bound) []nft.Publish {
	var ps []nft.Publish
	for _, r := range runs(bs, func(b bound) bool { return b.host.Is4() == ip.Is4() && b.host != netip.IPv6Loopback() }) {
		ps = append(ps, nft.Publish{HostIP: r.first.host, Proto: protoNumber(r.first.port.Proto()), First: r.first.num, Last: r.last, To: ip, ToPort: r.first.port.Num()})
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

// errTaken is why a port could not be bound.
type errTaken struct {
	proto network.IPProtocol
	host  netip.Addr
	port  uint16
}

func (e *errTaken) Error() string {
	return fmt.Sprintf("Bind for %s failed: port is already allocated", netip.AddrPortFrom(e.host, e.port))
}

// is says whether the port is the one of b, on whichever address.
func (e *errTaken) is(b bound) bool { return b.num == e.port && b.port.Proto() == e.proto }

// sharePorts is from how many ports on their sockets are made and closed on several
// processors.
const sharePorts = 128

// reserve binds all wishes or none. They answer when await has returned nil.
func (s *Service) reserve(ws []wish, t targets) (r *reservation, await func() error, err error) {
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
	r = &reservation{}
	for i := range parts {
		r.add(&parts[i])
		err = cmp.Or(err, errs[i])
	}
	if err == nil {
		err = s.reserveEach(r, ws[len(certain):], t)
	}
	if err == nil {
		await, err = s.proxy.add(r.served)
	}
	if err != nil {
		s.letGo(r)
		return nil, nil, err
	}
	return r, await, nil
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
		return s.describe(err, r)
	}
	if w.first == w.last {
		return s.describe(s.takePort(r, w, w.first, t), r)
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
	return failure.Conflict("all ports of %d-%d are taken; the first: %w", w.first, w.last, s.describe(first, r))
}

func isTaken(err error) bool {
	var t *errTaken
	return errors.As(err, &t)
}

// proxyIP is where the proxy sends what comes to it: over IPv6 where the container has it,
// as from every other address.
func (t targets) proxyIP() netip.Addr {
	if t.six.binds() {
		return t.six.ip
	}
	return t.four.ip
}
