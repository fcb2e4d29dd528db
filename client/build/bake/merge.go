package bake

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/cli/opts"
	"github.com/docker/go-units"

	"github.com/cleatlabs/cleat/client/build/option"
	"github.com/cleatlabs/cleat/client/build/solve"
)

// Merge puts what o says over what t says: lists of one meaning are replaced, those that
// things are added to are added to. The parser calls it for blocks of one name.
func (t *target) Merge(o *target) {
	t.places.merge(o)
	over := func(to **string, from *string) {
		if from != nil {
			*to = from
		}
	}
	over(&t.Context, o.Context)
	over(&t.Dockerfile, o.Dockerfile)
	over(&t.DockerfileInline, o.DockerfileInline)
	over(&t.Target, o.Target)
	over(&t.Call, o.Call)
	over(&t.Network, o.Network)
	over(&t.ShmSize, o.ShmSize)
	if o.Pull != nil {
		t.Pull = o.Pull
	}
	if o.NoCache != nil {
		t.NoCache = o.NoCache
	}
	t.Args, t.Labels, t.ExtraHosts = mergeMap(t.Args, o.Args), mergeMap(t.Labels, o.Labels), mergeMap(t.ExtraHosts, o.ExtraHosts)
	t.Contexts, t.Resources = mergePlain(t.Contexts, o.Contexts), mergePlain(t.Resources, o.Resources)
	for _, r := range []struct {
		to   *[]string
		from []string
	}{{&t.Tags, o.Tags}, {&t.Platforms, o.Platforms}, {(*[]string)(&t.CacheTo), o.CacheTo}, {(*[]string)(&t.Outputs), o.Outputs}} {
		if r.from != nil {
			*r.to = slices.Clone(r.from)
		}
	}
	t.Annotations = slices.Concat(t.Annotations, o.Annotations)
	t.Attest = slices.Concat(t.Attest, o.Attest)
	t.CacheFrom = slices.Concat(t.CacheFrom, o.CacheFrom)
	t.Secrets = slices.Concat(t.Secrets, o.Secrets)
	t.SSH = slices.Concat(t.SSH, o.SSH)
	t.NoCacheFilter = slices.Concat(t.NoCacheFilter, o.NoCacheFilter)
	t.Ulimits = slices.Concat(t.Ulimits, o.Ulimits)
	t.Entitlements = slices.Concat(t.Entitlements, o.Entitlements)
	t.Policy = slices.Concat(t.Policy, o.Policy)
	t.Inherits = slices.Concat(t.Inherits, o.Inherits)
	if o.Description != "" {
		t.Description = o.Description
	}
}

func mergeMap(to, from map[string]*string) map[string]*string {
	out := maps.Clone(to)
	for k, v := range from {
		if v == nil {
			continue // null leaves it as it is
		}
		if out == nil {
			out = map[string]*string{}
		}
		out[k] = v
	}
	return out
}

func mergePlain(to, from map[string]string) map[string]string {
	out := maps.Clone(to)
	if out == nil && len(from) > 0 {
		out = map[string]string{}
	}
	maps.Copy(out, from)
	return out
}

// tidy leaves out what is said twice.
func (t *target) tidy() {
	for _, list := range []*[]string{&t.Annotations, &t.Tags, &t.Platforms, &t.NoCacheFilter, &t.Ulimits, (*[]string)(&t.CacheFrom), (*[]string)(&t.CacheTo), (*[]string)(&t.Outputs), (*[]string)(&t.Policy)} {
		*list = slices.DeleteFunc(option.Unique(*list), func(s string) bool { return s == "" })
	}
	t.Secrets = lastOf(t.Secrets, func(s string) string { return idOf(option.Secrets([]string{s})) })
	t.SSH = agents(lastOf(specs(t.SSH), func(s string) string { id, _, _ := strings.Cut(s, "="); return id }))
	t.Attest = lastOf(t.Attest, func(s string) string { kind, _, _, _ := option.Attest(s); return kind })
	if t.Network != nil && *t.Network == "host" {
		t.Entitlements = append(t.Entitlements, "network.host")
	}
	t.Entitlements = option.Unique(t.Entitlements)
	maps.DeleteFunc(t.Contexts, func(_, v string) bool { return v == "" })
	if len(t.Contexts) == 0 {
		t.Contexts = nil
	}
}

