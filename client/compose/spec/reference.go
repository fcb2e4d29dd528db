package spec

import (
	"fmt"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/cleatlabs/cleat/client/compose/canonical"
)

// Resolve puts the containers of other services in the place of their names, where a
// service shares their namespaces or volumes: it is made anew once they are. others gives a
// service's container.
func Resolve(s types.ServiceConfig, others func(service string) (id string, err error)) (types.ServiceConfig, error) {
	for _, of := range []struct {
		attribute string
		mode      *string
	}{{"network_mode", &s.NetworkMode}, {"ipc", &s.Ipc}, {"pid", &s.Pid}} {
		service, ok := strings.CutPrefix(*of.mode, types.ServicePrefix)
		if !ok {
			continue
		}
		id, err := others(service)
		if err != nil {
			return s, fmt.Errorf("service %q: %s: %w", s.Name, of.attribute, err)
		}
		*of.mode = types.ContainerPrefix + id
	}
	s.VolumesFrom = slices.Clone(s.VolumesFrom)
	for i, from := range s.VolumesFrom {
		if name, ok := strings.CutPrefix(from, types.ContainerPrefix); ok {
			s.VolumesFrom[i] = name
			continue
		}
		service, mode, _ := strings.Cut(from, ":")
		id, err := others(service)
		if err != nil {
			return s, fmt.Errorf("service %q: volumes_from: %w", s.Name, err)
		}
		if mode != "" {
			id += ":" + mode
		}
		s.VolumesFrom[i] = id
	}
	return s, nil
}

// Hash is the hash of a resolved service. Whether volumes_from are read-only is not part
// of docker compose's.
func Hash(s types.ServiceConfig) (string, error) {
	s.VolumesFrom = slices.Clone(s.VolumesFrom)
	for i, from := range s.VolumesFrom {
		s.VolumesFrom[i], _, _ = strings.Cut(from, ":")
	}
	return canonical.ServiceHash(s)
}
