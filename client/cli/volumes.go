package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/cli/opts"
	"github.com/docker/go-units"
	"github.com/fvbommel/sortorder"
	"github.com/moby/moby/api/types/volume"
	"github.com/moby/moby/client"
	"github.com/spf13/pflag"
)

func (a *app) volumeCreate() spec {
	return spec{
		use: "create [OPTIONS] [VOLUME]", short: "Create a volume", args: a.maxArgs(1),
		setup: func(fs *pflag.FlagSet) action {
			var labels []string
			driverOpts := opts.NewMapOpts(nil, nil)
			driver := fs.StringP("driver", "d", "local", "Specify volume driver name")
			fs.Var(opts.NewListOptsRef(&labels, opts.ValidateLabel), "label", "Set metadata for a volume")
			fs.VarP(driverOpts, "opt", "o", "Set driver specific options")
			name := fs.String("name", "", "Specify volume name")
			_ = fs.MarkHidden("name")
			cluster := newClusterFlags(fs)
			return func(ctx context.Context, args []string) error {
				if len(args) == 1 {
					if *name != "" {
						return errors.New("conflicting options: cannot specify a volume-name through both --name and as a positional arg")
					}
					*name = args[0]
				}
				c, err := a.api()
				if err != nil {
					return err
				}
				res, err := c.VolumeCreate(ctx, client.VolumeCreateOptions{
					Name: *name, Driver: *driver, DriverOpts: driverOpts.GetAll(), Labels: opts.ConvertKVStringsToMap(labels),
					ClusterVolumeSpec: cluster.spec(),
				})
				if err != nil {
					return err
				}
				_, _ = fmt.Fprintln(a.out, res.Volume.Name)
				return nil
			}
		},
	}
}

func (a *app) volumeLs() spec {
	return spec{
		use: "ls [OPTIONS]", short: "List volumes", args: a.noArgs, aliases: []string{"list"},
		shownAs: []string{"volume ls", "volume list"},
		setup: func(fs *pflag.FlagSet) action {
			filter := opts.NewFilterOpt()
			fs.VarP(&filter, "filter", "f", `Provide filter values (e.g. "dangling=true")`)
			format := fs.String("format", "", formatHelp)
			quiet := fs.BoolP("quiet", "q", false, "Only display volume names")
			cluster := fs.Bool("cluster", false, "Display only cluster volumes, and use cluster volume list formatting")
			return func(ctx context.Context, _ []string) error {
				c, err := a.api()
				if err != nil {
					return err
				}
				res, err := c.VolumeList(ctx, client.VolumeListOptions{Filters: filter.Value()})
				if err != nil {
					return err
				}
				if *format == "" && !*quiet {
					*format = a.config().VolumesFormat
				}
				if *cluster {
					res.Items = slices.DeleteFunc(res.Items, func(v volume.Volume) bool { return v.ClusterVolume == nil })
				}
				if *cluster && !*quiet {
					*format = `table {{.Name}}\t{{.Group}}\t{{.Driver}}\t{{.Availability}}\t{{.Status}}`
				}
				slices.SortFunc(res.Items, func(x, y volume.Volume) int { return sortorder.NaturalCompare(x.Name, y.Name) })
				rows := make([]any, len(res.Items))
				for i := range res.Items {
					rows[i] = &volumeRow{&res.Items[i]}
				}
				return listing{format: volumeFormat(*format, *quiet), headers: volumeHeaders}.write(a.out, rows)
			}
		},
	}
}

func volumeFormat(format string, quiet bool) string {
	switch {
	case quiet && (format == "" || format == "table"):
		return "{{.Name}}"
	case quiet && format == "raw":
		return "name: {{.Name}}"
	case format == "" || format == "table":
		return `table {{.Driver}}\t{{.Name}}`
	case format == "raw":
		return "name: {{.Name}}\\ndriver: {{.Driver}}\\n"
	}
	return format
}

var volumeHeaders = map[string]string{
	"Name": "VOLUME NAME", "Driver": "DRIVER", "Scope": "SCOPE", "Mountpoint": "MOUNTPOINT", "Labels": "LABELS", "Links": "LINKS",
	"Size": "SIZE", "Group": "GROUP", "Availability": "AVAILABILITY", "Status": "STATUS",
}

