package bake

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/buildx/bake/hclparser"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"

	"github.com/cleatlabs/cleat/client/build"
	"github.com/cleatlabs/cleat/client/build/option"
	"github.com/cleatlabs/cleat/client/build/solve"
)

// defaultFiles are looked for if none is named; all that there are, are read together.
var defaultFiles = []string{
	"compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml",
	"docker-bake.json", "docker-bake.hcl", "docker-bake.override.json", "docker-bake.override.hcl",
}

// targetChars is what targets may be called, outside of brackets.
const targetChars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"

// source is a bake file.
type source struct {
	name string
	data []byte
}

// Read reads the bake files and resolves what is asked for of them.
func Read(q build.BakeQuery) (*build.BakePlan, error) {
	sources, err := readFiles(q.Files, q.Stdin)
	if err != nil {
		return nil, err
	}
	f, meta, err := parse(sources, q)
	if err != nil {
		return nil, withSource(err, sources)
	}
	plan := &build.BakePlan{Targets: map[string]*solve.Target{}}
	for _, v := range meta.AllVariables {
		plan.Variables = append(plan.Variables, build.BakeVariable(*v))
	}
	for _, g := range f.Groups {
		about := strings.Join(slices.Sorted(slices.Values(g.Targets)), ", ")
		if g.Description != "" && about != "" {
			about = " (" + about + ")"
		}
		plan.Listed = append(plan.Listed, build.BakeListed{Name: g.Name, Description: g.Description + about, Group: true})
	}
	for _, t := range f.Targets {
		plan.Listed = append(plan.Listed, build.BakeListed{Name: t.Name, Description: t.Description})
	}
	if q.ListOnly {
		return plan, nil
	}
	overrides, err := f.overrides(q.Set)
	if err != nil {
		return nil, err
	}
	if plan.Given, err = given(overrides); err != nil {
		return nil, err
	}
	targets, groups, err := f.resolve(q.Targets, overrides)
	if err != nil {
		return nil, err
	}
	for name, t := range targets {
		if plan.Targets[name], err = t.build(name); err != nil {
			return nil, fmt.Errorf("target %s: %w", name, err)
		}
	}
	plan.Print, err = json.MarshalIndent(struct {
		Group  map[string]*group  `json:"group,omitempty"`
		Target map[string]*target `json:"target"`
	}{groups, targets}, "", "  ")
	return plan, err
}

func readFiles(names []string, stdin io.Reader) ([]source, error) {
	optional := len(names) == 0
	if optional {
		names = defaultFiles
	}
	var out []source
	for _, name := range names {
		var data []byte
		var err error
		switch {
		case name == "-":
			data, err = io.ReadAll(stdin)
		case solve.IsRemote(name) && !isFile(name):
			err = fmt.Errorf("bake files are not fetched: get %s, and run this there", name)
		default:
			data, err = os.ReadFile(name)
			if optional && errors.Is(err, os.ErrNotExist) {
				continue
			}
		}
		if err != nil {
			return nil, err
		}
		out = append(out, source{name, data})
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("couldn't find a bake definition: there is none of %s here, name another by -f", strings.Join(defaultFiles[:6], ", "))
	}
	return out, nil
}

