package spec

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/compose-spec/compose-go/v2/types"
)

// DefaultPlatform is the variable that says which platform is meant where a service does not.
const DefaultPlatform = "DOCKER_DEFAULT_PLATFORM"

// Platform is the platform that something of a project runs on, by what the file says of it; "" is the engine's own.
func Platform(p *types.Project, said string) string {
	return cmp.Or(said, p.Environment[DefaultPlatform])
}

// Platforms settles for which platforms the services are built: for those of their build section, or the one that they
// run on, which DOCKER_DEFAULT_PLATFORM says where the file does not. What is built to be run here is for one: of
// several the builder chooses. As docker compose has it, the platform is a part of such a service's configuration.
func Platforms(p *types.Project, one bool) error {
	for name, s := range p.Services {
		if s.Build == nil {
			continue
		}
		build := *s.Build
		wanted := Platform(p, s.Platform)
		switch {
		case wanted == "" || len(build.Platforms) == 0 || slices.Contains(build.Platforms, wanted):
		case s.Platform == "":
			return fmt.Errorf("service %q build.platforms does not support value set by %s: %s", name, DefaultPlatform, wanted)
		default:
			return fmt.Errorf("service %q build configuration does not support platform: %s", name, wanted)
		}
		switch {
		case wanted != "" && (one || len(build.Platforms) == 0):
			build.Platforms = []string{wanted}
		case one && len(build.Platforms) > 1:
			build.Platforms = nil
		}
		s.Platform, s.Build = wanted, &build
		p.Services[name] = s
	}
	return nil
}
