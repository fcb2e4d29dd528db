package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
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
	host    *attachment                // whose namespace it shares; the container may have another since
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
	case req.Endpoints == nil:
		name := req.Mode
		if name == "" || name == network.NetworkDefault {
			name = ModeBridge
		}
		req.Endpoints = []EndpointRequest{{Network: name}}
	}
	if req.Mode == "" || req.Mode == network.NetworkDefault {
		req.Mode = ModeBridge
		if len(req.Endpoints) > 0 {
			req.Mode = req.Endpoints[0].Network
		}
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
		return nil, failure.Conflict("container %s is connected to its networks already", req.Name)
	}
	if len(req.Links) > 0 && s.cfg.Default.NoICC {
		return nil, failure.Invalid("container %s is linked to others of the default network, which do not reach each other (--icc=false): connect them to a network of their own, where they have names", req.Name)
	}
	a := &attachment{ports: &reservation{}, options: map[string]endpointOptions{}, hidden: req.Unlisted, sandbox: &Sandbox{
		ContainerID: req.ContainerID, Name: req.Name, Mode: req.Mode, Ports: portMap(req.Exposed, nil), DNS: req.DNS, ExtraHosts: req.ExtraHosts,
	}}
	if owner, shares := strings.CutPrefix(req.Mode, sharedPrefix); shares {
		if a.host = s.attachments[owner]; a.host == nil {
			return nil, failure.Conflict("cannot join network namespace of a non running container: %s", owner)
		}
		a.host.guests++
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
	if a.host != nil {
		a.host.guests--
	}
	for _, e := range sb.Endpoints {
		if s.part(sb.ContainerID, e) {
			parted = append(parted, e)
		}
	}
	return parted
}

// leave unregisters a container whose namespace may last for a moment.
func (s *Service) leave(a *attachment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.depart(a, s.unregister(a))
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
		kept, err := keepNamespace(ns, a.sandbox.ContainerID)
		if err != nil {
			return err
		}
		a.inner = kept
	}
	return nil
}

// keepNamespace is a container's network namespace by a descriptor of the caller's own.
func keepNamespace(ns int, containerID string) (*os.File, error) {
	fd, err := unix.FcntlInt(uintptr(ns), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("keep the network namespace of container %s: %w", containerID, err)
	}
	return os.NewFile(uintptr(fd), "network namespace"), nil
}

// namespace is what hold keeps, or -1.
func (a *attachment) namespace() int {
	if a.inner == nil {
		return -1
	}
	return int(a.inner.Fd())
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
	if guests == 0 {
		s.host.leaveInners(a.namespace())
	}
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
