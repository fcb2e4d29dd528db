package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/netlink"
	"github.com/cleatlabs/cleat/internal/nft"
)

// attachment is a container's sandbox and what the service holds for it.
type attachment struct {
	// edit is held while what is published changes, so that two changes of it follow one
	// another: it guards elements, and is taken before Service.mu.
	edit     sync.Mutex
	elements []nft.Publish

	// Guarded by Service.mu.
	sandbox *Sandbox
	ports   *reservation
	options map[string]endpointOptions // by network id
	ready   bool                       // Attach has returned
	gone    bool                       // Detach was called
	hidden  bool                       // from Inspect
	guests  int                        // containers that share the namespace
	pid     int                        // of an adopted container
	inner   *os.File                   // the namespace, if an interface can only be removed from inside; see hold
}

const sharedPrefix = "container:"

// Attach gives the container all that its request asks for. netnsFD is the
// container's network namespace, which the caller joins the container to and then
// closes; it is -1 for modes host, none and container:ID. Errors leave nothing behind.
func (s *Service) Attach(ctx context.Context, req Request) (sb *Sandbox, netnsFD int, err error) {
	if err := ctx.Err(); err != nil {
		return nil, -1, err
	}
	normalize(&req)
	if err := s.awaitReturns(ctx, req.Endpoints); err != nil {
		return nil, -1, err
	}
	a, err := s.enter(&req)
	if err != nil {
		return nil, -1, err
	}
	netnsFD = -1
	switch {
	case req.Mode == ModeHost, req.Mode == ModeNone:
		// Docker ignores published ports here, too; the engine warns at create.
		err = s.writeFiles(&req, a.sandbox)
	case !strings.HasPrefix(req.Mode, sharedPrefix):
		netnsFD, err = s.build(ctx, &req, a)
	}
	if err != nil {
		s.leave(a)
		return nil, -1, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a.ready = true
	for _, e := range a.sandbox.Endpoints {
		if m := s.networks[e.NetworkID].members[req.ContainerID]; m != nil {
			m.ready = true
		}
	}
	return a.sandbox, netnsFD, nil
}

// normalize fills in what a request leaves out.
func normalize(req *Request) {
	switch {
	case req.Mode == ModeHost, req.Mode == ModeNone:
		req.Endpoints = []EndpointRequest{{Network: req.Mode}}
	case strings.HasPrefix(req.Mode, sharedPrefix):
		req.Endpoints = nil
	case len(req.Endpoints) == 0:
		name := req.Mode
		if name == "" || name == network.NetworkDefault {
			name = ModeBridge
		}
		req.Endpoints = []EndpointRequest{{Network: name}}
	}
	if req.Mode == "" || req.Mode == network.NetworkDefault {
		req.Mode = req.Endpoints[0].Network
	}
}

// enter registers a container, which has one sandbox at a time, and takes the addresses
// of its endpoints.
func (s *Service) enter(req *Request) (*attachment, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, failure.Unavailable("the network service is closed")
	}
	if s.attachments[req.ContainerID] != nil {
		return nil, failure.Conflict("container %s is already connected to the network", req.ContainerID)
	}
	if len(req.Links) > 0 && s.cfg.Default.NoICC {
		return nil, failure.Invalid("container %s is linked to others of the default network, which do not reach each other (--icc=false): connect them to a network of their own, where they have names", req.Name)
	}
	a := &attachment{ports: &reservation{}, options: map[string]endpointOptions{}, hidden: req.Unlisted, sandbox: &Sandbox{
		ContainerID: req.ContainerID, Name: req.Name, Mode: req.Mode, Ports: portMap(req.Exposed, nil), DNS: req.DNS, ExtraHosts: req.ExtraHosts,
	}}
	if owner, shares := strings.CutPrefix(req.Mode, sharedPrefix); shares {
		host := s.attachments[owner]
		if host == nil {
			return nil, failure.Conflict("cannot join network namespace of a non running container: %s", owner)
		}
		host.guests++
	}
	if len(req.Ports)+len(req.Exposed) > 0 {
		a.sandbox.Asked = &PortRequest{Ports: req.Ports, PublishAll: req.PublishAll, Exposed: req.Exposed}
	}
	s.attachments[req.ContainerID] = a
	for i := range req.Endpoints {
		e, err := s.join(a, req, &req.Endpoints[i])
		if err != nil {
			s.quit(a)
			return nil, err
		}
		a.sandbox.Endpoints = append(a.sandbox.Endpoints, e)
	}
	return a, nil
}

