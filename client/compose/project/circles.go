package project

import (
	"bytes"
	"fmt"
	"os"

	"go.yaml.in/yaml/v4"
)

// checkAnchors refuses files in which an anchor's value contains itself: the library would
// follow it for minutes, and gigabytes. What cannot be read or parsed is left to the library
// to complain of.
func checkAnchors(files []string) error {
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil || !bytes.ContainsRune(data, '*') {
			continue
		}
		var doc yaml.Node
		if yaml.Unmarshal(data, &doc) != nil {
			continue
		}
		c := circles{open: map[*yaml.Node]bool{}, done: map[*yaml.Node]bool{}}
		if n := c.find(&doc); n != nil {
			return &PlacedError{
				fmt.Errorf("failed to parse %s: the value of the anchor %q contains itself", file, n.Value),
				Place{file, n.Line, n.Column, line(data, n.Line)},
			}
		}
	}
	return nil
}

// circles follows aliases: open is what is being looked at, done what has been.
type circles struct{ open, done map[*yaml.Node]bool }

// find is an alias of something that it is in, nil if there is none.
func (c *circles) find(n *yaml.Node) *yaml.Node {
	if c.done[n] {
		return nil
	}
	c.open[n] = true
	defer func() { delete(c.open, n); c.done[n] = true }()
	for _, e := range n.Content {
		if e.Kind == yaml.AliasNode && e.Alias != nil {
			if c.open[e.Alias] {
				return e
			}
			if found := c.find(e.Alias); found != nil {
				return found
			}
		} else if found := c.find(e); found != nil {
			return found
		}
	}
	return nil
}
