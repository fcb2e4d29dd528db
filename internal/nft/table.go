// Package nft keeps the engine's firewall: one nftables table per engine, spoken to
// over netlink, without the nft or iptables programs.
//
// The rules are fixed; everything that changes (bridges, subnets, published ports)
// is an element of a set or map, so that adding or removing any number of ports is
// one transaction whose cost does not depend on how many there are. A Table knows
// all its elements and can put itself back, in one transaction, when somebody
// flushes the host's ruleset.
//
// It never touches another table, with one exception that has to be asked for:
// Integrate (foreign.go).
//
// The chain "admin" of the table belongs to the administrator: it is evaluated for
// all traffic to and from containers before any accept of ours, and never flushed:
//
//	nft add rule inet cleat-cleat0 admin ip saddr != 192.0.2.0/24 drop
package nft

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/netlink"
)

const familyInet = unix.NFPROTO_INET

// Table is the engine's table in the kernel. Its methods are safe for concurrent
// use.
type Table struct {
	name   string
	conn   *netlink.Conn
	accept *Mark

	mu       sync.Mutex
	elements map[element]struct{}
}

// Open connects to the table of this name in the calling thread's network
// namespace. If it exists, its elements are taken over. Nothing is changed until
// Assert.
func Open(name string) (*Table, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	t := &Table{name: name, conn: conn, elements: map[element]struct{}{}}
	if err := t.load(); err != nil {
		conn.Close()
		return nil, err
	}
	return t, nil
}

// Mark is that of packets: those whose bits in Mask are those of Value.
type Mark struct{ Value, Mask uint32 }

// Accept lets all packets with a mark through to containers, published or not, but for
// those of internal networks. Call it before the first Assert.
func (t *Table) Accept(m Mark) { t.accept = &m }

// Close ends the connection; the table stays.
func (t *Table) Close() error { return t.conn.Close() }

// Traffic is that of the table's connection, in bytes.
func (t *Table) Traffic() (sent, received int64) { return t.conn.Traffic() }

// Name is the table's name.
func (t *Table) Name() string { return t.name }

func (t *Table) object() string { return "nftables table inet " + t.name }

