package build

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/moby/buildkit/frontend/dockerfile/command"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/cleatlabs/cleat/internal/failure"
)

// A Dockerfile of thirty lines can ask for more memory than any machine has: ARG B=$A$A$A$A… makes each variable many
// times as long as the one before. BuildKit's frontend, which is a part of the engine, would try. So before it reads a
// Dockerfile, and again when it knows the environments of the images that it begins with, the engine adds up what the
// variables come to at most, without expanding anything. What each line and each stage costs by itself, whatever is in
// it, is bounded by how many there may be.

const (
	// mostExpanded is how many bytes a line may come to. Linux takes 128 KiB as one argument of a program.
	mostExpanded = 1 << 20
	// mostExpandedInAll bounds what all lines come to, and the environments of all steps.
	mostExpandedInAll = 64 << 20
	// mostNested is how deep ${a:-${b:-…}} may go. The frontend takes a part of the stack for each.
	mostNested = 100
	// mostNestedInAll is the same over lines, which a shell's scripts may leave unbalanced.
	mostNestedInAll = 10_000
	// mostCoined is how many variables' names may be made of others to be told from each other.
	mostCoined = 100
	// mostTriggered is how many lines ONBUILD may add: what one stage has comes anew with each that may stand on it.
	mostTriggered = 100_000
	// mostLines is how many lines a Dockerfile may have, with those of its here-documents. The parser takes up to 700
	// bytes for each, and BuildKit lets a Dockerfile have 16 MiB.
	mostLines = 500_000
	// mostInstructions and mostStages are how many of them it may have. The frontend takes 1.5 KB and 4 KB for each.
	mostInstructions = 100_000
	mostStages       = 10_000
	// mostOfStage is how many instructions a stage may have: the engine takes images of at most 10000 steps, with those
	// of what a stage stands on.
	mostOfStage = 9_000
	// mostKnown is how many variables all stages may know together: the frontend takes 300 bytes for each that one knows,
	// and each stage knows what is before the first of them, and what it stands on.
	mostKnown = 500_000
	// unbounded is more than any bound.
	unbounded = 1 << 40
)

// CheckExpansion refuses a Dockerfile whose variables come to more than a build can mean. args are the values of build
// arguments. What cannot be parsed passes: the frontend says what is wrong with it.
func CheckExpansion(text []byte, args map[string]string) error {
	return checkExpansion(text, args, foundation{})
}

// foundation is what images add to what is written in a Dockerfile.
type foundation struct {
	env      map[string]int // lengths of the longest values
	triggers []string       // ONBUILD
}

func checkExpansion(text []byte, args map[string]string, from foundation) error {
	if nested(text) > mostNestedInAll { // the parser itself takes a part of the stack for each
		return failure.Invalid("the Dockerfile has variables that are nested deeper than %d levels", mostNested)
	}
	if bytes.Count(text, []byte("\n")) > mostLines {
		return failure.Invalid("the Dockerfile has more than %d lines: copy what it writes from files of the context", mostLines)
	}
	parsed, err := parser.Parse(bytes.NewReader(text))
	if err != nil {
		return nil //nolint:nilerror // the frontend says it, with the line
	}
	if err := checkSize(parsed.AST.Children); err != nil {
		return err
	}
	e := &expansion{
		escape: parsed.EscapeToken, given: args, images: from.env, global: map[string]int{},
		stages: map[string]*stage{}, any: newStage(), base: newStage(),
	}
	e.stage = &stage{args: e.global, env: map[string]int{}}
	for _, node := range parsed.AST.Children {
		if err := e.node(node); err != nil {
			return err
		}
		if !strings.EqualFold(node.Value, command.From) {
			continue
		}
		triggers := e.base.triggers
		if !e.inherits {
			triggers = slices.Concat(triggers, from.triggers)
		}
		if err := e.triggers(node, triggers); err != nil {
			return err
		}
	}
	return nil
}

