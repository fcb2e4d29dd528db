package project

import (
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/cleatlabs/cleat/client/usage"
)

// hints say what to write where an error's text, which is docker compose's, does not.
var hints = []struct {
	text func() *regexp.Regexp
	hint string
}{
	{expression(`unexpected end of stream$`), "the quote that begins here is not closed"},
	{expression(`^services\.\S+ must be a mapping$`), "its attributes stand below it, indented, each with a space after the colon"},
	{expression(`: unexpected type map`), "in a list, this is written KEY=VALUE"},
	{expression(`\.(?:command|entrypoint) must be a null$`), "it is a text, or a list of words"},
	{expression(` must be a array$`), "it is a list: [one, two], or a line for each entry, with '- ' before it"},
}

var unknownKey = expression(`^validating .+?: (\S*) ?additional properties '([^']+)' not allowed$`)

// hint is what may help with an error at a place, "" if nothing is known that would.
func hint(text string, p Place) string {
	if begin := p.Text[:len(p.Text)-len(strings.TrimLeft(p.Text, " \t"))]; strings.Contains(text, "yaml: ") && strings.Contains(begin, "\t") {
		return "this line begins with a tab: YAML is indented by spaces alone"
	}
	if m := unknownKey().FindStringSubmatch(text); m != nil {
		return meant(m[1], m[2])
	}
	for _, h := range hints {
		if h.text().MatchString(text) {
			return h.hint
		}
	}
	return ""
}

// meant is about a key that there is not, below what a path names.
func meant(path, key string) string {
	var known []string
	parts := strings.Split(path, ".")
	switch {
	case path == "":
		known = keysOf(reflect.TypeFor[types.Config]())
	case len(parts) == 2 && parts[0] == "services":
		known = keysOf(reflect.TypeFor[types.ServiceConfig]())
	}
	near := usage.Nearest(key, known)
	switch {
	case len(near) > 0:
		return "did you mean " + strings.Join(near, " or ") + "?"
	case path == "":
		return "services stand below a line 'services:', indented"
	}
	return ""
}

// keysOf are the keys that a mapping of the type may have in a file.
func keysOf(t reflect.Type) []string {
	var keys []string
	for _, f := range reflect.VisibleFields(t) {
		for _, format := range []string{"yaml", "json"} { // either may leave out what it would be anyway
			key, _, _ := strings.Cut(f.Tag.Get(format), ",")
			if key != "" && key != "-" && key[0] != '#' && !slices.Contains(keys, key) {
				keys = append(keys, key)
			}
		}
	}
	return keys
}
