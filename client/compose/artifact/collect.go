package artifact

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Collect reads a project's files, and those that they name by env_file and extends: these get names of their own, by
// which the files that are published name them. All else stays as it is written. Paths are relative to dir, the project's
// directory. An env_file that need not be there, and is not, is left out. What of a registry or repository is extended is
// no file, and stays what it is.
func Collect(paths []string, dir string) ([]File, error) {
	c := collector{seen: map[string]bool{}}
	for _, path := range paths {
		if path == "-" {
			return nil, errors.New("a project that is read from standard input cannot be published: give its file by -f")
		}
		if err := c.add(path, dir, false); err != nil {
			return nil, err
		}
	}
	return append(c.files, c.beside...), nil
}

type collector struct {
	files, beside []File
	seen          map[string]bool // by the names of those beside
}

// add reads a file whose own paths begin at dir.
func (c *collector) add(path, dir string, extended bool) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	found, err := references(text)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	f := File{Name: filepath.Base(path), Extended: extended}
	if extended {
		f.Name = alias(path, ".yaml")
	}
	var next []string
	edits := map[*yaml.Node]string{}
	for _, r := range found {
		target := r.node.Value
		if !filepath.IsAbs(target) {
			target = filepath.Join(dir, target)
		}
		_, err := os.Stat(target)
		switch {
		case strings.Contains(r.node.Value, "$"):
			return fmt.Errorf("%s:%d: service %q: %q has a variable in it: a file can be published whose name is written out", path, r.node.Line, r.service, r.node.Value)
		case r.extends && err != nil: // the project was loaded: it is none on this machine
		case r.extends:
			edits[r.node] = alias(target, ".yaml")
			next = append(next, target)
		case err != nil && r.optional:
		case err != nil:
			return err
		default:
			edits[r.node] = alias(target, ".env")
			if err := c.environment(target); err != nil {
				return err
			}
		}
	}
	if f.Content, err = rewrite(text, edits); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if extended {
		c.beside = append(c.beside, f)
	} else {
		c.files = append(c.files, f)
	}
	for _, path := range next {
		if name := alias(path, ".yaml"); !c.seen[name] {
			c.seen[name] = true
			if err := c.add(path, filepath.Dir(path), true); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *collector) environment(path string) error {
	name := alias(path, ".env")
	if c.seen[name] {
		return nil
	}
	c.seen[name] = true
	text, err := os.ReadFile(path)
	c.beside = append(c.beside, File{Name: name, Content: text, Environment: true})
	return err
}

// alias is the name of a file beside a project's own, as docker compose makes it.
func alias(path, suffix string) string {
	return fmt.Sprintf("%x%s", sha256.Sum256([]byte(path)), suffix)
}

// reference is where a file names another one.
type reference struct {
	service  string
	node     *yaml.Node
	extends  bool
	optional bool
}

// references finds where a file names others.
func references(text []byte) ([]reference, error) {
	var found []reference
	decoder := yaml.NewDecoder(strings.NewReader(string(text)))
	for {
		var document yaml.Node
		if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
			return found, nil
		} else if err != nil {
			return nil, err
		}
		if len(document.Content) == 0 {
			continue
		}
		root := document.Content[0]
		if include := value(root, "include"); include != nil {
			return nil, errors.New("cannot publish compose file with local includes")
		}
		services := resolved(value(root, "services"))
		if services == nil || services.Kind != yaml.MappingNode {
			continue
		}
		for i := 0; i+1 < len(services.Content); i += 2 {
			found = append(found, ofService(services.Content[i].Value, services.Content[i+1])...)
		}
	}
}

func ofService(name string, service *yaml.Node) []reference {
	var found []reference
	if file := resolved(value(value(service, "extends"), "file")); file != nil && file.Kind == yaml.ScalarNode && file.Value != "" {
		found = append(found, reference{service: name, node: file, extends: true})
	}
	list := resolved(value(service, "env_file"))
	if list == nil {
		return found
	}
	entries := []*yaml.Node{list}
	if list.Kind == yaml.SequenceNode {
		entries = list.Content
	}
	for _, e := range entries {
		e = resolved(e)
		optional := false
		if e.Kind == yaml.MappingNode {
			required := resolved(value(e, "required"))
			optional = required != nil && required.Value == "false"
			e = resolved(value(e, "path"))
		}
		if e != nil && e.Kind == yaml.ScalarNode && e.Value != "" {
			found = append(found, reference{service: name, node: e, optional: optional})
		}
	}
	return found
}

// resolved is what an alias stands for.
func resolved(n *yaml.Node) *yaml.Node {
	if n != nil && n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// deepest bounds how far merged mappings are followed: a file can have one that is merged into itself.
const deepest = 32

// value is that of a key, nil if there is none; merged mappings are looked into, too.
func value(mapping *yaml.Node, key string) *yaml.Node { return valueWithin(mapping, key, deepest) }

func valueWithin(mapping *yaml.Node, key string, depth int) *yaml.Node {
	mapping = resolved(mapping)
	if mapping == nil || mapping.Kind != yaml.MappingNode || depth == 0 {
		return nil
	}
	var merged *yaml.Node
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		switch mapping.Content[i].Value {
		case key:
			return mapping.Content[i+1]
		case "<<":
			from := []*yaml.Node{mapping.Content[i+1]}
			if list := resolved(from[0]); list.Kind == yaml.SequenceNode {
				from = list.Content
			}
			for _, m := range from {
				if merged == nil {
					merged = valueWithin(m, key, depth-1)
				}
			}
		}
	}
	return merged
}

// rewrite puts other values in the places of scalars, and leaves all else as it is.
func rewrite(text []byte, edits map[*yaml.Node]string) ([]byte, error) {
	nodes := make([]*yaml.Node, 0, len(edits))
	for n := range edits {
		nodes = append(nodes, n)
	}
	// From the end, so that places stay what they are.
	slices.SortFunc(nodes, func(a, b *yaml.Node) int { return cmp.Or(cmp.Compare(b.Line, a.Line), cmp.Compare(b.Column, a.Column)) })
	lines := linesOf(string(text))
	for _, n := range nodes {
		form := n.Value
		switch {
		case n.Style&yaml.SingleQuotedStyle != 0:
			form = "'" + strings.ReplaceAll(n.Value, "'", "''") + "'"
		case n.Style&yaml.DoubleQuotedStyle != 0:
			form = `"` + n.Value + `"`
		}
		var line []rune
		if n.Line <= len(lines) { // UTF-16 has other lines than the reader
			line = []rune(lines[n.Line-1])
		}
		at := min(n.Column-1, len(line))
		rest, found := strings.CutPrefix(string(line[at:]), form)
		if !found {
			return nil, fmt.Errorf("line %d: the name %q is written in a form in which it cannot be replaced: write it without escapes", n.Line, n.Value)
		}
		lines[n.Line-1] = string(line[:at]) + edits[n] + rest
	}
	return []byte(strings.Join(lines, "")), nil
}

// linesOf splits text where YAML's reader counts a new line, which is not at line feeds alone.
func linesOf(text string) []string {
	var lines []string
	start := 0
	for i, r := range text {
		if !strings.ContainsRune("\n\r\u0085\u2028\u2029", r) || r == '\r' && strings.HasPrefix(text[i:], "\r\n") {
			continue
		}
		end := i + utf8.RuneLen(r)
		lines, start = append(lines, text[start:end]), end
	}
	return append(lines, text[start:])
}
