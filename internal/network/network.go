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
// A driver attaches a container to one type of network (bridge, host, none); an
// endpoint is one such attachment; addresses come from a pool that knows nothing
// of links. Published ports are a matter of the engine, not of the driver.
package network

import (
	"net/netip"

	"github.com/moby/moby/api/types/network"
)

// Network modes that Request.Mode may name.
const (
	ModeBridge = "bridge"
	ModeHost   = "host"
	ModeNone   = "none"
)

// Config says which bridge a Service works with. The zero value of a field takes
// the default named with it.
type Config struct {
	// StateFile keeps what must not change over a reboot: the network ids, their
	// time of creation and the subnet chosen. It is replaced atomically.
	StateFile string
	// Bridge is the link's name, "docker0" style; default "cleat0". It is made when
	// missing. A bridge that existed before is used as it is and never deleted.
	Bridge string
	// BIP is the bridge's own address with the prefix length of its subnet. Zero:
	// the address an existing bridge has, else the first of 172.17.0.1/16 …
	// 172.31.0.1/16, 192.168.0.1/20 … that no route of the host overlaps.
	BIP netip.Prefix
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
	// BindIP is the host address for published ports that name none; zero means
	// all IPv4 addresses and ::1.
	BindIP netip.Addr
	// DNS, DNSSearch and DNSOptions are the engine's defaults for containers that
	// name none.
	DNS, DNSSearch, DNSOptions []string
	// HostGateway is what "host-gateway" in ExtraHosts stands for; default: the
	// bridge's address.
	HostGateway netip.Addr
}

// Request asks for everything that one container needs from the network.
type Request struct {
	ContainerID string // 64 hex digits
	Name        string // without the leading slash; used in messages and lists
	Hostname    string
	Domainname  string
	Mode        string // ModeBridge (also "" and "default"), ModeHost or ModeNone
	// Ports are the bindings to publish. HostPort "" or "0" takes a free port,
	// "8000-8010" a free one of the range.
	Ports network.PortMap
	// PublishAll publishes every port of Exposed that Ports does not name on a
	// free host port.
	PublishAll bool
	Exposed    []network.Port
	// MAC is the wanted hardware address; empty: derived from the IP address.
	MAC network.HardwareAddr
	// ExtraHosts are "name:address" or "name=address"; the address "host-gateway"
	// stands for Config.HostGateway.
	ExtraHosts                 []string
	DNS, DNSSearch, DNSOptions []string
	// FilesDir is the directory in which resolv.conf, hosts and hostname are
	// written. Empty: no files.
	FilesDir string
}

// Sandbox is a container's place in the network, as Attach made it. It is what the
// engine persists in the container's record and hands back to Adopt, Detach and
// Reconcile.
type Sandbox struct {
	ContainerID string
	Name        string `json:",omitempty"`
	Mode        string
	NetworkID   string
	NetworkName string
	EndpointID  string
	IP          netip.Addr           `json:",omitzero"`
	PrefixLen   int                  `json:",omitempty"`
	Gateway     netip.Addr           `json:",omitzero"`
	MAC         network.HardwareAddr `json:",omitempty"`
	// Link is the host's end of the veth.
	Link string `json:",omitempty"`
	// Ports holds what is bound, with the host ports chosen; an exposed port that
	// is not published has an entry without bindings.
	Ports network.PortMap `json:",omitempty"`
}
