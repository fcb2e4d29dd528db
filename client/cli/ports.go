package cli

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/network"
)

// parsePublished parses what is given to -p: [[IP:]HOST[-END]:]CONTAINER[-END][/PROTO],
// or published=…,target=…,protocol=…. It returns the ports to expose and to publish.
// An IPv6 address stands in brackets. A range of host ports for one container port
// lets the engine choose one of them.
func parsePublished(specs []string) (network.PortSet, network.PortMap, error) {
	exposed, bindings := network.PortSet{}, network.PortMap{}
	for _, spec := range specs {
		if strings.Contains(spec, "=") {
			var err error
			if spec, err = shortPortNotation(spec); err != nil {
				return nil, nil, err
			}
		}
		p, err := splitPublished(spec)
		if err != nil {
			return nil, nil, err
		}
		if err := p.add(exposed, bindings); err != nil {
			return nil, nil, err
		}
	}
	return exposed, bindings, nil
}

// shortPortNotation turns published=8080,target=80 into 8080:80/tcp.
func shortPortNotation(spec string) (string, error) {
	fields := map[string]string{"protocol": "tcp"}
	for f := range strings.SplitSeq(spec, ",") {
		k, v, ok := strings.Cut(f, "=")
		if !ok || k == "" {
			return "", fmt.Errorf("invalid publish opts format (should be name=value but got '%s')", f)
		}
		switch k {
		case "published", "target", "protocol":
			fields[k] = v
		case "mode":
			if v != "host" && v != "ingress" {
				return "", fmt.Errorf("invalid publish mode '%s': must be \"host\" or \"ingress\"", v)
			}
		default:
			return "", fmt.Errorf("invalid publish option '%s' in '%s': must be one of published, target, protocol, mode", k, spec)
		}
	}
	if fields["target"] == "" {
		return "", fmt.Errorf("invalid publish option '%s': target is missing", spec)
	}
	return fields["published"] + ":" + fields["target"] + "/" + fields["protocol"], nil
}

// published is one parsed -p.
type published struct {
	spec                string
	ip                  netip.Addr
	proto               network.IPProtocol
	hostFirst, hostLast uint16
	hostGiven           bool
	contFirst           uint16
	contCount           int
}

func splitPublished(spec string) (published, error) {
	p := published{spec: spec}
	ip, host, cont := cutPublished(spec)
	if cont == "" {
		return p, fmt.Errorf("no port specified: %s<empty>", spec)
	}
	cont, proto, hasProto := strings.Cut(cont, "/")
	if !hasProto {
		proto = "tcp"
	}
	switch p.proto = network.IPProtocol(strings.ToLower(proto)); p.proto {
	case network.TCP, network.UDP, network.SCTP:
	default:
		return p, errors.New("invalid proto: " + proto)
	}
	first, last, err := portRange(cont)
	if err != nil {
		return p, fmt.Errorf("invalid containerPort: %s", cont)
	}
	p.contFirst, p.contCount = first, int(last)-int(first)+1
	if ip != "" {
		addr, err := netip.ParseAddr(ip)
		if err != nil {
			return p, fmt.Errorf("invalid IP address: %s", ip)
		}
		p.ip = addr
	}
	if host == "" {
		return p, nil
	}
	p.hostGiven = true
	if p.hostFirst, p.hostLast, err = portRange(host); err != nil {
		return p, fmt.Errorf("invalid hostPort: %s", host)
	}
	if n := int(p.hostLast) - int(p.hostFirst) + 1; n != p.contCount && p.contCount != 1 {
		return p, fmt.Errorf("invalid ranges specified for container and host Ports: %s and %s", cont, host)
	}
	return p, nil
}

// cutPublished splits ip:host:container, where ip may be a bracketed or (for the
// sake of old scripts) a bare IPv6 address.
func cutPublished(spec string) (ip, host, cont string) {
	rest, cont, ok := lastCut(spec)
	if !ok {
		return "", "", spec
	}
	ip, host, ok = lastCut(rest)
	if !ok {
		return "", rest, cont
	}
	if inner, ok := strings.CutPrefix(ip, "["); ok {
		ip = strings.TrimSuffix(inner, "]")
	}
	return ip, host, cont
}

func lastCut(s string) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 || strings.HasSuffix(s, "]") {
		return "", s, false
	}
	return s[:i], s[i+1:], true
}

// portRange parses 80 or 80-90.
func portRange(s string) (first, last uint16, err error) {
	lo, hi, isRange := strings.Cut(s, "-")
	a, err := strconv.ParseUint(lo, 10, 16)
	if err != nil {
		return 0, 0, err
	}
	b := a
	if isRange {
		if b, err = strconv.ParseUint(hi, 10, 16); err != nil {
			return 0, 0, err
		}
	}
	if b < a {
		return 0, 0, fmt.Errorf("invalid range: %s", s)
	}
	return uint16(a), uint16(b), nil
}

func (p published) add(exposed network.PortSet, bindings network.PortMap) error {
	for i := range p.contCount {
		port, ok := network.PortFrom(p.contFirst+uint16(i), p.proto)
		if !ok {
			return fmt.Errorf("invalid containerPort: %d/%s in %s", int(p.contFirst)+i, p.proto, p.spec)
		}
		host := ""
		switch {
		case !p.hostGiven:
		case p.contCount == 1 && p.hostFirst != p.hostLast:
			host = fmt.Sprintf("%d-%d", p.hostFirst, p.hostLast)
		default:
			host = strconv.Itoa(int(p.hostFirst) + i)
		}
		exposed[port] = struct{}{}
		bindings[port] = append(bindings[port], network.PortBinding{HostIP: p.ip, HostPort: host})
	}
	return nil
}

// exposePorts adds what is given to --expose: PORT[-END][/PROTO].
func exposePorts(exposed network.PortSet, specs []string) error {
	for _, e := range specs {
		r, err := network.ParsePortRange(e)
		if err != nil {
			return fmt.Errorf("invalid range format for --expose: %w", err)
		}
		for p := range r.All() {
			exposed[p] = struct{}{}
		}
	}
	return nil
}