func idOf(list []option.Secret, err error) string {
	if err != nil || len(list) == 0 {
		return ""
	}
	return list[0].ID
}

// lastOf leaves of the values with one id the last, in the place of the first.
func lastOf(list specs, id func(string) string) specs {
	at := map[string]int{}
	var out specs
	for _, s := range list {
		k := id(s)
		if i, ok := at[k]; ok && k != "" {
			out[i] = s
			continue
		}
		at[k] = len(out)
		out = append(out, s)
	}
	return out
}

// override is a value that --set gives.
type override struct {
	text   string // as given
	key    string
	sub    string // the name in a map
	value  string
	append bool
	first  bool // of its key for the target, so that it replaces what the files say
}

// aliases are other names of keys.
var aliases = map[string]string{
	"annotation": "annotations", "args": "arg", "entitlement": "entitlements", "extra-host": "extra-hosts", "label": "labels", "platform": "platforms",
	"resource": "resources", "tag": "tags", "ulimit": "ulimits", "secrets": "secret",
}

// overrides sorts the values of --set by the targets that they are for.
func (f *file) overrides(set []string) (map[string][]override, error) {
	out := map[string][]override{}
	seen := map[string]bool{}
	for _, text := range set {
		left, value, given := strings.Cut(text, "=")
		o := override{text: text, value: value, append: strings.HasSuffix(left, "+")}
		parts := strings.SplitN(strings.TrimSuffix(left, "+"), ".", 3)
		if len(parts) < 2 {
			return nil, fmt.Errorf("invalid override key %s, expected target.name", left)
		}
		o.key = parts[1]
		if long, ok := aliases[o.key]; ok {
			o.key = long
		}
		if len(parts) == 3 {
			o.sub = parts[2]
		}
		if !given {
			env, ok := lookupEnv(o.sub)
			if o.key != "arg" {
				return nil, fmt.Errorf("invalid override %s, expected target.name=value", text)
			}
			if !ok {
				continue
			}
			o.value = env
		}
		matched := false
		for _, t := range f.Targets {
			if ok, err := path.Match(parts[0], t.Name); err != nil {
				return nil, fmt.Errorf("could not match targets with '%s': %w", parts[0], err)
			} else if !ok {
				continue
			}
			matched = true
			o.first = !seen[t.Name+"\x00"+o.key]
			seen[t.Name+"\x00"+o.key] = true
			out[t.Name] = append(out[t.Name], o)
		}
		if !matched {
			return nil, fmt.Errorf("could not find any target matching '%s'", parts[0])
		}
	}
	return out, nil
}

// apply changes t.
func (o override) apply(t *target) error {
	lists := map[string]*[]string{
		"tags": &t.Tags, "platforms": &t.Platforms, "no-cache-filter": &t.NoCacheFilter, "ulimits": &t.Ulimits, "entitlements": &t.Entitlements,
		"annotations": &t.Annotations, "cache-from": (*[]string)(&t.CacheFrom), "cache-to": (*[]string)(&t.CacheTo), "output": (*[]string)(&t.Outputs),
		"secret": (*[]string)(&t.Secrets), "ssh": (*[]string)(&t.SSH), "attest": (*[]string)(&t.Attest),
	}
	if list, ok := lists[o.key]; ok {
		return o.list(list)
	}
	if o.append {
		return fmt.Errorf("%s is no list that something could be added to", o.key)
	}
	if single, ok := map[string]**string{
		"context": &t.Context, "dockerfile": &t.Dockerfile, "target": &t.Target, "call": &t.Call, "shm-size": &t.ShmSize, "network": &t.Network,
	}[o.key]; ok {
		if o.sub != "" {
			return fmt.Errorf("%s does not support subkeys", o.key)
		}
		*single = pointer(o.value)
		return nil
	}
	switch o.key {
	case "arg", "labels", "extra-hosts", "contexts", "resources":
		return o.entry(t)
	case "pull", "no-cache", "push", "load":
		on, err := strconv.ParseBool(o.value)
		if err != nil {
			return fmt.Errorf("invalid value %s for boolean key %s", o.value, o.key)
		}
		switch o.key {
		case "pull":
			t.Pull = &on
		case "no-cache":
			t.NoCache = &on
		case "push":
			t.Outputs = pushed(t.Outputs, on)
		case "load":
			t.Outputs = loaded(t.Outputs, on)
		}
		return nil
	}
	return fmt.Errorf("unknown key: %s", o.key)
}

