package network

import (
	"fmt"

	"github.com/cleatlabs/cleat/internal/nft"
)

// publish reserves the ports, writes the files and redirects the ports.
func (s *Service) publish(req *Request, a *attachment, t targets, wishes []wish) error {
	a.edit.Lock()
	defer a.edit.Unlock()
	r, listening, err := s.reserve(wishes, t)
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
	add := append(t.elements(r.ports, a.sandbox.Asked), s.servedElements(r.ports)...)
	a.elements = add
	if err := s.table.Apply(nft.Change{Add: add}); err != nil {
		return fmt.Errorf("publish ports: %w", err)
	}
	if err := listening(); err != nil {
		return err
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
	s.letGo(r)
	s.stale.forget(nil, dels)
	return err
}
