package bake

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/consts"
	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/schema"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/docker/cli/opts"
	"go.yaml.in/yaml/v3"

	"github.com/cleatlabs/cleat/client/build/option"
)

// isCompose says whether a file is a compose file, by its name or, if that says nothing,
// by its content.
func (s source) isCompose() bool {
	name := strings.ToLower(s.name)
	switch {
	case strings.HasSuffix(name, ".yml"), strings.HasSuffix(name, ".yaml"):
		return true
	case strings.HasSuffix(name, ".json"), strings.HasSuffix(name, ".hcl"):
		return false
	}
	var m struct{ Services map[string]any }
	return yaml.Unmarshal(s.data, &m) == nil && len(m.Services) > 0
}

// readCompose makes a target of every service that is built.
func readCompose(sources []source, vars map[string]string) (*file, error) {
	env, err := composeEnv(vars)
	if err != nil {
		return nil, err
	}
	details := types.ConfigDetails{Environment: env}
	for _, s := range sources {
		details.ConfigFiles = append(details.ConfigFiles, types.ConfigFile{Filename: s.name, Content: s.data})
	}
	project, err := loadProject(details)
	if err != nil {
		return nil, err
	}
	all := &group{Name: "default"}
	f := &file{Groups: []*group{all}}
	for _, name := range slices.Sorted(maps.Keys(project.Services)) {
		service := project.Services[name]
		if service.Build == nil {
			continue
		}
		t, err := fromService(project, service)
		if err != nil {
			return nil, fmt.Errorf("service %s: %w", name, err)
		}
		all.Targets = append(all.Targets, t.Name)
		f.Targets = append(f.Targets, t)
	}
	return f, nil
}

// loadProject reads of the files only what builds are made of, so that nothing else that a
// compose file may have stands in the way.
func loadProject(details types.ConfigDetails) (*types.Project, error) {
	ctx := context.Background()
	name := "bake"
	if n := details.Environment[consts.ComposeProjectName]; n != "" {
		name = n
	}
	raw, err := loader.LoadModelWithContext(ctx, details, func(o *loader.Options) {
		o.SetProjectName(name, false)
		o.SkipNormalization, o.SkipValidation = true, true
	})
	if err != nil {
		return nil, err
	}
	services := map[string]any{}
	all, _ := raw["services"].(map[string]any)
	for name, s := range all {
		kept := map[string]any{}
		fields, _ := s.(map[string]any)
		for _, key := range []string{"image", "build", "environment", "env_file"} {
			if v, ok := fields[key]; ok {
				kept[key] = v
			}
		}
		services[name] = kept
	}
	if len(services) == 0 {
		return nil, errors.New("there are no services in it")
	}
	model := map[string]any{"services": services}
	if v, ok := raw["secrets"]; ok {
		model["secrets"] = v
	}
	if err := schema.Validate(model); err != nil {
		return nil, err
	}
	return loader.ModelToProject(model, loader.ToOptions(&details, []func(*loader.Options){func(o *loader.Options) {
		o.SkipNormalization = true
		o.Profiles = []string{"*"}
	}}), details)
}

func composeEnv(vars map[string]string) (map[string]string, error) {
	env := map[string]string{}
	if usesEnv() {
		for _, s := range os.Environ() {
			k, v, _ := strings.Cut(s, "=")
			env[k] = v
		}
	}
	data, err := os.ReadFile(".env")
	if err == nil {
		more, err := dotenv.UnmarshalBytesWithLookup(data, func(k string) (string, bool) { v, ok := env[k]; return v, ok })
		if err != nil {
			return nil, fmt.Errorf(".env: %w", err)
		}
		for k, v := range more {
			if _, set := env[k]; !set {
				env[k] = v
			}
		}
	}
	maps.Copy(env, vars)
	return env, nil
}

// fromService makes a target of a service's build.
func fromService(project *types.Project, s types.ServiceConfig) (*target, error) {
	b := s.Build
	t := &target{
		Name: strings.ReplaceAll(s.Name, ".", "_"), Tags: b.Tags, Platforms: b.Platforms, CacheFrom: specs(b.CacheFrom), CacheTo: specs(b.CacheTo),
		Context: said(b.Context), Dockerfile: said(b.Dockerfile), DockerfileInline: said(b.DockerfileInline), Network: said(b.Network), Target: said(b.Target),
		Entitlements: b.Entitlements, Contexts: namedContexts(b.AdditionalContexts), Ulimits: composeUlimits(b.Ulimits), Args: composeArgs(project, s),
		Labels: map[string]*string{}, ExtraHosts: map[string]*string{},
	}
	if err := checkName(t.Name); err != nil {
		return nil, err
	}
	if b.NoCache {
		t.NoCache = pointer(true)
	}
	if b.Pull {
		t.Pull = pointer(true)
	}
	if b.ShmSize > 0 {
		size := opts.MemBytes(b.ShmSize)
		t.ShmSize = pointer(size.String())
	}
	for host, addrs := range b.ExtraHosts {
		t.ExtraHosts[host] = pointer(strings.Join(addrs, ","))
	}
	for k, v := range b.Labels {
		t.Labels[k] = pointer(v)
	}
	for _, key := range b.SSH {
		one := key.ID
		if key.Path != "" {
			one += "=" + key.Path
		}
		t.SSH = append(t.SSH, one)
	}
	slices.Sort(t.SSH)
	for _, sec := range b.Secrets {
		one, err := composeSecret(sec, project.Secrets[sec.Source])
		if err != nil {
			return nil, err
		}
		t.Secrets = append(t.Secrets, one)
	}
	for _, short := range [][2]string{{"sbom", b.SBOM}, {"provenance", b.Provenance}} {
		if short[1] != "" {
			t.Attest = append(t.Attest, option.ShortAttest(short[0], short[1]))
		}
	}
	if err := t.extend(b.Extensions["x-bake"]); err != nil {
		return nil, err
	}
	if len(t.Tags) == 0 && s.Image != "" {
		t.Tags = []string{s.Image}
	}
	return t, nil
}

