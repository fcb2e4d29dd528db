package nft

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/netlink"
)

// Blocker is somebody else's chain that would drop the traffic of containers behind
// our accept: in nftables every table's verdict counts, and a drop is final.
type Blocker struct {
	Family string // "ip", "ip6" or "inet"
	Table  string
	Chain  string
	// Bridges are those whose traffic it would drop.
	Bridges []string
	family  uint8
	// Allow is the command that lets their traffic through.
	Allow string
}

// Forwarded is a bridge whose traffic is to pass, and what of it there is.
type Forwarded struct {
	Bridge     string
	IPv4, IPv6 bool
}

// meets says whether chains of a family see the bridge's traffic.
func (f Forwarded) meets(family uint8) bool {
	switch family {
	case unix.NFPROTO_IPV4:
		return f.IPv4
	case unix.NFPROTO_IPV6:
		return f.IPv6
	}
	return true
}

func (b Blocker) String() string { return fmt.Sprintf("%s %s %s", b.Family, b.Table, b.Chain) }

type foreignChain struct {
	family      uint8
	table, name string
	hook        uint32
	hasHook     bool
	policy      uint32
	kind        string
}

func familyName(f uint8) string {
	switch f {
	case unix.NFPROTO_IPV4:
		return "ip"
	case unix.NFPROTO_IPV6:
		return "ip6"
	}
	return "inet"
}

// Blockers lists the foreign chains on the forward hook that drop by policy (or, as
// firewalld's does, by a last rule) and have no rule, themselves or in a chain that
// they jump to, that names one of the bridges.
func Blockers(bridges []Forwarded) ([]Blocker, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return blockers(conn, bridges)
}

func blockers(conn *netlink.Conn, bridges []Forwarded) ([]Blocker, error) {
	chains, err := listChains(conn)
	if err != nil {
		return nil, err
	}
	var bs []Blocker
	for _, c := range chains {
		if !c.blocks() {
			continue
		}
		rules, err := reachable(conn, c)
		if err != nil {
			return nil, err
		}
		b := Blocker{family: c.family, Family: familyName(c.family), Table: c.table, Chain: c.name}
		for _, bridge := range bridges {
			if bridge.meets(c.family) && !namesLink(rules, bridge.Bridge) {
				b.Bridges = append(b.Bridges, bridge.Bridge)
			}
		}
		if len(b.Bridges) > 0 {
			b.Allow = allowCommands(c, chains, b.Bridges)
			bs = append(bs, b)
		}
	}
	return bs, nil
}

// InputGuards lists the foreign chains that drop, by policy or as firewalld's last rule does, IPv6 packets to the
// host's own programs. Whether a rule of theirs lets a certain port in they do not tell.
func InputGuards() ([]Blocker, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	chains, err := listChains(conn)
	if err != nil {
		return nil, err
	}
	var bs []Blocker
	for _, c := range chains {
		if c.hasHook && c.hook == unix.NF_INET_LOCAL_IN && c.drops() && c.family != unix.NFPROTO_IPV4 {
			bs = append(bs, Blocker{family: c.family, Family: familyName(c.family), Table: c.table, Chain: c.name})
		}
	}
	return bs, nil
}

// allowCommands is what lets the traffic of all the bridges through: of the first ones,
// where there are more than anybody reads.
func allowCommands(c foreignChain, all []foreignChain, bridges []string) string {
	const most = 4
	var cs []string
	for _, b := range bridges[:min(most, len(bridges))] {
		cs = append(cs, allowCommand(c, all, b))
	}
	if len(bridges) > most {
		cs = append(cs, "…")
	}
	return strings.Join(cs, " && ")
}

// blocks is about filter chains on forward. Those of other engines of this kind are
// called cleat-… and accept by policy, so that they are none.
func (c foreignChain) blocks() bool {
	return c.hasHook && c.hook == unix.NF_INET_FORWARD && c.drops()
}

// drops tells whether a chain of filters drops what none of its rules lets through. firewalld does so by a last rule.
func (c foreignChain) drops() bool {
	return c.kind == "filter" && (c.policy == nfDrop || c.table == "firewalld")
}