// given is what overrides say of paths and rights.
func given(overrides map[string][]override) (*solve.Target, error) {
	var t target
	for _, list := range overrides {
		for _, o := range list {
			switch o.key {
			case "cache-from", "cache-to", "output", "secret", "ssh", "entitlements":
				o.append = true
				if err := o.apply(&t); err != nil {
					return nil, fmt.Errorf("invalid override %s: %w", o.text, err)
				}
			}
		}
	}
	out := &solve.Target{Allow: t.Entitlements}
	return out, t.parse(out)
}

func (o override) list(list *[]string) error {
	if o.sub != "" {
		return fmt.Errorf("%s does not support subkeys", o.key)
	}
	// Annotations, attestations and rights are added to those of the files in any case.
	adds := o.key == "annotations" || o.key == "attest" || o.key == "entitlements"
	switch {
	case o.value == "" && !o.append:
		*list = []string{}
	case o.append || adds || !o.first:
		*list = append(slices.Clone(*list), o.value)
	default:
		*list = []string{o.value}
	}
	return nil
}

func (o override) entry(t *target) error {
	if o.sub == "" {
		return fmt.Errorf("%s requires name", o.key)
	}
	switch one := map[string]*string{o.sub: &o.value}; o.key {
	case "arg":
		t.Args = mergeMap(t.Args, one)
	case "labels":
		t.Labels = mergeMap(t.Labels, one)
	case "extra-hosts":
		t.ExtraHosts = mergeMap(t.ExtraHosts, one)
	case "contexts":
		t.Contexts = mergePlain(t.Contexts, map[string]string{o.sub: o.value})
	case "resources":
		t.Resources = mergePlain(t.Resources, map[string]string{o.sub: o.value})
	}
	return nil
}

// pushed makes the images of a list of outputs go to their registry, or not. Where there is no output but docker's, an
// image is one more; what a target puts elsewhere, it puts nowhere else.
func pushed(list specs, on bool) (out specs) {
	add := on
	for _, s := range list {
		parsed, err := option.Outputs([]string{s})
		if err != nil || len(parsed) != 1 { // it is told later
			out = append(out, s)
			continue
		}
		switch o := parsed[0]; o.Type {
		case "docker":
			out = append(out, s)
			continue
		case "image":
			attrs := maps.Clone(o.Attrs)
			attrs["type"], attrs["push"] = o.Type, strconv.FormatBool(on)
			if o.Dest != "" {
				attrs["dest"] = o.Dest
			}
			out = append(out, option.Join(attrs))
		case "registry":
			if on {
				out = append(out, s)
			}
		default:
			out = append(out, s)
		}
		add = false
	}
	if add {
		out = append(out, "type=image,push=true")
	}
	return out
}

// loaded makes the engine's store an output, unless there is one that is no image.
func loaded(list specs, on bool) specs {
	if !on {
		return list
	}
	parsed, err := option.Outputs(list)
	if err != nil { // it is told later
		return list
	}
	for _, o := range parsed {
		if !slices.Contains([]string{"docker", "image", "registry", "oci"}, o.Type) || o.Type == "docker" && o.Dest == "" {
			return list
		}
	}
	return append(slices.Clone(list), "type=docker")
}

