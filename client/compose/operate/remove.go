package operate

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/client/compose/label"
	"github.com/cleatlabs/cleat/client/compose/spec"
)

// RemoveOptions are those of `rm`, and of `down` for each container.
type RemoveOptions struct {
	Stop    bool // first
	Timeout *int // seconds; nil is the container's own
	Volumes bool // anonymous ones, too
}

// DownOptions are those of `down`.
type DownOptions struct {
	Services      []string // none: all of the project; with All, what depends on them goes, too
	RemoveOrphans bool
	All           bool // also of services that the project has not, or has not enabled
	Named         bool // the files are chosen by the project's name alone, and may be another's
	Timeout       *int
	Volumes       bool
	Images        string // "", "local" or "all"
}

// Running says whether a container has processes, or will have them again in a moment.
func (c Container) Running() bool {
	return c.State == container.StateRunning || c.State == container.StatePaused || c.State == container.StateRestarting
}

// stop stops one container. One that is gone is stopped.
func (o *Operator) stop(ctx context.Context, c Container, timeout *int) error {
	if !c.Running() {
		return nil
	}
	if err := o.beforeStop(ctx, c); err != nil {
		return err
	}
	_, err := o.API.ContainerStop(ctx, c.ID, client.ContainerStopOptions{Timeout: timeout})
	if gone(err) || errdefs.IsNotModified(err) {
		return nil
	}
	return err
}

// Stop stops containers, each service after those that need it. timeout is in seconds; nil is each container's own.
func (o *Operator) Stop(ctx context.Context, list []Container, timeout *int) error {
	return o.inReverse(ctx, list, func(ctx context.Context, c Container) error {
		if !c.Running() {
			return nil
		}
		o.Report.Report("Container", c.Name, "Stopping")
		return o.ended(ctx, "Container", c.Name, "Stopped", o.stop(ctx, c, timeout))
	})
}

// Remove removes containers, each service after those that need it. One that runs and is
// not to be stopped stays.
func (o *Operator) Remove(ctx context.Context, list []Container, opts RemoveOptions) error {
	return o.inReverse(ctx, list, func(ctx context.Context, c Container) error {
		if opts.Stop && c.Running() {
			o.Report.Report("Container", c.Name, "Stopping")
			if err := o.ended(ctx, "Container", c.Name, "Stopped", o.stop(ctx, c, opts.Timeout)); err != nil {
				return err
			}
		}
		o.Report.Report("Container", c.Name, "Removing")
		_, err := o.API.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: opts.Stop, RemoveVolumes: opts.Volumes})
		if gone(err) {
			err = nil
		}
		return o.ended(ctx, "Container", c.Name, "Removed", err)
	})
}

// inReverse visits containers so that what others depend on comes last, by the labels that
// they carry: it works without the project's files.
func (o *Operator) inReverse(ctx context.Context, list []Container, do func(ctx context.Context, c Container) error) error {
	if len(list) == 0 {
		return nil
	}
	return Dependencies(list).reversed().walk(ctx, func(ctx context.Context, service string) error {
		return o.Each(ctx, OfServices(list, []string{service}), do)
	})
}

// Dependencies are what the services of containers wait for, by their labels. Labels that
// make a circle, which no file can, are taken for none.
func Dependencies(list []Container) graph {
	g := graph{}
	for _, c := range list {
		for _, d := range label.ParseDependencies(c.Labels[label.DependsOn]) {
			if !slices.Contains(g[c.Service], d.Service) && d.Service != c.Service {
				g[c.Service] = append(g[c.Service], d.Service)
			}
		}
		if _, ok := g[c.Service]; !ok {
			g[c.Service] = nil
		}
	}
	if g.cycle() != nil {
		for service := range g {
			g[service] = nil
		}
	}
	return g
}

