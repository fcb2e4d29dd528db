package operate

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func TestPortions(t *testing.T) {
	for _, c := range []struct{ paths, want string }{
		{"", "[]"},
		{"/a /b", "[[/a /b]]"},
		{"/", "[]"},
		{"/ /a /b/c", "[[/a /b/c]]"},
		{"/a/b /a-b/c /a /a/b/c /a.b /a", "[[/a /a-b/c /a.b]]"},
		{"/app/lib2 /app/lib/x /app/lib", "[[/app/lib /app/lib2]]"},
	} {
		if got := fmt.Sprint(portions(strings.Fields(c.paths))); got != c.want {
			t.Errorf("%s: %s, want %s", c.paths, got, c.want)
		}
	}
	var many, back []string
	for i := range 50000 {
		many = append(many, fmt.Sprintf("/app/%05d/%s", i, strings.Repeat("x", i%300)))
	}
	for _, some := range portions(many) {
		if n := len(strings.Join(some, " ")); n > mostArguments || n < mostArguments/2 && len(back)+len(some) < len(many) {
			t.Errorf("a command of %d bytes", n)
		}
		back = append(back, some...)
	}
	if !reflect.DeepEqual(back, many) {
		t.Errorf("%d of %d paths", len(back), len(many))
	}
}
