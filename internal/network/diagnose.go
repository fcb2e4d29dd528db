package network

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/internal/dns"
	"github.com/cleatlabs/cleat/internal/nft"
)

// Diagnosis says what a container reaches and what reaches it, and what stands in the way.
type Diagnosis struct {
	ID, Name string
	Running  bool
	Mode     string
	Networks []CheckedNetwork
	Ports    []CheckedPort
	// Listening are the ports that something in the container listens on, as "80/tcp",
	// with the address.
	Listening []string
	Names     *CheckedNames `json:",omitempty"`
	Findings  []Finding
}

// CheckedNetwork is one network of the container.
type CheckedNetwork struct {
	Name, Driver, Interface string
	IP, IP6, Gateway        netip.Addr `json:",omitzero"`
	Internal                bool
	// Blocked says what of the host drops the packets between the container and what is
	// outside; empty if nothing is known to.
	Blocked string `json:",omitempty"`
	// Peers are the other running containers on it; Reaches says whether these and the
	// container can talk to each other.
	Peers   []string
	Reaches bool
}

// CheckedPort is one published port.
type CheckedPort struct {
	Host      string // "0.0.0.0:8080"
	Container string // "80/tcp"
	Listening bool   // something in the container answers there
	From      string // who can reach it
}

// CheckedNames is the state of name lookups.
type CheckedNames struct {
	Server  string
	Answers bool
	Servers []CheckedServer
}

// CheckedServer is a name server outside.
type CheckedServer struct {
	Addr    string
	Answers bool
	Took    time.Duration `json:",omitempty"` // in nanoseconds
}

// Levels of findings.
const (
	LevelProblem = "problem" // something that was asked for does not work
	LevelNote    = "note"    // works as set, which may not be what is expected
)

// Finding is one observation.
type Finding struct {
	Level  string
	Text   string
	Remedy string `json:",omitempty"` // what to do about it
}

func (c *Diagnosis) problem(remedy, format string, args ...any) {
	c.Findings = append(c.Findings, Finding{LevelProblem, fmt.Sprintf(format, args...), remedy})
}

func (c *Diagnosis) note(remedy, format string, args ...any) {
	c.Findings = append(c.Findings, Finding{LevelNote, fmt.Sprintf(format, args...), remedy})
}

// Diagnose looks at a running container's network: pid is its process, files the directory
// of Request.FilesDir. It changes nothing.
func (s *Service) Diagnose(ctx context.Context, containerID string, pid int, files string) (*Diagnosis, error) {
	s.mu.Lock()
	a := s.attachments[containerID]
	var sb *Sandbox
	if a != nil {
		sb = a.sandbox
	}
	s.mu.Unlock()
	if sb == nil {
		return nil, fmt.Errorf("container %s has no network at present", containerID)
	}
	sockets, err := readSockets(fmt.Sprintf("/proc/%d/net/", pid))
	if err != nil {
		return nil, fmt.Errorf("sockets of container %s: %w", sb.Name, err)
	}
	c := &Diagnosis{ID: containerID, Name: sb.Name, Running: true, Mode: sb.Mode, Networks: []CheckedNetwork{}, Ports: []CheckedPort{}, Findings: []Finding{}}
	c.Listening = listening(sockets)
	if sb.Mode == ModeHost {
		c.note("", "the container shares the host's network: its ports are the host's, and -p has no effect")
		return c, nil
	}
	for _, e := range sb.Endpoints {
		s.diagnoseNetwork(c, sb, e)
	}
	s.diagnosePorts(c, sb, sockets, s.diagnoseFirewall(c, sb))
	s.diagnoseHost(c, sb)
	s.diagnoseRoutes(c, sb)
	s.diagnoseNames(ctx, c, sb, files)
	return c, nil
}

