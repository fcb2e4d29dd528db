package bake

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/docker/buildx/bake/hclparser"
	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"github.com/cleatlabs/cleat/client/build/option"
)

// file is what bake files hold together.
type file struct {
	Groups  []*group  `json:"group" hcl:"group,block" cty:"group"`
	Targets []*target `json:"target" hcl:"target,block" cty:"target"`
}

// group is several targets, or groups, under one name.
type group struct {
	Name        string   `json:"-" hcl:"name,label" cty:"name"`
	Description string   `json:"description,omitempty" hcl:"description,optional" cty:"description"`
	Targets     []string `json:"targets" hcl:"targets" cty:"targets"`
}

// target is a block of a bake file. What is nil was not said, and is taken from the
// targets that it inherits from.
type target struct {
	Name        string   `json:"-" hcl:"name,label" cty:"name"`
	Description string   `json:"description,omitempty" hcl:"description,optional" cty:"description"`
	Inherits    []string `json:"inherits,omitempty" hcl:"inherits,optional" cty:"inherits"`

	Annotations      []string           `json:"annotations,omitempty" hcl:"annotations,optional" cty:"annotations"`
	Attest           specs              `json:"attest,omitempty" hcl:"attest,optional" cty:"attest"`
	Context          *string            `json:"context,omitempty" hcl:"context,optional" cty:"context"`
	Contexts         map[string]string  `json:"contexts,omitempty" hcl:"contexts,optional" cty:"contexts"`
	Dockerfile       *string            `json:"dockerfile,omitempty" hcl:"dockerfile,optional" cty:"dockerfile"`
	DockerfileInline *string            `json:"dockerfile-inline,omitempty" hcl:"dockerfile-inline,optional" cty:"dockerfile-inline"`
	Args             map[string]*string `json:"args,omitempty" hcl:"args,optional" cty:"args"`
	Labels           map[string]*string `json:"labels,omitempty" hcl:"labels,optional" cty:"labels"`
	Tags             []string           `json:"tags,omitempty" hcl:"tags,optional" cty:"tags"`
	CacheFrom        specs              `json:"cache-from,omitempty" hcl:"cache-from,optional" cty:"cache-from"`
	CacheTo          specs              `json:"cache-to,omitempty" hcl:"cache-to,optional" cty:"cache-to"`
	Target           *string            `json:"target,omitempty" hcl:"target,optional" cty:"target"`
	Secrets          specs              `json:"secret,omitempty" hcl:"secret,optional" cty:"secret"`
	SSH              agents             `json:"ssh,omitempty" hcl:"ssh,optional" cty:"ssh"`
	Platforms        []string           `json:"platforms,omitempty" hcl:"platforms,optional" cty:"platforms"`
	Outputs          specs              `json:"output,omitempty" hcl:"output,optional" cty:"output"`
	Pull             *bool              `json:"pull,omitempty" hcl:"pull,optional" cty:"pull"`
	NoCache          *bool              `json:"no-cache,omitempty" hcl:"no-cache,optional" cty:"no-cache"`
	Network          *string            `json:"network,omitempty" hcl:"network,optional" cty:"network"`
	NoCacheFilter    []string           `json:"no-cache-filter,omitempty" hcl:"no-cache-filter,optional" cty:"no-cache-filter"`
	ShmSize          *string            `json:"shm-size,omitempty" hcl:"shm-size,optional" cty:"shm-size"`
	Ulimits          []string           `json:"ulimits,omitempty" hcl:"ulimits,optional" cty:"ulimits"`
	Resources        map[string]string  `json:"resources,omitempty" hcl:"resources,optional" cty:"resources"`
	Call             *string            `json:"call,omitempty" hcl:"call,optional" cty:"call"`
	Entitlements     []string           `json:"entitlements,omitempty" hcl:"entitlements,optional" cty:"entitlements"`
	ExtraHosts       map[string]*string `json:"extra-hosts,omitempty" hcl:"extra-hosts,optional" cty:"extra-hosts"`

	Policy specs `json:"-" hcl:"policy,optional" cty:"policy"` // refused

	places places
}

// specs are values in the language of a command line's option. In a file they may be
// objects, too.
type specs []string

var (
	_ hclparser.FromCtyValueConverter = (*specs)(nil)
	_ hclparser.ToCtyValueConverter   = specs(nil)
	_ hclparser.FromCtyValueConverter = (*agents)(nil)
	_ hclparser.ToCtyValueConverter   = agents(nil)
	_ hclparser.WithEvalContexts      = (*target)(nil)
	_ hclparser.WithGetName           = (*target)(nil)
	_ hclparser.WithEvalContexts      = (*group)(nil)
	_ hclparser.WithGetName           = (*group)(nil)
)

