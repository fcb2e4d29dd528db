package project

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"go.yaml.in/yaml/v4"
)

// Place is where in a file something stands.
type Place struct {
	File         string
	Line, Column int // from 1; Column is 0 if only the line is known
	Text         string
}

// String is the place as compilers write it, and the line below.
func (p Place) String() string {
	at := fmt.Sprintf("%s:%d", p.File, p.Line)
	if p.Column > 0 {
		at += ":" + strconv.Itoa(p.Column)
	}
	text := p.Text
	if len(text) > mostShown {
		text = strings.ToValidUTF8(text[:mostShown], "") + "…"
	}
	return fmt.Sprintf("  --> %s\n%5d | %s", at, p.Line, text)
}

// mostShown is how many bytes of a line an error shows.
const mostShown = 240

// PlacedError is an error with the place in the compose file that it comes from.
type PlacedError struct {
	Err   error
	Place Place
}

func (e *PlacedError) Error() string {
	text := e.Err.Error()
	said := positions().ReplaceAllString(text, "$1$2") + "\n" + e.Place.String() // which is the one that is shown
	if h := hint(text, e.Place); h != "" {
		said += "\nHint: " + h
	}
	return said
}

func (e *PlacedError) Unwrap() error { return e.Err }

// Locate adds to an error about a project the place in its files that it is about, if its
// text tells. The later of several files is looked into first: it has the last word.
func Locate(err error, files []string) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	if place, ok := syntaxPlace(text); ok {
		return &PlacedError{err, place}
	}
	if strings.HasPrefix(text, "yaml: ") {
		return misread(err, files)
	}
	if m := missingFile().FindStringSubmatch(text); m != nil && !slices.Contains(files, m[1]) {
		return located(err, files, func(root *yaml.Node, dir string) (*yaml.Node, int) { return valueOf(root, dir, m[1]+m[2]), 1 })
	}
	if strings.HasPrefix(text, "healthcheck.test must start ") { // of which service, is not told
		return located(err, files, func(root *yaml.Node, _ string) (*yaml.Node, int) { return badProbe(root), 1 })
	}
	path := pathOf(text)
	if path == nil {
		return err
	}
	if m := validated().FindStringSubmatch(text); m != nil && !slices.Contains(files, m[1]) {
		files = append(slices.Clone(files), m[1])
	}
	return located(err, files, func(root *yaml.Node, _ string) (*yaml.Node, int) { return find(root, path) })
}

// LocateAt adds to an error the place of what it is about, by its keys.
func LocateAt(err error, files []string, path ...string) error {
	return located(err, files, func(root *yaml.Node, _ string) (*yaml.Node, int) { return find(root, path) })
}

// located asks each file, from the last on, and where none of them knows those that they include or extend, for what an
// error is about, and how near it is to that.
func located(err error, files []string, look func(root *yaml.Node, dir string) (*yaml.Node, int)) error {
	if found := locatedIn(err, files, look); found != err {
		return found
	}
	return locatedIn(err, related(files), look)
}

func locatedIn(err error, files []string, look func(root *yaml.Node, dir string) (*yaml.Node, int)) error {
	result, nearest := err, 0
	for _, file := range slices.Backward(files) {
		data, rerr := os.ReadFile(file)
		if rerr != nil {
			continue
		}
		var doc yaml.Node
		if yaml.Unmarshal(data, &doc) != nil || len(doc.Content) == 0 {
			continue
		}
		if n, near := look(doc.Content[0], filepath.Dir(file)); n != nil && near > nearest {
			result, nearest = &PlacedError{err, Place{file, n.Line, n.Column, line(data, n.Line)}}, near
		}
	}
	return result
}

func line(data []byte, number int) string {
	n := 0
	for text := range strings.Lines(string(data)) {
		if n++; n == number {
			return strings.TrimRight(text, "\r\n")
		}
	}
	return ""
}

var (
	parseFailed = expression(`^failed to parse (.+?): yaml: `)
	parsedLine  = expression(`line (\d+)(?:, column (\d+))?: `)
	positions   = expression(`^(failed to parse .+?: )(?:yaml: construct errors:\n\s+line \d+: line \d+: |(yaml: )(?:while [^:]+: )?(?:line \d+(?:, column \d+)?: )?)`)
	openQuote   = expression(`while scanning a quoted scalar at line (\d+), column (\d+): .*found unexpected end of stream`)
	validated   = expression(`^validating (.+?): `)
	missingFile = expression(`(?:open|env file|stat) (/\S+?)(?: not found)?: (?:stat .*: )?no such file or directory|bind source path does not exist: (/\S+)`)
)