// checkSize refuses more instructions or stages than anybody writes.
func checkSize(instructions []*parser.Node) error {
	if len(instructions) > mostInstructions {
		return failure.Invalid("Dockerfile line %d: there are more than %d instructions up to this one", instructions[mostInstructions].StartLine, mostInstructions)
	}
	stages, ofStage := 0, 0
	for _, n := range instructions {
		if !strings.EqualFold(n.Value, command.From) {
			if ofStage++; ofStage > mostOfStage {
				return failure.Invalid("Dockerfile line %d: the stage has more than %d instructions up to this one", n.StartLine, mostOfStage)
			}
			continue
		}
		ofStage = 0
		if stages++; stages > mostStages {
			return failure.Invalid("Dockerfile line %d: there are more than %d stages up to this one", n.StartLine, mostStages)
		}
	}
	return nil
}

// nested is how many more ${ than } a part of a text has.
func nested(text []byte) (most int) {
	level := 0
	for i, c := range text {
		switch {
		case c == '{' && i > 0 && text[i-1] == '$':
			level++
			most = max(most, level)
		case c == '}' && level > 0:
			level--
		}
	}
	return most
}

// expansion goes through a Dockerfile. All lengths are upper bounds, in bytes.
type expansion struct {
	*stage
	escape    rune
	given     map[string]string
	images    map[string]int // environments of images
	global    map[string]int // arguments before the first FROM
	stages    map[string]*stage
	any       *stage // all stages so far in one
	base      *stage // what the stage stands on of this file
	inherits  bool   // it stands on no image
	begun     bool   // a stage has
	triggered int
	known     int
	total     int
	deep      bool // the word is nested too deep
	coined    []coined
}

// stage is what a stage leaves to those that stand on it. Its arguments are among that.
type stage struct {
	args, env map[string]int
	triggers  []string
}

func newStage() *stage { return &stage{args: map[string]int{}, env: map[string]int{}} }

// add makes variables as long as another stage has them, which this one stands on or may stand on.
func (s *stage) add(other *stage) {
	longest(s.args, other.args)
	longest(s.env, other.env)
}

func longest(into, from map[string]int) {
	for name, length := range from {
		into[name] = max(into[name], length)
	}
}

// coined is a variable whose name is made of others, or quoted, as ENV ${A}_dir=…: of the name it is only known how it
// begins and ends. It counts in all stages from there on.
type coined struct {
	begin, end string
	length     int
}

// special are the signs of a name that is not taken as it stands.
func (e *expansion) special() string { return `$"'` + string(e.escape) }

// name takes note of a variable of this length, if its name is none as it stands.
func (e *expansion) name(name string, length int) {
	special := e.special()
	i := strings.IndexAny(name, special)
	if i < 0 {
		return
	}
	end := name[strings.LastIndexByte(name, '}')+1:]
	if len(end) == len(name) || strings.ContainsAny(end, special) {
		end = ""
	}
	c := coined{name[:i], end, length}
	if n := len(e.coined); n == mostCoined { // the last is all others: every lookup goes through the list
		e.coined, c = e.coined[:n-1], coined{length: max(length, e.coined[n-1].length)}
	}
	e.coined = append(e.coined, c)
}

func (e *expansion) triggers(from *parser.Node, list []string) error {
	if e.triggered += len(list); e.triggered > mostTriggered {
		return failure.Invalid("Dockerfile line %d: ONBUILD adds more than %d lines up to this one", from.StartLine, mostTriggered)
	}
	for _, t := range list {
		parsed, err := parser.Parse(strings.NewReader(t))
		if err != nil {
			continue // the frontend says it
		}
		for _, node := range parsed.AST.Children {
			node.StartLine = from.StartLine
			if err := e.node(node); err != nil {
				return err
			}
		}
	}
	return nil
}

