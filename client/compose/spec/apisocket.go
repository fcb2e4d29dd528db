package spec

import (
	"maps"
	"slices"

	"github.com/compose-spec/compose-go/v2/types"
)

// Where a service with use_api_socket finds the engine, and what its clients read of registries.
const (
	apiSocket      = "/var/run/docker.sock"
	apiConfig      = "/run/secrets/docker"
	apiCredentials = "#apisocket" // no name that a file can give to a config
)

// UsesAPISocket says whether a service, or what runs before its start, is to reach the engine.
func UsesAPISocket(p *types.Project) bool {
	for _, s := range p.Services {
		if s.UseAPISocket || slices.ContainsFunc(s.PreStart, func(h types.PreStartHook) bool { return h.UseAPISocket }) {
			return true
		}
	}
	return false
}

// APISocket is the project in which those that are to reach the engine have its socket, which is a path of the engine's
// host, and a config.json with the credentials of the user.
func APISocket(p *types.Project, socket, config string) (*types.Project, error) {
	p, err := p.WithServicesTransform(func(_ string, s types.ServiceConfig) (types.ServiceConfig, error) {
		s.ContainerSpec = reaching(s.ContainerSpec, socket)
		for i := range s.PreStart {
			s.PreStart[i].ContainerSpec = reaching(s.PreStart[i].ContainerSpec, socket)
		}
		return s, nil
	})
	if err != nil {
		return nil, err
	}
	configs := types.Configs{apiCredentials: {Name: apiCredentials, Content: config}}
	maps.Copy(configs, p.Configs)
	p.Configs = configs
	return p, nil
}

// reaching is what runs with the socket and the credentials, of which it is told by DOCKER_CONFIG unless it has a
// directory of its own there. A socket that is missing is not made as a directory: the engine could not listen there any
// more.
func reaching(c types.ContainerSpec, socket string) types.ContainerSpec {
	if !c.UseAPISocket {
		return c
	}
	c.Volumes = append(c.Volumes, types.ServiceVolumeConfig{
		Type: types.VolumeTypeBind, Source: socket, Target: apiSocket, Bind: &types.ServiceVolumeBind{},
	})
	dir := apiConfig
	c.Environment = types.MappingWithEquals{"DOCKER_CONFIG": &dir}.OverrideBy(c.Environment)
	c.Configs = append(c.Configs, types.ServiceConfigObjConfig{Source: apiCredentials, Target: apiConfig + "/config.json"})
	return c
}
