package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/netlink"
	"github.com/cleatlabs/cleat/internal/record"
)

// Connect gives a running container one more endpoint. req is the container's as for
// Attach, of which the names and the directory of the files count; ns is its network
// namespace. persist writes a changed sandbox down; it is called as soon as there is
// something that the next engine must know of, and with what is returned. On failure
// nothing has changed.
func (s *Service) Connect(ctx context.Context, req Request, want EndpointRequest, ns int, persist func(*Sandbox) error) (*Endpoint, error) {
	if err := s.awaitReturns(ctx, []EndpointRequest{want}); err != nil {
		return nil, err
	}
	a, e, err := s.enlist(&req, &want)
	if err != nil {
		return nil, err
	}
	in, err := s.host.enter(ns)
	if err == nil {
		defer in.close()
		err = s.plugIn(in, a, e)
	}
	if err != nil {
		s.withdraw(a, e)
		return nil, err
	}
	record.Failpoint("network.connect.after-link")
	if !s.commit(a, func(sb *Sandbox) { sb.Endpoints = append(slices.Clone(sb.Endpoints), e) }) {
		err := s.driverOf(e).unplug(ns, e)
		s.withdraw(a, e)
		return nil, errors.Join(failure.Conflict("container %s is not running", req.Name), err)
	}
	before := s.current(a)
	if err = s.hold(a, ns); err == nil {
		err = persist(before)
	}
	if err == nil {
		err = s.republish(a)
	}
	if err == nil {
		err = s.editHosts(req.FilesDir, ownLines(e, req.Hostname, req.Domainname), "")
	}
	if err == nil {
		err = s.namesConnect(a, e, ns)
	}
	if err == nil {
		err = s.turnToNames(&req, s.current(a), e)
	}
	if now := s.current(a); err == nil && now != before {
		err = persist(now)
	}
	if err != nil {
		_, undo := s.Disconnect(ctx, req, e.NetworkID, ns, persist)
		return nil, errors.Join(err, undo)
	}
	return e, nil
}

// enlist takes the addresses of an endpoint to be.
func (s *Service) enlist(req *Request, want *EndpointRequest) (*attachment, *Endpoint, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.attachments[req.ContainerID]
	if a == nil || a.gone || !a.ready {
		return nil, nil, failure.Conflict("container %s is not running", req.Name)
	}
	n, err := s.wanted(want)
	if err != nil {
		return nil, nil, err
	}
	if n.drv == nil {
		return nil, nil, failure.Forbidden("container cannot be connected to network %s while it runs: that is chosen at create", n.rec.Name)
	}
	e, err := s.join(a, req, want)
	if err != nil {
		return nil, nil, err
	}
	n.members[req.ContainerID].ready = true
	return a, e, nil
}

// withdraw gives the addresses of an endpoint back that nobody has talked to.
func (s *Service) withdraw(a *attachment, e *Endpoint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(a.options, e.NetworkID)
	if s.part(a.sandbox.ContainerID, e) {
		s.networks[e.NetworkID].give(e)
	}
}

// plugIn makes an endpoint's interface, with the default routes if they are to lead
// through it.
func (s *Service) plugIn(in *inside, a *attachment, e *Endpoint) error {
	s.mu.Lock()
	next := &Sandbox{Endpoints: append(slices.Clone(a.sandbox.Endpoints), e)}
	options := a.options[e.NetworkID]
	s.mu.Unlock()
	d := s.driverOf(e)
	index, err := d.plug(in, e)
	if err != nil {
		return err
	}
	if err = in.prepare(e, options); err == nil {
		msgs := addressing(index, e)
		four, six := next.Gateways()
		if four == e {
			msgs = append(msgs, defaultRoute(index, e.Gateway, false))
		}
		if six == e {
			msgs = append(msgs, defaultRoute(index, e.Gateway6, true))
		}
		err = in.send(msgs)
	}
	if err == nil {
		err = in.settle(d, index, e)
	}
	if err == nil {
		err = s.announce(in, index, e)
	}
	if err != nil {
		err = errors.Join(err, d.unplug(in.ns, e))
	}
	return err
}

