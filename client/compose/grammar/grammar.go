// Package grammar says of a Compose file, fast, that it is as the language's JSON schema wants it.
//
// It promises:
//   - What it accepts the library's own validation accepts, which compiles the schema for that, at the cost of a third
//     of a whole run of the client. What it does not accept may be right all the same: the library has the last word,
//     and all the words of errors.
//   - A keyword of JSON schema that it does not know makes it accept nothing where that stands.
package grammar

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
)

// text is the schema of the library without what is only for readers, which is three quarters of it; a test compares.
//
//go:embed schema.json
var text []byte

// Grammar is the language's schema. It is not safe for use by several goroutines.
type Grammar struct {
	root     map[string]any
	patterns map[string]*regexp.Regexp
}

// New reads the schema.
func New() (*Grammar, error) {
	g := &Grammar{patterns: map[string]*regexp.Regexp{}}
	if err := json.Unmarshal(text, &g.root); err != nil {
		return nil, fmt.Errorf("reading the schema of Compose files: %w", err)
	}
	return g, nil
}

// Accepts says whether a file's content is surely as the schema wants it: maps with strings as keys, lists and scalars.
func (g *Grammar) Accepts(content map[string]any) bool { return g.judge(g.root, content) == fits }

// verdict is what is known of a value.
type verdict int

const (
	unsure verdict = iota
	fits
	unfit
)

// and is the verdict on what has to be both.
func (v verdict) and(other verdict) verdict {
	switch {
	case v == unfit || other == unfit:
		return unfit
	case v == unsure || other == unsure:
		return unsure
	}
	return fits
}

func known(yes bool) verdict {
	if yes {
		return fits
	}
	return unfit
}

// judge is the verdict of one schema on one value.
func (g *Grammar) judge(schema map[string]any, value any) verdict {
	if kindOf(value) == "" {
		return unsure
	}
	v := fits
	for keyword, wanted := range schema {
		if v = v.and(g.heed(schema, keyword, wanted, value)); v == unfit {
			break
		}
	}
	return v
}

// heed is the verdict of one keyword of a schema.
func (g *Grammar) heed(schema map[string]any, keyword string, wanted, value any) verdict {
	switch keyword {
	case "$schema", "$id", "$defs", "default", "deprecated":
		return fits // they say nothing of the value
	case "type":
		return isOf(wanted, value)
	case "$ref":
		return g.judged(g.definition(wanted), value)
	case "allOf", "anyOf", "oneOf":
		return g.some(keyword, wanted, value)
	case "enum":
		return oneOf(wanted, value)
	case "minimum", "maximum":
		return within(keyword, wanted, value)
	case "pattern":
		return g.matches(wanted, value)
	case "items", "uniqueItems":
		if list, ok := value.([]any); ok {
			return g.list(keyword, wanted, list)
		}
		return fits
	case "properties", "patternProperties", "additionalProperties", "unevaluatedProperties", "required":
		if object, ok := value.(map[string]any); ok {
			return g.object(schema, keyword, wanted, object)
		}
		return fits
	}
	return unsure
}

// judged is the verdict of what should be a schema.
func (g *Grammar) judged(schema, value any) verdict {
	s, ok := schema.(map[string]any)
	if !ok {
		return unsure
	}
	return g.judge(s, value)
}

// definition is what a reference is to; nil if it is not to one of the schema's own definitions.
func (g *Grammar) definition(reference any) any {
	text, _ := reference.(string)
	name, ok := strings.CutPrefix(text, "#/$defs/")
	definitions, _ := g.root["$defs"].(map[string]any)
	if !ok || definitions[name] == nil {
		return nil
	}
	return definitions[name]
}

// some is the verdict of several schemas.
func (g *Grammar) some(keyword string, wanted, value any) verdict {
	schemas, _ := wanted.([]any)
	count := map[verdict]int{}
	for _, s := range schemas {
		count[g.judged(s, value)]++
	}
	switch {
	case keyword == "allOf" && count[unfit] > 0:
		return unfit
	case keyword == "anyOf" && count[fits] > 0:
		return fits
	case keyword == "oneOf" && count[fits] > 1:
		return unfit
	case count[unsure] > 0:
		return unsure
	case keyword == "allOf":
		return fits
	case keyword == "anyOf":
		return unfit
	}
	return known(count[fits] == 1)
}

// kindOf is the type of a value in the words of JSON schema, "" if it has none.
func kindOf(value any) string {
	switch value.(type) {
	case nil:
		return "null"
	case string:
		return "string"
	case bool:
		return "boolean"
	case map[string]any:
		return "object"
	case []any:
		return "array"
	}
	if _, ok := number(value); ok {
		return "number"
	}
	return ""
}

// number is the value of those types that YAML and interpolation make of digits.
func number(value any) (float64, bool) {
	var f float64
	switch n := value.(type) {
	case int:
		f = float64(n)
	case int64:
		f = float64(n)
	case uint32: // a port, in the form that the library gives it
		f = float64(n)
	case uint64:
		f = float64(n)
	case float32:
		f = float64(n)
	case float64:
		f = n
	default:
		return 0, false
	}
	return f, !math.IsNaN(f) && !math.IsInf(f, 0) // JSON, in which the library judges, has neither
}

