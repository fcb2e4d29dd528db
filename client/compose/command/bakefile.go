package command

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/cleatlabs/cleat/client/compose/project"
	"github.com/cleatlabs/cleat/client/compose/spec"
)

// bakeFile says in the form of bake what `build` builds.
type bakeFile struct {
	Groups  map[string]bakeGroup  `json:"group"`
	Targets map[string]bakeTarget `json:"target"`
}

type bakeGroup struct {
	Targets []string `json:"targets"`
}

// bakeTarget has its attributes in the order in which docker compose v2 writes them.
type bakeTarget struct {
	Context          string            `json:"context,omitempty"`
	Contexts         map[string]string `json:"contexts,omitempty"`
	Dockerfile       string            `json:"dockerfile,omitempty"`
	DockerfileInline string            `json:"dockerfile-inline,omitempty"`
	Args             map[string]string `json:"args,omitempty"`
	Labels           map[string]string `json:"labels,omitempty"`
	Tags             []string          `json:"tags,omitempty"`
	CacheFrom        []string          `json:"cache-from,omitempty"`
	CacheTo          []string          `json:"cache-to,omitempty"`
	Target           string            `json:"target,omitempty"`
	Secrets          []string          `json:"secret,omitempty"`
	SSH              []string          `json:"ssh,omitempty"`
	Platforms        []string          `json:"platforms,omitempty"`
	Pull             bool              `json:"pull,omitempty"`
	NoCache          bool              `json:"no-cache,omitempty"`
	Network          string            `json:"network,omitempty"`
	NoCacheFilter    []string          `json:"no-cache-filter,omitempty"`
	ShmSize          types.UnitBytes   `json:"shm-size,omitempty"`
	Ulimits          []string          `json:"ulimits,omitempty"`
	Call             string            `json:"call,omitempty"`
	Entitlements     []string          `json:"entitlements,omitempty"`
	ExtraHosts       map[string]string `json:"extra-hosts,omitempty"`
	Outputs          []string          `json:"output,omitempty"`
	Attest           []string          `json:"attest,omitempty"`
}

// bakeFile describes the builds of a project's services, and which of them are to be built. Proxies are arguments that
// they have unless the project says otherwise.
func (b building) bakeFile(p *types.Project, services []string, separator string, proxies types.MappingWithEquals) (string, error) {
	file := bakeFile{Groups: map[string]bakeGroup{}, Targets: map[string]bakeTarget{}}
	targets, group := targetNames(p), bakeGroup{}
	for _, name := range services {
		group.Targets = append(group.Targets, targets[name])
	}
	file.Groups["default"] = group
	for name, s := range p.Services {
		if s.Build == nil {
			continue
		}
		target, err := b.bakeTarget(p, s, separator, proxies)
		if err != nil {
			return "", fmt.Errorf("service %q: %w", name, err)
		}
		for key, source := range s.Build.AdditionalContexts {
			if service, ok := strings.CutPrefix(source, types.ServicePrefix); ok {
				source = "target:" + targets[service]
			}
			target.Contexts[key] = source
		}
		file.Targets[targets[name]] = target
	}
	text, err := json.MarshalIndent(file, "", "  ")
	return string(text), err
}

// targetNames are the names of services as bake can take them, each of its own.
func targetNames(p *types.Project) map[string]string {
	names, taken := map[string]string{}, map[string]bool{}
	for _, service := range project.Names(p) {
		name := strings.ReplaceAll(service, ".", "_")
		for taken[name] {
			name += "_"
		}
		names[service], taken[name] = name, true
	}
	return names
}

func (b building) bakeTarget(p *types.Project, s types.ServiceConfig, separator string, proxies types.MappingWithEquals) (bakeTarget, error) {
	c := s.Build
	secrets, err := buildSecrets(p, c)
	if err != nil {
		return bakeTarget{}, err
	}
	t := bakeTarget{
		Context: c.Context, Contexts: map[string]string{}, Dockerfile: realDirectory(dockerfilePath(c)), DockerfileInline: literal(c.DockerfileInline),
		Args: b.bakeArgs(p, c, proxies), Labels: buildLabels(p, s), Tags: append(slices.Clone(c.Tags), spec.ImageName(p, s, separator)),
		CacheFrom: c.CacheFrom, CacheTo: c.CacheTo, Target: c.Target, Secrets: secrets, SSH: b.bakeKeys(c), Platforms: c.Platforms,
		Pull: c.Pull || b.pull, NoCache: c.NoCache || b.noCache, Network: c.Network, NoCacheFilter: c.NoCacheFilter, ShmSize: c.ShmSize,
		Ulimits: bakeLimits(c), Entitlements: c.Entitlements, ExtraHosts: map[string]string{},
	}
	for host, addresses := range c.ExtraHosts {
		t.ExtraHosts[host] = strings.Join(addresses, ",")
	}
	if c.Privileged {
		t.Entitlements = append(slices.Clone(c.Entitlements), "security.insecure")
	}
	push := b.push && s.Image != ""
	switch {
	case b.check:
		t.Call = "lint"
	case len(c.Platforms) > 1:
		t.Outputs = []string{fmt.Sprintf("type=image,push=%t", push)}
	case push:
		t.Outputs = []string{"type=registry"}
	default:
		t.Outputs = []string{"type=docker"}
	}
	for _, attestation := range [][2]string{{"provenance", c.Provenance}, {"sbom", c.SBOM}} {
		switch kind, value := "type="+attestation[0], attestation[1]; value {
		case "", "false":
		case "true":
			t.Attest = append(t.Attest, kind)
		default:
			t.Attest = append(t.Attest, kind+","+value)
		}
	}
	return t, nil
}

// literal is a text in which bake replaces nothing.
func literal(text string) string { return strings.ReplaceAll(text, "${", "$${") }

// realDirectory is a file's path with no symbolic link in its directory, where that is there.
func realDirectory(file string) string {
	if !filepath.IsAbs(file) {
		return file
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(file)); err == nil {
		return filepath.Join(dir, filepath.Base(file))
	}
	return file
}

func (b building) bakeArgs(p *types.Project, c *types.BuildConfig, proxies types.MappingWithEquals) map[string]string {
	args := map[string]string{}
	all := types.MappingWithEquals{}
	for _, over := range []types.MappingWithEquals{proxies, c.Args, types.NewMappingWithEquals(b.args)} {
		all = all.OverrideBy(over)
	}
	for key, value := range all.Resolve(p.Environment.Resolve) {
		if value != nil {
			args[key] = literal(*value)
		}
	}
	return args
}

func (b building) bakeKeys(c *types.BuildConfig) (list []string) {
	for _, key := range c.SSH {
		list = append(list, key.ID+"="+key.Path)
	}
	if b.ssh != "" {
		id, path, _ := strings.Cut(b.ssh, "=")
		list = append(list, id+"="+path)
	}
	return list
}

func bakeLimits(c *types.BuildConfig) (list []string) {
	for _, key := range slices.Sorted(maps.Keys(c.Ulimits)) {
		if u := c.Ulimits[key]; u.Single > 0 {
			list = append(list, fmt.Sprintf("%s=%d", key, u.Single))
		} else {
			list = append(list, fmt.Sprintf("%s=%d:%d", key, u.Soft, u.Hard))
		}
	}
	return list
}
