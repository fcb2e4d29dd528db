package network

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/dns"
	"github.com/cleatlabs/cleat/internal/netlink"
)

// hasNames says whether containers find each other by name on the endpoint's network:
// on every one but the predefined.
func (e *Endpoint) hasNames() bool {
	return e.Driver != driverHost && e.Driver != driverNull && e.NetworkName != ModeBridge
}

// hasNames says whether the container asks the engine's name server.
func (sb *Sandbox) hasNames() bool { return slices.ContainsFunc(sb.Endpoints, (*Endpoint).hasNames) }

// nameService answers the lookups of all containers that have names.
type nameService struct {
	server *dns.Server
	host   *dns.HostConf

	mu      sync.Mutex
	clients map[string]*nameClient    // by container id
	adopted map[string]*adoptedClient // those that are not served yet
}

// adoptedClient is a container of an earlier engine. It is served when the names of all
// others are known: it may have asked for one meanwhile.
type adoptedClient struct {
	attachment *attachment
	ns         *os.File
	held       *nameSockets // nil: new ones must be made
}

func (c *adoptedClient) close() {
	c.ns.Close()
	if c.held != nil {
		c.held.close()
	}
}

// nameClient is one container.
type nameClient struct {
	served *dns.Client
	ns     *os.File // its network namespace; who asks for it still asks of a closed file, not of another container's
	kept   []int    // copies of its sockets, until they are handed to the keeper
}

func (c *nameClient) close() {
	c.served.Close()
	c.ns.Close()
	for _, fd := range c.kept {
		unix.Close(fd)
	}
}

func (s *Service) newNames() *nameService {
	return &nameService{
		server: dns.New(s.group, dns.NewDirectory()), clients: map[string]*nameClient{}, adopted: map[string]*adoptedClient{},
		host: dns.NewHostConf(s.resolverPath),
	}
}

func (n *nameService) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.clients {
		c.close()
	}
	for _, c := range n.adopted {
		c.close()
	}
	clear(n.clients)
	clear(n.adopted)
}

func (n *nameService) client(containerID string) *nameClient {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.clients[containerID]
}

// namesAttach is part of Attach, when addresses and routes are set and before the
// container's process starts. in is its network namespace, valid during the call.
func (s *Service) namesAttach(a *attachment, in *inside) error {
	sb := a.sandbox
	if !sb.hasNames() {
		if in.names != nil {
			in.names.close()
			in.names = nil
		}
		return nil
	}
	sockets := in.names // of a spare namespace
	in.names = nil
	if sockets == nil {
		err := in.do(func() (err error) {
			sockets, err = openNameSockets(false)
			return err
		})
		if err != nil {
			return err
		}
	}
	if err := s.serveNames(a, in.ns, sockets, true); err != nil {
		return err
	}
	for _, e := range sb.Endpoints {
		s.enterNames(a, e)
	}
	return nil
}

// serveNames starts to answer at a container's sockets, which it takes over. keep: the
// keeper is to have them, too. One that has ended meanwhile gets no answers: nobody would end
// that, and its namespace would last.
func (s *Service) serveNames(a *attachment, ns int, sockets *nameSockets, keep bool) error {
	sb := s.current(a)
	c := &nameClient{}
	var err error
	if c.ns, err = keepNamespace(ns, sb.ContainerID); err != nil {
		sockets.close()
		return err
	}
	if keep {
		if c.kept, err = sockets.descriptors(); err != nil {
			sockets.close()
			c.ns.Close()
			return err
		}
	}
	if c.served, err = s.lookups.server.Serve(sockets.udp, sockets.tcp, s.view(sb, c.ns)); err != nil {
		c.ns.Close()
		for _, fd := range c.kept {
			unix.Close(fd)
		}
		return err
	}
	s.lookups.mu.Lock()
	old := c
	if !s.ended(a) { // asked under the lock under which its end looks for c
		old = s.lookups.clients[sb.ContainerID]
		s.lookups.clients[sb.ContainerID] = c
	}
	s.lookups.mu.Unlock()
	if old != nil {
		old.close()
	}
	return nil
}

// ended says that a container's end has begun to take down what it has.
func (s *Service) ended(a *attachment) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return a.gone
}

// TakeNameSockets hands over what the container's keeper is to hold, so that lookups
// wait for the next engine while there is none: nil, or two descriptors that the caller
// closes. Adopt gets them back.
func (s *Service) TakeNameSockets(sb *Sandbox) []int {
	s.lookups.mu.Lock()
	defer s.lookups.mu.Unlock()
	c := s.lookups.clients[sb.ContainerID]
	if c == nil {
		return nil
	}
	k := c.kept
	c.kept = nil
	return k
}

