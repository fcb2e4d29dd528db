package network

import (
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/netlink"
	"github.com/cleatlabs/cleat/internal/nft"
)

// Check compares the kernel's links and published ports with the sandboxes of the
// containers that run, and says what differs, one sentence each. It changes nothing.
func (s *Service) Check(running []*Sandbox) []string {
	bridges := map[string]bool{}
	s.mu.Lock()
	for _, n := range s.networks {
		bridges[n.rec.Link] = true
	}
	s.mu.Unlock()
	return check(s.cfg, bridges, running, s.host.owns)
}

// Check is Service.Check where no engine runs.
func Check(cfg Config, running []*Sandbox) ([]string, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	all, damaged, err := records{cfg.Dir}.load()
	if err != nil {
		return nil, err
	}
	bridges := map[string]bool{}
	for _, r := range all {
		bridges[r.Link] = true
	}
	out := check(cfg, bridges, running, func(string) bool { return false })
	gone, damagedNotes, err := records{cfg.Dir}.removed()
	for _, d := range append(damaged, damagedNotes...) {
		out = append(out, d.Error())
	}
	for _, r := range gone {
		out = append(out, fmt.Sprintf("bridge %s of network %s, which was removed, is still there: the next start of the engine deletes it", r.Link, r.Name))
	}
	return out, err
}

// check calls in use, besides the links of running, those that used says so of.
func check(cfg Config, bridges map[string]bool, running []*Sandbox, used func(link string) bool) []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	bridges[cfg.Bridge] = true
	checkLinks(bridges, running, used, say)
	checkPorts(cfg.TableName, running, say)
	return out
}

func checkLinks(bridges map[string]bool, running []*Sandbox, used func(string) bool, say func(string, ...any)) {
	plugged, err := pluggedInto(bridges)
	if err != nil {
		say("the links of the host cannot be listed: %v", err)
		return
	}
	for _, sb := range running {
		for _, e := range sb.Endpoints {
			if !strings.HasPrefix(e.Link, linkPrefix) {
				continue
			}
			if plugged[e.Link] == "" {
				say("container %s (%s) has lost its link %s to network %s", sb.Name, shortID(sb.ContainerID), e.Link, e.NetworkName)
			}
			delete(plugged, e.Link)
		}
	}
	for link, bridge := range plugged {
		if strings.HasPrefix(link, linkPrefix) && !used(link) {
			say("link %s on bridge %s belongs to no container", link, bridge)
		}
	}
}

// pluggedInto maps the veths on these bridges to their bridge.
func pluggedInto(bridges map[string]bool) (map[string]string, error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	links, err := conn.Links()
	if err != nil {
		return nil, err
	}
	masters := map[int]string{}
	for _, l := range links {
		if bridges[l.Name] {
			masters[l.Index] = l.Name
		}
	}
	plugged := map[string]string{}
	for _, l := range links {
		if bridge := masters[l.Master]; bridge != "" && l.Kind == "veth" {
			plugged[l.Name] = bridge
		}
	}
	return plugged, nil
}

// checkPorts looks at what is recorded as bound, and at every element.
func checkPorts(table string, running []*Sandbox, say func(string, ...any)) {
	t, err := nft.Open(table)
	if err != nil {
		say("the nftables table %s cannot be read: %v", table, err)
		return
	}
	defer t.Close()
	elements := t.Published()
	rightful := map[nft.Publish]bool{}
	for _, sb := range running {
		bs, err := boundPorts(sb.Ports)
		if err != nil {
			say("container %s (%s): its ports: %v", sb.Name, shortID(sb.ContainerID), err)
			continue
		}
		own := addressesOf(sb)
		served := map[bound]bool{}
		for _, p := range elements {
			if p.Served || !own[p.To] {
				continue
			}
			rightful[p] = p.Open // those only let through what is addressed to the container
			for _, b := range bs {
				if leads(p, b) {
					rightful[p], served[b] = true, true
				}
			}
		}
		for _, b := range bs {
			if !served[b] && b.host != netip.IPv6Loopback() && redirects(sb, b.host) {
				say("container %s (%s): its published port %s is not in the nftables table %s", sb.Name, shortID(sb.ContainerID), b.text(), table)
			}
		}
	}
	ports := servedPorts(running)
	for _, p := range elements {
		if !rightful[p] && (!p.Served || !servesAll(p, ports)) {
			say("port %s, published to %s in the nftables table %s, belongs to no container", bound{host: p.HostIP, num: p.First}.text(), leadsTo(p), table)
		}
	}
}

// leads says whether a packet to the bound port follows p.
func leads(p nft.Publish, b bound) bool {
	anyHost := !p.HostIP.IsValid() || p.HostIP.IsUnspecified()
	return !p.Open && p.Proto == protoNumber(b.port.Proto()) && p.First <= b.num && b.num <= p.Last && p.To.Is4() == b.host.Is4() &&
		(anyHost && b.host.IsUnspecified() || p.HostIP == b.host)
}

// leadsTo is where an element leads, in words.
func leadsTo(p nft.Publish) string {
	if p.Served {
		return "the engine"
	}
	return p.To.String()
}

// servedPort is one that the proxy may serve.
type servedPort struct {
	proto uint8
	num   uint16
}

// servedPorts are the ports of IPv6 that containers publish.
func servedPorts(sandboxes []*Sandbox) map[servedPort]bool {
	all := map[servedPort]bool{}
	for _, sb := range sandboxes {
		bs, err := boundPorts(sb.Ports)
		if err != nil {
			continue
		}
		for _, b := range bs {
			if b.host.Is6() {
				all[servedPort{protoNumber(b.port.Proto()), b.num}] = true
			}
		}
	}
	return all
}

// servesAll says whether every port of an element is one of these.
func servesAll(p nft.Publish, ports map[servedPort]bool) bool {
	for num := int(p.First); num <= int(p.Last); num++ {
		if !ports[servedPort{p.Proto, uint16(num)}] {
			return false
		}
	}
	return true
}

func (b bound) text() string {
	if !b.host.IsValid() {
		b.host = netip.IPv4Unspecified()
	}
	return netip.AddrPortFrom(b.host, b.num).String()
}

func addressesOf(sb *Sandbox) map[netip.Addr]bool {
	all := map[netip.Addr]bool{}
	for _, e := range sb.Endpoints {
		for _, ip := range []netip.Addr{e.IP, e.IP6} {
			if ip.IsValid() {
				all[ip] = true
			}
		}
	}
	return all
}

// redirects says whether what comes to this address of the host is sent on to the container: to the address on the bridge
// that its default route leads through. Ports of IPv6 are served where there is none, whatever other networks it is on.
func redirects(sb *Sandbox, host netip.Addr) bool {
	e, six := sb.Gateways()
	if host.Is4() {
		return e != nil && e.Link != "" && e.IP.IsValid()
	}
	return six != nil && six.Link != "" && six.IP6.IsValid()
}

func shortID(id string) string { return id[:min(12, len(id))] }