// FromCtyValue takes a list of strings and objects.
func (s *specs) FromCtyValue(in cty.Value, path cty.Path) error { return s.from(in, path, fromObject) }

// from takes a list, of whose objects write makes text.
func (s *specs) from(in cty.Value, path cty.Path, write func(cty.Value) (string, error)) error {
	if t := in.Type(); !t.IsTupleType() && !t.IsListType() && !t.IsSetType() {
		return path.NewErrorf("a list is needed, not %s", t.FriendlyName())
	}
	*s = specs{}
	for it := in.ElementIterator(); it.Next(); {
		_, v := it.Element()
		if v.IsNull() || !v.IsKnown() {
			continue
		}
		if v.Type() == cty.String {
			if v.AsString() != "" {
				*s = append(*s, v.AsString())
			}
			continue
		}
		one, err := write(v)
		if err != nil {
			return path.NewError(err)
		}
		*s = append(*s, one)
	}
	return nil
}

// fromObject writes an object in the language of the option.
func fromObject(v cty.Value) (string, error) {
	attrs, err := attributes(v)
	if attrs["dest"] == "" {
		delete(attrs, "dest")
	}
	return option.Join(attrs), err
}

// attributes are those of an object, as text.
func attributes(v cty.Value) (map[string]string, error) {
	if !v.Type().IsObjectType() && !v.Type().IsMapType() {
		return nil, fmt.Errorf("a string or an object is needed, not %s", v.Type().FriendlyName())
	}
	attrs := map[string]string{}
	for k, e := range v.AsValueMap() {
		if e.IsNull() {
			continue
		}
		if t := e.Type(); t.IsTupleType() || t.IsListType() { // the keys of an SSH agent
			var list []string
			for it := e.ElementIterator(); it.Next(); {
				_, item := it.Element()
				text, err := convert.Convert(item, cty.String)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", k, err)
				}
				list = append(list, text.AsString())
			}
			attrs[k] = strings.Join(list, ",")
			continue
		}
		text, err := convert.Convert(e, cty.String)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", k, err)
		}
		attrs[k] = text.AsString()
	}
	return attrs, nil
}

// agents are values of --ssh.
type agents specs

// FromCtyValue takes a list of strings and objects.
func (s *agents) FromCtyValue(in cty.Value, path cty.Path) error {
	return (*specs)(s).from(in, path, func(v cty.Value) (string, error) {
		attrs, err := attributes(v)
		if paths := attrs["paths"]; paths != "" {
			return attrs["id"] + "=" + paths, err
		}
		return attrs["id"], err
	})
}

// ToCtyValue is what other expressions see.
func (s agents) ToCtyValue() cty.Value { return specs(s).ToCtyValue() }

// ToCtyValue is what other expressions see.
func (s specs) ToCtyValue() cty.Value {
	if len(s) == 0 {
		return cty.ListValEmpty(cty.String)
	}
	list := make([]cty.Value, len(s))
	for i, v := range s {
		list[i] = cty.StringVal(v)
	}
	return cty.ListVal(list)
}

// GetEvalContexts is one for each combination of the matrix.
func (t *target) GetEvalContexts(base *hcl.EvalContext, block *hcl.Block, load func(hcl.Expression) hcl.Diagnostics) ([]*hcl.EvalContext, error) {
	content, _, diags := block.Body.PartialContent(&hcl.BodySchema{Attributes: []hcl.AttributeSchema{{Name: "matrix"}}})
	if diags.HasErrors() {
		return nil, diags
	}
	attr, ok := content.Attributes["matrix"]
	if !ok {
		return []*hcl.EvalContext{base}, nil
	}
	if diags := load(attr.Expr); diags.HasErrors() {
		return nil, diags
	}
	value, diags := attr.Expr.Value(base)
	if diags.HasErrors() {
		return nil, diags
	}
	if !value.Type().IsMapType() && !value.Type().IsObjectType() {
		return nil, fmt.Errorf("matrix must be a map")
	}
	axes := value.AsValueMap()
	combinations := []map[string]cty.Value{{}}
	for _, name := range slices.Sorted(maps.Keys(axes)) {
		if !axes[name].CanIterateElements() {
			return nil, fmt.Errorf("matrix values must be a list, and %s is none", name)
		}
		var next []map[string]cty.Value
		for _, c := range combinations {
			for _, v := range axes[name].AsValueSlice() {
				with := maps.Clone(c)
				with[name] = v
				next = append(next, with)
			}
		}
		combinations = next
	}
	var out []*hcl.EvalContext
	for _, c := range combinations {
		ctx := base.NewChild()
		ctx.Variables = c
		out = append(out, ctx)
	}
	return out, nil
}

