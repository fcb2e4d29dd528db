// Package label holds Docker's labels of what belongs to a Compose project. They are an
// interface: what docker compose made is found by them, and the other way round.
package label

import (
	"fmt"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
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
