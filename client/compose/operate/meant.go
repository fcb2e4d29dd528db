package operate

import (
	"maps"
	"slices"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/types/container"
)

// What of a project a `down` is about. Where it names services, it is what these have.

// about says whether a `down` is about a service.
func (opts DownOptions) about(service string) bool {
	return len(opts.Services) == 0 || slices.Contains(opts.Services, service)
}

// among are those services that a `down` is about.
func (opts DownOptions) among(services types.Services) types.Services {
	named := maps.Clone(services)
	maps.DeleteFunc(named, func(name string, _ types.ServiceConfig) bool { return !opts.about(name) })
	return named
}

// unclaimed are the containers that --remove-orphans adds to those of services that are named: of services that there are
// not any more, and what `run` has made and has ended.
func unclaimed(p *types.Project, services []string, list []Container) []Container {
	ended := slices.DeleteFunc(slices.Clone(list), func(c Container) bool {
		return !c.OneOff || c.Running() || c.State == container.StateCreated || slices.Contains(services, c.Service)
	})
	return append(Orphans(p, list), ended...)
}

// networks says which networks are removed, by their ids: not those of containers that stay, which could not be started
// again without. targets are the containers, of all that there are, that are taken down.
func (opts DownOptions) networks(p *types.Project, list, targets []Container) func(id string) bool {
	if len(opts.Services) > 0 {
		left, stay := networksOf(targets), networksOf(slices.DeleteFunc(slices.Clone(list), func(c Container) bool {
			return slices.ContainsFunc(targets, func(t Container) bool { return t.ID == c.ID })
		}))
		return func(id string) bool { return left[id] && !stay[id] }
	}
	kept := map[string]bool{}
	if !opts.All {
		kept = ofProfiles(p, list)
	}
	return func(id string) bool { return !kept[id] }
}

// networksOf are the ids of the networks that containers are on.
func networksOf(list []Container) map[string]bool {
	ids := map[string]bool{}
	for _, c := range list {
		if c.NetworkSettings == nil {
			continue
		}
		for _, n := range c.NetworkSettings.Networks {
			if n != nil {
				ids[n.NetworkID] = true
			}
		}
	}
	return ids
}

// volumes says which volumes are removed, by their names: where the files are at hand, those that they declare for services
// that are enabled. What is in others is nobody's to lose by that, as with docker compose.
func (opts DownOptions) volumes(p *types.Project, list []Container) func(name string) bool {
	if len(opts.Services) == 0 && (p == nil || opts.All) {
		return func(string) bool { return true }
	}
	names := map[string]bool{}
	if len(opts.Services) > 0 {
		for _, c := range OfServices(list, opts.Services) {
			for _, m := range c.Mounts {
				names[m.Name] = true
			}
		}
	}
	if p == nil {
		return func(name string) bool { return names[name] }
	}
	used := map[string]bool{} // by key
	for _, s := range opts.among(p.AllServices()) {
		for _, v := range s.Volumes {
			used[v.Source] = true
		}
	}
	for key, v := range p.Volumes {
		if len(opts.Services) == 0 || used[key] {
			names[v.Name] = true
		}
		if bool(v.External) {
			delete(names, v.Name)
		}
	}
	return func(name string) bool { return names[name] }
}
