package network

import (
	"context"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/internal/failure"
)

// Options of the default bridge that clients and compose files look at.
const (
	optDefaultBridge = "com.docker.network.bridge.default_bridge"
	optICC           = "com.docker.network.bridge.enable_icc"
	optMasquerade    = "com.docker.network.bridge.enable_ip_masquerade"
	optHostBinding   = "com.docker.network.bridge.host_binding_ipv4"
	optBridgeName    = "com.docker.network.bridge.name"
	optMTU           = "com.docker.network.driver.mtu"
)

// List returns the networks that pass the filters (Docker's: driver, id, label,
// name, scope, type, dangling), sorted by name.
func (s *Service) List(ctx context.Context, filters map[string][]string) ([]network.Summary, error) {
	if err := checkFilters(filters); err != nil {
		return nil, err
	}
	used := s.inUse()
	all := []network.Summary{}
	for _, name := range []string{ModeBridge, ModeHost, ModeNone} {
		n := s.describeNetwork(name)
		if passes(n, used[name], filters) {
			all = append(all, network.Summary{Network: n})
		}
	}
	return all, nil
}

func (s *Service) inUse() map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	used := map[string]bool{}
	for _, e := range s.endpoints {
		used[e.sandbox.NetworkName] = true
	}
	return used
}

func checkFilters(filters map[string][]string) error {
	for key, values := range filters {
		for _, v := range values {
			switch key {
			case "driver", "id", "label", "name":
			case "scope":
				if v != "local" && v != "global" && v != "swarm" {
					return failure.Invalid("invalid filter 'scope=%s': want local, global or swarm", v)
				}
			case "type":
				if v != "custom" && v != "builtin" {
					return failure.Invalid("invalid filter: 'type'='%s': want custom or builtin", v)
				}
			case "dangling":
				if _, err := strconv.ParseBool(v); err != nil {
					return failure.Invalid("invalid filter 'dangling=%s': want true or false", v)
				}
			default:
				return failure.Invalid("invalid filter '%s'", key)
			}
		}
		if len(values) == 0 && !slices.Contains([]string{"driver", "id", "label", "name", "scope", "type", "dangling"}, key) {
			return failure.Invalid("invalid filter '%s'", key)
		}
	}
	return nil
}

// passes joins keys by AND and the values of one key by OR, except labels. The three
// networks here are builtin, local, without labels, and never dangling.
func passes(n network.Network, used bool, filters map[string][]string) bool {
	any := func(key string, match func(string) bool) bool {
		values := filters[key]
		return len(values) == 0 || slices.ContainsFunc(values, match)
	}
	return any("driver", func(v string) bool { return n.Driver == v }) &&
		any("id", func(v string) bool { return strings.HasPrefix(n.ID, v) }) &&
		any("name", func(v string) bool { return strings.Contains(n.Name, v) }) &&
		any("scope", func(v string) bool { return n.Scope == v }) &&
		any("type", func(v string) bool { return v == "builtin" }) &&
		any("dangling", func(v string) bool { b, _ := strconv.ParseBool(v); return !b }) &&
		len(filters["label"]) == 0
}

func (s *Service) describeNetwork(name string) network.Network {
	n := network.Network{
		Name: name, ID: s.state.IDs[name], Created: s.state.Created,
		Scope: "local", Driver: name, EnableIPv4: true,
		IPAM:    network.IPAM{Driver: "default", Options: nil, Config: []network.IPAMConfig{}},
		Options: map[string]string{}, Labels: map[string]string{},
	}
	switch name {
	case ModeNone:
		n.Driver = "null"
	case ModeBridge:
		n.IPAM.Config = []network.IPAMConfig{{Subnet: s.bridge.address.Masked(), Gateway: s.bridge.address.Addr()}}
		bind, mtu := netip.IPv4Unspecified(), 1500
		if s.cfg.BindIP.IsValid() {
			bind = s.cfg.BindIP
		}
		if s.cfg.MTU > 0 {
			mtu = s.cfg.MTU
		}
		n.Options = map[string]string{
			optDefaultBridge: "true", optICC: "true", optMasquerade: "true",
			optHostBinding: bind.String(), optBridgeName: s.cfg.Bridge, optMTU: strconv.Itoa(mtu),
		}
	}
	return n
}

// Inspect returns one network, found by full id, name or unique id prefix.
func (s *Service) Inspect(ctx context.Context, nameOrID string) (network.Inspect, error) {
	_, name, err := s.Resolve(nameOrID)
	if err != nil {
		return network.Inspect{}, err
	}
	in := network.Inspect{Network: s.describeNetwork(name), Containers: map[string]network.EndpointResource{}}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, e := range s.endpoints {
		sb := e.sandbox
		if sb.NetworkName != name || !e.ready {
			continue
		}
		r := network.EndpointResource{Name: sb.Name, EndpointID: sb.EndpointID, MacAddress: sb.MAC}
		if sb.IP.IsValid() {
			r.IPv4Address = netip.PrefixFrom(sb.IP, sb.PrefixLen)
		}
		in.Containers[id] = r
	}
	return in, nil
}

// Resolve finds a network by full id, name or unique id prefix.
func (s *Service) Resolve(nameOrID string) (id, name string, err error) {
	if id, ok := s.state.IDs[nameOrID]; ok {
		return id, nameOrID, nil
	}
	var found []string
	for n, i := range s.state.IDs {
		if nameOrID != "" && strings.HasPrefix(i, nameOrID) {
			found = append(found, n)
		}
	}
	switch len(found) {
	case 0:
		return "", "", failure.NotFound("network %s not found", nameOrID)
	case 1:
		return s.state.IDs[found[0]], found[0], nil
	}
	return "", "", failure.Invalid("network %s is ambiguous (%d matches found based on ID prefix)", nameOrID, len(found))
}

// Rename tells the service a container's new name.
func (s *Service) Rename(containerID, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.endpoints[containerID]; e != nil {
		renamed := *e.sandbox
		renamed.Name = name
		e.sandbox = &renamed
	}
}
