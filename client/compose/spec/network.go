package spec

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/client/compose/canonical"
	"github.com/cleatlabs/cleat/client/compose/label"
)

// networks fills in where the container is connected.
func (r *Replica) networks(q *Request) error {
	s := r.Service
	if s.NetworkMode != "" {
		q.Create.HostConfig.NetworkMode = container.NetworkMode(s.NetworkMode)
		return nil
	}
	names := byPriority(s)
	if len(names) == 0 {
		q.Create.HostConfig.NetworkMode = "none"
		return nil
	}
	endpoints := map[string]*network.EndpointSettings{}
	for i, key := range names {
		declared, ok := r.Project.Networks[key]
		if !ok {
			return fmt.Errorf("refers to undefined network %s", key)
		}
		endpoint, err := r.endpoint(s.Networks[key])
		if err != nil {
			return fmt.Errorf("network %s: %w", key, err)
		}
		if i == 0 {
			q.Create.HostConfig.NetworkMode = container.NetworkMode(declared.Name)
			if s.MacAddress != "" && len(endpoint.MacAddress) == 0 {
				if err := endpoint.MacAddress.UnmarshalText([]byte(s.MacAddress)); err != nil {
					return fmt.Errorf("mac_address: %w", err)
				}
			}
		}
		if i > 0 && !r.from("1.44") {
			q.Connect = append(q.Connect, client.NetworkConnectOptions{EndpointConfig: endpoint})
			q.Later = append(q.Later, declared.Name)
			continue
		}
		endpoints[declared.Name] = endpoint
	}
	q.Create.NetworkingConfig = &network.NetworkingConfig{EndpointsConfig: endpoints}
	return nil
}

// byPriority are the service's networks, that of the highest priority first.
func byPriority(s types.ServiceConfig) []string {
	priority := func(key string) int {
		if n := s.Networks[key]; n != nil {
			return n.Priority
		}
		return 0
	}
	return slices.SortedFunc(maps.Keys(s.Networks), func(a, b string) int {
		return cmp.Or(cmp.Compare(priority(b), priority(a)), cmp.Compare(a, b))
	})
}

// endpoint is the connection to one network.
func (r *Replica) endpoint(n *types.ServiceNetworkConfig) (*network.EndpointSettings, error) {
	e := &network.EndpointSettings{Aliases: []string{r.Name}}
	if !r.OneOff || !r.Alone {
		if n.ServiceNameAliasEnabled() {
			e.Aliases = append(e.Aliases, r.Service.Name)
		}
		if n != nil {
			e.Aliases = append(e.Aliases, n.Aliases...)
		}
	}
	e.Links = r.links()
	if n == nil {
		return e, nil
	}
	e.DriverOpts, e.GwPriority = maps.Clone(map[string]string(n.DriverOpts)), n.GatewayPriority
	if n.InterfaceName != "" {
		if e.DriverOpts == nil {
			e.DriverOpts = map[string]string{}
		}
		e.DriverOpts["com.docker.network.endpoint.ifname"] = n.InterfaceName
	}
	if n.MacAddress != "" {
		if err := e.MacAddress.UnmarshalText([]byte(n.MacAddress)); err != nil {
			return nil, fmt.Errorf("mac_address: %w", err)
		}
	}
	if n.Ipv4Address == "" && n.Ipv6Address == "" && len(n.LinkLocalIPs) == 0 {
		return e, nil
	}
	e.IPAMConfig = &network.EndpointIPAMConfig{}
	for _, a := range []struct {
		key, text string
		to        *netip.Addr
	}{{"ipv4_address", n.Ipv4Address, &e.IPAMConfig.IPv4Address}, {"ipv6_address", n.Ipv6Address, &e.IPAMConfig.IPv6Address}} {
		if a.text == "" {
			continue
		}
		parsed, err := netip.ParseAddr(a.text)
		if err != nil {
			return nil, fmt.Errorf("%s: %q is no address", a.key, a.text)
		}
		*a.to = parsed
	}
	var err error
	e.IPAMConfig.LinkLocalIPs, err = addresses("link_local_ips", n.LinkLocalIPs)
	return e, err
}

