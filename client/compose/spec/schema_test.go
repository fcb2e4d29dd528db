package spec_test

import (
	"bytes"
	"encoding/json"

	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/schema"
	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v3"

	"github.com/cleatlabs/cleat/client/compose/label"
	"github.com/cleatlabs/cleat/client/compose/project"
	"github.com/cleatlabs/cleat/client/compose/spec"
)

// attributes are those of the language, by compose-go's schema: "services.*.image".
func attributes() []string {
	var list []string
	for _, path := range schema.AttributePaths() {
		if p := string(path); !strings.HasSuffix(p, ".*") && !strings.HasSuffix(p, ".[]") {
			list = append(list, p)
		}
	}
	return list
}

// decision is what stands in testdata/attributes of one attribute, or of one and all below it.
type decision struct {
	what string // "works", "refused", "noted", "config"
	rest string // the test that shows it, or a file in which it stands
}

func decisions(t *testing.T) map[string]decision {
	t.Helper()
	text, err := os.ReadFile("testdata/attributes")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]decision{}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		words := strings.SplitN(line, " ", 3)
		if len(words) != 3 {
			t.Fatalf("testdata/attributes: %q: want an attribute, a decision and what shows it", line)
		}
		if _, twice := found[words[0]]; twice {
			t.Errorf("testdata/attributes: %s stands there twice", words[0])
		}
		found[words[0]] = decision{words[1], words[2]}
	}
	return found
}

// Of each attribute of the language it is decided whether it works, and which test shows
// it, or is refused, or has no effect on one machine, of which the user is told. One that
// the language gains is nobody's until somebody has decided.
func TestEveryAttributeIsDecided(t *testing.T) {
	decided, used := decisions(t), map[string]bool{}
	for _, attribute := range attributes() {
		at := attribute
		for _, whole := decided[at]; !whole && strings.Contains(at, "."); _, whole = decided[at] {
			at = at[:strings.LastIndexByte(at, '.')]
		}
		d, ok := decided[at]
		if !ok || at != attribute && d.what == "works" && !strings.HasPrefix(d.rest, "e2e.") {
			t.Errorf("%s: it is not decided what becomes of it: add it to testdata/attributes", attribute)
		}
		used[at] = true
	}
	tests := map[string]bool{}
	for attribute, d := range decided {
		if !used[attribute] {
			t.Errorf("testdata/attributes: %s is no attribute of the language", attribute)
		}
		switch d.what {
		case "works":
			if _, ok := tests[d.rest]; !ok {
				tests[d.rest] = exists(t, d.rest)
			}
			if !tests[d.rest] {
				t.Errorf("%s: there is no test %s", attribute, d.rest)
			}
		case "refused", "noted":
		default:
			t.Errorf("%s: unknown decision %q", attribute, d.what)
		}
	}
}

// exists says whether there is a test: "e2e.TestX", or one of a package of compose.
func exists(t *testing.T, test string) bool {
	t.Helper()
	dir, name, ok := strings.Cut(test, ".")
	if dir = filepath.Join("..", dir); strings.HasSuffix(dir, "e2e") {
		dir = "../../../test/e2e"
	}
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil || !ok {
		t.Fatalf("%s: %v", test, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(text, []byte("\nfunc "+name+"(t *testing.T)")) {
			return true
		}
	}
	return false
}

// read loads a project from text; files that it refers to lie in testdata.
func read(t *testing.T, dir string, text []byte) (*types.Project, error) {
	t.Helper()
	file := filepath.Join(dir, "compose.yaml")
	if err := os.WriteFile(file, text, 0o644); err != nil {
		t.Fatal(err)
	}
	return project.Load(t.Context(), project.Options{Files: []string{file}}, project.Raw{})
}

// requests is all that the engine is asked for, for a project.
func requests(t *testing.T, p *types.Project) ([]byte, error) {
	t.Helper()
	all := map[string]any{}
	for name, s := range p.Services {
		r := &spec.Replica{
			Project: p, Service: s, Number: 1, Name: spec.ContainerName(p, s, 1, "-"), Image: s.Image, OwnFiles: true,
			Others: func(service string) (string, error) { return "id-of-" + service, nil }, Linked: func(service string) []string { return []string{"full-" + service + "-1"} },
		}
		got, err := r.Request()
		if err != nil {
			return nil, err
		}
		delete(got.Create.Config.Labels, label.ConfigHash) // changes with everything
		files, err := spec.Files(p, s)
		if err != nil {
			return nil, err
		}
		all["service "+name], all["files of "+name] = got, files
	}
	for key, n := range p.Networks {
		got, err := spec.Network(p, key, n)
		if err != nil {
			return nil, err
		}
		delete(got.Labels, label.ConfigHash)
		all["network "+n.Name] = got
	}
	for key, v := range p.Volumes {
		got, err := spec.Volume(p, key, v)
		if err != nil {
			return nil, err
		}
		delete(got.Labels, label.ConfigHash)
		all["volume "+v.Name] = got
	}
	return json.Marshal(all)
}

// present calls visit for each attribute in a document, with its path and what takes it out
// and puts it back.
func present(node any, path string, known []string, visit func(path string, remove, restore func())) {
	switch v := node.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			at, value := strings.TrimPrefix(path+"."+key, "."), v[key]
			if !slices.Contains(known, at) {
				at = strings.TrimPrefix(path+".*", ".")
			} else {
				visit(at, func() { delete(v, key) }, func() { v[key] = value })
			}
			present(value, at, known, visit)
		}
	case []any:
		for _, part := range v {
			present(part, path+".[]", known, visit)
		}
	}
}

