package cli

import (
	"net/netip"
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

// withPlainAddresses is a copy of the template that shows and tests everything by plainAddress.
func withPlainAddresses(t *template.Template) (*template.Template, error) {
	const function = "plainAddress"
	c, err := t.Clone()
	if err != nil {
		return nil, err
	}
	c.Funcs(template.FuncMap{function: plainAddress})
	for _, each := range c.Templates() {
		if each.Tree == nil {
			continue
		}
		each.Tree = each.Tree.Copy() // which clones share
		eachPipe(each.Root, func(p *parse.PipeNode) {
			name := parse.NewIdentifier(function).SetPos(p.Pos).SetTree(each.Tree)
			p.Cmds = append(p.Cmds, &parse.CommandNode{NodeType: parse.NodeCommand, Pos: p.Pos, Args: []parse.Node{name}})
		})
	}
	return c, nil
}

// eachPipe calls do for whatever a template prints, assigns or decides by.
func eachPipe(n *parse.ListNode, do func(*parse.PipeNode)) {
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
			do(node.Pipe)
		case *parse.IfNode:
			do(node.Pipe)
			branches(&node.BranchNode)
		case *parse.WithNode:
			do(node.Pipe)
			branches(&node.BranchNode)
		case *parse.RangeNode:
			branches(&node.BranchNode)
		}
	}
}