// syntaxPlace is that of what the parser of YAML did not understand, which says so itself.
func syntaxPlace(text string) (Place, bool) {
	m := parseFailed().FindStringSubmatch(text)
	lines := parsedLine().FindAllStringSubmatch(text, -1)
	if m == nil || lines == nil {
		return Place{}, false
	}
	last := lines[len(lines)-1]
	if open := openQuote().FindStringSubmatch(text); open != nil {
		last = open
	}
	data, err := os.ReadFile(m[1])
	if err != nil {
		return Place{}, false
	}
	p := Place{File: m[1]}
	p.Line, _ = strconv.Atoi(last[1])   // digits
	p.Column, _ = strconv.Atoi(last[2]) // digits, or none
	if strings.Contains(text, "while parsing ") {
		p.Line++ // there the parser counts from 0
	}
	if p.Line > strings.Count(string(data), "\n")+1 {
		return Place{}, false
	}
	p.Text = line(data, p.Line)
	return p, true
}

// misread names the file that an error of the parser comes from: where the library looks for the project's name it
// does not. It is the first that the parser does not understand.
func misread(err error, files []string) error {
	for _, file := range files {
		data, rerr := os.ReadFile(file)
		if rerr != nil {
			continue
		}
		var doc yaml.Node
		if perr := yaml.Unmarshal(data, &doc); perr != nil {
			said := fmt.Errorf("failed to parse %s: %w", file, perr)
			if place, ok := syntaxPlace(said.Error()); ok {
				return &PlacedError{said, place}
			}
			return said
		}
		if len(doc.Content) > 0 && doc.Content[0].Kind != yaml.MappingNode {
			at := doc.Content[0]
			return &PlacedError{fmt.Errorf("failed to parse %s: top-level object must be a mapping", file), Place{file, at.Line, at.Column, line(data, at.Line)}}
		}
	}
	return err
}

// The texts of errors that say what they are about, and how the path to it is made of that.
var paths = []struct {
	text func() *regexp.Regexp
	path string // with $1 … for what the text has; segments are parted by NUL, as names have dots
}{
	{expression(`^validating .+?: (\S*) ?additional properties '([^']+)'`), "$1\x00$2"},
	{expression(`^validating .+?: (\S+) `), "$1"},
	{expression(`^error while interpolating (\S+): `), "$1"},
	{expression(`^invalid interpolation format for (\S+)\.\n`), "$1"},
	{expression(`(?m)^'([^'\s]+)' `), "$1"},
	{expression(`service "([^"]+)" depends on undefined service "([^"]+)"`), "services\x00$1\x00depends_on\x00$2"},
	{expression(`service "([^"]+)" refers to undefined (network|volume|secret|config) ([^\s:]+)`), "services\x00$1\x00${2}s\x00$3"},
	{expression(`service "([^"]+)" has neither an image nor a build`), "services\x00$1"},
	{expression(`^cannot extend service "([^"]+)"`), "services\x00$1\x00extends"},
	{expression(`dependency cycle detected: (\S+) -> ([^\s:]+)`), "services\x00$1\x00depends_on\x00$2"},
	{expression(`service "([^"]+)": the attribute ([^\s:]+)`), "services\x00$1\x00$2"},
	{expression(`service "([^"]+)": the container name `), "services\x00$1\x00container_name"},
	{expression(`service "([^"]+)" could not be built`), "services\x00$1\x00build"},
	{expression(`service (\S+) declares mutually exclusive .(network_mode)`), "services\x00$1\x00$2"},
	{expression(`unable to get image '([^']+)'`), "services\x00*\x00image\x00$1"},
	{expression(`^(services\.\S+?)\.?(\[\d+\])?: unexpected type `), "$1$2"},
	{expression(`^(\w+|services\.\S+) must be a mapping$`), "$1"},
	{expression(`invalid ranges specified for container and host Ports: \S+ and (\S+)`), "services\x00*\x00ports\x00$1"},
	{expression(`service "([^"]+)": (\w+): `), "services\x00$1\x00$2"},
	{expression(`service "([^"]+)": `), "services\x00$1\x00image"},
	{expression(`network (\S+) declared as external`), "networks\x00$1"},
	{expression(`external volume "([^"]+)" not found`), "volumes\x00$1"},
	{expression(`environment variable "([^"]+)" required by (secret|config) `), "${2}s\x00*\x00environment\x00$1"},
	{expression(`Bind for \S+:(\d+) failed: port is already allocated`), "services\x00*\x00ports\x00$1"},
	{expression(`invalid (?:hostPort|containerPort|IP address|proto|start port|port range)\w*: "?([^\s"]+)`), "services\x00*\x00ports\x00$1"},
}

var variable = expression(`required variable (\w+) is missing`)

var index = expression(`\[([^\]]*)\]`)

// pathOf is the path to what an error's text is about: keys and positions, nil if it does not
// tell.
func pathOf(text string) []string {
	for _, p := range paths {
		m := p.text().FindStringSubmatchIndex(text)
		if m == nil {
			continue
		}
		path := string(p.text().ExpandString(nil, p.path, text, m))
		if !strings.Contains(path, "services\x00") {
			first, last, two := strings.Cut(path, "\x00")
			path = strings.ReplaceAll(index().ReplaceAllString(first, ".$1"), ".", "\x00")
			if two {
				path += "\x00" + last
			}
		}
		segments := strings.Split(strings.TrimLeft(path, "\x00"), "\x00")
		if v := variable().FindStringSubmatch(text); v != nil {
			// Which entry of a list it is, is not told: it is one that has the variable.
			for i := range segments {
				segments[i] = cmp.Or(segments[i], "${"+v[1])
			}
		}
		return segments
	}
	return nil
}