// join makes a container a member of a network, with addresses. The caller holds s.mu.
func (s *Service) join(a *attachment, req *Request, want *EndpointRequest) (*Endpoint, error) {
	n, err := s.wanted(want)
	if err != nil {
		return nil, err
	}
	if n.members[req.ContainerID] != nil {
		return nil, failure.Forbidden("endpoint with name %s already exists in network %s", req.Name, n.rec.Name)
	}
	e := &Endpoint{
		NetworkID: n.rec.ID, NetworkName: n.rec.Name, Driver: n.rec.Driver, EndpointID: newID(), MAC: want.MAC,
		LinkLocal: want.LinkLocal, GwPriority: want.GwPriority, Links: want.Links,
	}
	if n.drv != nil {
		if err := s.furnish(a, n, e, want); err != nil {
			return nil, err
		}
	}
	if e.hasNames() {
		e.DNSNames = dnsNames(req, want)
	}
	n.members[req.ContainerID] = &member{endpoint: e}
	return e, nil
}

// wanted is the network that an endpoint is to be on. The caller holds s.mu.
func (s *Service) wanted(want *EndpointRequest) (*netw, error) {
	n := s.networks[want.NetworkID]
	if n == nil || n.busy {
		var err error
		if n, err = s.find(want.Network); err != nil {
			return nil, err
		}
	}
	switch {
	case n.rec.ConfigOnly:
		return nil, failure.Forbidden("network %s is a configuration network: containers cannot be connected to it", n.rec.Name)
	case n.broken != nil:
		return nil, fmt.Errorf("network %s cannot be used: %w", n.rec.Name, n.broken)
	}
	return n, nil
}

// furnish gives an endpoint its interface's name and its addresses. The caller holds
// s.mu.
func (s *Service) furnish(a *attachment, n *netw, e *Endpoint, want *EndpointRequest) error {
	opts, err := parseEndpointOptions(want.DriverOpts)
	if err != nil {
		return err
	}
	if e.Interface, err = interfaceName(a.sandbox, n, opts); err != nil {
		return err
	}
	for _, ip := range []netip.Addr{want.IP, want.IP6} {
		if ip.IsValid() {
			if err := n.rec.MayAsk(ip); err != nil {
				return err
			}
		}
	}
	for _, f := range []struct {
		six     bool
		enabled bool
		want    netip.Addr
	}{{false, n.rec.EnableIPv4, want.IP}, {true, n.rec.EnableIPv6, want.IP6}} {
		if !f.enabled {
			if f.want.IsValid() {
				n.give(e)
				return failure.Invalid("invalid address %s: network %s has no %s", f.want, n.rec.Name, familyName(f.six))
			}
			continue
		}
		ip, subnet, err := n.addrs.take(f.six, f.want)
		if err != nil {
			n.give(e)
			return s.nameHolder(n, f.want, err)
		}
		gateway := subnet.route()
		if n.rec.Internal {
			gateway = netip.Addr{}
		}
		if f.six {
			e.IP6, e.PrefixLen6, e.Gateway6 = ip, subnet.Prefix.Bits(), gateway
		} else {
			e.IP, e.PrefixLen, e.Gateway = ip, subnet.Prefix.Bits(), gateway
		}
	}
	if err := n.drv.finish(e); err != nil {
		n.give(e)
		return err
	}
	a.options[n.rec.ID] = opts
	return nil
}

// nameHolder adds to "already in use" by whom. The caller holds s.mu.
func (s *Service) nameHolder(n *netw, ip netip.Addr, err error) error {
	for id, m := range n.members {
		if ip.IsValid() && (m.endpoint.IP == ip || m.endpoint.IP6 == ip) {
			if a := s.attachments[id]; a != nil {
				return failure.Conflict("%w, by container %q on network %s", err, a.sandbox.Name, n.rec.Name)
			}
		}
	}
	return err
}

