package nft

import "golang.org/x/sys/unix"

// Names of the sets and maps. They hold all that changes; the rules never do. Those of
// addresses are there twice, for IPv4 with a 4 at the end of the name and for IPv6 with
// a 6.
const (
	setBridges    = "bridges"
	setICC        = "icc"
	setApart      = "apart"
	setInternal   = "internal"
	setSubnets    = "subnets"
	setClosed     = "closed"
	setExposed    = "exposed"
	setRouted     = "routed"
	setTrusted    = "trusted"
	setMasquerade = "masquerade"
	setOpen       = "open"
	mapPorts      = "ports"
	mapAddrPorts  = "addr_ports"
	mapRanges     = "ranges"
	setServed     = "served6"
	setServedRng  = "served_ranges6"
	setServedAddr = "addr_served6"
	chainAdmin    = "admin"
	chainInner    = "contained"
	chainServed   = "served"
	chainIncoming = "incoming"
	chainPublish  = "publish"
	chainOurs     = "ours"
)

// family is what the rules and sets of IPv4 and IPv6 differ in.
type family struct {
	suffix   string // of the names of sets
	word     string // in the language of nft
	protocol string // and as a protocol
	number   uint8
	icmp     uint8
	icmpOf   string
	addr     dataType
	saddr    uint32 // offset in the IP header
	daddr    uint32
}

func families() []family {
	return []family{v4(), v6()}
}

func v4() family {
	return family{
		suffix: "4", word: "ip", protocol: "ipv4", number: unix.NFPROTO_IPV4, icmp: unix.IPPROTO_ICMP, icmpOf: "icmp",
		addr: dataType{"ipv4_addr", 7, 4}, saddr: 12, daddr: 16,
	}
}

func v6() family {
	return family{
		suffix: "6", word: "ip6", protocol: "ipv6", number: unix.NFPROTO_IPV6, icmp: unix.IPPROTO_ICMPV6, icmpOf: "ipv6-icmp",
		addr: dataType{"ipv6_addr", 8, 16}, saddr: 8, daddr: 24,
	}
}

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
	proto := dataType{"inet_proto", 12, 1}
	port := dataType{"inet_service", 13, 2}
	sets := []set{
		{name: setBridges, key: []dataType{ifname}, hostOrder: true},
		{name: setICC, key: []dataType{ifname, ifname}},
		{name: setApart, key: []dataType{ifname, ifname}},
		{name: setInternal, key: []dataType{ifname}, hostOrder: true},
	}
	for _, f := range families() {
		for _, name := range []string{setSubnets, setClosed, setExposed, setRouted, setMasquerade} {
			sets = append(sets, set{name: name + f.suffix, key: []dataType{f.addr}, interval: true})
		}
		sets = append(sets,
			set{name: setTrusted + f.suffix, key: []dataType{ifname, f.addr}, interval: true},
			set{name: setOpen + f.suffix, key: []dataType{f.addr, proto, port}},
			// Single ports lie in hash tables, where adding the last costs what the first
			// did. Ranges need a set type whose cost grows with its size: they have
			// their own, and it is short.
			set{name: mapPorts + f.suffix, key: []dataType{proto, port}, data: []dataType{f.addr, port}},
			set{name: mapAddrPorts + f.suffix, key: []dataType{f.addr, proto, port}, data: []dataType{f.addr, port}},
			set{name: mapRanges + f.suffix, key: []dataType{f.addr, proto, port}, data: []dataType{f.addr}, interval: true},
		)
	}
	return append(sets,
		set{name: setServed, key: []dataType{proto, port}},
		set{name: setServedRng, key: []dataType{proto, port}, interval: true},
		set{name: setServedAddr, key: []dataType{v6().addr, proto, port}},
	)
}

