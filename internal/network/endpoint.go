package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/nft"
)

// Attach gives the container all that its request asks for. netnsFD is the
// container's network namespace, which the caller joins the container to and then
// closes; it is -1 for modes host and none. Errors leave nothing behind.
func (s *Service) Attach(ctx context.Context, req Request) (sb *Sandbox, netnsFD int, err error) {
	if err := ctx.Err(); err != nil {
		return nil, -1, err
	}
	if req.Mode == "" || req.Mode == "default" {
		req.Mode = ModeBridge
	}
	sb = &Sandbox{
		ContainerID: req.ContainerID, Name: req.Name, Mode: req.Mode,
		NetworkID: s.state.IDs[req.Mode], NetworkName: req.Mode, EndpointID: newID(),
		Ports: portMap(req.Exposed, nil),
	}
	e := &endpoint{sandbox: sb, ports: &reservation{}}
	netnsFD = -1
	switch req.Mode {
	case ModeHost, ModeNone:
		// Docker ignores published ports here, too; the engine warns at create.
		if err := s.enter(e); err != nil {
			return nil, -1, err
		}
		err = s.writeFiles(&req, sb)
	case ModeBridge:
		netnsFD, err = s.attachBridge(ctx, &req, e)
	default:
		return nil, -1, failure.NotImplemented("network mode %q is not supported: use bridge, host or none", req.Mode)
	}
	if err != nil {
		s.leave(e)
		return nil, -1, err
	}
	s.mu.Lock()
	e.ready = true
	s.mu.Unlock()
	return sb, netnsFD, nil
}

// enter registers an endpoint; a container has one at a time.
func (s *Service) enter(e *endpoint) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return failure.Unavailable("the network service is closed")
	}
	if s.endpoints[e.sandbox.ContainerID] != nil {
		return failure.Conflict("container %s is already connected to the network", e.sandbox.ContainerID)
	}
	s.endpoints[e.sandbox.ContainerID] = e
	return nil
}

func (s *Service) leave(e *endpoint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.endpoints[e.sandbox.ContainerID] == e {
		delete(s.endpoints, e.sandbox.ContainerID)
	}
}

func (s *Service) attachBridge(ctx context.Context, req *Request, e *endpoint) (ns int, err error) {
	wishes, err := s.wishes(req)
	if err != nil {
		return -1, err
	}
	sb := e.sandbox
	ip, err := s.pool.take()
	if err != nil {
		return -1, err
	}
	defer func() {
		if err != nil {
			s.pool.release(ip)
		}
	}()
	sb.IP, sb.PrefixLen, sb.Gateway = ip, s.bridge.address.Bits(), s.bridge.address.Addr()
	if sb.MAC = req.MAC; len(sb.MAC) == 0 {
		sb.MAC = macOf(ip)
	}
	if err := s.enter(e); err != nil {
		return -1, err
	}

	k, err := s.sockets.take()
	if err != nil {
		return -1, err
	}
	defer k.inside.Close()
	defer s.sockets.refill()
	sb.Link = k.link
	if err = s.bridge.configure(k, ip, net.HardwareAddr(sb.MAC)); err == nil {
		err = s.publish(req, e, wishes)
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		s.bridge.disown(k.link)
		unix.Close(k.ns)
		return -1, s.unpublish(e, err)
	}
	return k.ns, nil
}

// publish reserves the ports, writes the files and redirects the ports.
func (s *Service) publish(req *Request, e *endpoint, wishes []wish) error {
	r, err := s.reserve(wishes, e.sandbox.IP)
	if err != nil {
		return err
	}
	s.mu.Lock()
	e.ports = r
	e.sandbox.Ports = portMap(req.Exposed, r.ports)
	s.mu.Unlock()
	if err := s.writeFiles(req, e.sandbox); err != nil {
		return err
	}
	add := publishes(e.sandbox.IP, r.ports)
	if err := s.table.Apply(nft.Change{Add: add}); err != nil {
		return fmt.Errorf("publish ports: %w", err)
	}
	// A client that sent to a UDP port before has a connection tracking entry
	// without the redirection, which would last as long as it goes on sending.
	return s.forgetFlows(add)
}

// unpublish takes back what publish did; err is why.
func (s *Service) unpublish(e *endpoint, err error) error {
	s.mu.Lock()
	r := e.ports
	s.mu.Unlock()
	if e := s.table.Apply(nft.Change{Del: publishes(e.sandbox.IP, r.ports)}); e != nil {
		err = fmt.Errorf("%w (and taking back the ports: %w)", err, e)
	}
	r.release(s.proxy)
	return err
}

func macOf(ip netip.Addr) network.HardwareAddr {
	b := ip.As4()
	return network.HardwareAddr{0x02, 0x42, b[0], b[1], b[2], b[3]}
}

// Detach frees the sandbox's ports and address. The links vanish with the network
// namespace. Detaching twice is no error.
func (s *Service) Detach(ctx context.Context, sb *Sandbox) error {
	s.mu.Lock()
	e := s.endpoints[sb.ContainerID]
	if e == nil || e.sandbox.EndpointID != sb.EndpointID {
		s.mu.Unlock()
		return nil
	}
	delete(s.endpoints, sb.ContainerID)
	s.mu.Unlock()
	return s.free(e)
}

