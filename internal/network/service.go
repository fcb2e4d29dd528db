package network

import (
	"context"
	"errors"

	"github.com/moby/moby/api/types/network"
)

var errNotBuilt = errors.New("network: not built")

// Service is the network side of one engine. Its methods are safe for concurrent
// use.
type Service struct {
	cfg Config
}

// Open makes or adopts the bridge, its nftables table and the host's sysctls
// (ip_forward, route_localnet of the bridge).
func Open(ctx context.Context, cfg Config) (*Service, error) { return nil, errNotBuilt }

// Close stops the service and leaves bridge, table and containers' traffic as they
// are, for the next engine.
func (s *Service) Close() error { return nil }

// Teardown closes the service and removes what it made: the table, marked rules in
// foreign chains and the bridge, unless that existed before.
func (s *Service) Teardown() error { return nil }

// Attach gives the container all that its request asks for. netnsFD is the
// container's network namespace, which the caller joins the container to and then
// closes; it is -1 for modes host and none. Errors leave nothing behind.
func (s *Service) Attach(ctx context.Context, req Request) (sb *Sandbox, netnsFD int, err error) {
	return nil, -1, errNotBuilt
}

// Detach frees the sandbox's ports and address. The links vanish with the network
// namespace. Detaching twice is no error.
func (s *Service) Detach(ctx context.Context, sb *Sandbox) error { return errNotBuilt }

// Adopt takes over a sandbox that an earlier engine made and whose container runs
// as pid: its address and ports are reserved again, missing rules added.
func (s *Service) Adopt(ctx context.Context, sb *Sandbox, pid int) error { return errNotBuilt }

// Reconcile removes addresses, rules and links that belong to none of keep.
func (s *Service) Reconcile(ctx context.Context, keep []*Sandbox) error { return errNotBuilt }

// Rename tells the service a container's new name.
func (s *Service) Rename(containerID, name string) {}

// List returns the networks that pass the filters (Docker's: driver, id, label,
// name, scope, type, dangling), sorted by name.
func (s *Service) List(ctx context.Context, filters map[string][]string) ([]network.Summary, error) {
	return nil, errNotBuilt
}

// Inspect returns one network, found by full id, name or unique id prefix.
func (s *Service) Inspect(ctx context.Context, nameOrID string) (network.Inspect, error) {
	return network.Inspect{}, errNotBuilt
}

// Resolve finds a network by full id, name or unique id prefix.
func (s *Service) Resolve(nameOrID string) (id, name string, err error) {
	return "", "", errNotBuilt
}

// Warnings are sentences for `info` about what keeps the network from working as
// asked, such as a foreign firewall.
func (s *Service) Warnings() []string { return nil }
