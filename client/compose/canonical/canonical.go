// Package canonical writes a Compose project as docker compose v2 writes it, to the byte:
// what `config` prints, and what the hashes are made of by which a changed service, network
// or volume is known.
//
// It promises:
//   - The same project has the same text and the same hashes as with docker compose v2, so
//     that neither makes anew what the other has made. The library that loads a project has
//     other habits, which change with its versions: the order of attributes, and which of
//     them are left out.
package canonical

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/opencontainers/go-digest"
	"go.yaml.in/yaml/v3"
)

// project is a project in the order of docker compose v2.
type project struct {
	Name       string             `yaml:"name,omitempty"`
	Services   map[string]service `yaml:"services"`
	Jobs       types.Jobs         `yaml:"jobs,omitempty"`
	Networks   types.Networks     `yaml:"networks,omitempty"`
	Volumes    types.Volumes      `yaml:"volumes,omitempty"`
	Secrets    types.Secrets      `yaml:"secrets,omitempty"`
	Configs    types.Configs      `yaml:"configs,omitempty"`
	Models     types.Models       `yaml:"models,omitempty"`
	Extensions types.Extensions   `yaml:"#extensions,inline,omitempty"`
}

func services(p *types.Project) map[string]service {
	ordered := make(map[string]service, len(p.Services))
	for name, s := range p.Services {
		ordered[name] = serviceOf(s)
	}
	return ordered
}

// YAML is the project as `config` prints it.
func YAML(p *types.Project) ([]byte, error) {
	return EncodeYAML(project{
		Name: p.Name, Services: services(p), Jobs: p.Jobs, Networks: p.Networks, Volumes: p.Volumes, Secrets: p.Secrets, Configs: p.Configs,
		Models: p.Models, Extensions: p.Extensions,
	})
}

// EncodeYAML writes a value with the indentation that `config` has.
func EncodeYAML(value any) ([]byte, error) {
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(value); err != nil {
		return nil, err
	}
	return b.Bytes(), e.Close()
}

// JSON is the project as `config --format json` prints it. There is no line end after it.
func JSON(p *types.Project) ([]byte, error) {
	m := map[string]any{"name": p.Name, "services": services(p)}
	for key, part := range map[string]struct {
		value any
		count int
	}{
		"networks": {p.Networks, len(p.Networks)}, "volumes": {p.Volumes, len(p.Volumes)}, "secrets": {p.Secrets, len(p.Secrets)},
		"configs": {p.Configs, len(p.Configs)}, "jobs": {p.Jobs, len(p.Jobs)}, "models": {p.Models, len(p.Models)},
	} {
		if part.count > 0 {
			m[key] = part.value
		}
	}
	for key, value := range p.Extensions {
		m[key] = value
	}
	return json.MarshalIndent(m, "", "  ")
}

// ServiceHash changes when a service's containers have to be made anew. How many there
// are, how the image is built or pulled and what the service waits for do not count.
// References to other services are to be resolved to containers before.
func ServiceHash(s types.ServiceConfig) (string, error) {
	s.Build, s.PullPolicy, s.PullRefreshAfter, s.Scale, s.DependsOn, s.Profiles = nil, "", "", nil, nil, nil
	if s.Deploy != nil {
		deploy := *s.Deploy
		deploy.Replicas = nil
		s.Deploy = &deploy
	}
	return hash(serviceOf(s))
}

// NetworkHash changes when a network has to be made anew; it is docker compose's, which compares it with a label.
func NetworkHash(n types.NetworkConfig) (string, error) { return hash(n) }

// VolumeHash changes when a volume has to be made anew.
func VolumeHash(v types.VolumeConfig) (string, error) {
	if v.Driver == "" {
		v.Driver = "local"
	}
	return hash(v)
}

func hash(value any) (string, error) {
	data, err := json.Marshal(value)
	if err != nil {
		return "", fmt.Errorf("hash the configuration: %w", err)
	}
	return digest.SHA256.FromBytes(data).Encoded(), nil
}