// free gives back what an endpoint that is no longer listed holds. The redirection
// goes before the sockets, so that who takes the port next meets none.
func (s *Service) free(e *endpoint) error {
	sb := e.sandbox
	if sb.Mode != ModeBridge {
		return nil
	}
	dels := publishes(sb.IP, e.ports.ports)
	err := s.table.Apply(nft.Change{Del: dels})
	if err != nil {
		err = fmt.Errorf("free ports of container %s: %w", sb.ContainerID, err)
	}
	e.ports.release(s.proxy)
	s.bridge.disown(sb.Link)
	s.pool.release(sb.IP)
	return errors.Join(err, s.forgetFlows(dels))
}

// forgetFlows drops what connection tracking knows about UDP ports.
func (s *Service) forgetFlows(ports []nft.Publish) error {
	if !slices.ContainsFunc(ports, func(p nft.Publish) bool { return p.Proto == nft.UDP }) {
		return nil
	}
	addrs, err := s.bridge.conn.Addrs()
	if err != nil {
		return err
	}
	local := map[netip.Addr]bool{}
	for _, a := range addrs {
		local[a.Prefix.Addr()] = true
	}
	if _, err := s.flows.Forget(ports, local); err != nil {
		return fmt.Errorf("forget old flows to published ports: %w", err)
	}
	return nil
}

// Adopt takes over a sandbox that an earlier engine made and whose container runs
// as pid: its address and ports are reserved again, missing rules added. A port that
// somebody else took while no engine ran is still redirected to the container; the
// service warns of it.
func (s *Service) Adopt(ctx context.Context, sb *Sandbox, pid int) error {
	own := *sb
	e := &endpoint{sandbox: &own, ports: &reservation{}, ready: true}
	if sb.Mode != ModeBridge {
		return s.enter(e)
	}
	bs, err := boundPorts(sb.Ports)
	if err != nil {
		return fmt.Errorf("adopt the network of container %s: %w", sb.ContainerID, err)
	}
	if err := s.enter(e); err != nil {
		return err
	}
	if err := s.pool.claim(sb.IP); err != nil {
		s.leave(e)
		return fmt.Errorf("adopt the network of container %s (process %d): %w", sb.ContainerID, pid, err)
	}
	s.bridge.own(sb.Link)
	s.rebind(e, bs)
	add := publishes(sb.IP, bs)
	if err := s.table.Apply(nft.Change{Del: s.othersOn(add), Add: add}); err != nil {
		s.leave(e)
		e.ports.release(s.proxy)
		s.bridge.disown(sb.Link)
		s.pool.release(sb.IP)
		return fmt.Errorf("adopt the ports of container %s: %w", sb.ContainerID, err)
	}
	return nil
}

// rebind reserves recorded ports again as far as they are free.
func (s *Service) rebind(e *endpoint, bs []bound) {
	r := &reservation{}
	for _, b := range bs {
		w := wish{port: b.port, host: b.host, loopback6: b.host.IsUnspecified() && !s.cfg.BindIP.IsValid(), first: b.num, last: b.num}
		err := s.bindPort(r, w, b.num, e.sandbox.IP)
		if err != nil && w.loopback6 {
			w.loopback6 = false // ::1 is another's now; the rest may still be free
			err = s.bindPort(r, w, b.num, e.sandbox.IP)
		}
		if err != nil {
			r.ports = append(r.ports, b)
			s.warn(fmt.Sprintf("container %s keeps published port %s, though %s", e.sandbox.Name, netip.AddrPortFrom(b.host, b.num), s.describe(err)))
		}
	}
	s.mu.Lock()
	e.ports = r
	s.mu.Unlock()
}

// othersOn finds elements that send the ports of add elsewhere: leftovers of a
// container that is gone.
func (s *Service) othersOn(add []nft.Publish) []nft.Publish {
	var others []nft.Publish
	for _, have := range s.table.Published() {
		for _, a := range add {
			if have != canonical(a) && have.Proto == a.Proto && have.First <= a.Last && a.First <= have.Last && overlapsHost(have.HostIP, a.HostIP) {
				others = append(others, have)
				break
			}
		}
	}
	return others
}

// canonical writes "every address" as the table reports it.
func canonical(p nft.Publish) nft.Publish {
	if p.HostIP.IsValid() && p.HostIP.IsUnspecified() {
		p.HostIP = netip.Addr{}
	}
	return p
}

func overlapsHost(a, b netip.Addr) bool {
	return !a.IsValid() || !b.IsValid() || overlaps(a, b)
}

func (s *Service) warn(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.warnings = append(s.warnings, text)
}

// Reconcile removes addresses, rules and links that belong to none of keep, whether
// adopted or not. It leaves alone what an Attach is making meanwhile.
func (s *Service) Reconcile(ctx context.Context, keep []*Sandbox) error {
	ids := map[string]bool{}
	for _, sb := range keep {
		ids[sb.EndpointID] = true
		if sb.Link != "" {
			s.bridge.own(sb.Link)
		}
	}
	var gone []*endpoint
	s.mu.Lock()
	for id, e := range s.endpoints {
		if e.ready && !ids[e.sandbox.EndpointID] {
			gone = append(gone, e)
			delete(s.endpoints, id)
		}
	}
	s.mu.Unlock()
	var problems []string
	for _, e := range gone {
		if err := s.free(e); err != nil {
			problems = append(problems, err.Error())
		}
	}
	if err := s.sweep(ctx, keep); err != nil {
		problems = append(problems, err.Error())
	}
	if len(problems) > 0 {
		return fmt.Errorf("reconcile the network: %s", strings.Join(problems, "; "))
	}
	return nil
}