// links are names by which other containers are found: those of services by their alias,
// and by what they were called in older times.
func (r *Replica) links() []string {
	var links []string
	for _, text := range r.Service.Links {
		service, alias, ok := strings.Cut(text, ":")
		if !ok {
			alias = service
		}
		if r.Linked == nil {
			continue
		}
		short := service + r.separator() + strconv.Itoa(r.Number)
		for _, name := range r.Linked(service) {
			links = append(links, name+":"+alias, name+":"+short, name+":"+r.Project.Name+r.separator()+short)
		}
	}
	for _, text := range r.Service.ExternalLinks {
		name, alias, ok := strings.Cut(text, ":")
		if !ok {
			alias = name
		}
		links = append(links, name+":"+alias)
	}
	return links
}

func (r *Replica) separator() string { return cmp.Or(r.Separator, "-") }

// Network is the request that makes one of a project's networks, which is declared under
// key.
func Network(p *types.Project, key string, n types.NetworkConfig) (client.NetworkCreateOptions, error) {
	hash, err := canonical.NetworkHash(n)
	if err != nil {
		return client.NetworkCreateOptions{}, err
	}
	labels := maps.Clone(map[string]string(n.Labels))
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, map[string]string{
		label.Project: p.Name, label.Network: key, label.Version: label.Compatible, label.ConfigHash: hash,
	})
	o := client.NetworkCreateOptions{
		Driver: n.Driver, Internal: n.Internal, Attachable: n.Attachable, EnableIPv4: n.EnableIPv4, EnableIPv6: n.EnableIPv6,
		Options: n.DriverOpts, Labels: labels,
	}
	if o.Driver == "default" {
		o.Driver = ""
	}
	if n.Ipam.Driver == "" && len(n.Ipam.Config) == 0 && len(n.Ipam.Options) == 0 {
		return o, nil
	}
	o.IPAM = &network.IPAM{Driver: n.Ipam.Driver, Options: n.Ipam.Options}
	for _, pool := range n.Ipam.Config {
		c, err := ipamConfig(pool)
		if err != nil {
			return o, fmt.Errorf("network %s: ipam: %w", key, err)
		}
		o.IPAM.Config = append(o.IPAM.Config, c)
	}
	return o, nil
}

func ipamConfig(pool *types.IPAMPool) (c network.IPAMConfig, err error) {
	if pool.Subnet != "" {
		if c.Subnet, err = netip.ParsePrefix(pool.Subnet); err != nil {
			return c, fmt.Errorf("subnet: %w", err)
		}
	}
	if pool.IPRange != "" {
		if c.IPRange, err = netip.ParsePrefix(pool.IPRange); err != nil {
			return c, fmt.Errorf("ip_range: %w", err)
		}
	}
	if pool.Gateway != "" {
		if c.Gateway, err = netip.ParseAddr(pool.Gateway); err != nil {
			return c, fmt.Errorf("gateway: %w", err)
		}
	}
	for name, text := range pool.AuxiliaryAddresses {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return c, fmt.Errorf("aux_addresses: %s: %w", name, err)
		}
		if c.AuxAddress == nil {
			c.AuxAddress = map[string]netip.Addr{}
		}
		c.AuxAddress[name] = a
	}
	return c, nil
}

// Volume is the request that makes one of a project's volumes.
func Volume(p *types.Project, key string, v types.VolumeConfig) (client.VolumeCreateOptions, error) {
	hash, err := canonical.VolumeHash(v)
	if err != nil {
		return client.VolumeCreateOptions{}, err
	}
	labels := map[string]string{}
	maps.Copy(labels, v.Labels)
	maps.Copy(labels, map[string]string{
		label.Project: p.Name, label.Volume: key, label.Version: label.Compatible, label.ConfigHash: hash,
	})
	return client.VolumeCreateOptions{Name: v.Name, Driver: v.Driver, DriverOpts: v.DriverOpts, Labels: labels}, nil
}