func isOf(wanted, value any) verdict {
	kind := kindOf(value)
	is := func(name any) bool {
		if name == "integer" {
			n, ok := number(value)
			return ok && n == math.Trunc(n)
		}
		return name == kind
	}
	if names, ok := wanted.([]any); ok {
		return known(slices.ContainsFunc(names, is))
	}
	return known(is(wanted))
}

// oneOf is sure of strings.
func oneOf(wanted, value any) verdict {
	list, ok := wanted.([]any)
	text, isText := value.(string)
	if !ok || !isText {
		return unsure
	}
	return known(slices.Contains(list, any(text)))
}

func within(keyword string, wanted, value any) verdict {
	n, ok := number(value)
	if !ok {
		return fits
	}
	bound, ok := number(wanted)
	if !ok {
		return unsure
	}
	return known(keyword == "minimum" && n >= bound || keyword == "maximum" && n <= bound)
}

// pattern is a regular expression; nil if it is none.
func (g *Grammar) pattern(text string) *regexp.Regexp {
	p, ok := g.patterns[text]
	if !ok {
		p, _ = regexp.Compile(text)
		g.patterns[text] = p
	}
	return p
}

func (g *Grammar) matches(wanted, value any) verdict {
	text, ok := value.(string)
	if !ok {
		return fits
	}
	expression, ok := wanted.(string)
	if !ok {
		return unsure
	}
	p := g.pattern(expression)
	if p == nil {
		return unsure
	}
	return known(p.MatchString(text))
}

func (g *Grammar) list(keyword string, wanted any, list []any) verdict {
	if keyword == "uniqueItems" {
		if wanted == false || len(list) < 2 {
			return fits
		}
		seen := map[string]bool{}
		for _, e := range list {
			text, ok := e.(string)
			if !ok || wanted != true {
				return unsure
			}
			if seen[text] {
				return unsure // what is there twice may be there once when the library looks
			}
			seen[text] = true
		}
		return fits
	}
	v := fits
	for _, e := range list {
		if v = v.and(g.judged(wanted, e)); v == unfit {
			break
		}
	}
	return v
}

func (g *Grammar) object(schema map[string]any, keyword string, wanted any, object map[string]any) verdict {
	v := fits
	switch keyword {
	case "required":
		names, ok := wanted.([]any)
		if !ok {
			return unsure
		}
		for _, n := range names {
			name, ok := n.(string)
			if !ok {
				return unsure
			}
			_, there := object[name]
			v = v.and(known(there))
		}
	case "properties":
		properties, ok := wanted.(map[string]any)
		if !ok {
			return unsure
		}
		for name, value := range object {
			if s, ok := properties[name]; ok {
				v = v.and(g.judged(s, value))
			}
		}
	case "patternProperties":
		return g.named(wanted, object)
	default: // additionalProperties, unevaluatedProperties
		for name, value := range object {
			v = v.and(g.other(schema, keyword, wanted, name, value))
		}
	}
	return v
}

// named is the verdict on values whose names match patterns.
func (g *Grammar) named(wanted any, object map[string]any) verdict {
	patterns, ok := wanted.(map[string]any)
	if !ok {
		return unsure
	}
	v := fits
	for expression, s := range patterns {
		p := g.pattern(expression)
		if p == nil {
			return unsure
		}
		for name, value := range object {
			if p.MatchString(name) {
				v = v.and(g.judged(s, value))
			}
		}
	}
	return v
}

// other is the verdict on a value if it has none of the names that the schema tells.
func (g *Grammar) other(schema map[string]any, keyword string, wanted any, name string, value any) verdict {
	switch tells := g.tells(schema, name, keyword == "unevaluatedProperties"); {
	case tells == fits:
		return fits
	case tells == unsure:
		return unsure
	case wanted == true:
		return fits
	case wanted == false:
		return unfit
	}
	return g.judged(wanted, value)
}

// tells says whether a schema has something to say of a name, deep: by those that it refers to, too.
func (g *Grammar) tells(schema map[string]any, name string, deep bool) verdict {
	if properties, ok := schema["properties"].(map[string]any); ok && properties[name] != nil {
		return fits
	}
	if patterns, ok := schema["patternProperties"].(map[string]any); ok {
		for expression := range patterns {
			switch p := g.pattern(expression); {
			case p == nil:
				return unsure
			case p.MatchString(name):
				return fits
			}
		}
	}
	if !deep {
		return unfit
	}
	for _, keyword := range []string{"anyOf", "oneOf", "additionalProperties", "if", "dependentSchemas"} {
		if _, ok := schema[keyword]; ok {
			return unsure
		}
	}
	all, _ := schema["allOf"].([]any)
	if reference, ok := schema["$ref"]; ok {
		all = append(slices.Clone(all), g.definition(reference))
	}
	for _, s := range all {
		s, ok := s.(map[string]any)
		if _, nested := s["unevaluatedProperties"]; !ok || nested {
			return unsure
		}
		if v := g.tells(s, name, true); v != unfit {
			return v
		}
	}
	return unfit
}