// diagnoseNetwork is about one network and who is on it.
func (s *Service) diagnoseNetwork(c *Diagnosis, sb *Sandbox, e *Endpoint) {
	n := CheckedNetwork{Name: e.NetworkName, Driver: e.Driver, Interface: e.Interface, IP: e.IP, IP6: e.IP6, Gateway: e.Gateway, Peers: []string{}, Reaches: true}
	s.mu.Lock()
	nw := s.networks[e.NetworkID]
	if nw != nil {
		n.Internal = nw.rec.Internal
		if b, ok := nw.drv.(*bridge); ok {
			f, _ := b.firewall()
			n.Reaches = f.ICC
		}
		for id := range nw.members {
			if a := s.attachments[id]; a != nil && id != sb.ContainerID {
				n.Peers = append(n.Peers, a.sandbox.Name)
			}
		}
	}
	s.mu.Unlock()
	slices.Sort(n.Peers)
	c.Networks = append(c.Networks, n)
	switch {
	case e.Driver == driverNull:
		c.note("connect it to a network: network connect NETWORK "+sb.Name, "the container has no network but its own loopback (--network none)")
	case !n.Reaches:
		c.note("", "containers on network %s do not reach each other but by published ports (com.docker.network.bridge.enable_icc=false)", n.Name)
	}
	if n.Internal {
		c.note("connect it to a network that is not internal, too", "network %s is internal: through it nothing outside is reached, and no port is published", n.Name)
	}
	if e.NetworkName == ModeBridge && len(n.Peers) > 0 {
		c.note("put the containers on a network of their own: network create NAME", "on the default network containers find each other by address only, not by name")
	}
}

// diagnosePorts compares what is published with what the container listens on. blocked is
// what diagnoseFirewall found.
func (s *Service) diagnosePorts(c *Diagnosis, sb *Sandbox, sockets []listener, blocked dropped) {
	four, six := sb.Gateways()
	own := map[netip.Addr]bool{}
	for _, e := range sb.Endpoints {
		own[e.IP], own[e.IP6] = true, true
	}
	hosts, _ := readSockets("/proc/thread-self/net/")
	served, t := s.proxy.ports(), s.targets(sb)
	guards, _ := nft.InputGuards()
	hosts = slices.DeleteFunc(hosts, func(l listener) bool { // the engine's own are nobody else's
		return l.addr.Addr().Is6() && served[servedPort{protoNumber(l.proto), l.addr.Port()}]
	})
	for _, port := range sortedPorts(sb.Ports) {
		bindings := sb.Ports[port]
		at := listenedOn(sockets, port)
		open := slices.ContainsFunc(at, func(a netip.Addr) bool { return a.IsUnspecified() || own[a] })
		for _, b := range bindings {
			from := reachableFrom(b.HostIP, blocked.has(b.HostIP))
			if b.HostIP.Is6() && s.servedOnly(b.HostIP, t) {
				from = servedFrom(b.HostIP, len(guards) > 0)
			}
			c.Ports = append(c.Ports, CheckedPort{Host: net.JoinHostPort(b.HostIP.String(), b.HostPort), Container: port.String(), Listening: open, From: from})
			if b.HostIP.Is6() && b.HostIP.IsUnspecified() {
				continue // the IPv4 binding says the same
			}
			s.diagnoseHolder(c, hosts, port, b)
		}
		if len(bindings) == 0 {
			continue
		}
		switch {
		case open:
		case len(at) > 0:
			c.problem(fmt.Sprintf("have the program listen on 0.0.0.0 (or ::), port %d", port.Num()),
				"port %s is published, but the program in the container listens on %s only, which nobody outside the container reaches", port, addrList(at))
		default:
			remedy := "have the program listen on that port"
			if len(c.Listening) > 0 {
				remedy = fmt.Sprintf("the container listens on %s: publish that, as in -p %s:PORT", strings.Join(c.Listening, ", "), bindings[0].HostPort)
			}
			c.problem(remedy, "port %s is published, but nothing in the container listens on it", port)
		}
	}
	s.diagnoseServed(c, sb, guards)
	if len(c.Ports) > 0 && four == nil && six == nil {
		c.problem("connect it to a network that is not internal", "ports are published, but no network of the container leads outside")
	}
	if len(c.Ports) == 0 && len(c.Listening) > 0 && (four != nil || six != nil) {
		c.note("start it with -p HOST-PORT:CONTAINER-PORT", "no port is published: only this host and containers on the same network reach the container")
	}
}

