package artifact

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func TestCollect(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	main := put("compose.yaml", `# kept
x-own: &own {env_file: 'sub/a.env', image: busybox}
services:
  ä: {env_file: [sub/a.env, {path: "b.env", required: true}, {path: none.env, required: false}]} # kept
  b: {<<: *own}
  c:
    extends: {file: sub/base.yaml, service: base}
  d: {extends: {service: b}}
`)
	env, other := put("sub/a.env", "A=1\n"), put("b.env", "B=2\n")
	base := put("sub/base.yaml", "services: {base: {image: busybox, extends: {file: ../far.yaml, service: far}, env_file: a.env}}\n")
	far := put("far.yaml", "services: {far: {image: busybox}}\n")
	files, err := Collect([]string{main}, dir)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]File{}
	for _, f := range files {
		names[f.Name] = f
	}
	want := strings.NewReplacer("'sub/a.env'", alias(env, ".env"), "[sub/a.env", "["+alias(env, ".env"), `"b.env"`, alias(other, ".env"), "sub/base.yaml", alias(base, ".yaml")).
		Replace(`# kept
x-own: &own {env_file: 'sub/a.env', image: busybox}
services:
  ä: {env_file: [sub/a.env, {path: "b.env", required: true}, {path: none.env, required: false}]} # kept
  b: {<<: *own}
  c:
    extends: {file: sub/base.yaml, service: base}
  d: {extends: {service: b}}
`)
	if got := string(names["compose.yaml"].Content); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if f := names[alias(base, ".yaml")]; !f.Extended || !strings.Contains(string(f.Content), "file: "+alias(far, ".yaml")) || !strings.Contains(string(f.Content), "env_file: "+alias(env, ".env")) {
		t.Errorf("%+v", f)
	}
	if f := names[alias(env, ".env")]; !f.Environment || string(f.Content) != "A=1\n" || len(files) != 5 {
		t.Errorf("%d: %+v", len(files), f)
	}
	for text, want := range map[string]string{
		"include: [far.yaml]\n":                                    "local includes",
		"services: {a: {env_file: '${X}.env'}}\n":                  "variable",
		"services: {a: {env_file: gone.env}}\n":                    "gone.env",
		"services: {a: {env_file: \"b\\u002eenv\"}}\n":             "without escapes",
		"services: {a: {extends: {file: far.yaml, service: far}\n": "yaml:",
	} {
		if _, err := Collect([]string{put("bad.yaml", text)}, dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzCollect(f *testing.F) {
	f.Add("services: {a: {env_file: [x, {path: y}], extends: {file: z}}}")
	f.Add("services:\n  a: &a\n    <<: [*a]\n    env_file: 'x'\n")
	f.Add("services: {a:\r{env_file: [x, {path: \"y\"}]}} # \u2028\u0085\n")
	f.Fuzz(func(t *testing.T, text string) {
		found, err := references([]byte(text))
		if err != nil {
			return
		}
		edits := map[*yaml.Node]string{}
		for _, r := range found {
			edits[r.node] = "other"
		}
		made, err := rewrite([]byte(text), edits)
		if err != nil {
			return
		}
		again, err := references(made)
		if err != nil || len(again) != len(found) {
			t.Fatalf("%q became %q: %v", text, made, err)
		}
		for _, r := range again {
			if r.node.Value != "other" {
				t.Errorf("%q became %q, which still names %q", text, made, r.node.Value)
			}
		}
	})
}