func allowCommand(c foreignChain, all []foreignChain, bridge string) string {
	has := func(name string) bool {
		return slices.ContainsFunc(all, func(o foreignChain) bool { return o.family == c.family && o.table == c.table && o.name == name })
	}
	iptables := c.family != unix.NFPROTO_INET && c.table == "filter" && c.name == "FORWARD"
	program, ufw := "iptables", "ufw-before-forward"
	if c.family == unix.NFPROTO_IPV6 {
		program, ufw = "ip6tables", "ufw6-before-forward"
	}
	switch {
	case c.table == "firewalld":
		return fmt.Sprintf("firewall-cmd --permanent --zone=trusted --add-interface=%s && firewall-cmd --reload", bridge)
	case iptables && has(ufw):
		return fmt.Sprintf("ufw route allow in on %s && ufw route allow out on %s", bridge, bridge)
	case iptables:
		return fmt.Sprintf("%s -I FORWARD -i %s -j ACCEPT && %s -I FORWARD -o %s -j ACCEPT", program, bridge, program, bridge)
	}
	where := fmt.Sprintf("%s %s %s", familyName(c.family), c.table, c.name)
	return fmt.Sprintf("nft insert rule %s iifname %s accept && nft insert rule %s oifname %s accept", where, bridge, where, bridge)
}

// listTries is how often a list is read anew that changes while it is read, as those of a host do on which other engines
// and firewalls are at work; one try takes less than a millisecond.
const listTries = 200

// steady calls list until nothing has changed while it read. list begins anew each time.
func steady(list func() error) error {
	for try := 1; ; try++ {
		if err := list(); !errors.Is(err, unix.EINTR) || try == listTries {
			return err
		}
	}
}

func listChains(conn *netlink.Conn) ([]foreignChain, error) {
	var chains []foreignChain
	for _, family := range []uint8{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6, unix.NFPROTO_INET} {
		var those []foreignChain
		err := steady(func() error {
			those = those[:0]
			return conn.Dump(newMessage(unix.NFT_MSG_GETCHAIN, 0, family, "list of nftables chains"), func(_ uint16, body []byte) error {
				c, err := parseChain(body)
				if err == nil {
					those = append(those, c)
				}
				return err
			})
		})
		if err != nil {
			return nil, err
		}
		chains = append(chains, those...)
	}
	return chains, nil
}

func parseChain(body []byte) (foreignChain, error) {
	const genmsg = 4
	if len(body) < genmsg {
		return foreignChain{}, fmt.Errorf("nft: message of %d bytes", len(body))
	}
	c := foreignChain{family: body[0], policy: nfAccept}
	attrs, err := netlink.ParseAttrs(body[genmsg:])
	if err != nil {
		return c, err
	}
	for _, a := range attrs {
		switch a.Type {
		case unix.NFTA_CHAIN_TABLE:
			c.table = a.Str()
		case unix.NFTA_CHAIN_NAME:
			c.name = a.Str()
		case unix.NFTA_CHAIN_POLICY:
			c.policy = a.U32BE()
		case unix.NFTA_CHAIN_TYPE:
			c.kind = a.Str()
		case unix.NFTA_CHAIN_HOOK:
			hook, err := netlink.ParseAttrs(a.Value)
			if err != nil {
				return c, err
			}
			for _, h := range hook {
				if h.Type == unix.NFTA_HOOK_HOOKNUM {
					c.hook, c.hasHook = h.U32BE(), true
				}
			}
		}
	}
	return c, nil
}

// foreignRule is one rule of a chain, as far as it is of interest here.
type foreignRule struct {
	handle  []byte
	comment string
	raw     []byte
}

func listRules(conn *netlink.Conn, c foreignChain) ([]foreignRule, error) {
	var rules []foreignRule
	err := steady(func() error {
		rules = rules[:0]
		m := newMessage(unix.NFT_MSG_GETRULE, 0, c.family, "rules of nftables chain "+c.name)
		m.Str(unix.NFTA_RULE_TABLE, c.table).Str(unix.NFTA_RULE_CHAIN, c.name)
		return conn.Dump(m, func(_ uint16, body []byte) error {
			r, err := parseRule(body)
			if err == nil {
				rules = append(rules, r)
			}
			return err
		})
	})
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	return rules, err
}