type volumeRow struct{ v *volume.Volume }

func (r *volumeRow) MarshalJSON() ([]byte, error) { return marshalRow(r) }
func (r *volumeRow) Name() string                 { return r.v.Name }
func (r *volumeRow) Driver() string               { return r.v.Driver }
func (r *volumeRow) Scope() string                { return r.v.Scope }
func (r *volumeRow) Mountpoint() string           { return r.v.Mountpoint }
func (r *volumeRow) Labels() string               { return joinLabels(r.v.Labels) }

// Label is the value of one label.
func (r *volumeRow) Label(name string) string { return r.v.Labels[name] }

func (r *volumeRow) Links() string {
	if r.v.UsageData == nil {
		return "N/A"
	}
	return strconv.FormatInt(r.v.UsageData.RefCount, 10)
}

func (r *volumeRow) Size() string {
	if r.v.UsageData == nil {
		return "N/A"
	}
	return units.HumanSize(float64(r.v.UsageData.Size))
}

// Group, Availability and Status are those of cluster volumes, which there are none of.
func (r *volumeRow) Group() string        { return "N/A" }
func (r *volumeRow) Availability() string { return "N/A" }
func (r *volumeRow) Status() string       { return "N/A" }

func (a *app) volumeRm() spec {
	return spec{
		use: "rm [OPTIONS] VOLUME [VOLUME...]", short: "Remove one or more volumes",
		long: "Remove one or more volumes. You cannot remove a volume that is in use by a container.", args: a.minArgs(1), aliases: []string{"remove"},
		shownAs: []string{"volume rm", "volume remove"},
		setup: func(fs *pflag.FlagSet) action {
			force := fs.BoolP("force", "f", false, "Force the removal of one or more volumes")
			return func(ctx context.Context, names []string) error {
				return a.inTurn(ctx, names, func(ctx context.Context, c *client.Client, name string) error {
					_, err := c.VolumeRemove(ctx, name, client.VolumeRemoveOptions{Force: *force})
					return err
				})
			}
		},
	}
}

func (a *app) volumePrune() spec {
	return spec{
		use: "prune [OPTIONS]", short: "Remove unused local volumes", args: a.noArgs,
		setup: func(fs *pflag.FlagSet) action {
			all := fs.BoolP("all", "a", false, "Remove all unused volumes, not just anonymous ones")
			force := fs.BoolP("force", "f", false, "Do not prompt for confirmation")
			filter := opts.NewFilterOpt()
			fs.Var(&filter, "filter", `Provide filter values (e.g. "label=<label>")`)
			return func(ctx context.Context, _ []string) error {
				filters := a.pruneFilters(filter.Value())
				what := "anonymous local volumes"
				if *all {
					if _, given := filters["all"]; given {
						return errors.New("conflicting options: cannot specify both --all and --filter all=1")
					}
					filters.Add("all", "true")
					what = "all local volumes"
				}
				if !*force {
					ok, err := a.confirm(ctx, "WARNING! This will remove "+what+" not used by at least one container.\nAre you sure you want to continue?")
					if !ok || err != nil {
						return err
					}
				}
				c, err := a.api()
				if err != nil {
					return err
				}
				res, err := c.VolumePrune(ctx, client.VolumePruneOptions{Filters: filters})
				if err != nil {
					return err
				}
				var reclaimed uint64
				if deleted := res.Report.VolumesDeleted; len(deleted) > 0 {
					_, _ = fmt.Fprintf(a.out, "Deleted Volumes:\n%s\n\n", strings.Join(deleted, "\n"))
					reclaimed = res.Report.SpaceReclaimed
				}
				_, _ = fmt.Fprintln(a.out, "Total reclaimed space:", units.HumanSize(float64(reclaimed)))
				return nil
			}
		},
	}
}

