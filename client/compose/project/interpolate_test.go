package project

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// Values whose variables would take the library minutes are refused with their place, also in files that others include
// or extend; what people write is not, nor what only looks deep.
func TestBoundsOfVariables(t *testing.T) {
	nested := func(n int) string { return strings.Repeat("${A:-", n) + "x" + strings.Repeat("}", n) }
	for _, c := range []struct{ name, value, want string }{
		{"as deep as may be", nested(deepestVariable), ""},
		{"deeper", nested(deepestVariable + 1), "variables lie 101 deep in each other's defaults"},
		{"very deep", nested(50_000), "variables lie 50000 deep in each other's defaults"},
		{"deep behind braces", strings.Repeat("${A:-{}", 50_000), "variables lie 50001 deep in each other's defaults"},
		{"as many as may be", strings.Repeat("${A:-x}", mostOfLine), ""},
		{"more", strings.Repeat("${A:-x}", mostOfLine+1), "1001 variables stand in one line"},
		{"names alone", strings.Repeat("${A}", 10*mostOfLine), ""},
		{"escaped", strings.Repeat("$${A:-", 10*mostOfLine), ""},
		{"many lines", strings.Repeat(`${A:-x}\n`, 10*mostOfLine), ""},
		{"braces of text", strings.Repeat("{", 10*mostOfLine), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			t.Setenv("A", "")
			file := writeFile(t, dir, "compose.yaml", fmt.Sprintf("services:\n  web:\n    image: x\n    environment:\n      TEXT: \"%s\"\n", c.value))
			included := writeFile(t, dir, "including.yaml", "include: [compose.yaml]\n")
			extending := writeFile(t, dir, "extending.yaml", "services: {a: {extends: {service: web, file: compose.yaml}}}\n")
			for _, f := range []string{file, included, extending} {
				_, err := Load(t.Context(), Options{Files: []string{f}}, Raw{})
				placed := new(PlacedError)
				switch {
				case c.want == "" && err != nil:
					t.Errorf("%s: %v", f, err)
				case c.want == "":
				case err == nil || !strings.Contains(err.Error(), "services.web.environment.TEXT: "+c.want):
					t.Errorf("%s: %.300v", f, err)
				case f == file && (!errors.As(err, &placed) || placed.Place.Line != 5 || len(err.Error()) > 1000):
					t.Errorf("%s: no place: %.300v", f, err)
				}
			}
		})
	}
}
