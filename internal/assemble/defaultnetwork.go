package assemble

import (
	"fmt"
	"net/netip"

	"github.com/spf13/pflag"

	"github.com/cleatlabs/cleat/internal/network"
)

// defaultNetwork is what the flags say about the predefined network "bridge", beside
// --bridge, --bip, --mtu and --ip, and about the host's forwarding.
type defaultNetwork struct {
	ipv6, icc, masquerade, forward bool
	bip6, fixed, fixed6            string
	gateway, gateway6              string
}

func (d *defaultNetwork) bind(fs *pflag.FlagSet) {
	fs.BoolVar(&d.ipv6, "ipv6", false, "Give containers of the default network IPv6 addresses, too")
	fs.StringVar(&d.bip6, "bip6", "", "IPv6 address of the default network's bridge with the prefix length of its subnet")
	fs.StringVar(&d.fixed, "fixed-cidr", "", "Part of the default network's IPv4 subnet that containers get addresses from")
	fs.StringVar(&d.fixed6, "fixed-cidr-v6", "", "The same for IPv6")
	fs.StringVar(&d.gateway, "default-gateway", "", "IPv4 gateway of the default network's containers (default: the bridge)")
	fs.StringVar(&d.gateway6, "default-gateway-v6", "", "The same for IPv6")
	fs.BoolVar(&d.icc, "icc", true, "Let containers of the default network reach each other")
	fs.BoolVar(&d.masquerade, "ip-masq", true, "Give what leaves the default network the host's address")
	fs.BoolVar(&d.forward, "ip-forward", true, "Switch on the host's IP forwarding, which containers need to reach others")
}

// read parses the values; spell says how a flag was given.
func (d defaultNetwork) read(spell func(string) string) (n network.DefaultNetwork, err error) {
	n = network.DefaultNetwork{IPv6: d.ipv6, NoICC: !d.icc, NoMasquerade: !d.masquerade}
	for _, p := range []struct {
		flag, text, like string
		into             *netip.Prefix
	}{
		{"bip6", d.bip6, "fd00:1::1/64", &n.BIP6}, {"fixed-cidr", d.fixed, "172.17.128.0/17", &n.FixedCIDR}, {"fixed-cidr-v6", d.fixed6, "fd00:1::/64", &n.FixedCIDR6},
	} {
		if p.text == "" {
			continue
		}
		if *p.into, err = netip.ParsePrefix(p.text); err != nil {
			return n, fmt.Errorf("%s: %q is not an address with a prefix length, such as %s", spell(p.flag), p.text, p.like)
		}
	}
	for _, a := range []struct {
		flag, text string
		into       *netip.Addr
	}{{"default-gateway", d.gateway, &n.Gateway}, {"default-gateway-v6", d.gateway6, &n.Gateway6}} {
		if a.text == "" {
			continue
		}
		if *a.into, err = netip.ParseAddr(a.text); err != nil {
			return n, fmt.Errorf("%s: %q is not an IP address", spell(a.flag), a.text)
		}
	}
	return n, nil
}

// idle warns of what has no effect, in dockerd neither: settings of IPv6 without IPv6.
func (d defaultNetwork) idle(spell func(string) string) []string {
	var out []string
	if d.ipv6 {
		return nil
	}
	for _, f := range []struct{ flag, text string }{{"bip6", d.bip6}, {"fixed-cidr-v6", d.fixed6}, {"default-gateway-v6", d.gateway6}} {
		if f.text != "" {
			out = append(out, spell(f.flag)+" has no effect without --ipv6")
		}
	}
	return out
}
