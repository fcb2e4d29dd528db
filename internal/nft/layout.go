package nft

import "golang.org/x/sys/unix"

// Names of the sets and maps. They hold all that changes; the rules never do.
const (
	setBridges    = "bridges"
	setICC        = "icc"
	setSubnets    = "subnets4"
	setMasquerade = "masquerade4"
	mapPorts      = "ports4"
	mapAddrPorts  = "addr_ports4"
	mapRanges     = "ranges4"
	chainAdmin    = "admin"
	chainPublish  = "publish"
	chainOurs     = "ours"
)

// dataType is nftables' number and size of a type of key or value.
type dataType struct {
	name  string
	magic uint32
	size  uint32
}

// set is a set, or with data a map.
type set struct {
	name     string
	key      []dataType
	data     []dataType
	interval bool
	// hostOrder: the key is no number in network byte order.
	hostOrder bool
}

// chain is a chain; without hook type it is only jumped to.
type chain struct {
	name     string
	kind     string // "filter" or "nat"; empty for a regular chain
	hook     uint32
	hookName string
	priority int32
	// priorityName is how nft prints the priority on this hook.
	priorityName string
	// foreign rules live in it: it is made, but never flushed or filled.
	adminOwned bool
	rules      []*rule
}

func layoutSets() []set {
	ifname := dataType{"ifname", 41, unix.IFNAMSIZ}
	addr := dataType{"ipv4_addr", 7, 4}
	proto := dataType{"inet_proto", 12, 1}
	port := dataType{"inet_service", 13, 2}
	return []set{
		{name: setBridges, key: []dataType{ifname}, hostOrder: true},
		{name: setICC, key: []dataType{ifname, ifname}},
		{name: setSubnets, key: []dataType{addr}, interval: true},
		{name: setMasquerade, key: []dataType{addr}, interval: true},
		// Single ports lie in hash tables, where adding the last costs what the first
		// did. Ranges need a set type whose cost grows with its size: they have
		// their own, and it is short.
		{name: mapPorts, key: []dataType{proto, port}, data: []dataType{addr, port}},
		{name: mapAddrPorts, key: []dataType{addr, proto, port}, data: []dataType{addr, port}},
		{name: mapRanges, key: []dataType{addr, proto, port}, data: []dataType{addr}, interval: true},
	}
}

func layoutChains() []chain {
	r := func() *rule { return new(rule) }
	return []chain{
		// Evaluated before every accept of ours; its rules are the administrator's.
		{name: chainAdmin, adminOwned: true},
		{
			name: "raw", kind: "filter", hook: unix.NF_INET_PRE_ROUTING, hookName: "prerouting", priority: -300, priorityName: "raw",
			rules: []*rule{
				// route_localnet, which published ports on 127.0.0.1 need, would else let
				// containers reach services that listen on the host's loopback.
				r().inOurs().fromLoopback().drop(),
				r().inOurs().toLoopback().drop(),
				// A neighbour that routes to a container's address would get around
				// publishing.
				r().inForeign().daddrIn(setSubnets).daddrLocal(false).drop(),
			},
		},
		{
			name: chainPublish,
			rules: []*rule{
				r().dnat(mapAddrPorts, true, true),
				r().dnat(mapPorts, false, true),
				r().dnat(mapRanges, true, false),
			},
		},
		{
			name: "prerouting", kind: "nat", hook: unix.NF_INET_PRE_ROUTING, hookName: "prerouting", priority: -100, priorityName: "dstnat",
			rules: []*rule{
				// What is published on the loopback address is for this host alone.
				r().toLoopback().goBack(),
				r().daddrLocal(true).jump(chainPublish),
			},
		},
		{
			name: "output", kind: "nat", hook: unix.NF_INET_LOCAL_OUT, hookName: "output", priority: -100, priorityName: "-100",
			rules: []*rule{r().daddrLocal(true).jump(chainPublish)},
		},
		{
			name: "postrouting", kind: "nat", hook: unix.NF_INET_POST_ROUTING, hookName: "postrouting", priority: 100, priorityName: "srcnat",
			rules: []*rule{
				// A container cannot answer 127.0.0.1.
				r().outOurs().fromLoopback().masquerade(),
				// Hairpin: the answer must come back through the host to be translated. (The
				// link that a packet came by is not known here when bridge-nf-call-iptables
				// is on.)
				r().outOurs().saddrIn(setSubnets).published().masquerade(),
				r().outForeign().saddrIn(setMasquerade).masquerade(),
			},
		},
		{
			name: chainOurs,
			rules: []*rule{
				r().jump(chainAdmin),
				r().established().accept(),
				r().withinOne().accept(),
				r().outOurs().published().accept(),
				r().outOurs().drop(),
				r().accept(),
			},
		},
		{
			name: "forward", kind: "filter", hook: unix.NF_INET_FORWARD, hookName: "forward", priority: 0, priorityName: "filter",
			rules: []*rule{
				r().inOurs().goTo(chainOurs),
				r().outOurs().goTo(chainOurs),
			},
		},
	}
}

// width is the size of concatenated types: each is padded to a register of 4 bytes.
func width(types []dataType) uint32 {
	var n uint32
	for _, t := range types {
		n += (t.size + 3) &^ 3
	}
	return n
}

// magic is nftables' number for concatenated types, 6 bits each.
func magic(types []dataType) uint32 {
	var n uint32
	for _, t := range types {
		n = n<<6 | t.magic
	}
	return n
}
