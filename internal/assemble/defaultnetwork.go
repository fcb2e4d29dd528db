package assemble

import (
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/cleatlabs/cleat/internal/network"
	"github.com/cleatlabs/cleat/internal/nft"
)

// defaultNetwork is what the flags say about the predefined network "bridge", beside
// --bridge, --bip, --mtu and --ip, and about who reaches all networks from outside.
type defaultNetwork struct {
	ipv6, icc, masquerade, forward bool
	bip6, fixed, fixed6            string
	gateway, gateway6              string
	direct                         bool
	acceptMark                     string
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
	fs.BoolVar(&d.direct, "allow-direct-routing", false, "Let other hosts reach published ports by the containers' own addresses, too")
	fs.StringVar(&d.acceptMark, "bridge-accept-fwmark", "", "Let packets with this firewall mark through to all ports of containers, as MARK or MARK/MASK")
	fs.BoolVar(&d.forward, "ip-forward", true, "Switch on the host's IP forwarding, which containers need to reach others")
}

// mark reads --bridge-accept-fwmark: a mark, or the bits of one and a mask.
func (d defaultNetwork) mark() (*nft.Mark, error) {
	if d.acceptMark == "" {
		return nil, nil
	}
	value, mask, masked := strings.Cut(d.acceptMark, "/")
	m := &nft.Mark{Mask: math.MaxUint32}
	for _, p := range []struct {
		text string
		into *uint32
	}{{value, &m.Value}, {mask, &m.Mask}} {
		if p.text == "" && !masked {
			continue
		}
		n, err := strconv.ParseUint(p.text, 0, 32)
		if err != nil {
			return nil, fmt.Errorf("%q is not a mark such as 0x1 or 0x1/0x3", d.acceptMark)
		}
		*p.into = uint32(n)
	}
	if m.Mask == 0 || m.Value&^m.Mask != 0 {
		return nil, fmt.Errorf("%q matches nothing or everything: the mask must hold the mark's bits", d.acceptMark)
	}
	return m, nil
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
