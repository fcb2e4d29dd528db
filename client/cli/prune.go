package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/docker/cli/opts"
	"github.com/docker/go-units"
	"github.com/moby/moby/client"
	"github.com/spf13/pflag"
)

const sure = "\nAre you sure you want to continue?"

func (a *app) containerPrune() spec {
	return spec{
		use: "prune [OPTIONS]", short: "Remove all stopped containers", args: a.noArgs,
		setup: func(fs *pflag.FlagSet) action {
			filter := opts.NewFilterOpt()
			fs.Var(&filter, "filter", `Provide filter values (e.g. "until=<timestamp>")`)
			force := fs.BoolP("force", "f", false, "Do not prompt for confirmation")
			return func(ctx context.Context, _ []string) error {
				return a.pruneOne(ctx, *force, "WARNING! This will remove all stopped containers."+sure, func(c *client.Client) (uint64, error) {
					return a.pruneContainers(ctx, c, a.pruneFilters(filter.Value()))
				})
			}
		},
	}
}

func (a *app) imagePrune() spec {
	return spec{
		use: "prune [OPTIONS]", short: "Remove unused images", args: a.noArgs,
		setup: func(fs *pflag.FlagSet) action {
			all := fs.BoolP("all", "a", false, "Remove all unused images, not just dangling ones")
			filter := opts.NewFilterOpt()
			fs.Var(&filter, "filter", `Provide filter values (e.g. "until=<timestamp>")`)
			force := fs.BoolP("force", "f", false, "Do not prompt for confirmation")
			return func(ctx context.Context, _ []string) error {
				what := "all dangling images."
				if *all {
					what = "all images without at least one container associated to them."
				}
				return a.pruneOne(ctx, *force, "WARNING! This will remove "+what+sure, func(c *client.Client) (uint64, error) {
					return a.pruneImages(ctx, c, a.pruneFilters(filter.Value()), *all)
				})
			}
		},
	}
}

// pruneOne asks, prunes and tells what it brought.
func (a *app) pruneOne(ctx context.Context, force bool, question string, prune func(*client.Client) (uint64, error)) error {
	if !force {
		if ok, err := a.confirm(ctx, question); !ok || err != nil {
			return err
		}
	}
	c, err := a.api()
	if err != nil {
		return err
	}
	reclaimed, err := prune(c)
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintln(a.out, "Total reclaimed space:", units.HumanSize(float64(reclaimed)))
	return nil
}

// deleted lists what a prune has removed, with an empty line after it.
func (a *app) deleted(what string, names []string) {
	if len(names) > 0 {
		_, _ = fmt.Fprintf(a.out, "%s:\n%s\n\n", what, strings.Join(names, "\n"))
	}
}

func (a *app) pruneContainers(ctx context.Context, c *client.Client, filters client.Filters) (uint64, error) {
	res, err := c.ContainerPrune(ctx, client.ContainerPruneOptions{Filters: filters})
	if err != nil {
		return 0, err
	}
	a.deleted("Deleted Containers", res.Report.ContainersDeleted)
	return res.Report.SpaceReclaimed, nil
}

func (a *app) pruneImages(ctx context.Context, c *client.Client, filters client.Filters, all bool) (uint64, error) {
	filters.Add("dangling", fmt.Sprint(!all))
	res, err := c.ImagePrune(ctx, client.ImagePruneOptions{Filters: filters})
	if err != nil {
		return 0, err
	}
	var lines []string
	for _, d := range res.Report.ImagesDeleted {
		if d.Untagged != "" {
			lines = append(lines, "untagged: "+d.Untagged)
		} else {
			lines = append(lines, "deleted: "+d.Deleted)
		}
	}
	a.deleted("Deleted Images", lines)
	return res.Report.SpaceReclaimed, nil
}

type systemPruneOptions struct {
	all, force, volumes bool
	filters             client.Filters
}

func (a *app) systemPrune() spec {
	return spec{
		use: "prune [OPTIONS]", short: "Remove unused data", args: a.noArgs,
		setup: func(fs *pflag.FlagSet) action {
			var o systemPruneOptions
			fs.BoolVarP(&o.all, "all", "a", false, "Remove all unused images not just dangling ones")
			filter := opts.NewFilterOpt()
			fs.Var(&filter, "filter", `Provide filter values (e.g. "label=<key>=<value>")`)
			fs.BoolVarP(&o.force, "force", "f", false, "Do not prompt for confirmation")
			fs.BoolVar(&o.volumes, "volumes", false, "Prune anonymous volumes")
			return func(ctx context.Context, _ []string) error {
				o.filters = a.pruneFilters(filter.Value())
				if _, until := o.filters["until"]; until && o.volumes {
					return errors.New(`ERROR: The "until" filter is not supported with "--volumes"`)
				}
				return a.pruneOne(ctx, o.force, o.question(), func(c *client.Client) (uint64, error) { return a.pruneSystem(ctx, c, o) })
			}
		},
	}
}

func (o *systemPruneOptions) question() string {
	lines := []string{"WARNING! This will remove:", "  - all stopped containers", "  - all networks not used by at least one container"}
	if o.volumes {
		lines = append(lines, "  - all anonymous volumes not used by at least one container")
	}
	if o.all {
		lines = append(lines, "  - all images without at least one container associated to them", "  - all build cache")
	} else {
		lines = append(lines, "  - all dangling images", "  - unused build cache")
	}
	lines = append(lines, "")
	if len(o.filters) > 0 {
		lines = append(lines, "  Items to be pruned will be filtered with:")
		var filters []string
		for key, values := range o.filters {
			for value := range values {
				filters = append(filters, "  - "+key+"="+value)
			}
		}
		slices.Sort(filters)
		lines = append(append(lines, filters...), "")
	}
	return strings.Join(lines, "\n") + sure
}

// pruneSystem prunes one kind after the other: what a removed container used is unused
// then. An error ends it; what was done before has been told.
func (a *app) pruneSystem(ctx context.Context, c *client.Client, o systemPruneOptions) (total uint64, err error) {
	reclaimed, err := a.pruneContainers(ctx, c, o.filters.Clone())
	if err != nil {
		return 0, err
	}
	total += reclaimed
	networks, err := c.NetworkPrune(ctx, client.NetworkPruneOptions{Filters: o.filters.Clone()})
	if err != nil {
		return 0, err
	}
	a.deleted("Deleted Networks", networks.Report.NetworksDeleted)
	if o.volumes {
		volumes, err := c.VolumePrune(ctx, client.VolumePruneOptions{Filters: o.filters.Clone()})
		if err != nil {
			return 0, err
		}
		a.deleted("Deleted Volumes", volumes.Report.VolumesDeleted)
		total += volumes.Report.SpaceReclaimed
	}
	reclaimed, err = a.pruneImages(ctx, c, o.filters.Clone(), o.all)
	if err != nil {
		return 0, err
	}
	total += reclaimed
	cache, err := c.BuildCachePrune(ctx, client.BuildCachePruneOptions{All: o.all, Filters: o.filters.Clone()})
	if err != nil {
		return 0, err
	}
	a.deleted("Deleted build cache objects", cache.Report.CachesDeleted)
	return total + cache.Report.SpaceReclaimed, nil
}