// diagnoseServed tells of ports on IPv6 that the engine serves itself, which differ in what
// the container sees and in which of the host's firewall rules apply.
func (s *Service) diagnoseServed(c *Diagnosis, sb *Sandbox, guards []nft.Blocker) {
	bs, err := boundPorts(sb.Ports)
	if err != nil || s.targets(sb).six.binds() || len(s.servedElements(bs)) == 0 {
		return
	}
	const text = "the container has no IPv6 address, so the engine itself serves its ports on those of the host: the container sees its gateway as the client, the host's firewall has them in chain \"input\"%s, and they pause while no engine runs"
	const remedy = "give its network IPv6, as in network create --ipv6"
	if len(guards) == 0 {
		c.note(remedy, text, "")
		return
	}
	g := guards[0]
	c.note("let the ports in there, or "+remedy, text, fmt.Sprintf(" (chain %q of nftables table \"%s %s\" drops what no rule of it lets in)", g.Chain, g.Family, g.Table))
}

// diagnoseHolder looks for another program that listens on the same port of the host.
func (s *Service) diagnoseHolder(c *Diagnosis, hosts []listener, port network.Port, b network.PortBinding) {
	_, num, err := hostPorts(b.HostPort)
	if err != nil {
		return
	}
	for _, l := range hosts {
		if l.proto != port.Proto() || l.addr.Port() != num || port.Proto() == network.UDP || !overlaps(l.addr.Addr(), b.HostIP) {
			continue
		}
		if pid, name, ok := holderProcess(port.Proto(), num); ok && pid != os.Getpid() {
			c.problem("stop that program, or publish another port of the host", "port %s of the host is used by process %q (pid %d), too", b.HostPort, name, pid)
			return
		}
	}
}

// dropped are the families of which a firewall drops what is forwarded.
type dropped struct{ four, six bool }

func (f dropped) has(a netip.Addr) bool { return f.four && a.Is4() || f.six && a.Is6() }

// reachableFrom says who can use a port that is published on an address of the host;
// blocked if a firewall of the host drops what is forwarded to it.
func reachableFrom(host netip.Addr, blocked bool) string {
	switch {
	case host.IsLoopback():
		return "this host only"
	case blocked:
		return "this host only, as its firewall drops what comes from others"
	case !host.IsValid() || host.IsUnspecified():
		return "this host, other hosts, containers"
	}
	return "whoever reaches " + host.String()
}

// servedFrom is reachableFrom for a port that the engine serves itself; guarded if a firewall of the host drops what
// comes to the host's programs and none of its rules lets in.
func servedFrom(host netip.Addr, guarded bool) string {
	if guarded && !host.IsLoopback() {
		return "this host and containers, and others where its firewall lets the port in"
	}
	return reachableFrom(host, false)
}

func addrList(as []netip.Addr) string {
	var out []string
	for _, a := range as {
		out = append(out, a.String())
	}
	return strings.Join(out, ", ")
}

func sortedPorts(m network.PortMap) []network.Port {
	var ps []network.Port
	for p := range m {
		ps = append(ps, p)
	}
	slices.SortFunc(ps, func(a, b network.Port) int {
		if a.Num() != b.Num() {
			return int(a.Num()) - int(b.Num())
		}
		return strings.Compare(string(a.Proto()), string(b.Proto()))
	})
	return ps
}

// diagnoseHost is about settings of the host that containers depend on.
func (s *Service) diagnoseHost(c *Diagnosis, sb *Sandbox) {
	four, six := sb.Gateways()
	if six != nil && six.Gateway6.IsValid() && !forwards(ipForward6) {
		c.problem("sysctl -w net.ipv6.conf.all.forwarding=1", "the host does not forward IPv6 packets (net.ipv6.conf.all.forwarding is 0): the container reaches nothing outside over IPv6")
	}
	if four != nil && !forwards(ipForward) {
		c.block(sb, func(e *Endpoint) bool { return e == four }, "net.ipv4.ip_forward is 0: the host forwards no packets")
		c.problem("sysctl -w net.ipv4.ip_forward=1", "the host does not forward IPv4 packets (net.ipv4.ip_forward is 0): the container reaches nothing outside, and no other host reaches it")
	}
	if intact, err := s.table.Intact(); err == nil && !intact {
		c.problem("it is put back within a moment; if not, restart the engine", "rules of the engine's firewall table inet %s are missing", s.table.Name())
	}
}