// MayAsk refuses an address that containers of the network can never ask for.
func (r *Record) MayAsk(ip netip.Addr) error {
	if r.predefined() {
		return failure.Invalid("user specified IP address is supported on user defined networks only")
	}
	i := slices.IndexFunc(r.Subnets, func(s Subnet) bool { return s.Prefix.Contains(ip) })
	if i < 0 {
		return failure.Invalid("no configured subnet or ip-range contain the IP address %s", ip)
	}
	if r.Subnets[i].Chosen {
		return failure.Invalid("user specified IP address is supported only when connecting to networks with user configured subnets")
	}
	return nil
}

// give takes an endpoint's addresses back.
func (n *netw) give(e *Endpoint) {
	n.remember(e)
	for _, ip := range []netip.Addr{e.IP, e.IP6} {
		if ip.IsValid() {
			n.addrs.release(ip)
		}
	}
}

// interfaceName is the name of the next interface of a container on n.
func interfaceName(sb *Sandbox, n *netw, opts endpointOptions) (string, error) {
	taken := map[string]bool{}
	for _, e := range sb.Endpoints {
		taken[e.Interface] = true
	}
	if opts.name != "" {
		if taken[opts.name] {
			return "", failure.Invalid("interface %q of network %s is that of another network", opts.name, n.rec.Name)
		}
		return opts.name, nil
	}
	prefix := "eth"
	if b, ok := n.drv.(*bridge); ok {
		prefix = b.opts.prefix
	}
	for i := 0; ; i++ {
		if name := prefix + strconv.Itoa(i); !taken[name] {
			return name, nil
		}
	}
}

