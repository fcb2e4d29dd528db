package kernel

import (
	"slices"
	"strings"
	"testing"
)

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

func TestParseMountTable(t *testing.T) {
	got := ParseMountTable(`28 23 0:24 / /sys/fs/cgroup rw shared:8 - tmpfs  rw,mode=755
29 28 0:25 /a\040b /mnt/a\040b\134c\11 rw,relatime master:3 propagate_from:2 - cgroup cgroup rw,cpu,cpuacct
x 28 0:25 / /mnt rw - ext4 /dev/vda rw
30 28 0:25 / /mnt
31 28 0:25 / /mnt rw
malformed`)
	want := []Mounted{
		{ID: 28, Point: "/sys/fs/cgroup", Shared: true, Type: "tmpfs", Options: "rw,mode=755"},
		{ID: 29, Point: `/mnt/a b\c\11`, Slave: true, Type: "cgroup", Options: "rw,cpu,cpuacct"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func FuzzParseMountTable(f *testing.F) {
	f.Add("28 23 0:24 / /sys/fs/cgroup rw shared:8 - tmpfs tmpfs rw,mode=755\n")
	f.Add(`29 28 0:25 / /a\040b rw - cgroup cgroup rw,memory`)
	f.Fuzz(func(t *testing.T, s string) {
		if all := ParseMountTable(s); len(all) > strings.Count(s, "\n")+1 {
			t.Errorf("%d mounts of %q", len(all), s)
		}
	})
}