// GetName is the block's label, or the expression that a matrix needs.
func (t *target) GetName(ctx *hcl.EvalContext, block *hcl.Block, load func(hcl.Expression) hcl.Diagnostics) (string, error) {
	content, _, diags := block.Body.PartialContent(&hcl.BodySchema{Attributes: []hcl.AttributeSchema{{Name: "name"}, {Name: "matrix"}}})
	if diags.HasErrors() {
		return "", diags
	}
	attr, ok := content.Attributes["name"]
	if !ok {
		return block.Labels[0], nil
	}
	if _, ok := content.Attributes["matrix"]; !ok {
		return "", fmt.Errorf("name requires matrix")
	}
	if diags := load(attr.Expr); diags.HasErrors() {
		return "", diags
	}
	value, diags := attr.Expr.Value(ctx)
	if diags.HasErrors() {
		return "", diags
	}
	text, err := convert.Convert(value, cty.String)
	if err != nil {
		return "", err
	}
	return text.AsString(), nil
}

// GetEvalContexts is the one that there is: a group has no matrix.
func (g *group) GetEvalContexts(base *hcl.EvalContext, block *hcl.Block, _ func(hcl.Expression) hcl.Diagnostics) ([]*hcl.EvalContext, error) {
	content, _, diags := block.Body.PartialContent(&hcl.BodySchema{Attributes: []hcl.AttributeSchema{{Name: "matrix"}, {Name: "name"}}})
	if diags.HasErrors() {
		return nil, diags
	}
	for name := range content.Attributes {
		return nil, fmt.Errorf("%s is not supported for groups", name)
	}
	return []*hcl.EvalContext{base}, nil
}

// GetName is the block's label.
func (g *group) GetName(_ *hcl.EvalContext, block *hcl.Block, _ func(hcl.Expression) hcl.Diagnostics) (string, error) {
	return block.Labels[0], nil
}

// MarshalJSON writes the target as it may stand in a file: what would be an expression
// there is escaped, and options are objects.
func (t *target) MarshalJSON() ([]byte, error) {
	type plain target
	c := plain(*t)
	c.Annotations = escaped(t.Annotations)
	c.Args, c.Labels, c.ExtraHosts = escapedMap(t.Args), escapedMap(t.Labels), escapedMap(t.ExtraHosts)
	if t.DockerfileInline != nil {
		text := escape(*t.DockerfileInline)
		c.DockerfileInline = &text
	}
	data, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, err
	}
	for key, objects := range t.objects() {
		list, err := objects()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		if _, said := m[key]; !said {
			continue
		}
		if m[key], err = json.Marshal(list); err != nil {
			return nil, err
		}
	}
	return inOrder(m)
}

// inOrder writes an object with its keys in the order of the fields of target.
func inOrder(m map[string]json.RawMessage) ([]byte, error) {
	var b bytes.Buffer
	for f := range reflect.TypeFor[target]().Fields() {
		key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		value, said := m[key]
		if !said {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		_, _ = fmt.Fprintf(&b, "%q:%s", key, value)
	}
	return []byte("{" + b.String() + "}"), nil
}

// objects are the options that are written as such.
func (t *target) objects() map[string]func() (any, error) {
	return map[string]func() (any, error){
		"output":     func() (any, error) { return option.Outputs(t.Outputs) },
		"cache-from": func() (any, error) { return option.Caches(t.CacheFrom) },
		"cache-to":   func() (any, error) { return option.Caches(t.CacheTo) },
		"secret":     func() (any, error) { return option.Secrets(t.Secrets) },
		"ssh":        func() (any, error) { return option.SSHs(t.SSH) },
		"attest": func() (any, error) {
			var list []map[string]any
			for _, a := range t.Attest {
				kind, disabled, attrs, err := option.Attest(a)
				if err != nil {
					return nil, err
				}
				m := map[string]any{"type": kind}
				if disabled {
					m["disabled"] = true
				}
				for k, v := range attrs {
					m[k] = v
				}
				list = append(list, m)
			}
			return list, nil
		},
	}
}

func escape(s string) string {
	return strings.NewReplacer("${", "$${", "%{", "%%{").Replace(s)
}

func escaped(list []string) []string {
	out := slices.Clone(list)
	for i := range out {
		out[i] = escape(out[i])
	}
	return out
}

func escapedMap(m map[string]*string) map[string]*string {
	out := maps.Clone(m)
	for k, v := range out {
		if v != nil {
			s := escape(*v)
			out[k] = &s
		}
	}
	return out
}
