package cgroup

import (
	"os"
	"path/filepath"
	"testing"
)

func TestMakeRoom(t *testing.T) {
	for name, tc := range map[string]struct{ kind, procs, want string }{
		"a container's group":                   {"domain\n", "1\n17\n", "17"},
		"one without processes":                 {"domain\n", "", "before"},
		"the host's, which has no file of kind": {"", "1\n17\n", "before"},
	} {
		top := t.TempDir()
		moved := filepath.Join(top, roomGroup, "cgroup.procs")
		if err := os.Mkdir(filepath.Dir(moved), 0o755); err != nil {
			t.Fatal(err)
		}
		files := map[string]string{filepath.Join(top, "cgroup.procs"): tc.procs, moved: "before"}
		if tc.kind != "" {
			files[filepath.Join(top, "cgroup.type")] = tc.kind
		}
		for file, content := range files {
			if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		makeRoom(top)
		if got, err := os.ReadFile(moved); err != nil || string(got) != tc.want {
			t.Errorf("%s: %q %v, want %q", name, got, err, tc.want)
		}
	}
}