// diagnoseFirewall is about other tables' chains that drop what ours lets through. It
// returns the families that some of them drop.
func (s *Service) diagnoseFirewall(c *Diagnosis, sb *Sandbox) (blocked dropped) {
	var bridges []nft.Forwarded
	links := map[*Endpoint]string{}
	s.mu.Lock()
	for _, e := range sb.Endpoints {
		if n := s.networks[e.NetworkID]; n != nil {
			if b, ok := n.drv.(*bridge); ok {
				bridges, links[e] = append(bridges, b.forwarded()), b.name()
			}
		}
	}
	s.mu.Unlock()
	if len(bridges) == 0 {
		return blocked
	}
	blockers, err := nft.Blockers(bridges)
	if err != nil {
		c.note("", "the host's firewall could not be read: %v", err)
	}
	for _, b := range blockers {
		what := fmt.Sprintf("chain %q of nftables table \"%s %s\" drops it", b.Chain, b.Family, b.Table)
		c.block(sb, func(e *Endpoint) bool { return links[e] != "" && slices.Contains(b.Bridges, links[e]) }, what)
		c.problem(b.Allow, "chain %q of the host's firewall (nftables table \"%s %s\") drops what goes to and comes from the container outside its network", b.Chain, b.Family, b.Table)
		blocked.four, blocked.six = blocked.four || b.Family != "ip6", blocked.six || b.Family != "ip"
	}
	return blocked
}

// block notes at some of the container's networks what drops their packets: of several, the
// first that is found.
func (c *Diagnosis) block(sb *Sandbox, these func(*Endpoint) bool, what string) {
	for i, e := range sb.Endpoints {
		if n := &c.Networks[i]; these(e) && n.Blocked == "" {
			n.Blocked = what
		}
	}
}

// diagnoseNames asks the container's name server, and those behind it.
func (s *Service) diagnoseNames(ctx context.Context, c *Diagnosis, sb *Sandbox, files string) {
	client := s.lookups.client(sb.ContainerID)
	if client == nil {
		if sb.hasNames() {
			c.problem("restart the container", "lookups of names are not answered: the engine has no sockets in the container")
		}
		return
	}
	names := &CheckedNames{Server: nameServer().String(), Servers: []CheckedServer{}}
	c.Names = names
	own := netip.AddrPortFrom(nameServer(), dns.Port)
	inside := dns.Upstream{Addr: own, Dial: s.dialInside(client.ns)}
	if _, err := dns.Probe(ctx, inside, sb.Name); err == nil {
		names.Answers = true
	} else {
		c.problem("see whether the container's own firewall drops packets to 127.0.0.11 (nft list ruleset)", "the name server at %s does not answer: %v", nameServer(), err)
	}
	if text, err := readMounted(files + "/resolv.conf"); err == nil {
		if conf := dns.ParseConf(string(text)); len(conf.Servers) == 0 || conf.Servers[0] != names.Server {
			c.note("", "/etc/resolv.conf of the container does not name %s first: it was changed, and names of containers may not be found", names.Server)
		}
	}
	s.diagnoseServers(ctx, c, sb, client)
}

// diagnoseServers asks the name servers outside.
func (s *Service) diagnoseServers(ctx context.Context, c *Diagnosis, sb *Sandbox, client *nameClient) {
	v := s.view(sb, client.ns)
	if v.Servers == nil {
		c.note("", "only names of containers are answered: no network of the container leads outside")
		return
	}
	servers := v.Servers()
	type result struct {
		i    int
		took time.Duration
		err  error
	}
	results := make(chan result, len(servers))
	for i, u := range servers {
		c.Names.Servers = append(c.Names.Servers, CheckedServer{Addr: u.Addr.String()})
		go func() {
			took, err := dns.Probe(ctx, u, "")
			results <- result{i, took, err}
		}()
	}
	answered := 0
	for range servers {
		r := <-results
		if r.err == nil {
			answered++
			c.Names.Servers[r.i].Answers, c.Names.Servers[r.i].Took = true, r.took
		}
	}
	for _, u := range c.Names.Servers {
		switch {
		case u.Answers:
		case answered == 0:
			c.problem("name another with --dns, or look at the host's /etc/resolv.conf", "name server %s does not answer: names outside are not found", u.Addr)
		default:
			c.note("", "name server %s does not answer; others do", u.Addr)
		}
	}
}
