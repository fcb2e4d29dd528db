package engine

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	apinetwork "github.com/moby/moby/api/types/network"

	ccontainer "github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/network"
)

// finder knows the networks that exist.
type finder func(nameOrID string) (*network.Record, error)

// checkEndpoints validates the requested endpoints and returns them under the names of
// their networks. A request that names none is for the network of the container's mode.
// A network that does not exist is no error yet: it may when the container starts.
func checkEndpoints(mode container.NetworkMode, nc *apinetwork.NetworkingConfig, find finder) (map[string]*apinetwork.EndpointSettings, error) {
	out := map[string]*apinetwork.EndpointSettings{}
	if nc != nil {
		for name, e := range nc.EndpointsConfig {
			if name == apinetwork.NetworkDefault {
				name = network.ModeBridge
			}
			if e != nil && len(e.MacAddress) > 0 && (mode.IsHost() || mode.IsNone() || mode.IsContainer()) {
				return nil, failure.Invalid("conflicting options: mac-address and the network mode")
			}
			canonical, checked, err := checkEndpoint(name, e, find)
			if err != nil {
				return nil, err
			}
			if out[canonical] != nil {
				return nil, failure.Invalid("network %s is named twice in EndpointsConfig", canonical)
			}
			out[canonical] = checked
		}
	}
	if mode.IsHost() || mode.IsNone() || mode.IsContainer() {
		for name := range out {
			if name != string(mode) {
				return nil, failure.Invalid("conflicting options: a container of network mode %s cannot be connected to network %s", mode, name)
			}
		}
		if mode.IsContainer() {
			return map[string]*apinetwork.EndpointSettings{}, nil
		}
	}
	if len(out) == 0 {
		name, e, err := checkEndpoint(string(mode), nil, find)
		if err != nil {
			return nil, err
		}
		out[name] = e
	}
	return out, nil
}

// checkEndpoint validates one endpoint and completes it with the network's id.
func checkEndpoint(name string, asked *apinetwork.EndpointSettings, find finder) (canonical string, e *apinetwork.EndpointSettings, err error) {
	if container.NetworkMode(name).IsContainer() {
		return "", nil, failure.Invalid("EndpointsConfig names %q, which is a network mode and no network", name)
	}
	e = &apinetwork.EndpointSettings{}
	if asked != nil {
		// The rest is what inspect reported: clients send it back when they recreate.
		e.IPAMConfig, e.Links, e.Aliases, e.DriverOpts = asked.IPAMConfig.Copy(), asked.Links, asked.Aliases, asked.DriverOpts
		e.GwPriority, e.MacAddress = asked.GwPriority, asked.MacAddress
	}
	canonical = name
	userDefined := name != network.ModeBridge && name != network.ModeHost && name != network.ModeNone
	if rec, err := find(name); err == nil {
		canonical, e.NetworkID = rec.Name, rec.ID
		userDefined = rec.Name != network.ModeBridge && rec.Name != network.ModeHost && rec.Name != network.ModeNone
		if err := checkAddresses(rec, e.IPAMConfig); err != nil {
			return "", nil, failure.Invalid("invalid config for network %s: invalid endpoint settings:\n%w", rec.Name, err)
		}
	}
	if err := network.CheckEndpointOptions(e.DriverOpts); err != nil {
		return "", nil, err
	}
	if userDefined {
		return canonical, e, nil
	}
	if ip := e.IPAMConfig; ip != nil && (ip.IPv4Address.IsValid() || ip.IPv6Address.IsValid() || len(ip.LinkLocalIPs) > 0) {
		return "", nil, failure.Invalid("invalid config for network %s: invalid endpoint settings:\nuser specified IP address is supported on user defined networks only", name)
	}
	if len(e.Aliases) > 0 {
		return "", nil, failure.Invalid("invalid config for network %s: invalid endpoint settings:\nnetwork-scoped aliases are only supported for user-defined networks", name)
	}
	return canonical, e, nil
}

// checkAddresses refuses addresses that a network can never give.
func checkAddresses(rec *network.Record, c *apinetwork.EndpointIPAMConfig) error {
	if c == nil {
		return nil
	}
	var errs []error
	for _, f := range []struct {
		ip  netip.Addr
		six bool
	}{{c.IPv4Address, false}, {c.IPv6Address, true}} {
		if !f.ip.IsValid() {
			continue
		}
		if f.ip.Is6() != f.six {
			errs = append(errs, fmt.Errorf("invalid IPv%s address: %s", map[bool]string{false: "4", true: "6"}[f.six], f.ip))
			continue
		}
		if err := rec.MayAsk(f.ip); err != nil {
			errs = append(errs, err)
		}
	}
	for _, ip := range c.LinkLocalIPs {
		if !ip.IsValid() || ip.IsUnspecified() {
			errs = append(errs, fmt.Errorf("invalid link-local IP address: %s", ip))
		}
	}
	return errors.Join(errs...)
}

