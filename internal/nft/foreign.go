package nft

import (
	"bytes"
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
	Family string // "ip" or "inet"
	Table  string
	Chain  string
	// Allow is the command that lets a bridge's traffic through.
	Allow string
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
	if f == unix.NFPROTO_IPV4 {
		return "ip"
	}
	return "inet"
}

// Blockers lists the foreign chains on the forward hook that drop by policy (or, as
// firewalld's does, by a last rule) and have no rule that names the bridge.
func Blockers(bridge string) ([]Blocker, error) {
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
		if !c.blocks() {
			continue
		}
		named, err := namesBridge(conn, c, bridge)
		if err != nil {
			return nil, err
		}
		if !named {
			bs = append(bs, Blocker{
				Family: familyName(c.family), Table: c.table, Chain: c.name,
				Allow: allowCommand(c, chains, bridge),
			})
		}
	}
	return bs, nil
}

// blocks is about filter chains on forward. Those of other engines of this kind are
// called cleat-… and accept by policy, so that they are none.
func (c foreignChain) blocks() bool {
	if !c.hasHook || c.hook != unix.NF_INET_FORWARD || c.kind != "filter" {
		return false
	}
	return c.policy == nfDrop || c.table == "firewalld"
}

func allowCommand(c foreignChain, all []foreignChain, bridge string) string {
	has := func(name string) bool {
		return slices.ContainsFunc(all, func(o foreignChain) bool { return o.family == c.family && o.table == c.table && o.name == name })
	}
	iptables := c.family == unix.NFPROTO_IPV4 && c.table == "filter" && c.name == "FORWARD"
	switch {
	case c.table == "firewalld":
		return fmt.Sprintf("firewall-cmd --permanent --zone=trusted --add-interface=%s && firewall-cmd --reload", bridge)
	case iptables && has("ufw-before-forward"):
		return fmt.Sprintf("ufw route allow in on %s && ufw route allow out on %s", bridge, bridge)
	case iptables:
		return fmt.Sprintf("iptables -I FORWARD -i %s -j ACCEPT && iptables -I FORWARD -o %s -j ACCEPT", bridge, bridge)
	}
	where := fmt.Sprintf("%s %s %s", familyName(c.family), c.table, c.name)
	return fmt.Sprintf("nft insert rule %s iifname %s accept && nft insert rule %s oifname %s accept", where, bridge, where, bridge)
}

func listChains(conn *netlink.Conn) ([]foreignChain, error) {
	var chains []foreignChain
	for _, family := range []uint8{unix.NFPROTO_IPV4, unix.NFPROTO_INET} {
		err := conn.Dump(newMessage(unix.NFT_MSG_GETCHAIN, 0, family, "list of nftables chains"), func(_ uint16, body []byte) error {
			c, err := parseChain(body)
			if err == nil {
				chains = append(chains, c)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
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
	m := newMessage(unix.NFT_MSG_GETRULE, 0, c.family, "rules of nftables chain "+c.name)
	m.Str(unix.NFTA_RULE_TABLE, c.table).Str(unix.NFTA_RULE_CHAIN, c.name)
	var rules []foreignRule
	err := conn.Dump(m, func(_ uint16, body []byte) error {
		const genmsg = 4
		if len(body) < genmsg {
			return fmt.Errorf("nft: message of %d bytes", len(body))
		}
		attrs, err := netlink.ParseAttrs(body[genmsg:])
		if err != nil {
			return err
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
		rules = append(rules, r)
		return nil
	})
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	return rules, err
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

// namesBridge looks for a rule that compares a link's name with the bridge's. What
// the rule does with it is up to who wrote it: they know of the bridge.
func namesBridge(conn *netlink.Conn, c foreignChain, bridge string) (bool, error) {
	rules, err := listRules(conn, c)
	if err != nil {
		return false, err
	}
	for _, r := range rules {
		if bytes.Contains(r.raw, append([]byte(bridge), 0)) {
			return true, nil
		}
	}
	return false, nil
}

// Integrate inserts, at the head of every chain that Blockers lists, rules that
// accept what comes from and goes to the bridge, marked with the comment mark. What
// may go to the bridge is decided by our own table all the same.
func Integrate(bridge, mark string) error {
	blockers, err := Blockers(bridge)
	if err != nil || len(blockers) == 0 {
		return err
	}
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer conn.Close()
	var msgs []*netlink.Message
	for _, b := range blockers {
		family := uint8(unix.NFPROTO_INET)
		if b.Family == "ip" {
			family = unix.NFPROTO_IPV4
		}
		for _, r := range []*rule{new(rule).inName(bridge).accept(), new(rule).outName(bridge).accept()} {
			// Without NLM_F_APPEND the rule goes to the head.
			m := ruleMessage(unix.NLM_F_CREATE, family, b.Table, b.Chain, r, "nftables chain "+b.String())
			msgs = append(msgs, m.Attr(unix.NFTA_RULE_USERDATA, commentData(mark)))
		}
	}
	return conn.DoBatch(batchBegin("nftables"), batchEnd("nftables"), msgs...)
}

// Withdraw removes every rule with the comment mark from foreign forward chains.
func Withdraw(mark string) error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer conn.Close()
	chains, err := listChains(conn)
	if err != nil {
		return err
	}
	var msgs []*netlink.Message
	for _, c := range chains {
		if !c.hasHook || c.hook != unix.NF_INET_FORWARD {
			continue
		}
		rules, err := listRules(conn, c)
		if err != nil {
			return err
		}
		for _, r := range rules {
			if r.comment != mark {
				continue
			}
			m := newMessage(unix.NFT_MSG_DELRULE, 0, c.family, "nftables chain "+c.name)
			msgs = append(msgs, m.Str(unix.NFTA_RULE_TABLE, c.table).Str(unix.NFTA_RULE_CHAIN, c.name).Attr(unix.NFTA_RULE_HANDLE, r.handle))
		}
	}
	if len(msgs) == 0 {
		return nil
	}
	return conn.DoBatch(batchBegin("nftables"), batchEnd("nftables"), msgs...)
}
