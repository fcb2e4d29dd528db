// Package network connects containers: it makes the engine's bridge, gives each
// container a network namespace with an address, publishes ports and writes the
// three files in /etc that depend on the network.
//
// # What it promises
//
//   - Attach costs one batch of rtnetlink messages and one nftables transaction,
//     however many containers there are, and no process. A failed Attach leaves
//     nothing behind.
//   - A published port works when Attach has returned, keeps the source address of
//     outside clients, and is also reserved by a bound socket, so that a second
//     user of it gets "address in use" instead of silence.
//   - The kernel is the state: bridge, veths and nftables elements outlive the
//     engine. A new engine calls Open, then Adopt for every container that lives,
//     then Reconcile, which removes whatever belongs to nothing.
//   - Services with different bridges share nothing and never touch each other's
//     links, tables or rules, nor anybody else's (except the one marked rule that
//     Config.FirewallIntegrate asks for).
//
// # Shape
//
// A network has a record (record.go), which is durable, addresses to give out (ipam.go, pool.go) and a driver
// (driver.go), which connects network namespaces to it. An endpoint (endpoint.go) is one such connection; all endpoints
// of one container are its sandbox, which an attachment (attachment.go) keeps and wiring.go connects. Published ports
// are a matter of the sandbox: they lead to the endpoint that has the default route (gateway.go).
package network

import (
	"encoding/json"
	"net/netip"
	"slices"
	"time"

	"github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/internal/nft"
)

// The predefined networks, which Request.Mode may name.
const (
	ModeBridge = "bridge"
	ModeHost   = "host"
	ModeNone   = "none"
)

// Drivers.
const (
	driverBridge = "bridge"
	driverHost   = "host"
	driverNull   = "null"
)

// Config says which bridge a Service works with. The zero value of a field takes
// the default named with it.
type Config struct {
	// StateFile keeps what must not change over a reboot: the ids of the predefined
	// networks, their time of creation and the subnet chosen. It is replaced atomically.
	StateFile string
	// Dir holds the records of the networks that users made, one file each; default:
	// "networks" beside StateFile.
	Dir string
	// AddressPools are what subnets of new networks are cut from, in this order; none
	// means Docker's (172.17.0.0/16 …, 192.168.0.0/20 …) and, when these are used up,
	// subnets /20 of 10.64.0.0/11.
	AddressPools []AddressPool
	// NetworkOptions are the options, by driver, that new networks get if the request
	// does not set them.
	NetworkOptions map[string]map[string]string
	// Bridge is the link's name, "docker0" style; default "cleat0". It is made when
	// missing. A bridge that existed before is used as it is and never deleted.
	Bridge string
	// BIP is the bridge's own address with the prefix length of its subnet. Zero:
	// the address an existing bridge has, else the first of 172.17.0.1/16 …
	// 172.31.0.1/16, 192.168.0.1/20 … that no route of the host overlaps.
	BIP netip.Prefix
	// Default are further settings of the default network.
	Default DefaultNetwork
	// NoProxy has the engine serve no published port itself: those of containers without
	// IPv6 are on IPv4 alone, and ::1 is not served.
	NoProxy bool
	// NoForwarding leaves it to the administrator to let the host forward packets, which
	// containers need to reach others, and others them.
	NoForwarding bool
	// DirectRouting lets other hosts reach published ports by the containers' own
	// addresses, if they have a route to these.
	DirectRouting bool
	// AcceptMark lets packets with this mark through to containers, published or not; nil
	// for none.
	AcceptMark *nft.Mark
	// TableName is the nftables table, default "cleat-<bridge>".
	TableName string
	// ResolvConf is the host's resolver file; default /etc/resolv.conf, or
	// systemd-resolved's upstream file when that one only names its stub.
	ResolvConf string
	// HostsFile is what containers in host mode get a copy of; default /etc/hosts.
	HostsFile string
	// FirewallIntegrate lets Open insert one marked accept rule into each foreign
	// forward chain that would drop container traffic. Teardown removes them.
	FirewallIntegrate bool
	// MTU of bridge and containers, in bytes; 0 leaves the kernel's default (1500).
	MTU int
	// BindIP is the host address for published ports that name none, of IPv4 or IPv6 and then
	// of that family alone; zero means all addresses of both.
	BindIP netip.Addr
	// DNS, DNSSearch and DNSOptions are the engine's defaults for containers that
	// name none.
	DNS, DNSSearch, DNSOptions []string
	// HostGateway is what "host-gateway" in ExtraHosts stands for; default: the
	// bridge's address.
	HostGateway netip.Addr
}