// Down stops and removes what there is of a project. p is nil if only its name is known.
func (o *Operator) Down(ctx context.Context, name string, p *types.Project, opts DownOptions) error {
	list, err := o.Containers(ctx, name, opts.RemoveOrphans) // what run has made was not brought up
	if err != nil {
		return err
	}
	targets := OfServices(list, opts.Services)
	if opts.All && len(opts.Services) > 0 {
		targets = OfServices(list, Dependencies(list).needing(opts.Services))
	}
	if p != nil && len(opts.Services) > 0 && opts.RemoveOrphans {
		targets = append(slices.Clip(targets), unclaimed(p, opts.Services, list)...)
	}
	if p != nil && !opts.All && len(opts.Services) == 0 {
		targets = slices.DeleteFunc(slices.Clone(list), func(c Container) bool {
			_, enabled := p.Services[c.Service]
			_, disabled := p.DisabledServices[c.Service] // runs on until its profile is named
			return disabled || !enabled && !opts.RemoveOrphans
		})
	}
	if err := o.Remove(ctx, targets, RemoveOptions{Stop: true, Timeout: opts.Timeout, Volumes: opts.Volumes}); err != nil {
		return err
	}
	if p != nil {
		if err := o.removeProvided(ctx, p, opts.Services); err != nil {
			return err
		}
	}
	found, err := o.removeNetworks(ctx, name, opts.networks(p, list, targets))
	errs := []error{err}
	if opts.Volumes {
		volumes, err := o.removeVolumes(ctx, name, opts.volumes(p, list))
		found, errs = found || volumes, append(errs, err)
	}
	if opts.Images != "" {
		errs = append(errs, o.removeImages(ctx, name, p, OfServices(list, opts.Services), opts))
	}
	if len(list) == 0 && !found && opts.Images == "" && len(opts.Services) == 0 {
		o.Report.Warn("No resource found to remove for project \"" + name + "\".")
	}
	return errors.Join(errs...)
}

// ofProfiles are the ids of the networks that only services are on whose profiles are not named: their containers stay, and
// those that do not run could not be started again without. p is nil if only the project's name is known.
func ofProfiles(p *types.Project, list []Container) map[string]bool {
	kept := map[string]bool{}
	if p == nil {
		return kept
	}
	others := map[string]bool{} // by name
	for _, s := range p.Services {
		for key := range s.Networks {
			others[p.Networks[key].Name] = true
		}
	}
	for _, c := range list {
		if _, stays := p.DisabledServices[c.Service]; !stays || c.NetworkSettings == nil {
			continue
		}
		for name, n := range c.NetworkSettings.Networks {
			if n != nil && !others[name] {
				kept[n.NetworkID] = true
			}
		}
	}
	return kept
}

// removeImages removes what has been built for the services, and of "all" what they ran, too. p is nil if only the
// project's name is known; list are the containers that it had.
func (o *Operator) removeImages(ctx context.Context, name string, p *types.Project, list []Container, opts DownOptions) error {
	services := types.Services{}
	if p != nil {
		if services = p.Services; opts.All || len(opts.Services) > 0 {
			services = p.AllServices()
		}
	}
	services = opts.among(services)
	built, err := o.API.ImageList(ctx, client.ImageListOptions{Filters: make(client.Filters).Add("dangling", "false").Add("label", label.Project+"="+name)})
	if err != nil {
		return err
	}
	names := map[string]bool{}
	for _, i := range built.Items {
		service := i.Labels[label.Service]
		if s, known := services[service]; len(i.RepoTags) > 0 && opts.about(service) && (known || p == nil || opts.RemoveOrphans) {
			names[ownTag(i.RepoTags, s.Image)] = true
			if s.Build != nil {
				for _, tag := range s.Build.Tags {
					names[tag] = true
				}
			}
		}
	}
	pulled := opts.Images == "all" && (!opts.Named || len(list) > 0)
	for _, s := range services {
		if pulled || s.Image == "" {
			names[spec.ImageName(p, s, o.Separator)] = true
		}
	}
	if p == nil && opts.Images == "all" {
		for _, c := range list {
			names[c.Image] = true
		}
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(names)) {
		errs = append(errs, o.removeImage(ctx, name))
	}
	return errors.Join(errs...)
}

// ownTag is the one of an image's names that is its service's; a service without a name for it has the first.
func ownTag(tags []string, named string) string {
	for _, tag := range tags {
		if tag == named || tag == named+":latest" {
			return named
		}
	}
	return strings.TrimSuffix(tags[0], ":latest")
}

func (o *Operator) removeImage(ctx context.Context, name string) error {
	o.Report.Report("Image", name, "Removing")
	_, err := o.API.ImageRemove(ctx, name, client.ImageRemoveOptions{PruneChildren: true})
	switch {
	case gone(err):
		o.Report.Report("Image", name, "Warning: No resource found to remove")
		return nil
	case errdefs.IsConflict(err):
		o.Report.Report("Image", name, "Resource is still in use")
		return nil
	}
	return o.ended(ctx, "Image", name, "Removed", err)
}