// endpointRequests are a container's endpoints in the order of its interfaces: the one
// of its network mode, which is a name or an id, then the others by name.
func endpointRequests(mode container.NetworkMode, endpoints map[string]*apinetwork.EndpointSettings) []network.EndpointRequest {
	names := slices.Sorted(maps.Keys(endpoints))
	main := func(name string) bool {
		e := endpoints[name]
		return name == string(mode) || e != nil && e.NetworkID != "" && e.NetworkID == string(mode)
	}
	if i := slices.IndexFunc(names, main); i > 0 {
		name := names[i]
		names = slices.Insert(slices.Delete(names, i, i+1), 0, name)
	}
	out := []network.EndpointRequest{} // one that was disconnected from all has none, and not that of its mode
	for _, name := range names {
		out = append(out, endpointRequest(name, endpoints[name]))
	}
	return out
}

func endpointRequest(name string, e *apinetwork.EndpointSettings) network.EndpointRequest {
	r := network.EndpointRequest{Network: name}
	if e == nil {
		return r
	}
	r.NetworkID, r.MAC, r.Aliases, r.Links = e.NetworkID, e.MacAddress, e.Aliases, e.Links
	r.DriverOpts, r.GwPriority = e.DriverOpts, e.GwPriority
	if c := e.IPAMConfig; c != nil {
		r.IP, r.IP6, r.LinkLocal = c.IPv4Address, c.IPv6Address, c.LinkLocalIPs
	}
	return r
}

// networkRequest is what a container asks of the network.
func networkRequest(c *ccontainer.Container, r *ccontainer.Record) network.Request {
	cfg, host := r.Config, r.HostConfig
	req := network.Request{
		ContainerID: r.ID, Name: r.Name, Hostname: cfg.Hostname, Domainname: cfg.Domainname, Mode: string(host.NetworkMode),
		ExtraHosts: host.ExtraHosts, DNSSearch: host.DNSSearch, DNSOptions: host.DNSOptions, FilesDir: c.Dir(), Started: r.State.StartedAt,
		Endpoints: endpointRequests(host.NetworkMode, r.Networks()), NoIPv6: switchesIPv6Off(host.Sysctls),
	}
	for _, d := range host.DNS {
		req.DNS = append(req.DNS, d.String())
	}
	if !host.NetworkMode.IsHost() && !host.NetworkMode.IsContainer() {
		req.Ports, req.PublishAll = host.PortBindings, host.PublishAllPorts
		for p := range cfg.ExposedPorts {
			req.Exposed = append(req.Exposed, p)
		}
	}
	return req
}

// switchesIPv6Off says whether a container's settings of the kernel leave it no address of IPv6, not even ::1.
func switchesIPv6Off(sysctls map[string]string) bool {
	for key, value := range sysctls {
		if strings.ReplaceAll(key, "/", ".") == "net.ipv6.conf.all.disable_ipv6" {
			n, err := strconv.Atoi(strings.TrimSpace(value))
			return err == nil && n != 0
		}
	}
	return false
}

// endpointSettings describes a container's networks: as requested, and, while it runs,
// as they are.
func endpointSettings(r *ccontainer.Record, find finder) map[string]*apinetwork.EndpointSettings {
	out := map[string]*apinetwork.EndpointSettings{}
	for name, asked := range r.Networks() {
		e := asked.Copy()
		if e == nil {
			e = &apinetwork.EndpointSettings{}
		}
		rec, err := find(e.NetworkID)
		if err != nil {
			rec, err = find(name)
		}
		if err == nil {
			e.NetworkID, name = rec.ID, rec.Name
		}
		if sb := r.State.Sandbox; sb != nil {
			if now := sb.On(e.NetworkID); now != nil {
				showEndpoint(e, now)
			}
		}
		if container.NetworkMode(name).IsUserDefined() {
			e.DNSNames = network.DNSNames(r.Name, e.Aliases, r.ID, r.Config.Hostname)
		}
		out[name] = e
	}
	return out
}

func showEndpoint(e *apinetwork.EndpointSettings, now *network.Endpoint) {
	e.EndpointID, e.MacAddress = now.EndpointID, now.MAC
	e.Gateway, e.IPAddress, e.IPPrefixLen = now.Gateway, now.IP, now.PrefixLen
	e.IPv6Gateway, e.GlobalIPv6Address, e.GlobalIPv6PrefixLen = now.Gateway6, now.IP6, now.PrefixLen6
}

// checkSharedNetwork refuses what cannot be said of a container in another's network.
func checkSharedNetwork(cfg *container.Config, host *container.HostConfig) error {
	conflict := func(what string) error { return failure.Invalid("conflicting options: %s", what) }
	switch {
	case !host.NetworkMode.IsContainer():
		return nil
	case strings.TrimSpace(host.NetworkMode.ConnectedContainer()) == "":
		return failure.Invalid("Invalid network mode: invalid container format container:<name|id>")
	case cfg.Hostname != "":
		return conflict("hostname and the network mode")
	case len(host.Links) > 0:
		return conflict("container type network can't be used with links. This would result in undefined behavior")
	case len(host.DNS) > 0 || len(host.DNSOptions) > 0 || len(host.DNSSearch) > 0:
		return conflict("dns and the network mode")
	case len(host.ExtraHosts) > 0:
		return conflict("custom host-to-IP mapping and the network mode")
	case len(host.PortBindings) > 0 || host.PublishAllPorts:
		return conflict("port publishing and the container type network mode")
	case len(cfg.ExposedPorts) > 0:
		return conflict("port exposing and the container type network mode")
	}
	return nil
}