// DefaultNetwork is what the predefined network "bridge" is like, beside its address.
type DefaultNetwork struct {
	// IPv6 gives its containers IPv6 addresses, too: of BIP6's subnet, of FixedCIDR6, or
	// of one that the engine chooses and keeps.
	IPv6 bool
	// BIP6 is the bridge's own IPv6 address with the prefix length of its subnet.
	BIP6 netip.Prefix
	// FixedCIDR and FixedCIDR6 are the parts of the subnets that containers get their
	// addresses from. Without an address of the bridge they are the subnets.
	FixedCIDR, FixedCIDR6 netip.Prefix
	// Gateway and Gateway6 are what the containers' default routes lead through instead
	// of the bridge.
	Gateway, Gateway6 netip.Addr
	// NoICC keeps its containers from reaching each other, other than by links and
	// published ports; NoMasquerade leaves their addresses as they are on the way out.
	NoICC, NoMasquerade bool
}

// AddressPool is a range that subnets of networks are cut from when a request names
// none.
type AddressPool struct {
	Base netip.Prefix
	// Size is the prefix length of each subnet.
	Size int
}

// Request asks for everything that one container needs from the network.
type Request struct {
	ContainerID string // 64 hex digits
	Name        string // without the leading slash; used in messages and lists
	Hostname    string
	Domainname  string
	// Mode is ModeHost, ModeNone, "container:" with the full id of a container that is
	// attached, or else (also "" and "default") means that Endpoints say it all.
	Mode string
	// Endpoints are the networks to connect to, in the order of the interfaces. Nil
	// means that of the mode, and by itself the default bridge; an empty list, none.
	Endpoints []EndpointRequest
	// Ports are the bindings to publish. HostPort "" or "0" takes a free port,
	// "8000-8010" a free one of the range.
	Ports network.PortMap
	// PublishAll publishes every port of Exposed that Ports does not name on a
	// free host port.
	PublishAll bool
	Exposed    []network.Port
	// Links are further lines for the hosts file: names of containers on the default
	// bridge that this one is linked to.
	Links []HostLine
	// ExtraHosts are "name:address" or "name=address"; the address "host-gateway"
	// stands for Config.HostGateway.
	ExtraHosts                 []string
	DNS, DNSSearch, DNSOptions []string
	// FilesDir is the directory in which resolv.conf, hosts and hostname are
	// written. Empty: no files.
	FilesDir string
	// NoIPv6 is of a container whose kernel settings switch IPv6 off in all of its namespace: it gets no such address.
	NoIPv6 bool
	// Started is when a container that runs was started: a resolv.conf that has changed since was edited.
	Started time.Time
	// Unattended is of a start that nobody waits for, as those by restart policies: ports are published also on addresses
	// that no interface has yet, as at boot or where a machine comes and goes. Warnings tells of them.
	Unattended bool
	// Unlisted leaves the endpoints out of what Inspect shows: they are not a container's.
	Unlisted bool
}

// HostLine is one line of a hosts file.
type HostLine struct {
	Addr  netip.Addr
	Names []string
}

// EndpointRequest asks for a connection to one network.
type EndpointRequest struct {
	// Network by id or name. NetworkID, if it is set and that network is still there,
	// is preferred: names can be given anew.
	Network, NetworkID string
	IP, IP6            netip.Addr // zero: one is given
	LinkLocal          []netip.Addr
	// MAC is the wanted hardware address; empty: derived from the IP address.
	MAC        network.HardwareAddr
	Aliases    []string
	Links      []string // "container:alias"
	DriverOpts map[string]string
	GwPriority int
}