// composeUlimits are limits as NAME=SOFT:HARD, by their names.
func composeUlimits(limits map[string]*types.UlimitsConfig) (out []string) {
	for _, name := range slices.Sorted(maps.Keys(limits)) {
		u := limits[name]
		soft, hard := u.Soft, u.Hard
		if u.Single != 0 {
			soft, hard = u.Single, u.Single
		}
		out = append(out, fmt.Sprintf("%s=%d:%d", name, soft, hard))
	}
	return out
}

// composeArgs are a build's arguments; those without a value have that of the service's environment, or of the project's.
func composeArgs(project *types.Project, s types.ServiceConfig) map[string]*string {
	args := s.Build.Args.Resolve(func(k string) (string, bool) {
		if v, ok := s.Environment[k]; ok && v != nil {
			return *v, true
		}
		v, ok := project.Environment[k]
		return v, ok
	})
	return mergeMap(map[string]*string{}, args)
}

func said(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// namedContexts makes links of the contexts that are services.
func namedContexts(m map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range m {
		for _, prefix := range []string{"service:", "target:"} {
			if name, ok := strings.CutPrefix(v, prefix); ok {
				v = "target:" + strings.ReplaceAll(name, ".", "_")
			}
		}
		out[k] = v
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

func composeSecret(use types.ServiceSecretConfig, def types.SecretConfig) (string, error) {
	if bool(def.External) {
		return "", fmt.Errorf("unsupported external secret %s", use.Source)
	}
	attrs := map[string]string{"id": use.Source}
	if def.File != "" {
		attrs["src"] = def.File
	}
	if def.Environment != "" {
		attrs["env"] = def.Environment
	}
	return option.Join(attrs), nil
}

// words is a list, or a text of words.
type words []string

// UnmarshalYAML reads either.
func (w *words) UnmarshalYAML(node *yaml.Node) error {
	var list []string
	if node.Decode(&list) == nil {
		*w = list
		return nil
	}
	var text string
	err := node.Decode(&text)
	*w = strings.Fields(text)
	return err
}

// extend adds what a compose file says in x-bake.
func (t *target) extend(ext any) error {
	if ext == nil {
		return nil
	}
	var x struct {
		Tags          words             `yaml:"tags"`
		CacheFrom     words             `yaml:"cache-from"`
		CacheTo       words             `yaml:"cache-to"`
		Secrets       words             `yaml:"secret"`
		SSH           words             `yaml:"ssh"`
		Platforms     words             `yaml:"platforms"`
		Outputs       words             `yaml:"output"`
		Pull          *bool             `yaml:"pull"`
		NoCache       *bool             `yaml:"no-cache"`
		NoCacheFilter words             `yaml:"no-cache-filter"`
		Contexts      map[string]string `yaml:"contexts"`
	}
	data, err := yaml.Marshal(ext)
	if err == nil {
		err = yaml.Unmarshal(data, &x)
	}
	if err != nil {
		return fmt.Errorf("x-bake: %w", err)
	}
	for _, l := range []struct {
		to   *[]string
		from words
	}{
		{&t.Tags, x.Tags}, {(*[]string)(&t.CacheFrom), x.CacheFrom}, {(*[]string)(&t.CacheTo), x.CacheTo}, {(*[]string)(&t.Secrets), x.Secrets},
		{(*[]string)(&t.SSH), x.SSH}, {&t.Platforms, x.Platforms}, {(*[]string)(&t.Outputs), x.Outputs}, {&t.NoCacheFilter, x.NoCacheFilter},
	} {
		if len(l.from) > 0 {
			*l.to = option.Unique(slices.Concat(*l.to, l.from))
		}
	}
	if x.Pull != nil {
		t.Pull = x.Pull
	}
	if x.NoCache != nil {
		t.NoCache = x.NoCache
	}
	t.Contexts = mergePlain(namedContexts(x.Contexts), t.Contexts)
	return nil
}
