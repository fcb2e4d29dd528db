package kernel

import "testing"

func TestParseRelease(t *testing.T) {
	for in, want := range map[string][2]int{"6.18.44-fc-v657": {6, 18}, "5.15": {5, 15}, "6.1-rc2": {6, 1}, "4.19.0-25-amd64": {4, 19}, "6.6+": {6, 6}} {
		if a, b, err := parseRelease(in); err != nil || [2]int{a, b} != want {
			t.Errorf("%q: %d.%d, %v", in, a, b, err)
		}
	}
	for _, in := range []string{"", "6", "six.one", "6.", ".1"} {
		if a, b, err := parseRelease(in); err == nil {
			t.Errorf("%q taken for %d.%d", in, a, b)
		}
	}
}

func TestAtLeast(t *testing.T) {
	f := Features{Major: 6, Minor: 1}
	for v, want := range map[[2]int]bool{{5, 15}: true, {6, 0}: true, {6, 1}: true, {6, 2}: false, {7, 0}: false} {
		if f.atLeast(v[0], v[1]) != want {
			t.Errorf("6.1 at least %d.%d: %v", v[0], v[1], !want)
		}
	}
}

func TestParseStat(t *testing.T) {
	got, err := parseStat("7 (a) (b Z) S 2 3 4 0 -1 5 0 0 0 0 0 0 0 0 20 0 1 0 4711 0")
	want := Stat{Name: "a) (b Z", State: 'S', Parent: 2, Session: 4, Exiting: true, Start: 4711}
	if err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add("1 (a) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4711 0")
	f.Add("1 (a")
	f.Add(")))")
	f.Fuzz(func(t *testing.T, s string) {
		if _, err := parseStat(s); err == nil && len(s) < 40 {
			t.Errorf("accepted %q", s)
		}
	})
}