// load reads the elements that the kernel has. A dump that meets the kernel growing
// a set's hash table in the background skips some (rhashtable_walk_next gives EAGAIN,
// which nft_rhash_walk passes over), so it is repeated until it brings nothing new.
func (t *Table) load() error {
	for known := -1; len(t.elements) > known; {
		known = len(t.elements)
		for _, s := range layoutSets() {
			if err := t.loadSet(s.name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *Table) loadSet(name string) error {
	err := steady(func() error {
		m := newMessage(unix.NFT_MSG_GETSETELEM, 0, familyInet, t.object()+" set "+name)
		m.Str(unix.NFTA_SET_ELEM_LIST_TABLE, t.name).Str(unix.NFTA_SET_ELEM_LIST_SET, name)
		return t.conn.Dump(m, func(_ uint16, body []byte) error {
			es, err := parseElements(name, body)
			for _, e := range es {
				t.elements[e] = struct{}{}
			}
			return err
		})
	})
	if errors.Is(err, unix.ENOENT) {
		return nil // the table is not there yet
	}
	return err
}

func parseElements(set string, body []byte) ([]element, error) {
	const genmsg = 4
	if len(body) < genmsg {
		return nil, fmt.Errorf("nft: message of %d bytes", len(body))
	}
	top, err := netlink.ParseAttrs(body[genmsg:])
	if err != nil {
		return nil, err
	}
	var es []element
	for _, a := range top {
		if a.Type != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			continue
		}
		list, err := netlink.ParseAttrs(a.Value)
		if err != nil {
			return nil, err
		}
		for _, item := range list {
			e, err := parseElement(set, item.Value)
			if err != nil {
				return nil, err
			}
			es = append(es, e)
		}
	}
	return es, nil
}

func parseElement(set string, b []byte) (element, error) {
	attrs, err := netlink.ParseAttrs(b)
	if err != nil {
		return element{}, err
	}
	e := element{set: set}
	for _, a := range attrs {
		var into *string
		switch a.Type {
		case unix.NFTA_SET_ELEM_KEY:
			into = &e.key
		case elemKeyEnd:
			into = &e.keyEnd
		case unix.NFTA_SET_ELEM_DATA:
			into = &e.data
		case unix.NFTA_SET_ELEM_FLAGS:
			e.end = a.U32BE()&unix.NFT_SET_ELEM_INTERVAL_END != 0
		}
		if into == nil {
			continue
		}
		values, err := netlink.ParseAttrs(a.Value)
		if err != nil {
			return element{}, err
		}
		for _, v := range values {
			if v.Type == unix.NFTA_DATA_VALUE {
				*into = string(v.Value)
			}
		}
	}
	return e, nil
}

// Assert makes the kernel's table what it must be, whatever was there: chains,
// rules and all elements, in one transaction. The chain "admin" keeps its rules.
func (t *Table) Assert() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.assert()
}

func (t *Table) assert() error {
	if err := t.conn.DoBatch(batchBegin(t.object()), batchEnd(t.object()), t.assertMessages()...); err != nil {
		return fmt.Errorf("%w (if something else made that table: nft delete table inet %s)", err, t.name)
	}
	return nil
}

func (t *Table) assertMessages() []*netlink.Message {
	msgs := []*netlink.Message{t.addTable()}
	chains, sets := layoutChains(t.accept), layoutSets()
	for _, c := range chains {
		msgs = append(msgs, t.addChain(c))
	}
	for _, c := range chains {
		if !c.adminOwned {
			msgs = append(msgs, t.flushChain(c))
		}
	}
	for i, s := range sets {
		msgs = append(msgs, t.addSet(s, uint32(i+1)), t.flushSet(s.name))
	}
	msgs = append(msgs, t.elementMessages(unix.NFT_MSG_NEWSETELEM, t.sorted())...)
	for _, c := range chains {
		for _, r := range c.rules {
			msgs = append(msgs, t.addRule(c, r))
		}
	}
	return msgs
}

// Intact says whether every chain of ours has its number of rules and every set is
// there. Changes of elements by others are not looked for.
func (t *Table) Intact() (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range layoutChains(t.accept) {
		if c.adminOwned {
			continue
		}
		rules, err := listRules(t.conn, foreignChain{family: familyInet, table: t.name, name: c.name})
		if err != nil {
			return false, err
		}
		if len(rules) != len(c.rules) {
			return false, nil
		}
	}
	return true, nil
}

// Delete removes the table with everything in it.
func (t *Table) Delete() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.elements)
	err := t.conn.DoBatch(batchBegin(t.object()), batchEnd(t.object()), t.deleteTable())
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// Change is what one transaction adds and removes.
type Change struct {
	AddNetworks, DelNetworks []Network
	Add, Del                 []Publish
}

// Apply carries out a change in one transaction: all of it or nothing. Adding what
// is there and removing what is not is no error. If the kernel's table turns out to
// have been flushed, it is put back whole.
func (t *Table) Apply(c Change) error {
	del, add, err := c.elements()
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	del = slices.DeleteFunc(del, func(e element) bool { _, ok := t.elements[e]; return !ok })
	add = slices.DeleteFunc(add, func(e element) bool { _, ok := t.elements[e]; return ok })
	msgs := append(t.elementMessages(unix.NFT_MSG_DELSETELEM, del), t.elementMessages(unix.NFT_MSG_NEWSETELEM, add)...)
	if len(msgs) == 0 {
		return nil
	}
	t.update(del, add)
	err = t.conn.DoBatch(batchBegin(t.object()), batchEnd(t.object()), msgs...)
	if errors.Is(err, unix.ENOENT) {
		err = t.assert()
	}
	if err != nil {
		t.update(add, del)
	}
	return err
}

func (t *Table) update(del, add []element) {
	for _, e := range del {
		delete(t.elements, e)
	}
	for _, e := range add {
		t.elements[e] = struct{}{}
	}
}

