package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/nft"
)

// Adopt takes over a sandbox that an earlier engine made and whose container runs
// as pid, 0 if it has ended: its addresses and ports are reserved again, missing rules added. A port that
// somebody else took while no engine ran is still redirected to the container; the
// service warns of it.
//
// held are the files of TakeNameSockets that the container's keeper has held, if it was
// given any; Adopt takes them over.
func (s *Service) Adopt(ctx context.Context, sb *Sandbox, pid int, held ...*os.File) error {
	defer func() {
		for _, f := range held {
			f.Close() // those that are in use by now were copied
		}
	}()
	bs, err := boundPorts(sb.Ports)
	if err != nil {
		return fmt.Errorf("adopt the network of container %s: %w", sb.ContainerID, err)
	}
	own := *sb
	a := &attachment{sandbox: &own, ports: &reservation{}, options: map[string]endpointOptions{}, ready: true, pid: pid}
	if err := s.reenter(a); err != nil {
		return fmt.Errorf("adopt the network of container %s (process %d): %w", sb.ContainerID, pid, err)
	}
	t := s.targets(&own)
	for _, e := range own.Endpoints {
		if e.Link != "" {
			s.host.own(e.Link)
		}
	}
	s.rebind(a, bs, t)
	a.edit.Lock()
	a.elements = append(t.elements(bs, own.Asked), s.servedElements(bs)...)
	err = s.table.Apply(nft.Change{Del: s.othersOn(a.elements), Add: a.elements})
	a.edit.Unlock()
	if err != nil {
		return errors.Join(fmt.Errorf("adopt the ports of container %s: %w", sb.ContainerID, err), s.free(a))
	}
	return s.adoptNames(a, pid, held)
}

// reenter registers a container that is attached.
func (s *Service) reenter(a *attachment) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	sb := a.sandbox
	switch {
	case s.closed:
		return failure.Unavailable("the network service is closed")
	case s.attachments[sb.ContainerID] != nil:
		return failure.Conflict("container %s is adopted already", sb.ContainerID)
	}
	s.attachments[sb.ContainerID] = a
	for _, e := range sb.Endpoints {
		if s.networks[e.NetworkID] == nil { // its record is damaged, or gone: nothing can be done there, but on the others
			s.note(fmt.Sprintf("container %s stays on network %s (%s), of which there is no record: nothing but its interface works there", sb.ContainerID, e.NetworkName, e.NetworkID))
			continue
		}
		if err := s.rejoin(sb.ContainerID, e); err != nil {
			s.quit(a)
			return err
		}
	}
	// The containers that share this one's namespace may have come before it.
	for _, other := range s.attachments {
		if owner, shares := strings.CutPrefix(other.sandbox.Mode, sharedPrefix); shares && owner == sb.ContainerID {
			other.host = a
			a.guests++
		}
	}
	if owner, shares := strings.CutPrefix(sb.Mode, sharedPrefix); shares && s.attachments[owner] != nil {
		a.host = s.attachments[owner]
		a.host.guests++
	}
	return nil
}

func (s *Service) rejoin(containerID string, e *Endpoint) error {
	n := s.networks[e.NetworkID]
	for _, ip := range []netip.Addr{e.IP, e.IP6} {
		if !ip.IsValid() || n.drv == nil || n.addrs.of(ip) < 0 {
			continue // of a subnet that the network no longer has: it is given to nobody else
		}
		if _, _, err := n.addrs.takeThis(ip); err != nil {
			if ip == e.IP6 && e.IP.IsValid() {
				n.addrs.release(e.IP)
			}
			return err
		}
	}
	n.members[containerID] = &member{endpoint: e, ready: true}
	return nil
}

// repair gives the containers that were adopted their default routes, after links that
// the engine before made, and did not come to note, are gone.
func (s *Service) repair() error {
	s.mu.Lock()
	pids := map[*Sandbox]int{}
	for _, a := range s.attachments {
		if a.pid > 0 && !a.gone && len(a.sandbox.Endpoints) > 0 && a.sandbox.Endpoints[0].Interface != "" {
			pids[a.sandbox] = a.pid
		}
	}
	s.mu.Unlock()
	var errs []error
	for sb, pid := range pids {
		ns, err := unix.Open(fmt.Sprintf("/proc/%d/ns/net", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			continue // it has just ended
		}
		errs = append(errs, s.reroute(ns, sb))
		unix.Close(ns)
	}
	return errors.Join(errs...)
}

// adoptNames brings the name service back to a container.
func (s *Service) adoptNames(a *attachment, pid int, held []*os.File) error {
	ns := -1
	if pid > 0 {
		if fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/net", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
			ns = fd
			defer unix.Close(fd)
		}
	}
	if ns >= 0 {
		if err := s.hold(a, ns); err != nil {
			return err
		}
	}
	return s.namesAdopt(a, ns, held)
}

// othersOn finds elements that send the ports of add elsewhere: leftovers of a
// container that is gone.
func (s *Service) othersOn(add []nft.Publish) []nft.Publish {
	var others []nft.Publish
	for _, have := range s.table.Published() {
		for _, a := range add {
			if have != canonical(a) && !have.Open && !a.Open && have.Served == a.Served && have.To.Is4() == a.To.Is4() && have.Proto == a.Proto &&
				have.First <= a.Last && a.First <= have.Last && overlapsHost(have.HostIP, a.HostIP) {
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

// Current is sb, which stays as it is, with the predefined networks' ids of now: they are others once the file that keeps
// them was lost.
func (s *Service) Current(sb *Sandbox) *Sandbox {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := sb
	for i, e := range sb.Endpoints {
		n := s.names[e.NetworkName]
		if s.networks[e.NetworkID] != nil || n == nil || !n.rec.predefined() {
			continue
		}
		if now == sb {
			now = new(*sb)
			now.Endpoints = slices.Clone(sb.Endpoints)
		}
		now.Endpoints[i] = new(*e)
		now.Endpoints[i].NetworkID = n.rec.ID
	}
	return now
}

// Reconcile removes addresses, rules and links that belong to none of keep, whether
// adopted or not. It leaves alone what an Attach is making meanwhile.
func (s *Service) Reconcile(ctx context.Context, keep []*Sandbox) error {
	ids := map[string]bool{}
	for _, sb := range keep {
		ids[sb.ContainerID] = true
		for _, e := range sb.Endpoints {
			if e.Link != "" {
				s.host.own(e.Link)
			}
		}
	}
	var gone []*attachment
	s.mu.Lock()
	for id, a := range s.attachments {
		if a.ready && !ids[id] {
			gone = append(gone, a)
		}
	}
	s.mu.Unlock()
	var problems []string
	for _, a := range gone {
		if err := s.free(a); err != nil {
			problems = append(problems, err.Error())
		}
	}
	if err := s.sweep(ctx, keep); err != nil {
		problems = append(problems, err.Error())
	}
	s.serveAdopted()
	if len(problems) > 0 {
		return fmt.Errorf("reconcile the network: %s", strings.Join(problems, "; "))
	}
	return nil
}