// Sandbox is a container's place in the network, as Attach made it. It is what the
// engine persists in the container's record and hands back to Adopt, Detach and
// Reconcile. It and what it points to never change.
type Sandbox struct {
	ContainerID string
	Name        string `json:",omitempty"`
	Mode        string
	Endpoints   []*Endpoint `json:",omitempty"`
	// Ports holds what is bound, with the host ports chosen; an exposed port that
	// is not published has an entry without bindings.
	Ports network.PortMap `json:",omitempty"`
	// Asked is what was asked for to be published, for when the endpoint that the ports
	// lead to changes.
	Asked *PortRequest `json:",omitempty"`
	// DNS are the name servers that were asked for.
	DNS []string `json:",omitempty"`
	// ExtraHosts are those of the Request: the name server knows them, too, for programs
	// that do not read the hosts file.
	ExtraHosts []string `json:",omitempty"`
}

// PortRequest is the part of a Request that is about ports.
type PortRequest struct {
	Ports      network.PortMap `json:",omitempty"`
	PublishAll bool            `json:",omitempty"`
	Exposed    []network.Port  `json:",omitempty"`
}

// Endpoint is one connection of a container to a network.
type Endpoint struct {
	NetworkID   string
	NetworkName string
	Driver      string
	EndpointID  string

	IP         netip.Addr `json:",omitzero"`
	PrefixLen  int        `json:",omitempty"`
	Gateway    netip.Addr `json:",omitzero"`
	IP6        netip.Addr `json:",omitzero"`
	PrefixLen6 int        `json:",omitempty"`
	Gateway6   netip.Addr `json:",omitzero"`
	// Direct means that all addresses are reached on the link, without a gateway.
	Direct    bool         `json:",omitempty"`
	LinkLocal []netip.Addr `json:",omitempty"`

	MAC network.HardwareAddr `json:",omitempty"`
	// Link is the host's end of the veth, Interface the container's.
	Link      string `json:",omitempty"`
	Interface string `json:",omitempty"`
	// Index is the container's end's, of drivers whose links are deleted from inside. A container may rename its links
	// and make others; indexes the kernel counts up, and gives none twice. 0: an earlier engine's, who knew it by name.
	Index      int `json:",omitempty"`
	GwPriority int `json:",omitempty"`
	// DNSNames are the names that other containers of the network find this one by:
	// its name, aliases, short id and host name. None on the default bridge.
	DNSNames []string `json:",omitempty"`
	// Links are "container:alias": names for others that only this container knows.
	Links []string `json:",omitempty"`
}

// UnmarshalJSON also reads the records of engines that knew one endpoint only.
func (sb *Sandbox) UnmarshalJSON(data []byte) error {
	type plain Sandbox
	var old struct {
		plain
		NetworkID, NetworkName, EndpointID string
		IP                                 netip.Addr
		PrefixLen                          int
		Gateway                            netip.Addr
		MAC                                network.HardwareAddr
		Link                               string
	}
	if err := json.Unmarshal(data, &old); err != nil {
		return err
	}
	*sb = Sandbox(old.plain)
	sb.Endpoints = slices.DeleteFunc(sb.Endpoints, func(e *Endpoint) bool { return e == nil }) // of a damaged record
	if old.EndpointID == "" || len(sb.Endpoints) > 0 {
		return nil
	}
	e := &Endpoint{
		NetworkID: old.NetworkID, NetworkName: old.NetworkName, Driver: old.NetworkName, EndpointID: old.EndpointID, IP: old.IP,
		PrefixLen: old.PrefixLen, Gateway: old.Gateway, MAC: old.MAC, Link: old.Link,
	}
	switch old.NetworkName {
	case ModeNone:
		e.Driver = driverNull
	case ModeBridge:
		e.Interface = "eth0"
	}
	sb.Endpoints = []*Endpoint{e}
	return nil
}

// On returns the sandbox's endpoint on a network, nil if there is none.
func (sb *Sandbox) On(networkID string) *Endpoint {
	for _, e := range sb.Endpoints {
		if e.NetworkID == networkID {
			return e
		}
	}
	return nil
}
