package network

import (
	"context"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/filter"
)

// List returns the networks that pass the filters (Docker's: driver, id, label,
// name, scope, type, dangling), sorted by name.
func (s *Service) List(ctx context.Context, filters map[string][]string) ([]network.Summary, error) {
	passes, err := newFilter(filters)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	var found []*netw
	used := map[*netw]bool{}
	for _, n := range s.networks {
		if !n.busy {
			found = append(found, n)
			used[n] = len(n.members) > 0
		}
	}
	s.mu.Unlock()
	all := []network.Summary{}
	for _, n := range found {
		if passes(n.rec, used[n]) {
			all = append(all, network.Summary{Network: n.rec.describe()})
		}
	}
	slices.SortFunc(all, func(a, b network.Summary) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

func checkFilters(filters map[string][]string) error {
	for key, values := range filters {
		if !slices.Contains([]string{"driver", "id", "label", "name", "scope", "type", "dangling"}, key) {
			return failure.Invalid("invalid filter '%s'", key)
		}
		for _, v := range values {
			switch key {
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
			}
		}
	}
	return nil
}

// newFilter joins keys by AND and the values of one key by OR, except labels.
func newFilter(filters map[string][]string) (func(r *Record, used bool) bool, error) {
	if err := checkFilters(filters); err != nil {
		return nil, err
	}
	any := func(key string, match func(string) bool) bool {
		values := filters[key]
		return len(values) == 0 || slices.ContainsFunc(values, match)
	}
	id, name := filter.Names(filters["id"]), filter.Names(filters["name"])
	return func(r *Record, used bool) bool {
		return any("driver", func(v string) bool { return r.Driver == v }) &&
			(id(r.ID) || any("id", func(v string) bool { return strings.HasPrefix(r.ID, v) })) &&
			name(r.Name) &&
			any("scope", func(v string) bool { return v == "local" }) &&
			any("type", func(v string) bool { return (v == "builtin") == r.predefined() }) &&
			any("dangling", func(v string) bool { b, _ := strconv.ParseBool(v); return b == (!used && !r.predefined()) }) &&
			filter.HasLabels(r.Labels, filters["label"])
	}, nil
}

// Inspect returns one network, found by full id, name or unique id prefix.
func (s *Service) Inspect(ctx context.Context, nameOrID string) (network.Inspect, error) {
	s.mu.Lock()
	n, err := s.find(nameOrID)
	if err != nil {
		s.mu.Unlock()
		return network.Inspect{}, err
	}
	containers := map[string]network.EndpointResource{}
	for id, m := range n.members {
		a := s.attachments[id]
		if !m.ready || a == nil || a.hidden {
			continue
		}
		e := m.endpoint
		r := network.EndpointResource{Name: a.sandbox.Name, EndpointID: e.EndpointID, MacAddress: e.MAC}
		if e.IP.IsValid() {
			r.IPv4Address = netip.PrefixFrom(e.IP, e.PrefixLen)
		}
		if e.IP6.IsValid() {
			r.IPv6Address = netip.PrefixFrom(e.IP6, e.PrefixLen6)
		}
		containers[id] = r
	}
	s.mu.Unlock()
	return network.Inspect{
		Network: n.rec.describe(), Containers: containers, Status: &network.Status{IPAM: network.IPAMStatus{Subnets: n.addrs.status()}},
	}, nil
}

// Resolve finds a network by full id, name or unique id prefix.
func (s *Service) Resolve(nameOrID string) (id, name string, err error) {
	r, err := s.Find(nameOrID)
	if err != nil {
		return "", "", err
	}
	return r.ID, r.Name, nil
}

// Find is the record of the network with this full id, name or unique id prefix.
func (s *Service) Find(nameOrID string) (*Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.find(nameOrID)
	if err != nil {
		return nil, err
	}
	return n.rec, nil
}

// Records are those of all networks.
func (s *Service) Records() []*Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*Record
	for _, n := range s.networks {
		if !n.busy {
			all = append(all, n.rec)
		}
	}
	return all
}

// Rename tells the service a container's new name, which is that of req, as for Attach, and returns its sandbox with
// that name, nil if it is not attached.
func (s *Service) Rename(req *Request) *Sandbox {
	s.mu.Lock()
	a := s.attachments[req.ContainerID]
	if a == nil {
		s.mu.Unlock()
		return nil
	}
	renamed := a.sandbox.Renamed(req)
	for _, e := range renamed.Endpoints {
		if n := s.networks[e.NetworkID]; n != nil && n.members[req.ContainerID] != nil {
			n.members[req.ContainerID].endpoint = e
		}
	}
	a.sandbox = renamed
	s.mu.Unlock()
	s.namesRename(a)
	return renamed
}

// Renamed is sb, which stays as it is, for a container that has another name by req, and asks for its endpoints by it: the
// former name stays the container's where that is an alias or its host's name as well.
func (sb *Sandbox) Renamed(req *Request) *Sandbox {
	renamed := *sb
	renamed.Name, renamed.Endpoints = req.Name, nil
	for _, e := range sb.Endpoints {
		c := *e
		if e.hasNames() {
			c.DNSNames = dnsNames(req, req.on(e))
		}
		renamed.Endpoints = append(renamed.Endpoints, &c)
	}
	return &renamed
}

// on is what is asked of an endpoint that there is.
func (r *Request) on(e *Endpoint) *EndpointRequest {
	for i := range r.Endpoints {
		if want := &r.Endpoints[i]; want.NetworkID == e.NetworkID || want.NetworkID == "" && (want.Network == e.NetworkName || want.Network == e.NetworkID) {
			return want
		}
	}
	return &EndpointRequest{}
}
