package network

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/netlink"
)

// build makes the namespace with all its interfaces, publishes the ports and writes the
// files.
func (s *Service) build(ctx context.Context, req *Request, a *attachment) (ns int, err error) {
	sb := a.sandbox
	targets := s.targets(sb)
	wishes, err := s.wishes(sb.Asked, targets)
	if err != nil {
		return -1, err
	}
	if req.Unattended {
		evenAbsent(wishes)
	}
	in, err := s.connectAll(a)
	if err != nil {
		return -1, err
	}
	defer in.close()
	defer s.refill(sb)
	if err = s.publish(req, a, targets, wishes); err == nil {
		err = s.namesAttach(a, in)
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

// connectAll connects a new namespace to all networks of a sandbox.
func (s *Service) connectAll(a *attachment) (*inside, error) {
	sb := a.sandbox
	in, first, err := s.socketFor(sb)
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

// plain is the first endpoint of a sandbox and its bridge, if a spare namespace can have its interface already.
func (s *Service) plain(sb *Sandbox) (*Endpoint, *bridge) {
	if len(sb.Endpoints) == 0 { // the container was disconnected from all of its networks
		return nil, nil
	}
	e := sb.Endpoints[0]
	if b, ok := s.driverOf(e).(*bridge); ok && e.Interface == "eth0" {
		return e, b
	}
	return e, nil
}

// socketFor is a namespace for a container: a spare one that has the first endpoint's interface already, whose index is
// then not 0, if there can be such a one.
func (s *Service) socketFor(sb *Sandbox) (in *inside, index int, err error) {
	e, b := s.plain(sb)
	if b == nil {
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

func (in *inside) send(msgs []*netlink.Message) error {
	if len(msgs) == 0 {
		return nil
	}
	if err := in.conn.Do(msgs...); err != nil {
		return fmt.Errorf("in the container's namespace: %w", err)
	}
	return nil
}

// refill has the spares replaced that a start may have taken.
func (s *Service) refill(sb *Sandbox) {
	e, b := s.plain(sb)
	if e != nil && e.NetworkID == s.bridge.rec.ID {
		s.spares.refill()
		return
	}
	if b != nil {
		s.ahead.came(b)
	}
	s.loose.refill()
}

// abandonNamespace gives up a namespace, with which the links in it go.
func (s *Service) abandonNamespace(in *inside, sb *Sandbox) {
	for _, e := range sb.Endpoints {
		s.host.disown(e.Link)
	}
	unix.Close(in.ns)
}
