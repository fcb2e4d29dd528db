package spec

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/compose-spec/compose-go/v2/types"
)

// Check refuses what a project has that one engine on one machine does not do: all of it
// is named at once.
func Check(p *types.Project) error {
	var errs []error
	if len(p.Jobs) > 0 {
		errs = append(errs, unsupported("jobs"))
	}
	for _, name := range slices.Sorted(maps.Keys(p.Services)) {
		if err := refuse(p.Services[name]); err != nil {
			errs = append(errs, fmt.Errorf("service %q: %w", name, err))
		}
	}
	errs = append(errs, sharedNames(p)...)
	files := func(kind, name string, f types.FileObjectConfig) {
		for _, of := range []struct {
			attribute string
			set       bool
		}{{"driver", f.Driver != ""}, {"driver_opts", f.Driver == "" && len(f.DriverOpts) > 0}, {"template_driver", f.TemplateDriver != ""}} {
			if of.set {
				errs = append(errs, fmt.Errorf("%s %s: %w", kind, name, unsupported(of.attribute)))
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Secrets)) {
		files("secret", name, types.FileObjectConfig(p.Secrets[name]))
	}
	for _, name := range slices.Sorted(maps.Keys(p.Configs)) {
		files("config", name, types.FileObjectConfig(p.Configs[name]))
	}
	return errors.Join(errs...)
}

// Unheeded names what a project says to a cluster, and of builds what their Dockerfile has
// to say: docker compose does nothing with it, and neither do we, but the user hears so.
func Unheeded(p *types.Project) []string {
	var said []string
	for _, name := range slices.Sorted(maps.Keys(p.Services)) {
		for _, attribute := range unheeded(p.Services[name]) {
			said = append(said, fmt.Sprintf("service %q: %s has no effect on one machine", name, attribute))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Secrets)) {
		if len(p.Secrets[name].Labels) > 0 {
			said = append(said, fmt.Sprintf("secret %s: labels have no effect on one machine", name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Configs)) {
		if len(p.Configs[name].Labels) > 0 {
			said = append(said, fmt.Sprintf("config %s: labels have no effect on one machine", name))
		}
	}
	return said
}

func unheeded(s types.ServiceConfig) []string {
	var found []string
	note := func(attribute string, set bool) {
		if set {
			found = append(found, attribute)
		}
	}
	if b := s.Build; b != nil {
		for _, secret := range b.Secrets {
			note("build.secrets.uid", secret.UID != "")
			note("build.secrets.gid", secret.GID != "")
			note("build.secrets.mode", secret.Mode != nil)
		}
	}
	d := s.Deploy
	if d == nil {
		return found
	}
	note("deploy.mode: "+d.Mode, d.Mode != "" && d.Mode != "replicated" && d.Mode != "global")
	note("deploy.endpoint_mode: "+d.EndpointMode, d.EndpointMode != "" && d.EndpointMode != "dnsrr")
	note("deploy.labels", len(d.Labels) > 0)
	note("deploy.placement.constraints", len(d.Placement.Constraints) > 0)
	note("deploy.placement.preferences", len(d.Placement.Preferences) > 0)
	note("deploy.placement.max_replicas_per_node", d.Placement.MaxReplicas > 0)
	note("deploy.update_config", d.UpdateConfig != nil)
	note("deploy.rollback_config", d.RollbackConfig != nil)
	note("deploy.resources.reservations.cpus", d.Resources.Reservations != nil && d.Resources.Reservations.NanoCPUs != 0)
	if r := d.RestartPolicy; r != nil {
		note("deploy.restart_policy.delay", r.Delay != nil)
		note("deploy.restart_policy.window", r.Window != nil)
	}
	return found
}

// sharedNames are errors about services whose containers are to have the same name. One that has no container, as it is
// scaled to none, has no name.
func sharedNames(p *types.Project) (errs []error) {
	owner := map[string]string{} // by container name
	for _, name := range slices.Sorted(maps.Keys(p.Services)) {
		s := p.Services[name]
		if s.ContainerName == "" || s.GetScale() == 0 {
			continue
		}
		if other, taken := owner[s.ContainerName]; taken {
			errs = append(errs, fmt.Errorf("service %q: the container name %q is that of service %q, too: "+
				"give each its own, or leave them out", name, s.ContainerName, other))
		}
		owner[s.ContainerName] = name
	}
	return errs
}