// build is the target as the engine is asked for it.
func (t *target) build(name string) (*solve.Target, error) {
	if len(t.Policy) > 0 {
		return nil, errors.New("policy is not supported: rules for sources are given by EXPERIMENTAL_BUILDKIT_SOURCE_POLICY")
	}
	out := &solve.Target{
		Name: name, Context: strings.TrimPrefix(*t.Context, "cwd://"), Tags: t.Tags, NoCacheFilter: t.NoCacheFilter, Ulimits: t.Ulimits, Allow: t.Entitlements,
		Links: map[string]string{}, Contexts: map[string]string{},
	}
	for k, v := range t.Contexts {
		if other, ok := strings.CutPrefix(v, "target:"); ok {
			out.Links[k] = other
		} else {
			out.Contexts[k] = strings.TrimPrefix(v, "cwd://")
		}
	}
	if out.Context == "" {
		out.Context = "."
	}
	if t.DockerfileInline != nil {
		out.DockerfileInline = *t.DockerfileInline
	} else if err := t.placeDockerfile(out); err != nil {
		return nil, err
	}
	out.Stage, out.Network = value(t.Target), value(t.Network)
	out.NoCache, out.Pull = t.NoCache != nil && *t.NoCache, t.Pull != nil && *t.Pull
	out.Args, out.Labels = values(t.Args), values(t.Labels)
	if s := value(t.ShmSize); s != "" {
		var m opts.MemBytes
		if err := m.Set(s); err != nil {
			return nil, fmt.Errorf("invalid shm-size %q: %w", s, err)
		}
		out.ShmSize = m.Value()
	}
	for host, addr := range t.ExtraHosts {
		out.Hosts = append(out.Hosts, host+"="+value(addr))
	}
	slices.Sort(out.Hosts)
	for _, u := range t.Ulimits {
		if _, err := units.ParseUlimit(u); err != nil {
			return nil, err
		}
	}
	if err := t.parse(out); err != nil {
		return nil, err
	}
	if out.Deletes() {
		out.Allow = append(out.Allow, solve.AllowLocalDelete) // which the user is asked for
	}
	return out, nil
}

// placeDockerfile says where the Dockerfile is: in the context, unless it says that it is not.
func (t *target) placeDockerfile(out *solve.Target) (err error) {
	path, here := strings.CutPrefix(*t.Dockerfile, "cwd://")
	out.Dockerfile = path
	switch {
	case here:
		out.Dockerfile, err = filepath.Abs(path) // a relative one would be looked for in a context that is fetched
	case !filepath.IsAbs(path) && !solve.IsRemote(out.Context) && out.Context != "-":
		out.Dockerfile = filepath.Join(out.Context, path)
	}
	return err
}

// parse reads the options that have a language of their own.
func (t *target) parse(out *solve.Target) (err error) {
	var limits []string
	for k, v := range t.Resources {
		limits = append(limits, k+"="+v)
	}
	for _, step := range []func() error{
		func() (e error) { out.Platforms, e = option.Platforms(t.Platforms); return },
		func() (e error) { out.Outputs, e = option.Outputs(t.Outputs); return },
		func() (e error) { out.CacheFrom, e = option.Caches(t.CacheFrom); return },
		func() (e error) { out.CacheTo, e = option.Caches(t.CacheTo); return },
		func() (e error) { out.Secrets, e = option.Secrets(t.Secrets); return },
		func() (e error) { out.SSH, e = option.SSHs(t.SSH); return },
		func() (e error) { out.Attests, e = option.Attests(t.Attest, "", ""); return },
		func() (e error) { out.Annotations, e = option.Annotations(t.Annotations); return },
		func() (e error) { out.Resources, e = option.Resources(limits); return },
		func() (e error) { out.Call, e = option.Calls(value(t.Call)); return },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func value(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}

func values(m map[string]*string) map[string]string {
	out := map[string]string{}
	for k, v := range m {
		if v != nil {
			out[k] = *v
		}
	}
	return out
}