// Every attribute of which testdata/attributes says that this test shows it is in full.yaml,
// and without it the engine is asked for something else: none is read and forgotten.
func TestEveryAttributeHasItsEffect(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata")); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("testdata/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var document map[string]any
	if err := yaml.Unmarshal(text, &document); err != nil {
		t.Fatal(err)
	}
	if text, err = yaml.Marshal(document); err != nil { // as it is written without an attribute
		t.Fatal(err)
	}
	whole, err := read(t, dir, text)
	if err != nil {
		t.Fatal(err)
	}
	want, err := requests(t, whole)
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		// What changes by itself would hide what does not.
		if whole, err = read(t, dir, text); err != nil {
			t.Fatal(err)
		}
		if again, err := requests(t, whole); err != nil || !bytes.Equal(again, want) {
			t.Fatalf("%v: the requests are others each time:\n%s\n%s", err, want, again)
		}
	}
	seen, decided := map[string]bool{}, decisions(t)
	present(document, "", attributes(), func(path string, remove, restore func()) {
		if seen[path] || decided[path].rest != "spec.TestEveryAttributeHasItsEffect" {
			return
		}
		remove()
		defer restore()
		without, err := yaml.Marshal(document)
		if err != nil {
			t.Fatal(err)
		}
		p, err := read(t, dir, without)
		if err != nil {
			seen[path] = true // it has to be there
			return
		}
		got, err := requests(t, p)
		seen[path] = err != nil || !bytes.Equal(got, want)
	})
	for _, attribute := range slices.Sorted(maps.Keys(decided)) {
		d := decided[attribute]
		if d.rest != "spec.TestEveryAttributeHasItsEffect" {
			continue
		}
		switch has, ok := seen[attribute]; {
		case !ok:
			t.Errorf("%s: it is not in testdata/full.yaml", attribute)
		case !has:
			t.Errorf("%s: nothing changes without it", attribute)
		}
	}
}

// What is refused is named with its service, and what has no effect on one machine is said.
func TestEveryOtherAttributeIsNamed(t *testing.T) {
	for attribute, d := range decisions(t) {
		if d.what == "works" {
			continue
		}
		t.Run(attribute, func(t *testing.T) {
			words := strings.FieldsFunc(attribute, func(r rune) bool { return strings.ContainsRune(".*[]", r) })
			owner := map[string]string{"services": `service "a"`, "networks": "network n", "secrets": "secret s", "configs": "config c", "jobs": "jobs"}[words[0]]
			p, err := read(t, t.TempDir(), []byte("name: x\n"+strings.ReplaceAll(d.rest, `\n`, "\n")+"\n"))
			if err != nil {
				t.Fatal(err)
			}
			said := ""
			if d.what == "noted" {
				said = strings.Join(spec.Unheeded(p), "\n")
			} else if err := spec.Check(p); err != nil {
				said = err.Error()
			}
			if last := words[len(words)-1]; !strings.Contains(said, last) || !strings.Contains(said, owner) {
				t.Errorf("%s is %s, and nothing names %s and %s: %s", attribute, d.what, last, owner, said)
			}
		})
	}
}