// find follows a path as far as it goes, and at least to a service or the like: what is
// missing has no place but that of what it is missing in. It tells how far it has come.
func find(root *yaml.Node, path []string) (where *yaml.Node, depth int) {
	for at := root; len(path) > 0; depth++ {
		key, value, used := child(at, path)
		if used == 0 {
			if depth < 2 {
				return nil, 0
			}
			return where, depth
		}
		at, where, path = value, key, path[used:]
	}
	return where, depth
}

// child is the node of the first segments of a path, used of them: the key to show and the
// value to go on with. A key may have dots, which have become segments of their own.
func child(n *yaml.Node, path []string) (key, value *yaml.Node, used int) {
	switch n = resolved(n); n.Kind {
	case yaml.MappingNode:
		for used := len(path); used > 0; used-- {
			name := strings.Join(path[:used], ".")
			if key, value := member(n, name, 0); key != nil {
				return key, value, used
			}
		}
		if path[0] != "*" {
			break
		}
		for i := 0; i+1 < len(n.Content); i += 2 { // any that has the rest
			if reaches(n.Content[i+1], path[1:]) {
				return n.Content[i], n.Content[i+1], 1
			}
		}
	case yaml.ScalarNode:
		if n.Value == path[0] {
			return n, n, 1
		}
	case yaml.SequenceNode:
		if i, err := strconv.Atoi(path[0]); err == nil && i >= 0 && i < len(n.Content) {
			return n.Content[i], n.Content[i], 1
		}
		for _, e := range n.Content {
			if names(resolved(e), path[0]) {
				return e, e, 1
			}
		}
	}
	return nil, nil, 0
}

// reaches says whether a path is there to its end.
func reaches(n *yaml.Node, path []string) bool {
	for len(path) > 0 {
		_, value, used := child(n, path)
		if used == 0 {
			return false
		}
		n, path = value, path[used:]
	}
	return true
}

// deepest bounds how far merges and aliases are followed: a file may have circles.
const deepest = 32

// member is an entry of a mapping, also of one that is merged into it.
func member(n *yaml.Node, name string, depth int) (key, value *yaml.Node) {
	if depth > deepest {
		return nil, nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i], n.Content[i+1]
		}
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Tag != "!!merge" {
			continue
		}
		merged := []*yaml.Node{resolved(n.Content[i+1])}
		if merged[0].Kind == yaml.SequenceNode {
			merged = merged[0].Content
		}
		for _, m := range merged {
			if m = resolved(m); m.Kind == yaml.MappingNode {
				if key, value := member(m, name, depth+1); key != nil {
					return key, value
				}
			}
		}
	}
	return nil, nil
}

func resolved(n *yaml.Node) *yaml.Node {
	for range deepest {
		if n.Kind != yaml.AliasNode || n.Alias == nil {
			return n
		}
		n = n.Alias
	}
	return n
}

// names says whether an entry of a list is about something: "data:/var", "KEY=value",
// {source: data}.
func names(n *yaml.Node, what string) bool {
	if n.Kind == yaml.ScalarNode {
		return n.Value == what || strings.HasPrefix(what, "${") && strings.Contains(n.Value, what) || slices.Contains(strings.FieldsFunc(n.Value, func(r rune) bool { return r == ':' || r == '=' }), what)
	}
	if n.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i+1].Kind == yaml.ScalarNode && n.Content[i+1].Value == what {
				return true
			}
		}
	}
	return false
}

// badProbe is the first health check that does not say what its test is.
func badProbe(root *yaml.Node) *yaml.Node {
	_, services := member(resolved(root), "services", 0)
	if services == nil {
		return nil
	}
	for _, service := range resolved(services).Content {
		at := service
		for _, name := range []string{"healthcheck", "test"} {
			if _, at = member(resolved(at), name, 0); at == nil {
				break
			}
		}
		if at == nil {
			continue
		}
		if list := resolved(at); list.Kind == yaml.SequenceNode && len(list.Content) > 0 {
			if first := resolved(list.Content[0]); !slices.Contains([]string{"CMD", "CMD-SHELL", "NONE"}, first.Value) {
				return first
			}
		}
	}
	return nil
}

// valueOf is the scalar that names a file, relative to the directory, perhaps with where it is
// mounted.
func valueOf(n *yaml.Node, dir, file string) *yaml.Node {
	if n.Kind == yaml.ScalarNode && n.Value != "" {
		source, _, _ := strings.Cut(n.Value, ":")
		for _, value := range []string{n.Value, source} {
			if !filepath.IsAbs(value) {
				value = filepath.Join(dir, value)
			}
			if value == file {
				return n
			}
		}
	}
	for _, c := range n.Content { // an alias has none
		if found := valueOf(c, dir, file); found != nil {
			return found
		}
	}
	return nil
}

// expression is a regular expression that is compiled when it is first used: most runs have no error to explain.
func expression(text string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(text) })
}