func parseRule(body []byte) (foreignRule, error) {
	const genmsg = 4
	if len(body) < genmsg {
		return foreignRule{}, fmt.Errorf("nft: message of %d bytes", len(body))
	}
	attrs, err := netlink.ParseAttrs(body[genmsg:])
	if err != nil {
		return foreignRule{}, err
	}
	r := foreignRule{raw: bytes.Clone(body)}
	for _, a := range attrs {
		switch a.Type {
		case unix.NFTA_RULE_HANDLE:
			r.handle = bytes.Clone(a.Value)
		case unix.NFTA_RULE_USERDATA:
			r.comment = ruleComment(a.Value)
		}
	}
	return r, nil
}

// ruleComment reads libnftnl's user data: tag 0, length, zero-terminated text.
func ruleComment(b []byte) string {
	if len(b) < 2 || b[0] != 0 || int(b[1]) > len(b)-2 {
		return ""
	}
	return strings.TrimRight(string(b[2:2+int(b[1])]), "\x00")
}

func commentData(s string) []byte {
	return append(append([]byte{0, byte(len(s) + 1)}, s...), 0)
}

// reachable are the rules of a chain and of those that it jumps to: ufw and firewalld
// keep what an administrator allows in chains of their own.
func reachable(conn *netlink.Conn, c foreignChain) ([]foreignRule, error) {
	var all []foreignRule
	seen := map[string]bool{c.name: true}
	for todo := []string{c.name}; len(todo) > 0; todo = todo[1:] {
		rules, err := listRules(conn, foreignChain{family: c.family, table: c.table, name: todo[0]})
		if err != nil {
			return nil, err
		}
		all = append(all, rules...)
		for _, r := range rules {
			for _, next := range r.jumps() {
				if !seen[next] {
					seen[next] = true
					todo = append(todo, next)
				}
			}
		}
	}
	return all, nil
}

// jumps are the chains that the rule sends packets to.
func (r foreignRule) jumps() []string {
	const genmsg = 4
	attrs, err := netlink.ParseAttrs(r.raw[genmsg:])
	if err != nil {
		return nil
	}
	// The way to a verdict's chain: rule, expression, its data, immediate data, verdict.
	path := []uint16{unix.NFTA_RULE_EXPRESSIONS, unix.NFTA_LIST_ELEM, unix.NFTA_EXPR_DATA, unix.NFTA_IMMEDIATE_DATA, unix.NFTA_DATA_VERDICT, unix.NFTA_VERDICT_CHAIN}
	return follow(attrs, path)
}

func follow(attrs []netlink.Attr, path []uint16) []string {
	var found []string
	for _, a := range attrs {
		switch {
		case a.Type != path[0]:
		case len(path) == 1:
			found = append(found, a.Str())
		default:
			// Expressions of other kinds have other things at the same place: what is
			// no list of attributes has no chain.
			if inner, err := netlink.ParseAttrs(a.Value); err == nil {
				found = append(found, follow(inner, path[1:])...)
			}
		}
	}
	return found
}

// namesLink looks for a rule that compares a link's name with this one. What the rule
// does with it is up to who wrote it: they know of the link.
func namesLink(rules []foreignRule, link string) bool {
	return slices.ContainsFunc(rules, func(r foreignRule) bool { return r.names(link) })
}

// names looks for the link's name as a value, padded as nft writes it or with its zero
// alone as iptables does. The names of the table and of chains are none.
func (r foreignRule) names(link string) bool {
	for _, size := range []int{len(link) + 1, unix.IFNAMSIZ} {
		header := binary.NativeEndian.AppendUint16(nil, uint16(unix.NLA_HDRLEN+size))
		header = binary.NativeEndian.AppendUint16(header, unix.NFTA_DATA_VALUE)
		if bytes.Contains(r.raw, append(append(header, link...), 0)) {
			return true
		}
	}
	return false
}

