package project

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/consts"
	"github.com/compose-spec/compose-go/v2/interpolation"
	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/override"
	"github.com/compose-spec/compose-go/v2/transform"
	"github.com/compose-spec/compose-go/v2/tree"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/compose-spec/compose-go/v2/validation"
	"github.com/sirupsen/logrus"
	"go.yaml.in/yaml/v4"

	"github.com/cleatlabs/cleat/client/compose/grammar"
)

// A draft is a project's files, read, as far as nothing is out of the ordinary in them.
type draft struct {
	contents    []map[string]any
	interpolate interpolation.Options
}

// drafted reads the files of a project. It is not ok where a file has what takes more than the files themselves to know
// (several documents in one, tags, what other files are needed for): that is left to the library.
func drafted(options *cli.ProjectOptions) (d draft, ok bool) {
	keys := map[string]bool{}
	for _, file := range options.ConfigPaths {
		data, err := os.ReadFile(file)
		// The name is settled by the library, and so are tags: they change what other files say.
		if err != nil || bytes.ContainsRune(data, '!') || bytes.Contains(data, []byte(consts.ComposeProjectName)) {
			return d, false
		}
		content, err := sole(data)
		if err != nil || special(content) {
			return d, false
		}
		collectKeys(content, keys)
		d.contents = append(d.contents, content)
	}
	d.interpolate = *interpolating(options)
	d.interpolate.TypeCastMapping = castsOf(d.interpolate.TypeCastMapping, keys)
	return d, len(d.contents) > 0
}

// surelyValid says that the library's validation would find nothing wrong with a project's files: it need not be done
// then, which halves what a load costs. obsolete are the numbers of those that it would warn of because they have a
// version. The steps are those of the library's loader up to its validation, with the library's own functions, and for
// the schema itself package grammar. What the library warns of, it says here, too.
func (d *draft) surelyValid() (obsolete []int, valid bool) {
	defer func() {
		if recover() != nil { // as in guarded
			valid = false
		}
	}()
	g, err := grammar.New()
	if err != nil {
		return nil, false
	}
	v := validator{grammar: g, interpolate: d.interpolate, merged: map[string]any{}}
	for i, content := range d.contents {
		if !v.add(i, content) {
			return nil, false
		}
	}
	if v.merged, err = transform.SetDefaultValues(v.merged); err != nil {
		return nil, false
	}
	return v.obsolete, validation.Validate(v.merged) == nil
}

// casts gives the library those of its casts that can apply to something in the files: it tries each on each text.
func (d *draft) casts(o *loader.Options) {
	if o.Interpolate != nil { // there is none while files are only looked for
		o.Interpolate.TypeCastMapping = d.interpolate.TypeCastMapping
	}
}

// interpolating is what the library interpolates by. It has variables of its own: a load, which goes on meanwhile, adds the
// project's name to those of its options.
func interpolating(options *cli.ProjectOptions) *interpolation.Options {
	details := types.ConfigDetails{Environment: maps.Clone(options.Environment)}
	return loader.ToOptions(&details, []func(*loader.Options){withBounds}).Interpolate
}

// collectKeys adds all keys of all maps in a value.
func collectKeys(value any, into map[string]bool) {
	switch v := value.(type) {
	case map[string]any:
		for key, e := range v {
			into[key] = true
			collectKeys(e, into)
		}
	case []any:
		for _, e := range v {
			collectKeys(e, into)
		}
	}
}

// castsOf keeps the casts whose keys are all there.
func castsOf(all map[tree.Path]interpolation.Cast, keys map[string]bool) map[tree.Path]interpolation.Cast {
	kept := map[tree.Path]interpolation.Cast{}
	for path, cast := range all {
		absent := slices.ContainsFunc(path.Parts(), func(part string) bool {
			return part != tree.PathMatchAll && part != tree.PathMatchList && !keys[part]
		})
		if !absent {
			kept[path] = cast
		}
	}
	return kept
}

// silence keeps the library's warnings back until it is undone, in said.
func silence() (said *bytes.Buffer, undo func()) {
	said = &bytes.Buffer{} // written under the logger's own lock
	out := logrus.StandardLogger().Out
	logrus.SetOutput(said)
	return said, func() { logrus.SetOutput(out) }
}

// validator is one check of a project's files.
type validator struct {
	grammar     *grammar.Grammar
	interpolate interpolation.Options
	merged      map[string]any
	obsolete    []int
}

// add merges one more file, and says whether all is right so far.
func (v *validator) add(number int, content map[string]any) bool {
	content, err := interpolation.Interpolate(content, v.interpolate)
	if err != nil {
		return false
	}
	merged, err := override.Merge(v.merged, content)
	if err != nil {
		return false
	}
	if merged, err = override.EnforceUnicity(merged); err != nil || !v.grammar.Accepts(merged) {
		return false
	}
	if _, ok := merged["version"]; ok {
		v.obsolete = append(v.obsolete, number)
		delete(merged, "version")
	}
	if merged, err = transform.Canonical(merged, false); err != nil {
		return false
	}
	v.merged, err = override.EnforceUnicity(loader.OmitEmpty(merged))
	return err == nil
}

// sole is the only document of a file.
func sole(data []byte) (content map[string]any, err error) {
	d := yaml.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(&content); err != nil {
		return nil, err
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return nil, errors.New("several documents")
	}
	return content, nil
}

// special says that a file has what takes more than itself to know, or what the library rewrites.
func special(content map[string]any) bool {
	if _, ok := content["include"]; ok || len(content) == 0 {
		return true
	}
	for _, key := range []string{"services", "jobs"} {
		entries, _ := content[key].(map[string]any)
		for _, entry := range entries {
			attributes, _ := entry.(map[string]any)
			develop, _ := attributes["develop"].(map[string]any)
			rules, _ := develop["watch"].([]any)
			if has(attributes, "extends") || has(attributes, "x-develop") ||
				slices.ContainsFunc(rules, func(rule any) bool { return has(rule, "x-initialSync") }) {
				return true
			}
		}
	}
	return false
}

func has(value any, key string) bool {
	object, _ := value.(map[string]any)
	_, ok := object[key]
	return ok
}

// warnObsolete says what the library's validation says of a file with a version.
func warnObsolete(file string) {
	logrus.Warning(fmt.Sprintf("%s: the attribute `version` is obsolete, it will be ignored, please remove it to avoid potential confusion", file))
}
