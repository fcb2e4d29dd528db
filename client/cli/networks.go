package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/cli/opts"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/spf13/pflag"
)

func (a *app) networkCreate() spec {
	return spec{
		use: "create [OPTIONS] NETWORK", short: "Create a network", args: a.exactArgs(1),
		setup: func(fs *pflag.FlagSet) action {
			f := &networkFlags{options: opts.NewMapOpts(nil, nil), aux: opts.NewMapOpts(nil, nil), ipamOptions: opts.NewMapOpts(nil, nil)}
			f.install(fs)
			return func(ctx context.Context, args []string) error {
				options, err := f.create(fs)
				if err != nil {
					return err
				}
				c, err := a.api()
				if err != nil {
					return err
				}
				res, err := c.NetworkCreate(ctx, args[0], options)
				if err != nil {
					return err
				}
				for _, w := range res.Warning {
					if w != "" {
						a.warn(w)
					}
				}
				_, _ = fmt.Fprintln(a.out, res.ID)
				return nil
			}
		},
	}
}

// networkFlags are those of network create.
type networkFlags struct {
	driver, scope, configFrom, ipamDriver             string
	internal, attachable, ingress, configOnly, v4, v6 bool
	labels, subnets                                   []string
	ranges                                            []net.IPNet
	gateways                                          []net.IP
	options, aux, ipamOptions                         *opts.MapOpts
}

func (f *networkFlags) install(fs *pflag.FlagSet) {
	fs.StringVarP(&f.driver, "driver", "d", "bridge", "Driver to manage the Network")
	fs.VarP(f.options, "opt", "o", "Set driver specific options")
	fs.Var(opts.NewListOptsRef(&f.labels, opts.ValidateLabel), "label", "Set metadata on a network")
	fs.BoolVar(&f.internal, "internal", false, "Restrict external access to the network")
	fs.BoolVar(&f.v4, "ipv4", true, "Enable or disable IPv4 address assignment")
	fs.BoolVar(&f.v6, "ipv6", false, "Enable or disable IPv6 address assignment")
	fs.BoolVar(&f.attachable, "attachable", false, "Enable manual container attachment")
	fs.BoolVar(&f.ingress, "ingress", false, "Create swarm routing-mesh network")
	fs.StringVar(&f.scope, "scope", "", "Control the network's scope")
	fs.BoolVar(&f.configOnly, "config-only", false, "Create a configuration only network")
	fs.StringVar(&f.configFrom, "config-from", "", "The network from which to copy the configuration")
	fs.StringVar(&f.ipamDriver, "ipam-driver", "default", "IP Address Management Driver")
	fs.StringSliceVar(&f.subnets, "subnet", []string{}, "Subnet in CIDR format that represents a network segment")
	fs.IPNetSliceVar(&f.ranges, "ip-range", nil, "Allocate container ip from a sub-range")
	fs.IPSliceVar(&f.gateways, "gateway", nil, "IPv4 or IPv6 Gateway for the master subnet")
	fs.Var(f.aux, "aux-address", "Auxiliary IPv4 or IPv6 addresses used by Network driver")
	fs.Var(f.ipamOptions, "ipam-opt", "Set IPAM driver specific options")
}

// create is what the flags ask for.
func (f *networkFlags) create(fs *pflag.FlagSet) (client.NetworkCreateOptions, error) {
	configs, err := f.ipam()
	if err != nil {
		return client.NetworkCreateOptions{}, err
	}
	o := client.NetworkCreateOptions{
		Driver: f.driver, Options: f.options.GetAll(), Internal: f.internal, Attachable: f.attachable, Ingress: f.ingress, Scope: f.scope,
		ConfigOnly: f.configOnly, ConfigFrom: f.configFrom, Labels: opts.ConvertKVStringsToMap(f.labels),
		IPAM: &network.IPAM{Driver: f.ipamDriver, Options: f.ipamOptions.GetAll(), Config: configs},
	}
	if fs.Changed("ipv4") {
		o.EnableIPv4 = &f.v4
	}
	if fs.Changed("ipv6") {
		o.EnableIPv6 = &f.v6
	}
	return o, nil
}

// ipam sorts ranges, gateways and auxiliary addresses to the subnets that they are in.
func (f *networkFlags) ipam() ([]network.IPAMConfig, error) {
	if len(f.subnets) < len(f.ranges) || len(f.subnets) < len(f.gateways) {
		return nil, errors.New("every ip-range or gateway must have a corresponding subnet")
	}
	configs, err := parseSubnets(f.subnets)
	if err != nil {
		return nil, err
	}
	of := func(a netip.Addr) *network.IPAMConfig {
		for i := range configs {
			if configs[i].Subnet.Contains(a) {
				return &configs[i]
			}
		}
		return nil
	}
	for _, r := range f.ranges {
		ones, _ := r.Mask.Size()
		p := netip.PrefixFrom(toAddr(r.IP), ones)
		c := of(p.Addr())
		if c == nil {
			return nil, fmt.Errorf("no matching subnet for range %s", r.String())
		}
		if c.IPRange.IsValid() {
			return nil, fmt.Errorf("cannot configure multiple ranges (%s, %s) on the same subnet (%s)", p, c.IPRange, c.Subnet)
		}
		c.IPRange = p
	}
	for _, g := range f.gateways {
		c := of(toAddr(g))
		if c == nil {
			return nil, fmt.Errorf("no matching subnet for gateway %s", g)
		}
		if c.Gateway.IsValid() {
			return nil, fmt.Errorf("cannot configure multiple gateways (%s, %s) for the same subnet (%s)", g, c.Gateway, c.Subnet)
		}
		c.Gateway = toAddr(g)
	}
	for name, text := range f.aux.GetAll() {
		if text == "" {
			return nil, fmt.Errorf("invalid aux-address %q: write it as NAME=ADDRESS", name)
		}
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return nil, err
		}
		c := of(addr)
		if c == nil {
			return nil, fmt.Errorf("no matching subnet for aux-address %s", text)
		}
		c.AuxAddress[name] = addr
	}
	return configs, nil
}

