package bake_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/cleatlabs/cleat/client/build"
	"github.com/cleatlabs/cleat/client/build/bake"
)

// contexts are those that targets are printed with, by their names, and what they call "x".
func contexts(t *testing.T, q build.BakeQuery) map[string][2]string {
	t.Helper()
	plan, err := bake.Read(q)
	if err != nil {
		t.Fatal(err)
	}
	var printed struct {
		Target map[string]struct {
			Context  string
			Contexts map[string]string
		}
	}
	if err := json.Unmarshal(plan.Print, &printed); err != nil {
		t.Fatal(err)
	}
	out := map[string][2]string{}
	for name, target := range printed.Target {
		out[name] = [2]string{target.Context, target.Contexts["x"]}
	}
	return out
}

// TestRelativePaths: directories are those beside the file that names them where that is asked for, as with buildx.
func TestRelativePaths(t *testing.T) {
	t.Chdir(t.TempDir())
	for path, text := range map[string]string{
		"sub/a.hcl": `
			group "default" { targets = ["none", "here", "special", "like", "heir", "over", "web"] }
			target "none" {}
			target "here" {
			  context = "dir"
			  contexts = { x = "../other" }
			}
			target "special" {
			  context = "cwd://dir"
			  contexts = { x = "target:here" }
			}
			target "over" { contexts = { x = "a" } }`,
		"top/b.hcl": `
			target "like" { context = target.here.context }
			target "heir" { inherits = ["here"] }
			target "over" { context = "mine" }`,
		"services/compose.yaml": "services:\n  web:\n    build:\n      context: ./web\n      additional_contexts: {x: ./y}\n",
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	q := build.BakeQuery{Files: []string{"sub/a.hcl", "top/b.hcl", "services/compose.yaml"}}
	for setting, want := range map[string]map[string][2]string{
		"1": {
			"none": {"sub", ""}, "here": {"sub/dir", "other"}, "special": {"cwd://dir", "target:here"}, "like": {"sub/dir", ""}, "heir": {"sub/dir", "other"},
			"over": {"top/mine", "sub/a"}, "web": {"services/web", "services/y"},
		},
		"": {
			"none": {".", ""}, "here": {"dir", "../other"}, "special": {"cwd://dir", "target:here"}, "like": {"dir", ""}, "heir": {"dir", "../other"},
			"over": {"mine", "a"}, "web": {"web", "y"},
		},
	} {
		t.Setenv("BUILDX_BAKE_FILE_RELATIVE_PATHS", setting)
		got := contexts(t, q)
		for name, w := range want {
			if got[name] != w {
				t.Errorf("%q: %s is %q, not %q", setting, name, got[name], w)
			}
		}
	}
	t.Setenv("BUILDX_BAKE_FILE_RELATIVE_PATHS", "perhaps")
	if _, err := bake.Read(q); err == nil {
		t.Error("no error of a setting that is none")
	}
}
