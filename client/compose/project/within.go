package project

import (
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// What an engine's error names of what it was given, the most telling first: a port, what it quotes, an address, a user.
var named = []func() *regexp.Regexp{
	expression(`Bind for \S+:(\d+) failed`),
	expression(`^[^'"]*'([^']+)'`),
	expression(`^[^'"]*"/?([^"]+)"`),
	expression(`^[^'"]*"(/[^"]+)"`),
	expression(`\b(\d+(?:\.\d+){3})\b`),
	expression(`unable to find (?:user|group) ([^\s:]+)`),
}

// LocateWithin adds to an error about the object at a path ("services", "web") the place of the value in it that the error
// names; one that names none is returned as it is.
func LocateWithin(err error, files []string, path ...string) error {
	if missingFile().MatchString(err.Error()) {
		return err // which is found by its path
	}
	text := strings.TrimPrefix(err.Error(), `service "`+path[len(path)-1]+`": `)
	return located(err, files, func(root *yaml.Node, _ string) (*yaml.Node, int) {
		at := root
		for _, name := range path {
			if _, at = member(resolved(at), name, 0); at == nil {
				return nil, 0
			}
		}
		for _, e := range named {
			if m := e().FindStringSubmatch(text); m != nil {
				if n := holding(at, m[1], 0); n != nil {
					return n, 1
				}
			}
		}
		return nil, 0
	})
}

// holding is the first value below a node that is what is looked for, or has it among its words: "8080:80", "sh -c true".
func holding(n *yaml.Node, what string, depth int) *yaml.Node {
	if n = resolved(n); depth > deepest {
		return nil
	}
	if n.Kind == yaml.ScalarNode {
		words := slices.Concat([]string{n.Value}, strings.FieldsFunc(n.Value, parting(" :=,")), strings.FieldsFunc(n.Value, parting(" :=,/")))
		if slices.Contains(words, what) {
			return n
		}
		return nil
	}
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 {
			continue // a key
		}
		if found := holding(c, what, depth+1); found != nil {
			return found
		}
	}
	return nil
}

func parting(at string) func(rune) bool {
	return func(r rune) bool { return strings.ContainsRune(at, r) }
}