// parseSubnets reads subnets, of which no two may overlap.
func parseSubnets(subnets []string) ([]network.IPAMConfig, error) {
	configs := make([]network.IPAMConfig, 0, len(subnets))
	for _, s := range subnets {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("invalid subnet: invalid CIDR address: %s", s)
		}
		for _, other := range configs {
			if other.Subnet.Overlaps(p) {
				return nil, errors.New("multiple overlapping subnet configuration is not supported")
			}
		}
		configs = append(configs, network.IPAMConfig{Subnet: p, AuxAddress: map[string]netip.Addr{}})
	}
	return configs, nil
}

func toAddr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

func (a *app) networkConnect() spec {
	return spec{
		use: "connect [OPTIONS] NETWORK CONTAINER", short: "Connect a container to a network", args: a.exactArgs(2),
		setup: func(fs *pflag.FlagSet) action {
			var links []string
			ip := fs.IP("ip", nil, `IPv4 address (e.g., "172.30.100.104")`)
			ip6 := fs.IP("ip6", nil, `IPv6 address (e.g., "2001:db8::33")`)
			fs.Var(opts.NewListOptsRef(&links, opts.ValidateLink), "link", "Add link to another container")
			aliases := fs.StringSlice("alias", []string{}, "Add network-scoped alias for the container")
			linkLocal := fs.IPSlice("link-local-ip", nil, "Add a link-local address for the container")
			driverOpts := fs.StringSlice("driver-opt", []string{}, "driver options for the network")
			priority := fs.Int("gw-priority", 0, "Highest gw-priority provides the default gateway. Accepts positive and negative values.")
			return func(ctx context.Context, args []string) error {
				e := &network.EndpointSettings{
					IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: toAddr(*ip), IPv6Address: toAddr(*ip6)},
					Links:      links, Aliases: *aliases, DriverOpts: map[string]string{}, GwPriority: *priority,
				}
				for _, ll := range *linkLocal {
					e.IPAMConfig.LinkLocalIPs = append(e.IPAMConfig.LinkLocalIPs, toAddr(ll))
				}
				for _, o := range *driverOpts {
					key, value, ok := strings.Cut(o, "=")
					if key = strings.TrimSpace(key); !ok || key == "" {
						return errors.New("invalid key/value pair format in driver options")
					}
					e.DriverOpts[key] = strings.TrimSpace(value)
				}
				c, err := a.api()
				if err != nil {
					return err
				}
				_, err = c.NetworkConnect(ctx, args[0], client.NetworkConnectOptions{Container: args[1], EndpointConfig: e})
				return err
			}
		},
	}
}

func (a *app) networkDisconnect() spec {
	return spec{
		use: "disconnect [OPTIONS] NETWORK CONTAINER", short: "Disconnect a container from a network", args: a.exactArgs(2),
		setup: func(fs *pflag.FlagSet) action {
			force := fs.BoolP("force", "f", false, "Force the container to disconnect from a network")
			return func(ctx context.Context, args []string) error {
				c, err := a.api()
				if err != nil {
					return err
				}
				_, err = c.NetworkDisconnect(ctx, args[0], client.NetworkDisconnectOptions{Container: args[1], Force: *force})
				return err
			}
		},
	}
}

func (a *app) networkRm() spec {
	return spec{
		use: "rm NETWORK [NETWORK...]", short: "Remove one or more networks", args: a.minArgs(1), aliases: []string{"remove"},
		shownAs: []string{"network rm", "network remove"},
		setup: func(fs *pflag.FlagSet) action {
			force := fs.BoolP("force", "f", false, "Do not error if the network does not exist")
			return func(ctx context.Context, names []string) error {
				c, err := a.api()
				if err != nil {
					return err
				}
				failed := false
				for _, name := range names {
					switch _, err := c.NetworkRemove(ctx, name, client.NetworkRemoveOptions{}); {
					case err == nil:
						_, _ = fmt.Fprintln(a.out, name)
					case *force && errdefs.IsNotFound(err):
					default:
						_, _ = fmt.Fprintln(a.err, err)
						failed = true
					}
				}
				if failed {
					return &statusError{code: 1, msg: "exit status 1"}
				}
				return nil
			}
		},
	}
}

func (a *app) networkPrune() spec {
	return spec{
		use: "prune [OPTIONS]", short: "Remove all unused networks", args: a.noArgs,
		setup: func(fs *pflag.FlagSet) action {
			force := fs.BoolP("force", "f", false, "Do not prompt for confirmation")
			filter := opts.NewFilterOpt()
			fs.Var(&filter, "filter", `Provide filter values (e.g. "until=<timestamp>")`)
			return func(ctx context.Context, _ []string) error {
				filters := a.pruneFilters(filter.Value())
				if !*force {
					ok, err := a.confirm(ctx, "WARNING! This will remove all custom networks not used by at least one container.\nAre you sure you want to continue?")
					if !ok || err != nil {
						return err
					}
				}
				c, err := a.api()
				if err != nil {
					return err
				}
				res, err := c.NetworkPrune(ctx, client.NetworkPruneOptions{Filters: filters})
				if err != nil {
					return err
				}
				if deleted := res.Report.NetworksDeleted; len(deleted) > 0 {
					_, _ = fmt.Fprintf(a.out, "Deleted Networks:\n%s\n\n", strings.Join(deleted, "\n"))
				}
				return nil
			}
		},
	}
}
