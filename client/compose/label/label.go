// Package label holds Docker's labels of what belongs to a Compose project, and the hashes
// that tell whether it has to be made anew. They are an interface: what docker compose
// made is found by them, and the other way round.
package label

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/opencontainers/go-digest"
)

// The keys.
const (
	Project     = "com.docker.compose.project"
	Service     = "com.docker.compose.service"
	Version     = "com.docker.compose.version"
	OneOff      = "com.docker.compose.oneoff"
	Slug        = "com.docker.compose.slug" // of a container of `run`
	Number      = "com.docker.compose.container-number"
	ConfigHash  = "com.docker.compose.config-hash"
	Image       = "com.docker.compose.image" // the image's id
	DependsOn   = "com.docker.compose.depends_on"
	WorkingDir  = "com.docker.compose.project.working_dir"
	ConfigFiles = "com.docker.compose.project.config_files"
	EnvFiles    = "com.docker.compose.project.environment_file"
	Replace     = "com.docker.compose.replace"
	Network     = "com.docker.compose.network"
	Volume      = "com.docker.compose.volume"
)

// Compatible is the version of docker compose whose rules these are.
const Compatible = "2.40.3"

// ServiceHash changes when a service's containers have to be made anew. How many there
// are, how the image is built or pulled and what the service waits for do not count.
func ServiceHash(s types.ServiceConfig) (string, error) {
	s.Build, s.PullPolicy, s.Scale, s.DependsOn, s.Profiles = nil, "", nil, nil, nil
	if s.Deploy == nil {
		s.Deploy = &types.DeployConfig{}
	} else {
		deploy := *s.Deploy
		s.Deploy = &deploy
	}
	s.Deploy.Replicas = nil
	return hash(s)
}

// NetworkHash and VolumeHash do so for networks and volumes.
func NetworkHash(n types.NetworkConfig) (string, error) {
	if n.Driver == "default" {
		n.Driver = ""
	}
	return hash(n)
}

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

// Dependencies is the value of [DependsOn]: "db:service_healthy:false,…".
func Dependencies(d types.DependsOnConfig) string {
	parts := make([]string, 0, len(d))
	for name, on := range d {
		parts = append(parts, fmt.Sprintf("%s:%s:%t", name, on.Condition, on.Restart))
	}
	slices.Sort(parts)
	return strings.Join(parts, ",")
}

// Dependency is an entry of [DependsOn].
type Dependency struct {
	Service, Condition string
	Restart            bool
}

// ParseDependencies reads the label of a container whose project is not at hand. What
// cannot be read is left out.
func ParseDependencies(value string) []Dependency {
	var found []Dependency
	for part := range strings.SplitSeq(value, ",") {
		fields := strings.Split(part, ":")
		if fields[0] == "" {
			continue
		}
		d := Dependency{Service: fields[0], Condition: types.ServiceConditionStarted}
		if len(fields) > 1 && fields[1] != "" {
			d.Condition = fields[1]
		}
		d.Restart = len(fields) > 2 && fields[2] == "true"
		found = append(found, d)
	}
	return found
}