func (a *app) volumeUpdate() spec {
	return spec{
		use: "update [OPTIONS] [VOLUME]", short: "Update a volume (cluster volumes only)", args: a.exactArgs(1),
		setup: func(fs *pflag.FlagSet) action {
			availability := fs.String("availability", "active", `Cluster Volume availability ("active", "pause", "drain")`)
			return func(ctx context.Context, args []string) error {
				c, err := a.api()
				if err != nil {
					return err
				}
				res, err := c.VolumeInspect(ctx, args[0], client.VolumeInspectOptions{})
				if err != nil {
					return err
				}
				v := res.Volume.ClusterVolume
				if v == nil {
					return errors.New("can only update cluster volumes")
				}
				if fs.Changed("availability") {
					v.Spec.Availability = volume.Availability(*availability)
				}
				_, err = c.VolumeUpdate(ctx, v.ID, client.VolumeUpdateOptions{Version: v.Version, Spec: &v.Spec})
				return err
			}
		},
	}
}

// clusterFlags are the flags of `volume create` for cluster volumes, which only an
// engine in a swarm makes: it is the engine that says so.
type clusterFlags struct {
	fs                                        *pflag.FlagSet
	group, scope, sharing, availability, kind *string
	secrets                                   *opts.MapOpts
	required, limit                           opts.MemBytes
	requisiteTopologies, preferredTopologies  []string
}

func newClusterFlags(fs *pflag.FlagSet) *clusterFlags {
	f := &clusterFlags{fs: fs, secrets: opts.NewMapOpts(nil, nil)}
	f.group = fs.String("group", "", "Cluster Volume group (cluster volumes)")
	f.scope = fs.String("scope", "single", `Cluster Volume access scope ("single", "multi")`)
	f.sharing = fs.String("sharing", "none", `Cluster Volume access sharing ("none", "readonly", "onewriter", "all")`)
	f.availability = fs.String("availability", "active", `Cluster Volume availability ("active", "pause", "drain")`)
	f.kind = fs.String("type", "block", `Cluster Volume access type ("mount", "block")`)
	fs.Var(f.secrets, "secret", "Cluster Volume secrets")
	fs.Var(&f.limit, "limit-bytes", "Minimum size of the Cluster Volume in bytes")
	fs.Var(&f.required, "required-bytes", "Maximum size of the Cluster Volume in bytes")
	fs.Var(opts.NewListOptsRef(&f.requisiteTopologies, nil), "topology-required", "A topology that the Cluster Volume must be accessible from")
	fs.Var(opts.NewListOptsRef(&f.preferredTopologies, nil), "topology-preferred", "A topology that the Cluster Volume would be preferred in")
	return f
}

// spec is nil unless one of the flags was given.
func (f *clusterFlags) spec() *volume.ClusterVolumeSpec {
	given := false
	for _, name := range []string{"group", "scope", "sharing", "availability", "type", "secret", "limit-bytes", "required-bytes", "topology-required", "topology-preferred"} {
		given = given || f.fs.Changed(name)
	}
	if !given {
		return nil
	}
	s := &volume.ClusterVolumeSpec{
		Group: *f.group, Availability: volume.Availability(*f.availability),
		AccessMode:                &volume.AccessMode{Scope: volume.Scope(*f.scope), Sharing: volume.SharingMode(*f.sharing)},
		AccessibilityRequirements: &volume.TopologyRequirement{Requisite: topologies(f.requisiteTopologies), Preferred: topologies(f.preferredTopologies)},
		CapacityRange:             &volume.CapacityRange{RequiredBytes: max(f.required.Value(), 0), LimitBytes: max(f.limit.Value(), 0)},
	}
	if *f.kind == "mount" {
		s.AccessMode.MountVolume = &volume.TypeMount{}
	} else {
		s.AccessMode.BlockVolume = &volume.TypeBlock{}
	}
	for key, secret := range f.secrets.GetAll() {
		s.Secrets = append(s.Secrets, volume.Secret{Key: key, Secret: secret})
	}
	slices.SortFunc(s.Secrets, func(x, y volume.Secret) int { return strings.Compare(x.Key, y.Key) })
	return s
}

func topologies(in []string) []volume.Topology {
	out := make([]volume.Topology, 0, len(in))
	for _, t := range in {
		out = append(out, volume.Topology{Segments: opts.ConvertKVStringsToMap(strings.Split(t, ","))})
	}
	return out
}