// commit changes a container's sandbox; false if it has ended meanwhile.
func (s *Service) commit(a *attachment, change func(*Sandbox)) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.gone {
		return false
	}
	next := *a.sandbox
	change(&next)
	a.sandbox = &next
	return true
}

func (s *Service) current(a *attachment) *Sandbox {
	s.mu.Lock()
	defer s.mu.Unlock()
	return a.sandbox
}

// Disconnect takes a running container's endpoint on a network away; persist is as for
// Connect. It goes on to its end, whatever goes wrong on the way.
func (s *Service) Disconnect(ctx context.Context, req Request, networkID string, ns int, persist func(*Sandbox) error) (*Endpoint, error) {
	s.mu.Lock()
	a := s.attachments[req.ContainerID]
	var e *Endpoint
	if a != nil && !a.gone {
		e = a.sandbox.On(networkID)
	}
	s.mu.Unlock()
	if e == nil {
		return nil, failure.New(errdefs.ErrUnknown, "container %s is not connected to network %s", req.Name, networkID)
	}
	err := s.editHosts(req.FilesDir, "", ownLines(e, req.Hostname, req.Domainname))
	if !s.commit(a, func(sb *Sandbox) {
		sb.Endpoints = slices.DeleteFunc(slices.Clone(sb.Endpoints), func(o *Endpoint) bool { return o == e })
	}) {
		return nil, failure.Conflict("container %s is not running", req.Name)
	}
	before := s.current(a)
	err = errors.Join(err, persist(before))
	s.namesDisconnect(before, e)
	err = errors.Join(err, s.republish(a))
	if d := s.driverOf(e); d != nil {
		err = errors.Join(err, d.unplug(ns, e))
	}
	record.Failpoint("network.disconnect.after-link")
	err = errors.Join(err, s.reroute(ns, s.current(a)))
	s.retire(a, e)
	if now := s.current(a); now != before {
		err = errors.Join(err, persist(now))
	}
	return e, err
}

// reroute gives a namespace that has lost an interface its default routes.
func (s *Service) reroute(ns int, sb *Sandbox) error {
	four, six := sb.Gateways()
	if four == nil && six == nil {
		return nil
	}
	in, err := s.host.enter(ns)
	if err != nil {
		return err
	}
	defer in.close()
	var msgs []*netlink.Message
	for _, g := range []struct {
		e   *Endpoint
		ip  netip.Addr
		six bool
	}{{four, gatewayOf(four, false), false}, {six, gatewayOf(six, true), true}} {
		if g.e == nil {
			continue
		}
		link, err := in.conn.LinkByName(g.e.Interface)
		if errors.Is(err, unix.ENODEV) {
			continue // the container has removed it itself
		}
		if err != nil {
			return fmt.Errorf("in the container's namespace: %w", err)
		}
		msgs = append(msgs, defaultRoute(link.Index, g.ip, g.six))
	}
	return in.send(msgs)
}

func gatewayOf(e *Endpoint, six bool) netip.Addr {
	switch {
	case e == nil:
		return netip.Addr{}
	case six:
		return e.Gateway6
	}
	return e.Gateway
}

// heldAddr is an address that a container has asked for, whether it runs or not.
type heldAddr struct {
	networkID string
	ip        netip.Addr
}

// Expect keeps the addresses that a container has asked for from being given to others
// that ask for none, as long as it exists; it takes the place of what was expected of
// that container before.
func (s *Service) Expect(containerID string, wants []EndpointRequest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(containerID)
	for i := range wants {
		n, err := s.wanted(&wants[i])
		if err != nil || n.drv == nil {
			continue // its start will say what is wrong
		}
		for _, ip := range []netip.Addr{wants[i].IP, wants[i].IP6} {
			if ip.IsValid() {
				n.addrs.hold(ip)
				s.held[containerID] = append(s.held[containerID], heldAddr{n.rec.ID, ip})
			}
		}
	}
}

// Forget ends what Expect began.
func (s *Service) Forget(containerID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(containerID)
}

func (s *Service) forget(containerID string) {
	for _, h := range s.held[containerID] {
		if n := s.networks[h.networkID]; n != nil {
			n.addrs.unhold(h.ip)
		}
	}
	delete(s.held, containerID)
}
