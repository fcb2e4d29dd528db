package bake

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/buildx/bake/hclparser"
	"github.com/hashicorp/hcl/v2"

	"github.com/cleatlabs/cleat/client/build/solve"
)

// relativePaths is the variable by which directories are those beside the bake file that names them, not those of the
// working directory.
const relativePaths = "BUILDX_BAKE_FILE_RELATIVE_PATHS"

var _ hclparser.WithBlockSource = (*target)(nil)

// places are the directories of the files that a target's contexts are said in; "" is the working directory.
type places struct {
	file     string // where the target is described
	context  string
	contexts map[string]string
	like     string // the target whose context is named as this one's
}

// SetBlockSource takes note of the file of a block.
func (t *target) SetBlockSource(block *hcl.Block) {
	t.foundIn(directory(block.DefRange.Filename))
	content, _, diags := block.Body.PartialContent(&hcl.BodySchema{Attributes: []hcl.AttributeSchema{{Name: "context"}}})
	if attr, ok := content.Attributes["context"]; ok && !diags.HasErrors() {
		t.places.like = contextOf(attr.Expr)
	}
}

// foundIn says that all of t is in a file of this directory.
func (t *target) foundIn(dir string) {
	t.places = places{file: dir, context: dir, contexts: map[string]string{}}
	for name := range t.Contexts {
		t.places.contexts[name] = dir
	}
}

// directory is that of a bake file.
func directory(file string) string {
	if file == "" || file == "-" {
		return ""
	}
	return filepath.Dir(file)
}

// contextOf is the name of the target that an expression is the context of: target.NAME.context.
func contextOf(expr hcl.Expression) string {
	steps, diags := hcl.AbsTraversalForExpr(expr)
	if diags.HasErrors() || len(steps) != 3 || steps.RootName() != "target" {
		return ""
	}
	name, ok := steps[1].(hcl.TraverseAttr)
	if last, isAttr := steps[2].(hcl.TraverseAttr); !ok || !isAttr || last.Name != "context" {
		return ""
	}
	return name.Name
}

// merge puts the places of o's contexts over those of t's. It is to come before the contexts are merged.
func (p *places) merge(o *target) {
	p.file = o.places.file
	if o.Context != nil {
		p.context, p.like = o.places.context, o.places.like
	}
	p.contexts = mergePlain(p.contexts, nil)
	for name := range o.Contexts {
		p.contexts = mergePlain(p.contexts, map[string]string{name: o.places.contexts[name]})
	}
}

// place makes the paths of all targets those of the working directory.
func (f *file) place() error {
	on := false
	if text := strings.TrimSpace(os.Getenv(relativePaths)); text != "" {
		var err error
		if on, err = strconv.ParseBool(text); err != nil {
			return fmt.Errorf("%s is %q: choose true or false", relativePaths, text)
		}
	}
	if !on {
		for _, t := range f.Targets {
			t.places = places{}
		}
		return nil
	}
	for _, t := range f.Targets {
		for name, where := range t.Contexts {
			t.Contexts[name] = beside(t.places.contexts[name], where)
		}
		if t.Context == nil {
			continue
		}
		dir := t.places.context
		if other := f.target(t.places.like); other != nil && other.Context != nil {
			dir = other.places.context
		} else if other != nil {
			dir = other.places.file
		}
		t.Context = pointer(beside(dir, *t.Context))
	}
	return nil
}

// beside is a context that is said in a file of this directory.
func beside(dir, where string) string {
	special := func(prefix string) bool { return strings.HasPrefix(where, prefix) }
	if dir == "" || where == "" || filepath.IsAbs(where) || solve.IsRemote(where) ||
		slices.ContainsFunc([]string{"cwd://", "target:", "docker-image:", "oci-layout://"}, special) {
		return where
	}
	return filepath.Join(dir, where)
}
