package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/cli/opts"
	"github.com/docker/go-units"
	"github.com/fvbommel/sortorder"
	"github.com/moby/moby/api/types/network"
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
			return func(ctx context.Context, args []string) error {
				if len(args) == 1 {
					if *name != "" {
						return errors.New("conflicting options: cannot specify a volume-name through both --name and as a positional arg")
					}
					*name = args[0]
				}
				c, err := a.api(ctx)
				if err != nil {
					return err
				}
				res, err := c.VolumeCreate(ctx, client.VolumeCreateOptions{
					Name: *name, Driver: *driver, DriverOpts: driverOpts.GetAll(), Labels: opts.ConvertKVStringsToMap(labels),
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
			return func(ctx context.Context, _ []string) error {
				c, err := a.api(ctx)
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
				c, err := a.api(ctx)
				if err != nil {
					return err
				}
				var errs []error
				for _, name := range names {
					if _, err := c.VolumeRemove(ctx, name, client.VolumeRemoveOptions{Force: *force}); err != nil {
						errs = append(errs, err)
						continue
					}
					_, _ = fmt.Fprintln(a.out, name)
				}
				return errors.Join(errs...)
			}
		},
	}
}

func (a *app) networkLs() spec {
	return spec{
		use: "ls [OPTIONS]", short: "List networks", args: a.noArgs, aliases: []string{"list"},
		shownAs: []string{"network ls", "network list"},
		setup: func(fs *pflag.FlagSet) action {
			filter := opts.NewFilterOpt()
			fs.VarP(&filter, "filter", "f", `Provide filter values (e.g. "driver=bridge")`)
			format := fs.String("format", "", formatHelp)
			noTrunc := fs.Bool("no-trunc", false, "Do not truncate the output")
			quiet := fs.BoolP("quiet", "q", false, "Only display network IDs")
			return func(ctx context.Context, _ []string) error {
				c, err := a.api(ctx)
				if err != nil {
					return err
				}
				res, err := c.NetworkList(ctx, client.NetworkListOptions{Filters: filter.Value()})
				if err != nil {
					return err
				}
				if *format == "" && !*quiet {
					*format = a.config().NetworksFormat
				}
				slices.SortFunc(res.Items, func(x, y network.Summary) int { return sortorder.NaturalCompare(x.Name, y.Name) })
				rows := make([]any, len(res.Items))
				for i := range res.Items {
					rows[i] = &networkRow{n: &res.Items[i], trunc: !*noTrunc}
				}
				return listing{format: networkFormat(*format, *quiet), headers: networkHeaders}.write(a.out, rows)
			}
		},
	}
}

func networkFormat(format string, quiet bool) string {
	switch {
	case quiet && (format == "" || format == "table"):
		return quietID
	case quiet && format == "raw":
		return "network_id: {{.ID}}"
	case format == "" || format == "table":
		return `table {{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}`
	case format == "raw":
		return "network_id: {{.ID}}\\nname: {{.Name}}\\ndriver: {{.Driver}}\\nscope: {{.Scope}}\\n"
	}
	return format
}

var networkHeaders = map[string]string{
	"ID": "NETWORK ID", "Name": "NAME", "Driver": "DRIVER", "Scope": "SCOPE", "IPv4": "IPV4", "IPv6": "IPV6", "Internal": "INTERNAL",
	"Labels": "LABELS", "CreatedAt": "CREATED AT",
}

type networkRow struct {
	n     *network.Summary
	trunc bool
}

func (r *networkRow) MarshalJSON() ([]byte, error) { return marshalRow(r) }

func (r *networkRow) ID() string {
	if r.trunc {
		return shortID(r.n.ID)
	}
	return r.n.ID
}

func (r *networkRow) Name() string      { return r.n.Name }
func (r *networkRow) Driver() string    { return r.n.Driver }
func (r *networkRow) Scope() string     { return r.n.Scope }
func (r *networkRow) IPv4() string      { return strconv.FormatBool(r.n.EnableIPv4) }
func (r *networkRow) IPv6() string      { return strconv.FormatBool(r.n.EnableIPv6) }
func (r *networkRow) Internal() string  { return strconv.FormatBool(r.n.Internal) }
func (r *networkRow) Labels() string    { return joinLabels(r.n.Labels) }
func (r *networkRow) CreatedAt() string { return r.n.Created.String() }

// Label is the value of one label.
func (r *networkRow) Label(name string) string { return r.n.Labels[name] }

// inspectors look an object up by name: its typed value for templates and the
// engine's own JSON.
func (a *app) inspectors(c *client.Client, size bool) map[string]func(context.Context, string) (any, []byte, error) {
	return map[string]func(context.Context, string) (any, []byte, error){
		"container": func(ctx context.Context, ref string) (any, []byte, error) {
			r, err := c.ContainerInspect(ctx, ref, client.ContainerInspectOptions{Size: size})
			return &r.Container, r.Raw, err
		},
		"image": func(ctx context.Context, ref string) (any, []byte, error) {
			var raw bytes.Buffer
			r, err := c.ImageInspect(ctx, ref, client.ImageInspectWithRawResponse(&raw))
			return r.InspectResponse, raw.Bytes(), err
		},
		"network": func(ctx context.Context, ref string) (any, []byte, error) {
			r, err := c.NetworkInspect(ctx, ref, client.NetworkInspectOptions{})
			return r.Network, r.Raw, err
		},
		"volume": func(ctx context.Context, ref string) (any, []byte, error) {
			r, err := c.VolumeInspect(ctx, ref, client.VolumeInspectOptions{})
			return r.Volume, r.Raw, err
		},
	}
}

// notThisKind says whether ref may still be an object of another kind.
func notThisKind(err error) bool {
	return errdefs.IsNotFound(err) || strings.Contains(err.Error(), "not supported") || strings.Contains(err.Error(), "invalid reference format")
}
