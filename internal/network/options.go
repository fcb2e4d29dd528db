package network

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/nft"
)

// Options of bridge networks, under the names that Docker gave them.
const (
	optDefaultBridge = "com.docker.network.bridge.default_bridge"
	optBridgeName    = "com.docker.network.bridge.name"
	optICC           = "com.docker.network.bridge.enable_icc"
	optMasquerade    = "com.docker.network.bridge.enable_ip_masquerade"
	optHostBinding   = "com.docker.network.bridge.host_binding_ipv4"
	optHostBinding6  = "com.docker.network.bridge.host_binding_ipv6"
	optInhibit       = "com.docker.network.bridge.inhibit_ipv4"
	optMode4         = "com.docker.network.bridge.gateway_mode_ipv4"
	optMode6         = "com.docker.network.bridge.gateway_mode_ipv6"
	optTrusted       = "com.docker.network.bridge.trusted_host_interfaces"
	optMTU           = "com.docker.network.driver.mtu"
	optPrefix        = "com.docker.network.container_iface_prefix"
	optIPv4          = "com.docker.network.enable_ipv4"
	optIPv6          = "com.docker.network.enable_ipv6"
)

// gatewayMode is how the containers of a network meet the world outside.
type gatewayMode string

const (
	modeNAT         gatewayMode = "nat"
	modeUnprotected gatewayMode = "nat-unprotected"
	modeRouted      gatewayMode = "routed"
	modeIsolated    gatewayMode = "isolated" // internal networks only: not even the host
)

// access is what the firewall makes of a mode.
func (m gatewayMode) access() nft.Access {
	switch m {
	case modeUnprotected:
		return nft.Unprotected
	case modeRouted:
		return nft.Routed
	}
	return nft.Closed
}

// translates says whether addresses are translated on the way.
func (m gatewayMode) translates() bool { return m == modeNAT || m == modeUnprotected }

// bridgeOptions are the options of a bridge network, read.
type bridgeOptions struct {
	name       string
	icc        bool
	masquerade bool
	inhibit    bool // the bridge gets no IPv4 address
	mtu        int
	bind       netip.Addr // of published ports that name no address
	bind6      netip.Addr
	mode       gatewayMode
	mode6      gatewayMode
	trusted    []string
	direct     bool   // others may use the containers' own addresses, for published ports
	prefix     string // of the interfaces' names in containers
}

// parseBridgeOptions reads a record's options.
func parseBridgeOptions(r *Record) (o bridgeOptions, err error) {
	o = bridgeOptions{icc: true, masquerade: true, mode: modeNAT, mode6: modeNAT, prefix: "eth"}
	for _, key := range slices.Sorted(maps.Keys(r.Options)) {
		if err := o.set(key, r.Options[key]); err != nil {
			return o, err
		}
	}
	for _, m := range []gatewayMode{o.mode, o.mode6} {
		if m == modeIsolated && !r.Internal {
			return o, failure.Invalid("gateway mode '%s' can only be used for an internal network", m)
		}
	}
	return o, nil
}

func (o *bridgeOptions) set(key, value string) (err error) {
	switch key {
	case optBridgeName:
		if !validLinkName(value) {
			return failure.Invalid("invalid value %q of option %s: a link's name has 1 to 15 characters without blanks, '/', ':' or '%%'", value, key)
		}
		o.name = value
	case optICC:
		o.icc, err = boolOption(key, value)
	case optMasquerade:
		o.masquerade, err = boolOption(key, value)
	case optInhibit:
		o.inhibit, err = boolOption(key, value)
	case optIPv4, optIPv6:
		_, err = boolOption(key, value) // acted on by create
	case optDefaultBridge:
		var yes bool
		if yes, err = boolOption(key, value); err == nil && yes {
			return failure.Forbidden("operation is not permitted on predefined bridge network: option %s is the default bridge's", key)
		}
	case optMTU:
		if o.mtu, err = strconv.Atoi(value); err != nil || o.mtu != 0 && (o.mtu < 68 || o.mtu > 65535) {
			return failure.Invalid("invalid value %q of option %s: want 68 to 65535", value, key)
		}
	case optHostBinding:
		o.bind, err = addrOption(key, value, false)
	case optHostBinding6:
		o.bind6, err = addrOption(key, value, true)
	case optMode4:
		o.mode, err = modeOption(key, value)
	case optMode6:
		o.mode6, err = modeOption(key, value)
	case optTrusted:
		o.trusted, err = linksOption(key, value)
	case optPrefix:
		if !validLinkName(value + "99") {
			return failure.Invalid("invalid value %q of option %s: want the beginning of a link's name, of at most 13 characters", value, key)
		}
		o.prefix = value
	default:
		return failure.Invalid("option %q is not supported by driver bridge", key)
	}
	return err
}

