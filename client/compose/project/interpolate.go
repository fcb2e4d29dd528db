package project

import (
	"fmt"
	"strings"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/template"
)

// Bounds on the variables of one value. The library's time for them grows with the square of how deep they lie in each
// other's defaults, and of how many of a line have a default; at these it is below a second.
const (
	deepestVariable = 100
	mostOfLine      = 1000
)

// withBounds has the library refuse what would take it long.
func withBounds(o *loader.Options) {
	if o.Interpolate != nil { // there is none while files are only looked for
		o.Interpolate.Substitute = substitute
	}
}

// substitute is the library's, within bounds.
func substitute(text string, mapping template.Mapping) (string, error) {
	for line := range strings.Lines(text) {
		if !strings.Contains(line, "${") {
			continue
		}
		switch deepest, count := countVariables(line); {
		case deepest > deepestVariable:
			return "", fmt.Errorf("variables lie %d deep in each other's defaults, and at most %d deep are read: "+
				"give those inside a name of their own in .env", deepest, deepestVariable)
		case count > mostOfLine:
			return "", fmt.Errorf("%d variables stand in one line, and at most %d are read: "+
				"spread them over lines, or put the whole text into one variable in .env", count, mostOfLine)
		}
	}
	return template.Substitute(text, mapping)
}

// countVariables says how deep braces lie in the variables of a line, and how many of these are more than a name.
func countVariables(line string) (deepest, count int) {
	depth := 0
	for i := 0; i < len(line); i++ {
		switch {
		case strings.HasPrefix(line[i:], "$$"):
			i++
		case strings.HasPrefix(line[i:], "${"):
			i++
			depth++
			if rest := strings.TrimLeft(line[i+1:], nameCharacters); !strings.HasPrefix(rest, "}") {
				count++
			}
		case line[i] == '{' && depth > 0:
			depth++
		case line[i] == '}' && depth > 0:
			depth--
		}
		deepest = max(deepest, depth)
	}
	return deepest, count
}

const nameCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"
