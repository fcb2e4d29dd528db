package grammar

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/compose-spec/compose-go/v2/schema"
	"go.yaml.in/yaml/v4"
)

// TestSchemaIsThatOfTheLibrary fails when the library has another schema than this package: CLEAT_UPDATE=1 takes it over.
func TestSchemaIsThatOfTheLibrary(t *testing.T) {
	var theirs any
	if err := json.Unmarshal([]byte(schema.Schema), &theirs); err != nil {
		t.Fatal(err)
	}
	want, err := json.Marshal(bare(theirs, false))
	if err != nil {
		t.Fatal(err)
	}
	want = append(want, '\n')
	if os.Getenv("CLEAT_UPDATE") != "" {
		if err := os.WriteFile("schema.json", want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(want, text) {
		t.Error("schema.json is not the schema of compose-go: run this test with CLEAT_UPDATE=1")
	}
}

// bare is a schema without what is for readers; named says that its keys are names and not keywords.
func bare(schema any, named bool) any {
	switch schema := schema.(type) {
	case map[string]any:
		less := map[string]any{}
		for key, value := range schema {
			if named || key != "description" && key != "title" {
				less[key] = bare(value, !named && (key == "properties" || key == "patternProperties" || key == "$defs"))
			}
		}
		return less
	case []any:
		less := make([]any, len(schema))
		for i, e := range schema {
			less[i] = bare(e, false)
		}
		return less
	}
	return schema
}

// corpus are files that people might write, those of the end-to-end tests among them.
func corpus(t testing.TB) []map[string]any {
	t.Helper()
	files, err := filepath.Glob("../../../test/e2e/testdata/compose-config/*.yaml")
	if err != nil || len(files) < 50 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	var all []map[string]any
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var content map[string]any
		if yaml.Unmarshal(data, &content) == nil {
			all = append(all, content)
		}
	}
	return all
}

func grammar(t testing.TB) *Grammar {
	t.Helper()
	g, err := New()
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// TestAcceptsNothingThatTheLibraryDoesNot holds the one promise that others rely on, over files in which things have
// been changed, moved and taken away at random; and that most of what is right is accepted, else nothing is gained.
func TestAcceptsNothingThatTheLibraryDoesNot(t *testing.T) {
	g := grammar(t)
	files := corpus(t)
	random := rand.New(rand.NewPCG(1, 2))
	var right, accepted, wrong int
	judge := func(content map[string]any) {
		yes := g.Accepts(content)
		err := schema.Validate(content)
		switch {
		case yes && err != nil:
			t.Fatalf("accepted: %v\n%v", content, err)
		case err != nil:
			wrong++
		default:
			right++
			if yes {
				accepted++
			}
		}
	}
	for _, content := range files {
		judge(content)
		for range 40 {
			judge(disturbed(random, content, files).(map[string]any))
		}
	}
	if wrong < 500 || accepted < right*9/10 {
		t.Errorf("of %d right ones %d are accepted, and %d are wrong", right, accepted, wrong)
	}
}

// TestUncertainty shows what is left to the library though nothing forbids it.
func TestUncertainty(t *testing.T) {
	g := grammar(t)
	for _, value := range []any{math.NaN(), math.Inf(1), map[any]any{1: 2}, struct{}{}} {
		if g.Accepts(map[string]any{"x-any": value, "services": map[string]any{"web": map[string]any{"cpus": value}}}) {
			t.Errorf("%v is accepted", value)
		}
	}
	g.root["contains"] = true
	if g.Accepts(map[string]any{}) {
		t.Error("a schema with an unknown keyword accepts something")
	}
}

// disturbed is a copy of a value with something changed in it.
func disturbed(random *rand.Rand, value any, from []map[string]any) any {
	foreign := func() any {
		switch random.IntN(9) {
		case 0:
			return nil
		case 1:
			return random.IntN(3) - 1
		case 2:
			return random.Float64()
		case 3:
			return "all"
		case 4:
			return true
		case 5:
			return []any{"a", "a"}
		case 6:
			return []any{map[string]any{"type": "bind", "target": 1}}
		case 7:
			return map[string]any{"a": "b"}
		}
		return anywhere(random, from[random.IntN(len(from))])
	}
	switch value := value.(type) {
	case map[string]any:
		copied := map[string]any{}
		hit := random.IntN(len(value) + 1)
		for i, key := range slices.Sorted(maps.Keys(value)) {
			e := value[key]
			copied[key] = e
			if i == hit {
				switch random.IntN(6) {
				case 0:
					delete(copied, key)
				case 1:
					copied[key] = foreign()
				case 2:
					copied[fmt.Sprint(key, "s")] = e
				default:
					copied[key] = disturbed(random, e, from)
				}
			}
		}
		if hit == len(value) {
			copied[[]string{"x-a", "type", "name", "file", "image", "networks"}[random.IntN(6)]] = foreign()
		}
		return copied
	case []any:
		copied := append([]any{}, value...)
		if len(copied) == 0 || random.IntN(4) == 0 {
			return append(copied, foreign())
		}
		i := random.IntN(len(copied))
		copied[i] = disturbed(random, copied[i], from)
		return copied
	}
	return foreign()
}

// anywhere is some part of a file.
func anywhere(random *rand.Rand, value any) any {
	for random.IntN(4) > 0 {
		object, ok := value.(map[string]any)
		if !ok || len(object) == 0 {
			break
		}
		keys := slices.Sorted(maps.Keys(object))
		value = object[keys[random.IntN(len(keys))]]
	}
	return value
}

func FuzzAccepts(f *testing.F) {
	for _, content := range corpus(f) {
		if data, err := yaml.Marshal(content); err == nil {
			f.Add(string(data))
		}
	}
	g := grammar(f)
	f.Fuzz(func(t *testing.T, text string) {
		var content map[string]any
		if yaml.Unmarshal([]byte(text), &content) != nil || !g.Accepts(content) {
			return
		}
		if err := schema.Validate(content); err != nil {
			t.Errorf("%s\n%v", text, err)
		}
	})
}

func BenchmarkAccepts(b *testing.B) {
	files := corpus(b)
	for b.Loop() {
		g := grammar(b)
		for _, content := range files {
			g.Accepts(content)
		}
	}
}