func boolOption(key, value string) (bool, error) {
	b, err := strconv.ParseBool(value)
	if err != nil {
		return false, failure.Invalid("invalid value %q of option %s: want true or false", value, key)
	}
	return b, nil
}

func addrOption(key, value string, six bool) (netip.Addr, error) {
	a, err := netip.ParseAddr(value)
	if err != nil || a.Unmap().Is6() != six {
		return a, failure.Invalid("invalid value %q of option %s: want an %s address", value, key, familyName(six))
	}
	return a.Unmap(), nil
}

func modeOption(key, value string) (gatewayMode, error) {
	m := gatewayMode(value)
	switch m {
	case "":
		return modeNAT, nil
	case modeNAT, modeUnprotected, modeRouted, modeIsolated:
		return m, nil
	}
	return m, failure.Invalid("unknown gateway mode %s: option %s is nat, nat-unprotected, routed or isolated", value, key)
}

// linksOption reads names of links, between colons as Docker has it.
func linksOption(key, value string) ([]string, error) {
	var names []string
	for name := range strings.SplitSeq(value, ":") {
		if name == "" {
			continue
		}
		if !validLinkName(name) {
			return nil, failure.Invalid("invalid value %q of option %s: %q cannot be a link", value, key, name)
		}
		names = append(names, name)
	}
	return names, nil
}

// firewall is a bridge network as the rules see it.
func (o *bridgeOptions) firewall(r *Record) nft.Network {
	n := nft.Network{Bridge: r.Link, ICC: o.icc, Internal: r.Internal, Trusted: o.trusted}
	for _, s := range r.Subnets {
		mode := o.mode
		if s.Prefix.Addr().Is6() {
			mode = o.mode6
		}
		access, masquerade := mode.access(), o.masquerade && mode.translates()
		if access == nft.Closed && !masquerade && !r.Internal {
			access = nft.Answered
		}
		if access == nft.Closed && o.direct && !r.Internal {
			access = nft.Answered // what is open is let through, and nothing else
		}
		n.Subnets = append(n.Subnets, nft.Subnet{Prefix: s.Prefix, Access: access, Masquerade: masquerade && !r.Internal})
	}
	return n
}

// Options of one endpoint.
const (
	optEndpointName    = "com.docker.network.endpoint.ifname"
	optEndpointSysctls = "com.docker.network.endpoint.sysctls"
)

// endpointOptions are the driver options of an endpoint, read.
type endpointOptions struct {
	name    string
	sysctls []sysctl // with the interface's name to be put in place of IFNAME
}

type sysctl struct{ key, value string }

func parseEndpointOptions(opts map[string]string) (o endpointOptions, err error) {
	for _, key := range slices.Sorted(maps.Keys(opts)) {
		value := opts[key]
		switch key {
		case optEndpointName:
			if !validLinkName(value) || value == "lo" {
				return o, failure.Invalid("invalid value %q of option %s: want a link's name of at most 15 characters", value, key)
			}
			o.name = value
		case optEndpointSysctls:
			if o.sysctls, err = parseSysctls(value); err != nil {
				return o, err
			}
		default:
			return o, failure.Invalid("endpoint option %q is not supported: there are %s and %s", key, optEndpointName, optEndpointSysctls)
		}
	}
	return o, nil
}

// parseSysctls reads "net.ipv4.conf.IFNAME.key=value,…". Docker's client writes options of
// --network in lower case.
func parseSysctls(text string) ([]sysctl, error) {
	var out []sysctl
	for item := range strings.SplitSeq(text, ",") {
		key, value, ok := strings.Cut(item, "=")
		parts := strings.Split(key, ".")
		good := ok && len(parts) == 5 && parts[0] == "net" && slices.Contains([]string{"ipv4", "ipv6", "mpls"}, parts[1]) &&
			slices.Contains([]string{"conf", "neigh"}, parts[2]) && strings.EqualFold(parts[3], "IFNAME") && parts[4] != ""
		if !good || strings.ContainsAny(key, "/\x00") {
			return nil, failure.Invalid("unrecognised network interface sysctl '%s': want net.ipv4.conf.IFNAME.NAME=VALUE or its like for ipv6, mpls and neigh", item)
		}
		out = append(out, sysctl{fmt.Sprintf("/proc/sys/net/%s/%s/%%s/%s", parts[1], parts[2], parts[4]), value})
	}
	return out, nil
}

// CheckEndpointOptions says what of an endpoint's driver options is not known.
func CheckEndpointOptions(opts map[string]string) error {
	_, err := parseEndpointOptions(opts)
	return err
}