// layoutChains are the chains of a table; packets with the mark are let through, unless it is nil.
func layoutChains(accept *Mark) []chain {
	return []chain{
		// Evaluated before every accept of ours; its rules are the administrator's.
		{name: chainAdmin, adminOwned: true},
		{name: chainInner, rules: containedRules()},
		{
			name: "raw", kind: "filter", hook: unix.NF_INET_PRE_ROUTING, hookName: "prerouting", priority: -300, priorityName: "raw",
			rules: rawRules(accept),
		},
		{name: chainPublish, rules: publishRules()},
		{
			name: "prerouting", kind: "nat", hook: unix.NF_INET_PRE_ROUTING, hookName: "prerouting", priority: -100, priorityName: "dstnat",
			rules: []*rule{
				// What is published on the loopback address is for this host alone.
				newRule().toLoopback().goBack(),
				newRule().fromLinkLocal6().goBack(),
				newRule().daddrLocal(true).jump(chainPublish),
			},
		},
		{
			name: "output", kind: "nat", hook: unix.NF_INET_LOCAL_OUT, hookName: "output", priority: -100, priorityName: "-100",
			rules: []*rule{
				// The kernel has no way from ::1 or a link-local address to another link: the engine serves them.
				newRule().toLoopback6().goBack(),
				newRule().fromLinkLocal6().goBack(),
				newRule().daddrLocal(true).jump(chainPublish),
			},
		},
		{
			name: "postrouting", kind: "nat", hook: unix.NF_INET_POST_ROUTING, hookName: "postrouting", priority: 100, priorityName: "srcnat",
			rules: postroutingRules(),
		},
		{name: chainOurs, rules: oursRules(accept)},
		{
			name: "forward", kind: "filter", hook: unix.NF_INET_FORWARD, hookName: "forward", priority: 0, priorityName: "filter",
			rules: []*rule{
				newRule().inOurs().goTo(chainOurs),
				newRule().outOurs().goTo(chainOurs),
			},
		},
		{name: chainServed, rules: []*rule{
			newRule().inSet(setInternal).drop(),
			newRule().jump(chainAdmin),
		}},
		{name: chainIncoming, rules: []*rule{
			newRule().toServed().goTo(chainServed),
			newRule().toServedRange().goTo(chainServed),
			newRule().toServedAddr().goTo(chainServed),
		}},
		{
			// What the engine serves itself, published ports of containers without IPv6 and what comes
			// from link-local addresses, is the administrator's to judge and closed to internal networks
			// all the same.
			name: "input", kind: "filter", hook: unix.NF_INET_LOCAL_IN, hookName: "input", priority: 0, priorityName: "filter",
			rules: []*rule{newRule().protocol(v6()).notFromHere().goTo(chainIncoming)},
		},
	}
}

func newRule() *rule { return new(rule) }

// containedRules are for what comes from containers: route_localnet, which published ports
// on 127.0.0.1 need, would else let them reach services that listen on the host's loopback.
func containedRules() []*rule {
	return []*rule{newRule().fromLoopback().drop(), newRule().toLoopback().drop()}
}

// rawRules see every packet that the host receives, also those that its own programs send
// to one another, so these are let go at once, and the set of bridges is asked once.
func rawRules(accept *Mark) []*rule {
	rules := []*rule{
		newRule().overLoopback().accept(),
		newRule().inOurs().goTo(chainInner),
	}
	if accept != nil {
		rules = append(rules, newRule().marked(*accept).accept())
	}
	for _, f := range families() {
		// A neighbour that routes to a container's address would get around publishing.
		rules = append(rules, newRule().protocol(f).daddrIn(f, setClosed).untrusted(f).daddrLocal(false).drop())
	}
	return rules
}

func publishRules() []*rule {
	var rules []*rule
	for _, f := range families() {
		rules = append(rules,
			newRule().dnat(f, mapAddrPorts, true, true),
			newRule().dnat(f, mapPorts, false, true),
			newRule().dnat(f, mapRanges, true, false),
		)
	}
	return rules
}

func postroutingRules() []*rule {
	// A container cannot answer 127.0.0.1.
	rules := []*rule{newRule().fromLoopback().outOurs().masquerade()}
	for _, f := range families() {
		rules = append(rules,
			// Hairpin: the answer must come back through the host to be translated. (The
			// link that a packet came by is not known here when bridge-nf-call-iptables
			// is on.)
			newRule().outOurs().saddrIn(f, setSubnets).published().masquerade(),
			newRule().outForeign().saddrIn(f, setMasquerade).masquerade(),
		)
	}
	return rules
}

// oursRules judge what comes from or goes to a bridge of ours: traffic within a
// network is its own matter, into a network comes what is published or opened, and
// out of it goes all, but neither in nor out of an internal one. What stays within a
// network is seen here where the kernel filters bridged packets; of one whose containers
// are kept apart, what is published reaches them nevertheless.
func oursRules(accept *Mark) []*rule {
	rules := []*rule{
		newRule().jump(chainAdmin),
		newRule().established().accept(),
		newRule().withinOne().accept(),
		newRule().inSet(setInternal).drop(),
		newRule().outSet(setInternal).drop(),
		newRule().outOurs().published().accept(),
		newRule().withinApart().drop(),
	}
	if accept != nil {
		rules = append(rules, newRule().marked(*accept).accept())
	}
	for _, f := range families() {
		rules = append(rules,
			newRule().open(f).accept(),
			newRule().outOurs().daddrIn(f, setExposed).accept(),
			newRule().outOurs().daddrIn(f, setRouted).ping(f).accept(),
		)
	}
	return append(rules, newRule().outOurs().drop(), newRule().accept())
}

// width is the size of concatenated types: each is padded to a register of 4 bytes. One
// alone is as long as it is.
func width(types []dataType) uint32 {
	if len(types) == 1 {
		return types[0].size
	}
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
