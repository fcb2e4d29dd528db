package assemble

import (
	"encoding/csv"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/cleatlabs/cleat/internal/network"
)

// bindNetworks defines the flags of what new networks get.
func (c *Config) bindNetworks(fs *pflag.FlagSet) {
	fs.StringVar(&c.PublishIP, "ip", "", "Host address for published ports that name none (default: all)")
	fs.StringVar(&c.DefaultPublish, "default-publish-address", "", "The same as --ip, by a name that says it")
	fs.BoolVar(&c.UserlandProxy, "userland-proxy", true, "Serve published ports on IPv6 addresses of the host for containers without IPv6, and on ::1")
	fs.StringArrayVar(&c.AddressPools, "default-address-pool", nil, "Pool(s) that subnets of networks are cut from, as base=10.10.0.0/16,size=24")
	fs.StringArrayVar(&c.NetworkOpts, "default-network-opt", nil, "Options of new networks, as driver=option=value")
	c.DefaultNetwork.bind(fs)
}

func (c *Config) checkNetworks() error {
	if c.DefaultPublish != "" {
		if c.PublishIP != "" && c.PublishIP != c.DefaultPublish {
			return fmt.Errorf("%s and %s name different addresses: leave out one", c.spell("ip"), c.spell("default-publish-address"))
		}
		if _, err := netip.ParseAddr(c.DefaultPublish); err != nil {
			return fmt.Errorf("%s: %q is not an IP address", c.spell("default-publish-address"), c.DefaultPublish)
		}
		c.PublishIP = c.DefaultPublish
	}
	if _, err := addressPools(c.AddressPools); err != nil {
		return fmt.Errorf("%s: %w", c.spell("default-address-pool"), err)
	}
	if _, err := networkOptions(c.NetworkOpts); err != nil {
		return fmt.Errorf("%s: %w", c.spell("default-network-opt"), err)
	}
	if _, err := c.DefaultNetwork.mark(); err != nil {
		return fmt.Errorf("%s: %w", c.spell("bridge-accept-fwmark"), err)
	}
	_, err := c.DefaultNetwork.read(c.spell)
	if err != nil {
		return err
	}
	c.Warnings = append(c.Warnings, c.DefaultNetwork.idle(c.spell)...)
	return nil
}

// addressPools reads pools in dockerd's form. A pool may be written with several commas only.
func addressPools(values []string) ([]network.AddressPool, error) {
	var out []network.AddressPool
	for _, value := range values {
		fields, err := csv.NewReader(strings.NewReader(value)).Read()
		if err != nil {
			return nil, fmt.Errorf("%q: %w", value, err)
		}
		var pool network.AddressPool
		for _, field := range fields {
			key, text, _ := strings.Cut(field, "=")
			switch strings.ToLower(key) {
			case "base":
				if pool.Base, err = netip.ParsePrefix(text); err != nil {
					return nil, fmt.Errorf("invalid base pool %q: it is not an address range such as 10.10.0.0/16", text)
				}
			case "size":
				if pool.Size, err = strconv.Atoi(text); err != nil {
					return nil, fmt.Errorf("invalid size value: %q is not a number", text)
				}
			default:
				return nil, fmt.Errorf("unexpected key '%s' in '%s': there are base and size", key, value)
			}
		}
		if !pool.Base.IsValid() || pool.Size == 0 {
			return nil, fmt.Errorf("%q: a pool has a base, such as 10.10.0.0/16, and a size, that of the subnets, such as 24", value)
		}
		if pool.Size < pool.Base.Bits() || pool.Size > pool.Base.Addr().BitLen()-2 {
			return nil, fmt.Errorf("%q: no subnet of that size can be cut from that base", value)
		}
		if pool.Base != pool.Base.Masked() {
			return nil, fmt.Errorf("invalid base pool %q: it should be %s", pool.Base, pool.Base.Masked())
		}
		out = append(out, pool)
	}
	return out, nil
}

// networkOptions reads driver=option=value, and from the configuration file driver={option: value}.
func networkOptions(values []string) (map[string]map[string]string, error) {
	out := map[string]map[string]string{}
	for _, value := range values {
		driver, option, ok := strings.Cut(value, "=")
		key, text, ok2 := strings.Cut(option, "=")
		if !ok || !ok2 || driver == "" || key == "" {
			return nil, fmt.Errorf("invalid default network option %q: it is not driver=option=value", value)
		}
		if driver != "bridge" && driver != "macvlan" && driver != "ipvlan" {
			return nil, fmt.Errorf("invalid default network option %q: this engine has the drivers bridge, macvlan and ipvlan", value)
		}
		if out[driver] == nil {
			out[driver] = map[string]string{}
		}
		out[driver][key] = text
	}
	return out, nil
}