func (e *expansion) node(n *parser.Node) error {
	text := n.Original
	switch strings.ToLower(n.Value) {
	case command.From:
		e.from(n)
		if e.known += len(e.global) + len(e.images) + len(e.args) + len(e.env); e.known > mostKnown {
			return failure.Invalid("Dockerfile line %d: the stages up to this one know more than %d variables in all", n.StartLine, mostKnown)
		}
	case command.Run: // what it runs is the shell's to expand
		text = strings.Join(n.Flags, " ")
		for _, length := range e.env {
			e.total += length
		}
	case command.Cmd, command.Entrypoint, command.Healthcheck, command.Shell, command.Maintainer:
		text = ""
	case command.Onbuild:
		e.stage.triggers, text = append(e.stage.triggers, trigger(n)), ""
	case command.Arg, command.Env:
		if err := e.assign(n); err != nil {
			return err
		}
	}
	if err := e.line(n, text); err != nil {
		return err
	}
	if strings.EqualFold(n.Value, command.Run) || strings.EqualFold(n.Value, command.Onbuild) {
		return nil
	}
	for _, doc := range n.Heredocs {
		if doc.Expand {
			if err := e.line(n, doc.Content); err != nil {
				return err
			}
		}
	}
	return nil
}

// trigger is what an ONBUILD has done in the stages that stand on it, with its here-documents.
func trigger(n *parser.Node) string {
	b := &strings.Builder{}
	b.WriteString(strings.TrimSpace(strings.TrimSpace(n.Original)[len(command.Onbuild):]))
	for _, doc := range n.Heredocs {
		fmt.Fprintf(b, "\n%s%s", doc.Content, doc.Name)
	}
	return b.String()
}

// from begins a stage.
func (e *expansion) from(n *parser.Node) {
	var words []string
	for w := n.Next; w != nil; w = w.Next {
		words = append(words, w.Value)
	}
	if len(words) == 0 {
		return
	}
	if e.begun { // what is before the first FROM is no stage
		e.any.add(e.stage)
		e.any.triggers = append(e.any.triggers, e.stage.triggers...)
	}
	e.begun = true
	e.base, e.inherits = e.stages[strings.ToLower(words[0])], true
	if e.base == nil {
		e.base, e.inherits = newStage(), false
		if strings.ContainsAny(words[0], e.special()) { // it may be any
			e.base = e.any
		}
	}
	e.stage = newStage()
	e.stage.add(e.base)
	if len(words) == 3 && strings.EqualFold(words[1], "as") {
		e.stages[strings.ToLower(words[2])] = e.stage
	}
}

// assign gives variables their lengths, all of them after those that they are made of.
func (e *expansion) assign(n *parser.Node) error {
	isArg := strings.EqualFold(n.Value, command.Arg)
	lengths := map[string]int{}
	for w := n.Next; w != nil; w = w.Next {
		name, value, set := w.Value, "", true
		if isArg {
			name, value, set = strings.Cut(w.Value, "=")
		} else if w.Next != nil { // name, value, what is between them
			w = w.Next
			value = w.Value
			if w.Next != nil {
				w = w.Next
			}
		}
		given, isGiven := e.given[name]
		switch {
		case isArg && isGiven:
			lengths[name] = len(given)
		case set:
			length, err := e.word(n, value)
			if err != nil {
				return err
			}
			lengths[name] = max(length, lengths[name])
		default:
			lengths[name] = e.global[name]
		}
	}
	for name, length := range lengths {
		e.name(name, length)
		if isArg {
			e.args[name] = length
		} else {
			e.env[name] = length
		}
	}
	return nil
}

// line counts what a line comes to.
func (e *expansion) line(n *parser.Node, text string) error {
	length, err := e.word(n, text)
	if err != nil {
		return err
	}
	if e.total += length; e.total > mostExpandedInAll {
		return failure.Invalid("Dockerfile line %d: the variables of the lines up to this one come to more than %d MiB in all: some of them are made of "+
			"others again and again", n.StartLine, mostExpandedInAll>>20)
	}
	return nil
}