// enterNames makes an endpoint's names known, unless its container has ended meanwhile.
func (s *Service) enterNames(a *attachment, e *Endpoint) {
	if !e.hasNames() {
		return
	}
	n := dns.Network{ID: e.NetworkID, Name: e.NetworkName}
	s.mu.Lock()
	if nw := s.networks[e.NetworkID]; nw != nil {
		n.Subnets = nw.rec.prefixes()
	}
	s.mu.Unlock()
	var addrs []netip.Addr
	for _, ip := range []netip.Addr{e.IP, e.IP6} {
		if ip.IsValid() {
			addrs = append(addrs, ip)
		}
	}
	d := s.lookups.server.Directory()
	d.Add(n, dns.Endpoint{ID: e.EndpointID, Names: e.DNSNames, Addrs: addrs})
	if s.ended(a) { // and that may have come before
		d.Remove(e.EndpointID)
	}
}

// namesConnect is part of Connect: a has the new endpoint e.
func (s *Service) namesConnect(a *attachment, e *Endpoint, ns int) error {
	sb := s.current(a)
	if !e.hasNames() {
		s.showNames(sb)
		return nil
	}
	if s.lookups.client(sb.ContainerID) == nil {
		if err := s.openNames(a, ns); err != nil {
			return err
		}
	}
	s.enterNames(a, e)
	s.showNames(sb)
	return nil
}

// openNames makes new sockets in a living container's namespace, in place of those of
// an earlier engine if there were any.
func (s *Service) openNames(a *attachment, ns int) error {
	var sockets *nameSockets
	err := netlink.InNS(s.host.ns, ns, func() (err error) {
		sockets, err = openNameSockets(true)
		return err
	})
	if err != nil {
		return err
	}
	return s.serveNames(a, ns, sockets, false)
}

// showNames tells the name server what the container sees now.
func (s *Service) showNames(sb *Sandbox) {
	if c := s.lookups.client(sb.ContainerID); c != nil {
		c.served.See(s.view(sb, c.ns))
	}
}

// namesDisconnect is part of Disconnect: sb does not have e any more.
func (s *Service) namesDisconnect(sb *Sandbox, e *Endpoint) {
	s.lookups.server.Directory().Remove(e.EndpointID)
	s.showNames(sb)
}

// namesRename says that the names of a's endpoints have changed.
func (s *Service) namesRename(a *attachment) {
	for _, e := range s.current(a).Endpoints {
		s.enterNames(a, e)
	}
}

// namesAdopt is part of Adopt. ns is the living container's network namespace, -1 if it
// could not be opened; held is what its keeper has held, borrowed.
func (s *Service) namesAdopt(a *attachment, ns int, held []*os.File) error {
	sb := a.sandbox
	if !sb.hasNames() || ns < 0 {
		return nil
	}
	for _, e := range sb.Endpoints {
		s.enterNames(a, e)
	}
	c := &adoptedClient{attachment: a}
	var err error
	if len(held) == 2 {
		if c.held, err = (&nameSockets{udp: held[0], tcp: held[1]}).copy(); err != nil {
			return err
		}
	}
	if c.ns, err = keepNamespace(ns, sb.ContainerID); err != nil {
		if c.held != nil {
			c.held.close()
		}
		return err
	}
	s.lookups.mu.Lock()
	defer s.lookups.mu.Unlock()
	s.lookups.adopted[sb.ContainerID] = c
	return nil
}

// serveAdopted starts to answer the containers of earlier engines, when all are known.
func (s *Service) serveAdopted() {
	s.lookups.mu.Lock()
	all := s.lookups.adopted
	s.lookups.adopted = map[string]*adoptedClient{}
	s.lookups.mu.Unlock()
	for _, c := range all {
		var err error
		if ns := int(c.ns.Fd()); c.held != nil {
			err = s.serveNames(c.attachment, ns, c.held, false)
		} else {
			err = s.openNames(c.attachment, ns)
		}
		c.ns.Close()
		if err != nil {
			s.warn(fmt.Sprintf("container %s cannot look up names: %v (restarting it helps)", c.attachment.sandbox.Name, err))
		}
	}
}

// namesDetach says that a container has ended, or that its start has failed. It may be
// called twice.
func (s *Service) namesDetach(sb *Sandbox) {
	for _, e := range sb.Endpoints {
		s.lookups.server.Directory().Remove(e.EndpointID)
	}
	s.lookups.mu.Lock()
	c, early := s.lookups.clients[sb.ContainerID], s.lookups.adopted[sb.ContainerID]
	delete(s.lookups.clients, sb.ContainerID)
	delete(s.lookups.adopted, sb.ContainerID)
	s.lookups.mu.Unlock()
	if c != nil {
		c.close()
	}
	if early != nil {
		early.close()
	}
}

