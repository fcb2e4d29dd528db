package cli

import (
	"bytes"
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/cli/opts"
	"github.com/fvbommel/sortorder"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/spf13/pflag"
)

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
				c, err := a.api()
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
