package network

// What follows is where the name service learns which container has which names on
// which network. All are called without a lock of the Service.

// hasNames says whether containers find each other by name on the endpoint's network:
// on every one but the predefined.
func (e *Endpoint) hasNames() bool {
	return e.Driver != driverHost && e.Driver != driverNull && e.NetworkName != ModeBridge
}

// namesAttach is part of Attach, when addresses and routes are set and before the
// container's process starts. ns is its network namespace, valid during the call.
func (s *Service) namesAttach(sb *Sandbox, ns int) error { return nil }

// namesConnect is part of Connect: sb has the new endpoint e.
func (s *Service) namesConnect(sb *Sandbox, e *Endpoint, ns int) error { return nil }

// namesDisconnect is part of Disconnect: sb does not have e any more.
func (s *Service) namesDisconnect(sb *Sandbox, e *Endpoint) {}

// namesRename says that the names of sb's endpoints have changed.
func (s *Service) namesRename(sb *Sandbox) {}

// namesAdopt is part of Adopt. ns is the living container's network namespace, -1 if it
// could not be opened.
func (s *Service) namesAdopt(sb *Sandbox, ns int) error { return nil }

// namesDetach says that a container has ended, or that its start has failed. It may be
// called twice.
func (s *Service) namesDetach(sb *Sandbox) {}
