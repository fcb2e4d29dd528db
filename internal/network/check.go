package network

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/netlink"
	"github.com/cleatlabs/cleat/internal/nft"
)

// Check compares the kernel's links and published ports with the sandboxes of the
// containers that run, and says what differs, one sentence each. It changes nothing.
func (s *Service) Check(running []*Sandbox) []string {
	return check(s.cfg, running, s.bridge.owns)
}

// Check is Service.Check where no engine runs.
func Check(cfg Config, running []*Sandbox) ([]string, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	return check(cfg, running, func(string) bool { return false }), nil
}

// check calls in use, besides the links of running, those that used says so of.
func check(cfg Config, running []*Sandbox, used func(link string) bool) []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	checkLinks(cfg.Bridge, running, used, say)
	checkPorts(cfg.TableName, running, say)
	return out
}

func checkLinks(bridge string, running []*Sandbox, used func(string) bool, say func(string, ...any)) {
	plugged, err := pluggedInto(bridge)
	if err != nil {
		say("the links of bridge %s cannot be listed: %v", bridge, err)
		return
	}
	for _, sb := range running {
		if sb.Link == "" {
			continue
		}
		if !plugged[sb.Link] {
			say("container %s (%s) has lost its link %s on bridge %s", sb.Name, short(sb.ContainerID), sb.Link, bridge)
		}
		delete(plugged, sb.Link)
	}
	for link := range plugged {
		if strings.HasPrefix(link, linkPrefix) && !used(link) {
			say("link %s on bridge %s belongs to no container", link, bridge)
		}
	}
}

// pluggedInto names the veths on a bridge; a bridge that is not there has none.
func pluggedInto(bridge string) (map[string]bool, error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	links, err := conn.Links()
	if err != nil {
		return nil, err
	}
	master := 0
	for _, l := range links {
		if l.Name == bridge {
			master = l.Index
		}
	}
	plugged := map[string]bool{}
	for _, l := range links {
		if master != 0 && l.Master == master && l.Kind == "veth" {
			plugged[l.Name] = true
		}
	}
	return plugged, nil
}

func checkPorts(table string, running []*Sandbox, say func(string, ...any)) {
	t, err := nft.Open(table)
	if err != nil {
		say("the nftables table %s cannot be read: %v", table, err)
		return
	}
	defer t.Close()
	there := map[nft.Publish]bool{}
	for _, p := range t.Published() {
		there[canonical(p)] = true
	}
	for _, sb := range running {
		bs, err := boundPorts(sb.Ports)
		if err != nil {
			say("container %s (%s): its ports: %v", sb.Name, short(sb.ContainerID), err)
			continue
		}
		for _, p := range publishes(sb.IP, bs) {
			if !there[canonical(p)] {
				say("container %s (%s): its published port %s is not in the nftables table %s", sb.Name, short(sb.ContainerID), portText(p), table)
			}
			delete(there, canonical(p))
		}
	}
	for p := range there {
		say("published port %s to %s in the nftables table %s belongs to no container", portText(p), p.To, table)
	}
}

func portText(p nft.Publish) string {
	proto := "tcp"
	if p.Proto == nft.UDP {
		proto = "udp"
	}
	text := fmt.Sprintf("%d/%s", p.First, proto)
	if p.Last > p.First {
		text = fmt.Sprintf("%d-%d/%s", p.First, p.Last, proto)
	}
	if p.HostIP.IsValid() && !p.HostIP.IsUnspecified() {
		text = p.HostIP.String() + ":" + text
	}
	return text
}

func short(id string) string { return id[:min(12, len(id))] }