// Integrate inserts, at the head of every chain that Blockers lists, rules that
// accept what comes from and goes to the bridges, marked with the comment mark, and
// removes marked ones that are about none of them. What may go to a bridge is decided by
// our own table all the same.
func Integrate(bridges []Forwarded, mark string) error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer conn.Close()
	return edit(conn, func() ([]*netlink.Message, error) {
		msgs, err := stale(conn, bridges, mark)
		if err != nil {
			return nil, err
		}
		accepts, err := accepts(conn, bridges, mark)
		return append(msgs, accepts...), err
	})
}

// accepts asks for marked rules at the head of every chain that Blockers lists.
func accepts(conn *netlink.Conn, bridges []Forwarded, mark string) ([]*netlink.Message, error) {
	found, err := blockers(conn, bridges)
	if err != nil {
		return nil, err
	}
	var msgs []*netlink.Message
	for _, b := range found {
		family := b.family
		for _, bridge := range b.Bridges {
			for _, r := range []*rule{new(rule).inName(bridge).accept(), new(rule).outName(bridge).accept()} {
				// Without NLM_F_APPEND the rule goes to the head.
				m := ruleMessage(unix.NLM_F_CREATE, family, b.Table, b.Chain, r, "nftables chain "+b.String())
				msgs = append(msgs, m.Attr(unix.NFTA_RULE_USERDATA, commentData(mark)))
			}
		}
	}
	return msgs, nil
}

// edit carries out what plan asks for, if nothing has changed since that looked; else it looks again. Another program may
// have loaded its rules anew meanwhile, and have given the number of one of ours to one of its own.
func edit(conn *netlink.Conn, plan func() ([]*netlink.Message, error)) error {
	for try := 1; ; try++ {
		generation, err := generationOf(conn)
		if err != nil {
			return err
		}
		msgs, err := plan()
		if err != nil || len(msgs) == 0 {
			return err
		}
		err = conn.DoBatch(batchBegin("nftables").U32BE(unix.NFNL_BATCH_GENID, generation), batchEnd("nftables"), msgs...)
		if !errors.Is(err, unix.ERESTART) || try == listTries {
			return err
		}
	}
}

// generationOf is the number that the ruleset has until it is changed.
func generationOf(conn *netlink.Conn) (uint32, error) {
	body, err := conn.Query(newMessage(unix.NFT_MSG_GETGEN, 0, unix.NFPROTO_UNSPEC, "generation of the nftables ruleset"))
	if err != nil {
		return 0, err
	}
	const genmsg = 4
	if len(body) < genmsg {
		return 0, fmt.Errorf("nft: message of %d bytes", len(body))
	}
	attrs, err := netlink.ParseAttrs(body[genmsg:])
	for _, a := range attrs {
		if a.Type == unix.NFTA_GEN_ID {
			return a.U32BE(), err
		}
	}
	return 0, errors.Join(err, errors.New("nft: the kernel tells no generation of its ruleset"))
}

// Withdraw removes every rule with the comment mark from foreign forward chains.
func Withdraw(mark string) error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer conn.Close()
	return edit(conn, func() ([]*netlink.Message, error) { return stale(conn, nil, mark) })
}

// stale asks for the removal of marked rules that name none of the bridges.
func stale(conn *netlink.Conn, bridges []Forwarded, mark string) ([]*netlink.Message, error) {
	chains, err := listChains(conn)
	if err != nil {
		return nil, err
	}
	var msgs []*netlink.Message
	for _, c := range chains {
		if !c.hasHook || c.hook != unix.NF_INET_FORWARD {
			continue
		}
		rules, err := listRules(conn, c)
		if err != nil {
			return nil, err
		}
		for _, r := range rules {
			if r.comment != mark || slices.ContainsFunc(bridges, func(f Forwarded) bool { return r.names(f.Bridge) }) {
				continue
			}
			m := newMessage(unix.NFT_MSG_DELRULE, 0, c.family, "nftables chain "+c.name)
			msgs = append(msgs, m.Str(unix.NFTA_RULE_TABLE, c.table).Str(unix.NFTA_RULE_CHAIN, c.name).Attr(unix.NFTA_RULE_HANDLE, r.handle))
		}
	}
	return msgs, nil
}
