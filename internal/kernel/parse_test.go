package kernel

import (
	"os"
	"path/filepath"
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

func TestCgroupMode(t *testing.T) {
	dir := t.TempDir()
	for want, table := range map[string]string{
		"v1":     "30 25 0:26 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu\n",
		"hybrid": "30 25 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n31 25 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
		"":       "30 25 0:26 / /x\\040-\\040cgroup rw - ext4 /dev/vda rw\n",
	} {
		file := filepath.Join(dir, "mountinfo")
		if err := os.WriteFile(file, []byte(table), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := cgroupMode(dir, file)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", table, got, err)
		}
	}
}

func FuzzParseStartTime(f *testing.F) {
	f.Add("1 (a) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4711 0")
	f.Add("1 (a")
	f.Add(")))")
	f.Fuzz(func(t *testing.T, s string) {
		if _, err := parseStartTime(s); err == nil && len(s) < 40 {
			t.Errorf("accepted %q", s)
		}
	})
}
