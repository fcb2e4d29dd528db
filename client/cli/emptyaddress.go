package cli

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"text/template"
	"text/template/parse"
)

// plainAddress is what a template shows of a value: of an address that is not there nothing, which is also false, in the
// place of netip's "invalid IP". Scripts that ask for the address of a container which has none look for that.
func plainAddress(v any) any {
	switch a := v.(type) {
	case netip.Addr:
		if !a.IsValid() {
			return ""
		}
	case netip.Prefix:
		if !a.IsValid() {
			return ""
		}
	}
	return v
}

// netipWords are what fmt makes of addresses and subnets that are not there.
var netipWords = strings.NewReplacer(netip.Addr{}.String(), "", netip.Prefix{}.String(), "")

// shown is what a template prints of a value: what plainAddress says, and so it is with the addresses within it, as in
// those of {{.HostConfig.PortBindings}}. A value in which somebody has written netip's words is left as it is.
func shown(v any) any {
	v = plainAddress(v)
	r := reflect.Indirect(reflect.ValueOf(v))
	switch r.Kind() {
	case reflect.Struct, reflect.Map, reflect.Slice, reflect.Array:
	default:
		return v
	}
	text := fmt.Sprint(r.Interface())
	plain := netipWords.Replace(text)
	if plain == text {
		return v
	}
	if written, err := json.Marshal(v); err != nil || netipWords.Replace(string(written)) != string(written) {
		return v
	}
	return plain
}

// withPlainAddresses is a copy of the template that tests everything by plainAddress, and prints it by shown.
func withPlainAddresses(t *template.Template) (*template.Template, error) {
	const test, show = "plainAddress", "shown"
	c, err := t.Clone()
	if err != nil {
		return nil, err
	}
	c.Funcs(template.FuncMap{test: plainAddress, show: shown})
	for _, each := range c.Templates() {
		if each.Tree == nil {
			continue
		}
		each.Tree = each.Tree.Copy() // which clones share
		eachPipe(each.Root, func(p *parse.PipeNode, printed bool) {
			function := test
			if printed {
				function = show
			}
			name := parse.NewIdentifier(function).SetPos(p.Pos).SetTree(each.Tree)
			p.Cmds = append(p.Cmds, &parse.CommandNode{NodeType: parse.NodeCommand, Pos: p.Pos, Args: []parse.Node{name}})
		})
	}
	return c, nil
}

// eachPipe calls do for whatever a template prints, assigns or decides by, and says if it is printed.
func eachPipe(n *parse.ListNode, do func(p *parse.PipeNode, printed bool)) {
	if n == nil {
		return
	}
	branches := func(b *parse.BranchNode) {
		eachPipe(b.List, do)
		eachPipe(b.ElseList, do)
	}
	for _, node := range n.Nodes {
		switch node := node.(type) {
		case *parse.ActionNode:
			do(node.Pipe, len(node.Pipe.Decl) == 0)
		case *parse.IfNode:
			do(node.Pipe, false)
			branches(&node.BranchNode)
		case *parse.WithNode:
			do(node.Pipe, false)
			branches(&node.BranchNode)
		case *parse.RangeNode:
			branches(&node.BranchNode)
		}
	}
}