func (c Change) elements() (del, add []element, err error) {
	networks := func(ns []Network, into *[]element) {
		for _, n := range ns {
			es, e := n.elements()
			err = errors.Join(err, e)
			*into = append(*into, es...)
		}
	}
	ports := func(ps []Publish, into *[]element) {
		for _, p := range ps {
			el, e := p.element()
			err = errors.Join(err, e)
			*into = append(*into, el)
		}
	}
	ports(c.Del, &del)
	networks(c.DelNetworks, &del)
	networks(c.AddNetworks, &add)
	ports(c.Add, &add)
	// Elements of one set must be neighbours to share a message.
	byset := func(a, b element) int { return strings.Compare(a.set, b.set) }
	slices.SortStableFunc(del, byset)
	slices.SortStableFunc(add, byset)
	return del, add, err
}

// Published lists the published ports of the table, in no order.
func (t *Table) Published() []Publish {
	t.mu.Lock()
	defer t.mu.Unlock()
	var ps []Publish
	for e := range t.elements {
		if p, ok := e.publish(); ok {
			ps = append(ps, p)
		}
	}
	return ps
}

// KeepNetworks forgets every bridge and subnet but these; the next Assert makes the
// kernel do so too. It is for an engine that starts with another subnet than the
// one before it. Of a bridge that spare says so of, it keeps what isolates its
// containers: that it is one of ours, and who they may talk to.
func (t *Table) KeepNetworks(spare func(bridge string) bool, ns ...Network) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, add, err := Change{AddNetworks: ns}.elements()
	if err != nil {
		return err
	}
	for e := range t.elements {
		if _, ok := e.publish(); ok {
			continue
		}
		if bridge, ok := e.bridge(); !ok || !spare(bridge) {
			delete(t.elements, e)
		}
	}
	t.update(nil, add)
	return nil
}

// sorted lists the elements set by set; within one by key, the end of an interval
// before the start of the next.
func (t *Table) sorted() []element {
	es := make([]element, 0, len(t.elements))
	for e := range t.elements {
		es = append(es, e)
	}
	slices.SortFunc(es, func(a, b element) int {
		if c := strings.Compare(a.set, b.set); c != 0 {
			return c
		}
		if c := strings.Compare(a.key, b.key); c != 0 {
			return c
		}
		if a.end != b.end && a.end {
			return -1
		}
		return 1
	})
	return es
}

// String is the table as a script for `nft -f`, without the administrator's rules.
func (t *Table) String() string {
	t.mu.Lock()
	elements := t.sorted()
	t.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "table inet %s {\n", t.name)
	for _, s := range layoutSets() {
		writeSet(&b, s, elements)
	}
	for _, c := range layoutChains(t.accept) {
		fmt.Fprintf(&b, "\tchain %s {\n", c.name)
		if c.kind != "" {
			fmt.Fprintf(&b, "\t\ttype %s hook %s priority %s; policy accept;\n", c.kind, c.hookName, c.priorityName)
		}
		for _, r := range c.rules {
			fmt.Fprintf(&b, "\t\t%s\n", r.text)
		}
		b.WriteString("\t}\n\n")
	}
	return strings.TrimSuffix(b.String(), "\n") + "}\n"
}

func writeSet(b *strings.Builder, s set, elements []element) {
	names := func(types []dataType) string {
		var out []string
		for _, t := range types {
			out = append(out, t.name)
		}
		return strings.Join(out, " . ")
	}
	kind, typ := "set", names(s.key)
	if s.data != nil {
		kind, typ = "map", typ+" : "+names(s.data)
	}
	fmt.Fprintf(b, "\t%s %s {\n\t\ttype %s\n", kind, s.name, typ)
	if s.interval {
		b.WriteString("\t\tflags interval\n")
	}
	if texts := elementTexts(s, elements); len(texts) > 0 {
		fmt.Fprintf(b, "\t\telements = { %s }\n", strings.Join(texts, ",\n\t\t\t     "))
	}
	b.WriteString("\t}\n\n")
}

func elementTexts(s set, elements []element) []string {
	var texts []string
	for i, e := range elements {
		switch {
		case e.set != s.name || e.end:
		case s.interval && s.data == nil && len(s.key) == 1:
			var next element
			if i+1 < len(elements) && elements[i+1].set == s.name {
				next = elements[i+1]
			}
			texts = append(texts, intervalText(e, next))
		default:
			texts = append(texts, e.text())
		}
	}
	return texts
}
