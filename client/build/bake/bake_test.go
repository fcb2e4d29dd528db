package bake_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/client/build"
	"github.com/cleatlabs/cleat/client/build/bake"
	"github.com/cleatlabs/cleat/test/expect"
)

// read reads bake files, given by name and text, as if they lay in the working directory.
func read(t *testing.T, files map[string]string, q build.BakeQuery) (*build.BakePlan, error) {
	t.Helper()
	t.Chdir(t.TempDir())
	for name, text := range files {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return bake.Read(q)
}

// TestPrint holds what files come to against golden files.
func TestPrint(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.in*")
	if err != nil || len(inputs) == 0 {
		t.Fatal(inputs, err)
	}
	for _, in := range inputs {
		text, err := os.ReadFile(in)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(in)
		golden, err := filepath.Abs(filepath.Join("testdata", strings.SplitN(name, ".", 2)[0]+".golden.json"))
		if err != nil {
			t.Fatal(err)
		}
		t.Run(name, func(t *testing.T) {
			t.Setenv("FROM_ENV", "environment")
			file := "bake" + filepath.Ext(name)
			plan, err := read(t, map[string]string{file: string(text), ".env": "DOTENV=dotenv\n"}, build.BakeQuery{Files: []string{file}, Defaults: map[string]string{"BAKE_LOCAL_PLATFORM": "linux/amd64"}})
			if err != nil {
				t.Fatal(err)
			}
			expect.Golden(t, golden, string(plan.Print)+"\n")
			// What is printed is a bake file that means the same.
			again, err := read(t, map[string]string{"again.json": string(plan.Print)}, build.BakeQuery{Files: []string{"again.json"}})
			if err != nil || string(again.Print) != string(plan.Print) {
				t.Errorf("read again: %v\n%s", err, again.Print)
			}
		})
	}
}

const two = `
group "default" { targets = ["a"] }
target "a" {
  tags = ["x"]
  args = { A = "1" }
  output = ["type=image"]
  cache-from = ["c"]
  secret = ["id=s,src=f"]
  entitlements = ["network.host"]
}
target "b" {
  contexts = { a = "target:a" }
  context = "../elsewhere"
}
`

func TestOverrides(t *testing.T) {
	for _, c := range []struct {
		set  []string
		path string // in what is printed
		want string
	}{
		{[]string{"a.tags=y"}, "a.tags", `["y"]`},
		{[]string{"a.tags+=y"}, "a.tags", `["x","y"]`},
		{[]string{"a.tag=y", "*.tags=z"}, "a.tags", `["y","z"]`},
		{[]string{"a.args.A=2", "a.args.B=3"}, "a.args", `{"A":"2","B":"3"}`},
		{[]string{"a.args.FROM_ENV"}, "a.args", `{"A":"1","FROM_ENV":"environment"}`},
		{[]string{"*.platform=linux/arm64"}, "a.platforms", `["linux/arm64"]`},
		{[]string{"a.output=type=tar,dest=-"}, "a.output", `[{"dest":"-","type":"tar"}]`},
		{[]string{"a.push=true"}, "a.output", `[{"push":"true","type":"image"}]`},
		{[]string{"a.load=true"}, "a.output", `[{"type":"image"},{"type":"docker"}]`},
		{[]string{"a.output=out", "a.push=true", "a.load=true"}, "a.output", `[{"dest":"out","type":"local"}]`},
		{[]string{"a.output=type=docker", "a.push=true"}, "a.output", `[{"type":"docker"},{"push":"true","type":"image"}]`},
		{[]string{"a.output=type=docker,dest=x", "a.load=true", "a.load=true"}, "a.output", `[{"dest":"x","type":"docker"},{"type":"docker"}]`},
		{[]string{"a.output=type=docker", "a.load=false"}, "a.output", `[{"type":"docker"}]`},
		{[]string{"a.output=type=registry", "a.push=false"}, "a.output", `null`},
		{[]string{"a.output=type=registry", "a.push=true"}, "a.output", `[{"type":"registry"}]`},
		{[]string{"a.cache-from="}, "a.cache-from", `null`},
		{[]string{"a.no-cache=true"}, "a.no-cache", `true`},
		{[]string{"a.network=none"}, "a.network", `"none"`},
		{[]string{"a.context=dir", "a.dockerfile=D"}, "a.context", `"dir"`},
		{[]string{"a.label.x=y"}, "a.labels", `{"x":"y"}`},
		{[]string{"a.secret+=id=s,env=E"}, "a.secret", `[{"env":"E","id":"s"}]`},
	} {
		t.Setenv("FROM_ENV", "environment")
		plan, err := read(t, map[string]string{"docker-bake.hcl": two}, build.BakeQuery{Set: c.set})
		if err != nil {
			t.Errorf("%v: %v", c.set, err)
			continue
		}
		var m struct{ Target map[string]map[string]any }
		if err := json.Unmarshal(plan.Print, &m); err != nil {
			t.Fatal(err)
		}
		name, key, _ := strings.Cut(c.path, ".")
		if got, _ := json.Marshal(m.Target[name][key]); string(got) != c.want {
			t.Errorf("%v: %s is %s, not %s", c.set, c.path, got, c.want)
		}
	}
	for set, want := range map[string]string{
		"a": "expected target.name", "a.tags": "expected target.name=value", "c.tags=x": "could not find any target matching", "a.nonsuch=1": "unknown key: nonsuch",
		"a.pull=perhaps": "invalid value perhaps", "a.args=x": "requires name", "a.tags.x=y": "does not support subkeys", "a.context+=x": "no list",
	} {
		if _, err := read(t, map[string]string{"docker-bake.hcl": two}, build.BakeQuery{Set: []string{set}}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", set, err)
		}
	}
}

// TestWithoutEnvironment: values come from the environment unless that is forbidden, as by who runs somebody else's file.
func TestWithoutEnvironment(t *testing.T) {
	t.Setenv("TAG", "environment")
	files := map[string]string{
		"docker-bake.hcl": "variable \"TAG\" { default = \"file\" }\ntarget \"default\" { tags = [TAG] }\n",
		"compose.yaml":    "services:\n  web:\n    build: {context: ., tags: [\"${TAG:-file}\"]}\n",
	}
	for setting, want := range map[string]string{"": "environment", "false": "environment", "1": "file"} {
		t.Setenv("BUILDX_BAKE_DISABLE_VARS_ENV_LOOKUP", setting)
		plan, err := read(t, files, build.BakeQuery{Targets: []string{"default", "web"}})
		if err != nil {
			t.Fatal(err)
		}
		for name, target := range plan.Targets {
			if !slices.Equal(target.Tags, []string{want}) {
				t.Errorf("%q: %s has %v, not %s", setting, name, target.Tags, want)
			}
		}
	}
}

func TestTargets(t *testing.T) {
	for asked, want := range map[string]string{"": "a", "b": "a,b", "*": "a,b", "default": "a"} {
		var list []string
		if asked != "" {
			list = []string{asked}
		}
		plan, err := read(t, map[string]string{"docker-bake.hcl": two}, build.BakeQuery{Targets: list})
		var got []string
		if err == nil {
			for name := range plan.Targets {
				got = append(got, name)
			}
		}
		if slices.Sort(got); err != nil || strings.Join(got, ",") != want {
			t.Errorf("%q: %v, %v", asked, got, err)
		}
	}
	plan, err := read(t, map[string]string{"docker-bake.hcl": two}, build.BakeQuery{Targets: []string{"b"}})
	if err != nil {
		t.Fatal(err)
	}
	if b := plan.Targets["b"]; b.Links["a"] != "a" || len(b.Contexts) != 0 || b.Dockerfile != "../elsewhere/Dockerfile" || !slices.Contains(b.Allow, "network.host") {
		t.Errorf("%+v", b)
	}
}

// TestRights: what a bake file wants beyond the working directory has to be allowed, however it says it; what the command
// line says, the user has allowed.
func TestRights(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("DOCKER_HOST", "unix:///nonexistent/socket")
	t.Setenv("SSH_AUTH_SOCK", "/nonexistent/agent")
	for _, dir := range []string{"github.com", "docker-image:"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for to, link := range map[string]string{"/etc/ssl": "link", "/nonexistent/file": "dangling", "loop": "loop"} {
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
	}
	run := func(line string, flags ...string) string {
		if err := os.WriteFile("docker-bake.hcl", []byte("target \"default\" {\n"+line+"\n}\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		var said strings.Builder
		build.Run(build.Process{Args: append([]string{"cleat-bake", "buildx", "bake"}, flags...), In: strings.NewReader(""), Out: &said, Err: &said, Bake: bake.Read})
		return said.String()
	}
	for line, want := range map[string]string{
		`context = "cwd:///etc"`:                                     "fs.read=/etc",
		`context = "github.com/../.."`:                               "fs.read=github.com/../..",
		`context = "link/.."`:                                        "fs.read=link/..",
		`contexts = { x = "cwd:///etc" }`:                            "fs.read=/etc",
		`contexts = { x = "docker-image:/../../.." }`:                "fs.read=docker-image:/../../..",
		`contexts = { x = "oci-layout:///etc:1" }`:                   "fs.read=/etc",
		`dockerfile = "cwd:///etc/hosts"`:                            "fs.read=/etc/hosts",
		"context = \"https://x/y.git\"\ndockerfile = \"/etc/hosts\"": "fs.read=/etc/hosts",
		`secret = ["id=/etc/hosts"]`:                                 "fs.read=/etc/hosts",
		`ssh = ["default"]`:                                          "ssh",
		`ssh = ["default=/etc/hosts"]`:                               "fs.read=/etc/hosts",
		`cache-from = ["type=local,src=.."]`:                         "fs.read=..",
		`cache-to = ["type=local,dest=.."]`:                          "fs.write=..",
		`output = ["type=tar,dest=dangling"]`:                        "fs.write=dangling",
		`output = ["link"]`:                                          "fs.write=link",
		`output = ["type=local,dest=o,mode=delete"]`:                 "buildx.local.delete",
		`entitlements = ["device=a.b/c=d"]`:                          "device=a.b/c=d",
		`network = "host"`:                                           "network.host",
	} {
		if said := run(line); !strings.Contains(said, "--allow "+want+"\n") && !strings.Contains(said, "--allow "+want+" ") {
			t.Errorf("%s: %s", line, said)
		}
		if said := run(line, "--allow", want); strings.Contains(said, "--allow") {
			t.Errorf("%s, allowed: %s", line, said)
		}
	}
	for _, set := range []string{"cache-to=type=local,dest=..", "cache-from=type=local,src=..", "secret=id=x,src=/etc/hosts", "output=..", "entitlements=network.host"} {
		if said := run("", "--set", "*."+set); strings.Contains(said, "--allow") {
			t.Errorf("--set %s: %s", set, said)
		}
	}
	for _, line := range []string{`context = "a/../b/loop"`, `output = ["a/b"]`, `secret = ["id=HOME"]`, `contexts = { x = "docker-image://x" }`} {
		if said := run(line); strings.Contains(said, "--allow") {
			t.Errorf("%s: %s", line, said)
		}
	}
}

// TestFlagsForAll: flags are overrides of all targets, also where they switch something off.
func TestFlagsForAll(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("SOURCE_DATE_EPOCH", "7")
	file := "target \"a\" {\n no-cache = true\n pull = true\n attest = [\"type=provenance,mode=max\"]\n}\ntarget \"default\" {}\n"
	if err := os.WriteFile("docker-bake.hcl", []byte(file), 0o644); err != nil {
		t.Fatal(err)
	}
	var out, errs strings.Builder
	args := []string{"cleat-bake", "buildx", "bake", "--print", "--no-cache=false", "--pull=false", "--provenance=false", "--check", "--load", "a", "default"}
	build.Run(build.Process{Args: args, Out: &out, Err: &errs, Bake: bake.Read})
	var got struct {
		Group  map[string]struct{ Targets []string }
		Target map[string]map[string]any
	}
	if err := json.Unmarshal([]byte(out.String()), &got); err != nil {
		t.Fatal(err, errs.String())
	}
	a, _ := json.Marshal(got.Target["a"])
	const want = `{"args":{"SOURCE_DATE_EPOCH":"7"},"attest":[{"disabled":true,"type":"provenance"}],"call":"check","context":".","dockerfile":"Dockerfile",` +
		`"no-cache":false,"output":[{"type":"docker"}],"pull":false}`
	if string(a) != want || !slices.Equal(got.Group["default"].Targets, []string{"a", "default"}) {
		t.Errorf("%s, %v", a, got.Group)
	}
}

// TestDefaultGroupHasAll: what is asked for beside the default group is in what is printed.
func TestDefaultGroupHasAll(t *testing.T) {
	plan, err := read(t, map[string]string{"docker-bake.hcl": two}, build.BakeQuery{Targets: []string{"default", "b"}})
	if err != nil || !strings.Contains(strings.Join(strings.Fields(string(plan.Print)), ""), `"default":{"targets":["a","b"]}`) {
		t.Errorf("%s, %v", plan.Print, err)
	}
}

// TestGroups: a group may hold the target of its own name, and not itself. It held nothing then, and nothing was built.
func TestGroups(t *testing.T) {
	for text, want := range map[string]string{
		`group "a" { targets = ["a", "b"] }`:                                          "a,b",
		"group \"a\" { targets = [\"g\"] }\ngroup \"g\" { targets = [\"a\"] }":        "a",
		"group \"a\" { targets = [\"g\", \"h\"] }\n" + diamond + h:                    "b",
		"group \"x\" { targets = [\"y\"] }\ngroup \"y\" { targets = [\"b\", \"x\"] }": "group x holds itself (x > y > x)",
		`group "x" { targets = ["x"] }`:                                               "group x holds itself",
	} {
		asked := "a"
		if strings.HasPrefix(text, `group "x"`) {
			asked = "x"
		}
		plan, err := read(t, map[string]string{"docker-bake.hcl": text + "\ntarget \"a\" {}\ntarget \"b\" {}\n"}, build.BakeQuery{Targets: []string{asked}})
		if err != nil {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v", text, err)
			}
			continue
		}
		if got := strings.Join(slices.Sorted(maps.Keys(plan.Targets)), ","); got != want {
			t.Errorf("%s: %s, not %s", text, got, want)
		}
	}
}

const (
	diamond = "group \"g\" { targets = [\"i\"] }\ngroup \"i\" { targets = [\"b\"] }\n"
	h       = "group \"h\" { targets = [\"i\"] }"
)

// TestDiamonds: what many targets inherit or use is worked out once. With each level it took twice as long.
func TestDiamonds(t *testing.T) {
	const levels = 60
	for _, line := range []string{"inherits = [%q, %q]", "contexts = { l = \"target:%s\", r = \"target:%s\" }"} {
		text := &strings.Builder{}
		text.WriteString("target \"l0\" { tags = [\"t\"] }\ntarget \"r0\" {}\n")
		for i := range levels {
			for _, side := range "lr" {
				fmt.Fprintf(text, "target \"%c%d\" { "+line+" }\n", side, i+1, fmt.Sprint("r", i), fmt.Sprint("l", i))
			}
		}
		plan, err := read(t, map[string]string{"docker-bake.hcl": text.String()}, build.BakeQuery{Targets: []string{fmt.Sprint("l", levels)}})
		if err != nil {
			t.Fatal(err)
		}
		if top := plan.Targets[fmt.Sprint("l", levels)]; strings.Contains(line, "inherits") && !slices.Equal(top.Tags, []string{"t"}) || strings.Contains(line, "contexts") && len(plan.Targets) != 2*levels+1 {
			t.Errorf("%s: %+v of %d targets", line, top, len(plan.Targets))
		}
	}
}

// TestSeveralFiles: later files say more of the blocks of earlier ones, and compose files
// are read with the others.
func TestSeveralFiles(t *testing.T) {
	plan, err := read(t, map[string]string{
		"compose.yaml":                  "services:\n  web:\n    image: web:1\n    build:\n      context: ./web\n      args: {A: compose}\n  db:\n    image: db\n",
		"docker-bake.hcl":               "target \"web\" { args = { B = \"hcl\" } }\n",
		"docker-bake.override.json":     `{"target": {"web": {"tags": ["web:2"]}}}`,
		"docker-bake.something.ignored": "{{{",
	}, build.BakeQuery{})
	if err != nil {
		t.Fatal(err)
	}
	w := plan.Targets["web"]
	if w == nil || len(plan.Targets) != 1 || w.Args["A"] != "compose" || w.Args["B"] != "hcl" || !slices.Equal(w.Tags, []string{"web:2"}) || w.Context != "web" && w.Context != "./web" {
		t.Errorf("%s\n%+v", plan.Print, w)
	}
}

func TestMistakes(t *testing.T) {
	for text, want := range map[string]string{
		`target "a" { inherits = ["b"] }`:              "failed to find target b: there are a",
		`target "a" { contexts = { x = "target:a" } }`: "cannot link to itself",
		"target \"a\" { contexts = { x = \"target:b\" } }\ntarget \"b\" { contexts = { x = \"target:a\" } }": "infinite loop",
		`target "a" { args = { X = undefined_thing } }`:                                                      "undefined_thing",
		`target "a" { name = "b" }`:                   "name requires matrix",
		`target "a b" {}`:                             "are allowed",
		`target "a" { output = ["type=local,dest"] }`: "expected key=value",
		`target "a" { matrix = { x = 1 } }`:           "matrix values must be a list",
		`target "a" { policy = ["x"] }`:               "policy",
		`target`:                                      "",
	} {
		if _, err := read(t, map[string]string{"docker-bake.hcl": text}, build.BakeQuery{Targets: []string{"a"}}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if _, err := read(t, nil, build.BakeQuery{}); err == nil || !strings.Contains(err.Error(), "couldn't find a bake definition") {
		t.Error(err)
	}
	if _, err := read(t, nil, build.BakeQuery{Files: []string{"https://example.com/x.git"}}); err == nil || !strings.Contains(err.Error(), "are not fetched") {
		t.Error(err)
	}
}

// FuzzRead: whatever a bake file holds, there is an answer.
func FuzzRead(f *testing.F) {
	for _, s := range []string{two, `{"target":{"a":{"matrix":{"x":["1"]},"name":"a-${x}"}}}`, "services:\n  a:\n    build: .\n", `variable "X" { default = X }`, `target "default" { output = [{type=["x"]}] }`, `target "default" { ssh = [{id="a",paths=["b"]}] attest=[{type="sbom",disabled=true}] }`} {
		f.Add(s, "")
	}
	f.Fuzz(func(t *testing.T, text, set string) {
		if len(text) > 2<<10 { // HCL takes a time that grows with the square of what is nested: 2 s for 16 KB of brackets
			return
		}
		dir := t.TempDir()
		path := filepath.Join(dir, "bake")
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		q := build.BakeQuery{Files: []string{path}}
		if set != "" {
			q.Set = []string{set}
		}
		_, _ = bake.Read(q)
	})
}
