package engine

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	api "github.com/moby/moby/api/types/container"
	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/network"
)

// link is a legacy link: another container on the default bridge, and the name by which
// this one knows it.
type link struct{ name, alias string }

// parseLink reads "name", "name:alias", or what inspect shows of them:
// "/name:/this/alias".
func parseLink(text string) (link, error) {
	name, alias, named := strings.Cut(text, ":")
	if name == "" || named && alias == "" || strings.Contains(alias, ":") {
		return link{}, failure.Invalid("bad format for links: %s", text)
	}
	if strings.HasPrefix(name, "/") && strings.HasPrefix(alias, "/") {
		alias = path.Base(alias)
	}
	name = strings.TrimPrefix(name, "/")
	if !named {
		alias = name
	}
	if !validName.MatchString(name) && len(name) < 2 || strings.ContainsAny(alias, " \t\n/") {
		return link{}, failure.Invalid("bad format for links: %s", text)
	}
	return link{name, alias}, nil
}

// checkLinks validates the links of a create request. Those of a container on a
// user-defined network belong to its endpoint.
func (cr *Creator) checkLinks(def *container.Definition) error {
	host := def.HostConfig
	if len(host.Links) == 0 {
		return nil
	}
	mode := host.NetworkMode
	switch {
	case mode.IsHost():
		return failure.Invalid("conflicting options: host type networking can't be used with links. This would result in undefined behavior")
	case mode.IsNone():
		return failure.Invalid("conflicting options: a container without a network can't be used with links")
	}
	for _, text := range host.Links {
		l, err := parseLink(text)
		if err != nil {
			return err
		}
		if mode != network.ModeBridge {
			continue
		}
		other, err := cr.containers.Find(l.name)
		if err != nil {
			return failure.Invalid("could not get container for %s: %w", l.name, err)
		}
		if other.Load().HostConfig.NetworkMode.IsHost() {
			return failure.Invalid("conflicting options: host type networking can't be used with links. This would result in undefined behavior")
		}
	}
	if mode == network.ModeBridge {
		return nil
	}
	for name, e := range def.Endpoints {
		if name == string(mode) {
			for _, text := range host.Links {
				if l, _ := parseLink(text); !slices.Contains(e.Links, l.name+":"+l.alias) {
					e.Links = append(e.Links, l.name+":"+l.alias)
				}
			}
		}
	}
	return nil
}

// neededRunning names the containers without which one cannot be started: those whose namespaces it joins, and those that
// it is linked to.
func neededRunning(containers *container.Store) func(*api.HostConfig) []string {
	return func(h *api.HostConfig) []string {
		needed := donors(h)
		if h.NetworkMode != network.ModeBridge {
			return needed
		}
		for _, text := range h.Links {
			if l, err := parseLink(text); err == nil {
				if other, err := containers.Find(l.name); err == nil {
					needed = append(needed, other.ID())
				}
			}
		}
		return needed
	}
}

// links are a container's legacy links, as lines of its hosts file and as variables of
// its environment.
func (a *attempt) links() (lines []network.HostLine, env []string, err error) {
	if a.r.HostConfig.NetworkMode != network.ModeBridge {
		return nil, nil, nil
	}
	for _, text := range a.r.HostConfig.Links {
		l, err := parseLink(text)
		if err != nil {
			return nil, nil, err
		}
		other, err := a.s.containers.Find(l.name)
		if err != nil {
			return nil, nil, failure.Conflict("cannot link to a container that is not there: %w", err)
		}
		r := other.Load()
		if !r.State.Alive() || r.State.Sandbox == nil {
			return nil, nil, failure.Conflict("Cannot link to a non running container: /%s AS /%s/%s", r.Name, a.r.Name, l.alias)
		}
		e := onBridge(r)
		if e == nil {
			return nil, nil, failure.Conflict("Cannot link to /%s, as it does not belong to the default network", r.Name)
		}
		names := []string{l.alias}
		for _, n := range []string{r.Config.Hostname, r.Name} {
			if !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
		lines = append(lines, network.HostLine{Addr: e.IP, Names: names})
		env = append(env, linkEnvironment(a.r.Name, l.alias, r, e)...)
	}
	return lines, env, nil
}

func onBridge(r *container.Record) *network.Endpoint {
	for _, e := range r.State.Sandbox.Endpoints {
		if e.NetworkName == network.ModeBridge {
			return e
		}
	}
	return nil
}

// linkEnvironment tells a container of one that it is linked to, as Docker did from its
// beginning: where its ports are, and what its environment is.
func linkEnvironment(own, alias string, r *container.Record, e *network.Endpoint) []string {
	prefix := strings.ToUpper(strings.ReplaceAll(alias, "-", "_"))
	var env []string
	add := func(name, value string) { env = append(env, prefix+"_"+name+"="+value) }
	ports := slices.SortedFunc(maps.Keys(exposedPorts(r)), func(a, b apinetwork.Port) int {
		if a.Num() != b.Num() {
			return int(a.Num()) - int(b.Num())
		}
		return strings.Compare(string(a.Proto()), string(b.Proto()))
	})
	for i, p := range ports {
		url := fmt.Sprintf("%s://%s:%d", p.Proto(), e.IP, p.Num())
		if i == 0 {
			add("PORT", url)
		}
		base := fmt.Sprintf("PORT_%d_%s", p.Num(), strings.ToUpper(string(p.Proto())))
		add(base, url)
		add(base+"_ADDR", e.IP.String())
		add(base+"_PORT", fmt.Sprint(p.Num()))
		add(base+"_PROTO", string(p.Proto()))
	}
	add("NAME", "/"+own+"/"+alias)
	for _, v := range r.Config.Env {
		if name, value, ok := strings.Cut(v, "="); ok && name != "HOME" && name != "PATH" {
			add("ENV_"+name, value)
		}
	}
	return env
}

func exposedPorts(r *container.Record) apinetwork.PortSet {
	all := apinetwork.PortSet{}
	maps.Copy(all, r.Config.ExposedPorts)
	for p := range r.HostConfig.PortBindings {
		all[p] = struct{}{}
	}
	return all
}

// shownLinks are legacy links in the words of inspect.
func shownLinks(r *container.Record, host *api.HostConfig) []string {
	var out []string
	for _, text := range host.Links {
		if l, err := parseLink(text); err == nil {
			out = append(out, fmt.Sprintf("/%s:/%s/%s", l.name, r.Name, l.alias))
		}
	}
	return out
}