// dnsNames are the names of a container on a network, each once; the first is the one
// that its address has.
func dnsNames(req *Request, want *EndpointRequest) []string {
	names := []string{req.Name}
	names = append(names, want.Aliases...)
	names = append(names, req.ContainerID[:min(12, len(req.ContainerID))], req.Hostname)
	var out []string
	for _, n := range names {
		if n != "" && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

// quit unregisters a container of which nothing is on the networks, and frees its
// addresses. The caller holds s.mu.
func (s *Service) quit(a *attachment) {
	for _, e := range s.unregister(a) {
		s.networks[e.NetworkID].give(e)
	}
}

// unregister makes a container a member of no network, and returns the endpoints with
// which it was one: they still have their addresses. The caller holds s.mu.
func (s *Service) unregister(a *attachment) (parted []*Endpoint) {
	a.gone = true
	sb := a.sandbox
	if s.attachments[sb.ContainerID] == a {
		delete(s.attachments, sb.ContainerID)
	}
	if owner, shares := strings.CutPrefix(sb.Mode, sharedPrefix); shares {
		if host := s.attachments[owner]; host != nil {
			host.guests--
		}
	}
	for _, e := range sb.Endpoints {
		if s.part(sb.ContainerID, e) {
			parted = append(parted, e)
		}
	}
	return parted
}

// part ends a membership; false if it had ended. The caller holds s.mu.
func (s *Service) part(containerID string, e *Endpoint) bool {
	n := s.networks[e.NetworkID]
	if n == nil {
		return false
	}
	m := n.members[containerID]
	if m == nil || m.endpoint.EndpointID != e.EndpointID {
		return false
	}
	delete(n.members, containerID)
	return true
}

// leave unregisters a container whose namespace may last for a moment.
func (s *Service) leave(a *attachment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.depart(a, s.unregister(a))
}

// build makes the namespace with all its interfaces, publishes the ports and writes the
// files.
func (s *Service) build(ctx context.Context, req *Request, a *attachment) (ns int, err error) {
	sb := a.sandbox
	targets := s.targets(sb)
	wishes, err := s.wishes(sb.Asked, targets)
	if err != nil {
		return -1, err
	}
	in, err := s.connectAll(a)
	if err != nil {
		return -1, err
	}
	defer in.close()
	defer s.refill(sb)
	if err = s.publish(req, a, targets, wishes); err == nil {
		err = s.namesAttach(sb, in)
	}
	if err == nil {
		err = s.hold(a, in.ns)
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		s.namesDetach(sb)
		err = errors.Join(err, s.unpublish(a))
		s.abandonNamespace(in, sb)
		return -1, err
	}
	return in.ns, nil
}

// hold keeps a container's namespace at hand if one of its interfaces can only be
// removed from inside. That is needed when others share the namespace and live longer.
func (s *Service) hold(a *attachment, ns int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range a.sandbox.Endpoints {
		n := s.networks[e.NetworkID]
		if a.inner != nil || a.gone || n == nil || n.drv == nil || !n.drv.outside() {
			continue
		}
		fd, err := unix.FcntlInt(uintptr(ns), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("keep the network namespace of container %s: %w", a.sandbox.ContainerID, err)
		}
		a.inner = os.NewFile(uintptr(fd), "network namespace")
	}
	return nil
}

// namespace is what hold keeps, or -1.
func (a *attachment) namespace() int {
	if a.inner == nil {
		return -1
	}
	return int(a.inner.Fd())
}

// abandonNamespace gives up a namespace, with which the links in it go.
func (s *Service) abandonNamespace(in *inside, sb *Sandbox) {
	for _, e := range sb.Endpoints {
		s.host.disown(e.Link)
	}
	unix.Close(in.ns)
}

// refill has the spares replaced that a start may have taken.
func (s *Service) refill(sb *Sandbox) {
	if sb.Endpoints[0].NetworkID == s.bridge.rec.ID {
		s.spares.refill()
		return
	}
	if b, ok := s.driverOf(sb.Endpoints[0]).(*bridge); ok && sb.Endpoints[0].Interface == "eth0" {
		s.ahead.came(b)
	}
	s.loose.refill()
}

// connectAll connects a new namespace to all networks of a sandbox.
func (s *Service) connectAll(a *attachment) (*inside, error) {
	sb := a.sandbox
	in, first, err := s.socketFor(sb.Endpoints[0])
	if err != nil {
		return nil, err
	}
	indexes := map[*Endpoint]int{}
	var msgs []*netlink.Message
	for i, e := range sb.Endpoints {
		index := first
		if i > 0 || index == 0 {
			index, err = s.driverOf(e).plug(in, e)
		}
		if err == nil {
			err = in.prepare(e, a.options[e.NetworkID])
		}
		if err != nil {
			break
		}
		indexes[e] = index
		msgs = append(msgs, addressing(index, e)...)
	}
	if err == nil {
		err = in.send(append(msgs, defaultRoutes(sb, indexes)...))
	}
	for e, index := range indexes {
		if err == nil {
			err = in.settle(s.driverOf(e), index, e)
		}
		if err == nil {
			err = s.announce(in, index, e)
		}
	}
	if err != nil {
		in.close()
		s.abandonNamespace(in, sb)
		return nil, err
	}
	return in, nil
}

func (in *inside) send(msgs []*netlink.Message) error {
	if len(msgs) == 0 {
		return nil
	}
	if err := in.conn.Do(msgs...); err != nil {
		return fmt.Errorf("in the container's namespace: %w", err)
	}
	return nil
}

func (s *Service) driverOf(e *Endpoint) driver {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.networks[e.NetworkID]; n != nil {
		return n.drv
	}
	return nil
}

// socketFor is a namespace for a container whose first endpoint is e: a spare one that
// has e's interface already, whose index is then not 0, if there can be such a one.
func (s *Service) socketFor(e *Endpoint) (in *inside, index int, err error) {
	b, isBridge := s.driverOf(e).(*bridge)
	if !isBridge || e.Interface != "eth0" {
		in, err = s.host.newNamespace()
		return in, 0, err
	}
	if b == s.bridge {
		k, err := s.spares.take()
		if err != nil {
			return nil, 0, err
		}
		e.Link = k.link
		return k.in, k.eth0, nil
	}
	if k := s.ahead.take(b); k != nil {
		e.Link = k.link
		return k.in, k.eth0, nil
	}
	k, err := s.loose.take()
	if err != nil {
		return nil, 0, err
	}
	if err := b.adopt(k); err != nil {
		s.host.disown(k.link)
		k.discard()
		return nil, 0, err
	}
	e.Link = k.link
	return k.in, k.eth0, nil
}

// publish reserves the ports, writes the files and redirects the ports.
func (s *Service) publish(req *Request, a *attachment, t targets, wishes []wish) error {
	a.edit.Lock()
	defer a.edit.Unlock()
	r, err := s.reserve(wishes, t)
	if err != nil {
		return err
	}
	s.mu.Lock()
	a.ports = r
	a.sandbox.Ports = portMap(req.Exposed, r.ports)
	s.mu.Unlock()
	if err := s.writeFiles(req, a.sandbox); err != nil {
		return err
	}
	add := append(t.elements(r.ports, a.sandbox.Asked), s.servedElements(t, r.ports)...)
	a.elements = add
	if err := s.table.Apply(nft.Change{Add: add}); err != nil {
		return fmt.Errorf("publish ports: %w", err)
	}
	// A client that sent to a UDP port before has a connection tracking entry
	// without the redirection, which would last as long as it goes on sending.
	s.stale.forget(add, nil)
	return nil
}

// unpublish takes back what is published. The redirection goes before the sockets, so
// that who takes the port next meets none.
func (s *Service) unpublish(a *attachment) error {
	a.edit.Lock()
	defer a.edit.Unlock()
	s.mu.Lock()
	r := a.ports
	s.mu.Unlock()
	dels := a.elements
	a.elements = nil
	err := s.table.Apply(nft.Change{Del: dels})
	if err != nil {
		err = fmt.Errorf("free ports of container %s: %w", a.sandbox.ContainerID, err)
	}
	r.release(s.proxy)
	s.stale.forget(nil, dels)
	return err
}

// macOf is the hardware address that goes with an endpoint's address.
func macOf(e *Endpoint) network.HardwareAddr {
	if e.IP.IsValid() {
		b := e.IP.As4()
		return network.HardwareAddr{0x02, 0x42, b[0], b[1], b[2], b[3]}
	}
	b := e.IP6.As16()
	return network.HardwareAddr{0x02, 0x42, b[7], b[13], b[14], b[15]}
}

// Detach frees the sandbox's ports and addresses. The links vanish with the network
// namespace, or are removed if others share that. Detaching twice is no error.
func (s *Service) Detach(ctx context.Context, sb *Sandbox) error {
	s.mu.Lock()
	a := s.attachments[sb.ContainerID]
	if a == nil || !sameSandbox(a.sandbox, sb) {
		s.mu.Unlock()
		return nil
	}
	s.mu.Unlock()
	return s.free(a)
}

// sameSandbox tells a sandbox from an earlier or later one of the same container: they
// share no endpoint. A running container's endpoints may have changed meanwhile.
func sameSandbox(now, then *Sandbox) bool {
	if len(now.Endpoints) == 0 || len(then.Endpoints) == 0 {
		return true
	}
	for _, e := range then.Endpoints {
		if o := now.On(e.NetworkID); o != nil && o.EndpointID == e.EndpointID {
			return true
		}
	}
	return false
}

// free gives back what a container holds.
func (s *Service) free(a *attachment) error {
	s.mu.Lock()
	if a.gone {
		s.mu.Unlock()
		return nil
	}
	a.gone = true // no Connect commits any more
	sb, guests := a.sandbox, a.guests
	s.mu.Unlock()
	s.namesDetach(sb)
	err := s.unpublish(a)
	for _, e := range sb.Endpoints {
		d := s.driverOf(e)
		if guests > 0 && d != nil {
			err = errors.Join(err, d.unplug(a.namespace(), e))
		} else {
			s.host.disown(e.Link)
		}
	}
	s.leave(a)
	return err
}

func (s *Service) warn(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.warnings = append(s.warnings, text)
}
