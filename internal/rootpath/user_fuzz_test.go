package rootpath

import (
	"strings"
	"testing"
)

func FuzzLookup(f *testing.F) {
	f.Add("root:x:0:0:root:/root:/bin/sh\n", "root:x:0:a,b\n", "root:root", "b")
	f.Add("a:::\n\n:::::::\n", "::::\nx", "a:x", "")
	f.Add("5:x:0:0::/:", "", "5", "-0")
	f.Fuzz(func(t *testing.T, passwd, group, spec, extra string) {
		u, err := lookup([]byte(passwd), []byte(group), spec, []string{extra})
		if err != nil {
			return
		}
		if u.UID < 0 || u.UID > maxID || u.GID < 0 || u.GID > maxID || u.Home == "" {
			t.Errorf("%+v", u)
		}
		for _, g := range u.Groups {
			if g < 0 || g > maxID {
				t.Errorf("group %d", g)
			}
		}
		// A number is that id, whatever the files say.
		name, _, _ := strings.Cut(spec, ":")
		if id, numeric, _ := parseID(name); numeric && u.UID != id {
			t.Errorf("uid %d for %q", u.UID, spec)
		}
	})
}
