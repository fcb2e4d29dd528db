package cgroup

import "testing"

func TestInnerGroup(t *testing.T) {
	for table, want := range map[string]string{
		"":                                   "",
		"0::/cleat/a\n":                      "",
		"0::/cleat/a/init.scope\n":           "/cleat/a/init.scope",
		"3:pids:/cleat/a\n0::/cleat/a/i/j\n": "/cleat/a/i/j",
		"0::/cleat/ab/init\n":                "",
		"0::/cleat/a/init (deleted)\n":       "",
		"0::/cleat/a/../b/init\n":            "",
		"0::/../cleat/a/init\n":              "",
		"0::/\n":                             "",
	} {
		got, ok := innerGroup(table, "/cleat/a")
		if ok != (want != "") || ok && got != want {
			t.Errorf("%q: %q %v, want %q", table, got, ok, want)
		}
	}
}
