package project

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/consts"
	"github.com/compose-spec/compose-go/v2/interpolation"
	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/override"
	"github.com/compose-spec/compose-go/v2/transform"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/compose-spec/compose-go/v2/validation"
	"github.com/sirupsen/logrus"
	"go.yaml.in/yaml/v4"

	"github.com/cleatlabs/cleat/client/compose/grammar"
)

// surelyValid says that the library's validation would find nothing wrong with a project's files: it need not be done
// then, which halves what a load costs. obsolete are the numbers of those that it would warn of because they have a version. The
// steps are those of the library's loader up to its validation, with the library's own functions, and for the schema
// itself package grammar. Whatever is out of the ordinary (several documents in a file, tags, what other files are
// needed for) is left to the library.
func surelyValid(options *cli.ProjectOptions) (obsolete []int, valid bool) {
	if len(options.ConfigPaths) == 0 {
		return nil, false
	}
	g, err := grammar.New()
	if err != nil {
		return nil, false
	}
	defer silence()()
	details := types.ConfigDetails{Environment: options.Environment}
	v := validator{grammar: g, interpolate: *loader.ToOptions(&details, nil).Interpolate, merged: map[string]any{}}
	for i, file := range options.ConfigPaths {
		data, err := os.ReadFile(file)
		// The name is settled by the library, and so are tags: they change what other files say.
		if err != nil || bytes.ContainsRune(data, '!') || bytes.Contains(data, []byte(consts.ComposeProjectName)) {
			return nil, false
		}
		if !v.add(i, data) {
			return nil, false
		}
	}
	if v.merged, err = transform.SetDefaultValues(v.merged); err != nil {
		return nil, false
	}
	return v.obsolete, validation.Validate(v.merged) == nil
}

// silence keeps the library's warnings back until it is undone: they will be said when the project is loaded.
func silence() (undo func()) {
	out := logrus.StandardLogger().Out
	logrus.SetOutput(io.Discard)
	return func() { logrus.SetOutput(out) }
}

// validator is one check of a project's files.
type validator struct {
	grammar     *grammar.Grammar
	interpolate interpolation.Options
	merged      map[string]any
	obsolete    []int
}

// add merges one more file, and says whether all is right so far.
func (v *validator) add(number int, data []byte) bool {
	content, err := sole(data)
	if err != nil || special(content) {
		return false
	}
	if content, err = interpolation.Interpolate(content, v.interpolate); err != nil {
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