// word is how long a word is at most when it has been expanded.
func (e *expansion) word(n *parser.Node, text string) (int, error) {
	e.deep = false
	length, _ := e.part([]rune(text), 0, 0)
	switch {
	case e.deep:
		return 0, failure.Invalid("Dockerfile line %d: variables are nested deeper than %d levels", n.StartLine, mostNested)
	case length-len(text) > mostExpanded: // a large here-document is none of it
		return 0, failure.Invalid("Dockerfile line %d: the variables of %s come to more than %d MiB: they are made of others again and again",
			n.StartLine, strings.ToUpper(n.Value), mostExpanded>>20)
	}
	return length, nil
}

// part is word from a place on, to the end or, at a level below the first, to what closes it; next is the place after
// that. It is as the frontend's lexer (frontend/dockerfile/shell), but that quotes hold nothing back.
func (e *expansion) part(text []rune, at, level int) (length, next int) {
	if level > mostNested {
		e.deep = true
	}
	for at < len(text) && !e.deep {
		c := text[at]
		at++
		switch {
		case c == '}' && level > 0:
			return length, at
		case c == '$' && at < len(text) && text[at] == '{':
			var l int
			l, at = e.braced(text, at+1, level)
			length += l
		case c == '$':
			end := nameEnd(text, at)
			length += 1 + e.value(text[at:end])
			at = end
		default:
			length += utf8.RuneLen(c)
		}
	}
	return min(length, unbounded), at
}

// braced is part for what follows ${.
func (e *expansion) braced(text []rune, at, level int) (length, next int) {
	end := nameEnd(text, at)
	value := e.value(text[at:end])
	rest, next := e.part(text, end, level+1)
	if end == len(text) || text[end] != '/' {
		return min(value+rest, unbounded), next
	}
	// Each character, at most, is replaced by what is given for it. What is quoted may have braces that close nothing.
	if slices.ContainsFunc(text[end:next], func(c rune) bool { return c == '\'' || c == '"' || c == e.escape }) {
		rest, next = e.flat(text[end:]), len(text)
	}
	return product(value+1, rest+1), next
}

// flat is a bound for a text whose braces may close anything.
func (e *expansion) flat(text []rune) int {
	length, times := 0, 1
	for at := 0; at < len(text); at++ {
		length += utf8.RuneLen(text[at])
		if text[at] != '$' {
			continue
		}
		if at+1 < len(text) && text[at+1] == '{' {
			at++
		}
		end := nameEnd(text, at+1)
		value := e.value(text[at+1 : end])
		if length += value; end < len(text) && text[end] == '/' {
			times = product(times, value+1)
		}
	}
	return product(length, times)
}

func product(a, b int) int {
	if a > unbounded/b {
		return unbounded
	}
	return a * b
}

// value is how long the value of a variable is.
func (e *expansion) value(name []rune) int {
	n := string(name)
	length := max(e.env[n], e.args[n], e.images[n])
	for _, c := range e.coined {
		if strings.HasPrefix(n, c.begin) && strings.HasSuffix(n, c.end) {
			length = max(length, c.length, len(e.given[n]), e.global[n]) // these by its real name
		}
	}
	return length
}

// nameEnd is where a variable's name ends: one of digits ends with them, and some signs are names by themselves.
func nameEnd(text []rune, at int) int {
	const signs = "@*#?-$!"
	in := func(c rune) bool { return c == '_' || unicode.IsLetter(c) || unicode.IsDigit(c) }
	switch {
	case at == len(text):
		return at
	case strings.ContainsRune(signs, text[at]):
		return at + 1
	case unicode.IsDigit(text[at]):
		in = unicode.IsDigit
	}
	for at < len(text) && in(text[at]) {
		at++
	}
	return at
}