// view is what a container sees: the names on its networks, the host, and the name
// servers outside, unless it cannot reach the outside at all.
func (s *Service) view(sb *Sandbox, ns *os.File) *dns.View {
	v := &dns.View{Hosts: map[string][]netip.Addr{}, Aliases: map[string]string{}}
	order := slices.Clone(sb.Endpoints)
	slices.SortStableFunc(order, func(a, b *Endpoint) int { return cmp.Compare(b.GwPriority, a.GwPriority) })
	for _, e := range order {
		if !e.hasNames() {
			continue
		}
		v.Networks = append(v.Networks, e.NetworkID)
		for _, l := range e.Links {
			if name, alias, ok := strings.Cut(l, ":"); ok {
				v.Aliases[strings.ToLower(alias)] = strings.ToLower(name)
			}
		}
	}
	for _, extra := range sb.ExtraHosts {
		name, addr, err := s.extraHost(extra)
		if name = strings.TrimSuffix(strings.ToLower(name), "."); err == nil && name != "" && addr.IsValid() {
			v.Hosts[name] = append(v.Hosts[name], addr) // the start has refused what cannot be read
		}
	}
	if four, six := sb.Gateways(); four == nil && six == nil {
		return v
	}
	if gateway := s.HostGateway(); gateway.IsValid() {
		for _, name := range []string{dns.HostName, dns.GatewayName} {
			if v.Hosts[name] == nil {
				v.Hosts[name] = []netip.Addr{gateway}
			}
		}
	}
	v.Servers = s.nameServers(sb, ns)
	return v
}

// nameServers lists a container's name servers: those asked for, else the host's. They
// are reached from the container's namespace, as its routes and the administrator's
// rules for it have it, but the host's own resolver at a loopback address from the
// host's.
func (s *Service) nameServers(sb *Sandbox, ns *os.File) func() []dns.Upstream {
	inside := s.dialInside(ns)
	if asked := cmpOr(sb.DNS, s.cfg.DNS); len(asked) > 0 {
		var all []dns.Upstream
		for _, a := range dns.ServerAddrs(asked) {
			if a.Addr() != nameServer() { // the container itself would not mean that
				all = append(all, dns.Upstream{Addr: a, Dial: inside, Via: sb.ContainerID})
			}
		}
		return func() []dns.Upstream { return all }
	}
	// A server that the host reaches and the container does not, as one with an IPv6
	// address from a network without IPv6, is asked by the host.
	either := func(ctx context.Context, network string, server netip.AddrPort) (net.Conn, error) {
		conn, err := inside(ctx, network, server)
		if errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EADDRNOTAVAIL) {
			return dns.Dial(ctx, network, server)
		}
		return conn, err
	}
	return func() []dns.Upstream {
		servers := s.lookups.host.Servers()
		if len(servers) == 0 {
			servers = dns.ServerAddrs(fallbackNameservers())
		}
		all := make([]dns.Upstream, 0, len(servers))
		for _, a := range servers {
			if a.Addr().IsLoopback() || a.Addr().Zone() != "" {
				all = append(all, dns.Upstream{Addr: a, Dial: dns.Dial})
			} else {
				all = append(all, dns.Upstream{Addr: a, Dial: either, Via: sb.ContainerID})
			}
		}
		return all
	}
}

// dialInside connects from a container's namespace.
func (s *Service) dialInside(ns *os.File) dns.Dialer {
	return func(ctx context.Context, network string, server netip.AddrPort) (net.Conn, error) {
		return dialFrom(ctx, s.host.ns, ns, network, server)
	}
}

// useNames has a container's resolver ask the engine. With ndots:0 a name is looked up
// as it is before the search domains are tried.
func useNames(r *dns.Conf) {
	r.Servers = []string{nameServer().String()}
	if !slices.ContainsFunc(r.Options, func(o string) bool { return strings.HasPrefix(o, "ndots:") }) {
		r.Options = append(slices.Clone(r.Options), "ndots:0")
	}
}

// turnToNames gives a running container, which has had no names before e, the name
// server's address, unless somebody has edited its file. It cannot be told from the text: the host's name servers may be
// others by now than when it was written.
func (s *Service) turnToNames(req *Request, sb *Sandbox, e *Endpoint) error {
	before := &Sandbox{Endpoints: slices.DeleteFunc(slices.Clone(sb.Endpoints), func(o *Endpoint) bool { return o.EndpointID == e.EndpointID })}
	if req.FilesDir == "" || before.hasNames() || !sb.hasNames() {
		return nil
	}
	path := filepath.Join(req.FilesDir, "resolv.conf")
	if st, err := os.Stat(path); err != nil || st.ModTime().After(req.Started) {
		return nil
	}
	text, err := s.resolvFile(req, sb)
	if err != nil {
		return err
	}
	return writeFile(path, text)
}
