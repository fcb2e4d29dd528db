package repository

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestNamesOfRepositories(t *testing.T) {
	for text, want := range map[string]source{
		"https://example.com/a/b.git":          {remote: "https://example.com/a/b.git"},
		"https://example.com/b.git#v1":         {"https://example.com/b.git", "v1", ""},
		"http://example.com/b.git#main:deploy": {"http://example.com/b.git", "main", "deploy"},
		"git@example.com:a/b.git#:sub/dir":     {"git@example.com:a/b.git", "", "sub/dir"},
		"ssh://git@example.com/a":              {remote: "ssh://git@example.com/a"},
		"git://example.com/a":                  {remote: "git://example.com/a"},
		"github.com/owner/name":                {remote: "https://github.com/owner/name"},
	} {
		if got, ok := parse(text); !ok || got != want {
			t.Errorf("%s: %+v, %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "compose.yaml", "./a.git", "a/b.git", "https://example.com/compose.yaml", "oci://example.com/a", "file:///a.git", "-", "a:b", "ext::sh -c x"} {
		if got, ok := parse(text); ok {
			t.Errorf("%q is taken for %+v", text, got)
		}
	}
}

func FuzzNames(f *testing.F) {
	f.Add("git@example.com:a/b.git#main:deploy")
	f.Add("-@0:\xe0")
	f.Fuzz(func(t *testing.T, text string) {
		if s, ok := parse(text); ok && (s.remote == "" || strings.HasPrefix(s.remote, "-") || strings.HasPrefix(s.remote, "ext:")) {
			t.Errorf("%q: git would take %q for something else", text, s.remote)
		}
	})
}

// A repository cannot make the user's other files the project's.
// Git lists all refs whose names end in what is asked for.
func TestRefIsTheOneOfItsName(t *testing.T) {
	const list = "1\trefs/heads/feature/main\n2\trefs/heads/main\n3\trefs/tags/main\n4\trefs/tags/v1\n5\trefs/tags/v1^{}\n6\trefs/pull/7/head\n0\tHEAD\n"
	for ref, want := range map[string]string{
		"main": "2", "feature/main": "1", "refs/tags/main": "3", "v1": "4", "tags/v1": "4", "pull/7/head": "6", "HEAD": "0", "head": "", "m*": "", "heads": "",
	} {
		if id, found := listed(list, ref); id != want || found != (want != "") {
			t.Errorf("%s: %q, %v; want %q", ref, id, found, want)
		}
	}
}

func TestNothingLeadsOutOfARepository(t *testing.T) {
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	if err := os.MkdirAll(filepath.Join(root, "deploy"), 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(path string) {
		t.Helper()
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(dir, "secret"))
	write(filepath.Join(root, "deploy", "compose.yaml"))
	for name, to := range map[string]string{"out": "..", "compose.yaml": "../secret", "in": "deploy"} {
		if err := os.Symlink(to, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	for directory, want := range map[string]string{"deploy": "", "deploy/compose.yaml": "", "in": "", "deploy/../in": "", "": "leads out", "out": "leads out", "out/secret": "leads out",
		"..": "leads out", "/etc": "leads out", "deploy/../..": "leads out", "none": "is not there"} {
		got, err := source{remote: "https://example.com/a.git", directory: directory}.file(root)
		if want == "" && (err != nil || filepath.Base(got) != "compose.yaml") || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %s, %v; want %q", directory, got, err, want)
		}
	}
}