func isFile(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// parse reads compose files as one project and the others as one body.
func parse(sources []source, q build.BakeQuery) (*file, *hclparser.ParseMeta, error) {
	var f file
	var compose []source
	var bodies []*hcl.File
	for _, s := range sources {
		if s.isCompose() {
			compose = append(compose, s)
			continue
		}
		body, err := s.parseHCL()
		if err != nil {
			return nil, nil, err
		}
		bodies = append(bodies, body)
	}
	if len(compose) > 0 {
		c, err := readCompose(compose, q.Vars)
		if err != nil {
			return nil, nil, fmt.Errorf("failed to parse compose file: %w", err)
		}
		f = *c
		for _, t := range f.Targets {
			t.foundIn(directory(compose[0].name))
		}
	}
	meta := &hclparser.ParseMeta{}
	if len(bodies) > 0 {
		var diags hcl.Diagnostics
		lookup := func(key string) (string, bool) {
			if v, ok := q.Vars[key]; ok {
				return v, true
			}
			return lookupEnv(key)
		}
		meta, diags = hclparser.Parse(hclparser.MergeFiles(bodies), hclparser.Opt{LookupVar: lookup, Vars: q.Defaults, ValidateLabel: checkName}, &f)
		if diags.HasErrors() {
			return nil, nil, diags
		}
		for _, renamed := range meta.Renamed {
			for label, names := range renamed {
				// The label of a matrix stands for all that came of it.
				if names = option.Unique(names); len(names) != 1 || names[0] != label {
					f.Groups = append(f.Groups, &group{Name: label, Targets: names})
				}
			}
		}
	}
	f.join()
	return &f, meta, f.place()
}

// usesEnv says whether the environment's variables may be values in bake files.
func usesEnv() bool {
	off, _ := strconv.ParseBool(os.Getenv("BUILDX_BAKE_DISABLE_VARS_ENV_LOOKUP"))
	return !off
}

func lookupEnv(key string) (string, bool) {
	if !usesEnv() {
		return "", false
	}
	return os.LookupEnv(key)
}

func checkName(name string) error {
	if strings.Trim(name, targetChars) != "" {
		return fmt.Errorf("only %q are allowed", "[a-zA-Z0-9_-]+")
	}
	return nil
}

func (s source) parseHCL() (*hcl.File, error) {
	p := hclparse.NewParser()
	if strings.HasSuffix(s.name, ".json") {
		f, diags := p.ParseJSON(s.data, s.name)
		return f, asError(diags)
	}
	f, diags := p.ParseHCL(s.data, s.name)
	if diags.HasErrors() && !strings.HasSuffix(s.name, ".hcl") {
		if j, err := p.ParseJSON(s.data, s.name+".json"); !err.HasErrors() {
			return j, nil
		}
	}
	return f, asError(diags)
}

func asError(diags hcl.Diagnostics) error {
	if diags.HasErrors() {
		return diags
	}
	return nil
}

// withSource adds to an error the line that it is about.
func withSource(err error, sources []source) error {
	var diags hcl.Diagnostics
	if !errors.As(err, &diags) {
		return err
	}
	for _, d := range diags {
		if d.Severity != hcl.DiagError || d.Subject == nil {
			continue
		}
		i := slices.IndexFunc(sources, func(s source) bool { return s.name == d.Subject.Filename })
		if i < 0 {
			continue
		}
		at := func(p hcl.Pos) *pb.Position { return &pb.Position{Line: int32(p.Line), Character: int32(p.Column)} }
		return errdefs.WithSource(err, &errdefs.Source{
			Info:   &pb.SourceInfo{Filename: d.Subject.Filename, Data: sources[i].data},
			Ranges: []*pb.Range{{Start: at(d.Subject.Start), End: at(d.Subject.End)}},
		})
	}
	return err
}

// join makes one of the blocks of one name, in the order of the files.
func (f *file) join() {
	var groups []*group
	for _, g := range f.Groups {
		if i := slices.IndexFunc(groups, func(x *group) bool { return x.Name == g.Name }); i >= 0 {
			groups[i].Targets = append(groups[i].Targets, g.Targets...)
			continue
		}
		groups = append(groups, g)
	}
	for _, g := range groups {
		g.Targets = option.Unique(g.Targets)
	}
	var targets []*target
	for _, t := range f.Targets {
		if i := slices.IndexFunc(targets, func(x *target) bool { return x.Name == t.Name }); i >= 0 {
			targets[i].Merge(t)
			continue
		}
		targets = append(targets, t)
	}
	f.Groups, f.Targets = groups, targets
}

func (f *file) group(name string) *group {
	if i := slices.IndexFunc(f.Groups, func(g *group) bool { return g.Name == name }); i >= 0 {
		return f.Groups[i]
	}
	return nil
}

func (f *file) target(name string) *target {
	if i := slices.IndexFunc(f.Targets, func(t *target) bool { return t.Name == name }); i >= 0 {
		return f.Targets[i]
	}
	return nil
}

// resolve finds the targets asked for, complete, and those that they need.
func (f *file) resolve(asked []string, overrides map[string][]override) (map[string]*target, map[string]*group, error) {
	if len(asked) == 0 {
		asked = []string{"default"}
	}
	var names []string
	for _, a := range asked {
		match, err := f.match(a)
		if err != nil {
			return nil, nil, err
		}
		names = append(names, match...)
	}
	names = option.Unique(names)
	targets, groups := map[string]*target{}, map[string]*group{}
	for _, name := range names {
		leaves, err := f.leaves(name, nil, groups)
		if err != nil {
			return nil, nil, err
		}
		for _, leaf := range leaves {
			if targets[leaf], err = f.complete(leaf, overrides); err != nil {
				return nil, nil, err
			}
		}
	}
	def := group{}
	if g := groups["default"]; g != nil {
		def = *g
		names = slices.DeleteFunc(names, func(name string) bool { return name == "default" })
	}
	def.Targets = option.Unique(slices.Concat(def.Targets, names))
	slices.Sort(def.Targets)
	groups["default"] = &def
	l := &linker{file: f, all: targets, overrides: overrides, done: map[string]bool{}}
	for name, t := range maps.Clone(targets) {
		if err := l.link(name, t, nil); err != nil {
			return nil, nil, err
		}
	}
	return targets, groups, nil
}

// match finds the groups and targets of a pattern.
func (f *file) match(pattern string) ([]string, error) {
	if !strings.ContainsAny(pattern, "*?[]") {
		return []string{strings.ReplaceAll(pattern, ".", "_")}, nil
	}
	var names []string
	for _, g := range f.Groups {
		if ok, err := path.Match(pattern, g.Name); ok && err == nil {
			names = append(names, g.Name)
		}
	}
	for _, t := range f.Targets {
		if ok, err := path.Match(pattern, t.Name); ok && err == nil {
			names = append(names, t.Name)
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("could not find any target matching %q", pattern)
	}
	return names, nil
}

// leaves are the targets of a group and of the groups in it, which are noted as seen. A group's own name in it, or in one
// of its groups, is that of a target.
func (f *file) leaves(name string, above []string, seen map[string]*group) ([]string, error) {
	g := f.group(name)
	switch {
	case g == nil:
		return []string{name}, nil
	case slices.Contains(above, name) && f.target(name) == nil:
		return nil, fmt.Errorf("group %s holds itself (%s), and there is no target of this name", name, strings.Join(append(above, name), " > "))
	case slices.Contains(above, name):
		return []string{name}, nil
	case seen[name] != nil:
		return nil, nil
	}
	seen[name] = g
	var out []string
	for _, t := range g.Targets {
		more, err := f.leaves(t, append(above, name), seen)
		if err != nil {
			return nil, err
		}
		out = append(out, more...)
	}
	return option.Unique(out), nil
}

// complete is a target with what it inherits and what overrides it.
func (f *file) complete(name string, overrides map[string][]override) (*target, error) {
	t, err := f.inherit(name, map[string]*target{}, overrides)
	if err != nil {
		return nil, err
	}
	if t.Context == nil {
		t.Context = pointer(beside(t.places.file, "."))
	}
	if t.Dockerfile == nil || *t.Dockerfile == "" {
		t.Dockerfile = pointer("Dockerfile")
	}
	if v := os.Getenv(epoch); v != "" && t.Args[epoch] == nil {
		t.Args = mergeMap(t.Args, map[string]*string{epoch: &v})
	}
	return t, nil
}

// epoch is the argument that has the environment's value unless it is given one.
const epoch = "SOURCE_DATE_EPOCH"

func pointer[T any](v T) *T { return &v }

// inherit is a target upon those that it inherits from. done has those that are known already, of which many may inherit,
// and nil for those that it is at: a circle adds nothing.
func (f *file) inherit(name string, done map[string]*target, overrides map[string][]override) (*target, error) {
	if t, ok := done[name]; ok {
		return t, nil
	}
	done[name] = nil
	t := f.target(name)
	if t == nil {
		var known []string
		for _, l := range f.Targets {
			known = append(known, l.Name)
		}
		slices.Sort(known)
		return nil, fmt.Errorf("failed to find target %s: there are %s", name, strings.Join(known, ", "))
	}
	out := &target{Name: name}
	for _, parent := range t.Inherits {
		p, err := f.inherit(parent, done, overrides)
		if err != nil {
			return nil, err
		}
		if p != nil {
			out.Merge(p)
		}
	}
	out.Merge(t)
	out.Inherits, out.Description = nil, t.Description
	for _, o := range overrides[name] {
		if err := o.apply(out); err != nil {
			return nil, fmt.Errorf("invalid override %s: %w", o.text, err)
		}
	}
	out.tidy()
	done[name] = out
	return out, nil
}
