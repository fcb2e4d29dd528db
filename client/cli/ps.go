package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/docker/cli/opts"
	"github.com/docker/cli/templates"
	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/spf13/pflag"

	"github.com/cleatlabs/cleat/client/term"
)

type psOptions struct {
	all, latest, noTrunc, quiet, size, sizeSet bool
	last                                       int
	format                                     string
	filter                                     opts.FilterOpt
}

func (a *app) ps() spec {
	return spec{
		use: "ps [OPTIONS]", short: "List containers",
		args: a.noArgs, top: 3, shownAs: []string{"container ls", "container list", "container ps", "ps"},
		setup: func(fs *pflag.FlagSet) action {
			o := psOptions{filter: opts.NewFilterOpt()}
			fs.BoolVarP(&o.all, "all", "a", false, "Show all containers (default shows just running)")
			fs.VarP(&o.filter, "filter", "f", "Filter output based on conditions provided")
			fs.StringVar(&o.format, "format", "", formatHelp)
			fs.IntVarP(&o.last, "last", "n", -1, "Show n last created containers (includes all states)")
			fs.BoolVarP(&o.latest, "latest", "l", false, "Show the latest created container (includes all states)")
			fs.BoolVar(&o.noTrunc, "no-trunc", false, "Don't truncate output")
			fs.BoolVarP(&o.quiet, "quiet", "q", false, "Only display container IDs")
			fs.BoolVarP(&o.size, "size", "s", false, "Display total file sizes")
			return func(ctx context.Context, _ []string) error {
				o.sizeSet = fs.Changed("size")
				return a.listContainers(ctx, o)
			}
		},
	}
}

func (a *app) listContainers(ctx context.Context, o psOptions) error {
	if o.format == "" {
		o.format = a.config().PsFormat
	} else if o.quiet {
		_, _ = io.WriteString(a.err, "WARNING: Ignoring custom format, because both --format and --quiet are set.\n")
	}
	list := client.ContainerListOptions{All: o.all, Limit: o.last, Size: o.size, Filters: o.filter.Value()}
	if o.latest && o.last == -1 {
		list.Limit = 1
	}
	if o.format != "" {
		used, err := usesSize(o.format)
		if err != nil {
			return err
		}
		if used && !o.quiet && !o.sizeSet {
			list.Size = true // computing sizes is costly: only when the template shows them
		}
	}
	c, err := a.api()
	if err != nil {
		return err
	}
	res, err := c.ContainerList(ctx, list)
	if err != nil {
		return err
	}
	rows := make([]any, len(res.Items))
	for i := range res.Items {
		rows[i] = &containerRow{c: &res.Items[i], trunc: !o.noTrunc}
	}
	return listing{format: containerFormat(o.format, o.quiet, list.Size), headers: containerHeaders}.write(a.out, rows)
}

// usesSize tries the template out on a container that is not there.
func usesSize(format string) (bool, error) {
	tmpl, err := templates.Parse(format)
	if err != nil {
		return false, fmt.Errorf("failed to parse template: %w", err)
	}
	probe := &containerRow{c: &container.Summary{}, trunc: true}
	if err := tmpl.Execute(io.Discard, probe); err != nil {
		return false, fmt.Errorf("failed to execute template: %w", err)
	}
	return probe.sizeUsed, nil
}

func containerFormat(format string, quiet, size bool) string {
	switch {
	case quiet && format == "raw":
		return "container_id: {{.ID}}"
	case quiet:
		return quietID
	case format == "raw":
		format = "container_id: {{.ID}}\nimage: {{.Image}}\ncommand: {{.Command}}\ncreated_at: {{.CreatedAt}}\nstate: {{- pad .State 1 0}}\n" +
			"status: {{- pad .Status 1 0}}\nnames: {{.Names}}\nlabels: {{- pad .Labels 1 0}}\nports: {{- pad .Ports 1 0}}\n"
		if size {
			format += "size: {{.Size}}\n"
		}
	case format == "" || format == "table":
		format = `table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}`
		if size {
			format += `\t{{.Size}}`
		}
	}
	return format
}

var containerHeaders = map[string]string{
	"ID": "CONTAINER ID", "Names": "NAMES", "Image": "IMAGE", "Command": "COMMAND", "CreatedAt": "CREATED AT", "RunningFor": "CREATED",
	"Ports": "PORTS", "State": "STATE", "Status": "STATUS", "Size": "SIZE", "Labels": "LABELS", "Mounts": "MOUNTS",
	"LocalVolumes": "LOCAL VOLUMES", "Networks": "NETWORKS", "Platform": "PLATFORM", "HealthStatus": "HEALTH STATUS",
}

// containerRow is a container as ps shows it.
type containerRow struct {
	c        *container.Summary
	trunc    bool
	sizeUsed bool
}

func (r *containerRow) field(name string) (string, bool) {
	switch name {
	case "ID":
		return r.ID(), true
	case "Names":
		return r.Names(), true
	case "Image":
		return r.Image(), true
	case "Command":
		return r.Command(), true
	case "CreatedAt":
		return r.CreatedAt(), true
	case "RunningFor":
		return r.RunningFor(), true
	case "Ports":
		return r.Ports(), true
	case "State":
		return r.State(), true
	case "Status":
		return r.Status(), true
	case "Size":
		return r.Size(), true
	}
	return "", false
}

func (r *containerRow) MarshalJSON() ([]byte, error) { return marshalRow(r) }

func (r *containerRow) ID() string {
	if r.trunc {
		return shortID(r.c.ID)
	}
	return r.c.ID
}

// Names leaves out the names that legacy links give, unless everything is shown.
func (r *containerRow) Names() string {
	var names []string
	for _, n := range r.c.Names {
		n = strings.TrimPrefix(n, "/")
		if r.trunc && strings.Contains(n, "/") {
			continue
		}
		names = append(names, n)
	}
	return strings.Join(names, ",")
}

func (r *containerRow) Image() string {
	switch {
	case r.c.Image == "":
		return "<no image>"
	case !r.trunc:
		return r.c.Image
	case shortID(r.c.ImageID) == shortID(r.c.Image):
		return shortID(r.c.ImageID)
	case !strings.ContainsAny(r.c.Image, "/@"):
		return r.c.Image // nothing to be left out
	}
	ref, err := reference.ParseNormalizedNamed(r.c.Image)
	if err != nil {
		return r.c.Image
	}
	if _, ok := ref.(reference.Digested); ok {
		name := reference.TrimNamed(ref)
		if t, ok := ref.(reference.Tagged); ok {
			if tagged, err := reference.WithTag(name, t.Tag()); err == nil {
				name = tagged
			}
		}
		ref = name
	}
	return reference.FamiliarString(ref)
}

func (r *containerRow) Command() string {
	command := r.c.Command
	if r.trunc {
		command = term.Ellipsis(command, 20)
	}
	return strconv.Quote(command)
}

func (r *containerRow) CreatedAt() string { return time.Unix(r.c.Created, 0).String() }

func (r *containerRow) RunningFor() string { return ago(r.c.Created) }

func (r *containerRow) Platform() *platformText {
	if d := r.c.ImageManifestDescriptor; d != nil && d.Platform != nil {
		return &platformText{*d.Platform}
	}
	return nil
}

func (r *containerRow) Ports() string { return portList(r.c.Ports) }

func (r *containerRow) State() string { return string(r.c.State) }

func (r *containerRow) Status() string { return r.c.Status }

// HealthStatus is empty for a container without a health check.
func (r *containerRow) HealthStatus() string {
	if r.c.Health != nil && r.c.Health.Status != container.NoHealthcheck {
		return string(r.c.Health.Status)
	}
	return ""
}

func (r *containerRow) Size() string {
	r.sizeUsed = true
	own := units.HumanSizeWithPrecision(float64(r.c.SizeRw), 3)
	if r.c.SizeRootFs <= 0 {
		return own
	}
	return fmt.Sprintf("%s (virtual %s)", own, units.HumanSizeWithPrecision(float64(r.c.SizeRootFs), 3))
}

func (r *containerRow) Labels() string { return joinLabels(r.c.Labels) }

// Label is the value of one label.
func (r *containerRow) Label(name string) string { return r.c.Labels[name] }

func (r *containerRow) Mounts() string {
	names := make([]string, 0, len(r.c.Mounts))
	for _, m := range r.c.Mounts {
		name := m.Name
		if name == "" {
			name = m.Source
		}
		if r.trunc {
			name = term.Ellipsis(name, 15)
		}
		names = append(names, name)
	}
	return strings.Join(names, ",")
}

func (r *containerRow) LocalVolumes() string {
	n := 0
	for _, m := range r.c.Mounts {
		if m.Driver == "local" {
			n++
		}
	}
	return strconv.Itoa(n)
}

func (r *containerRow) Networks() string {
	if r.c.NetworkSettings == nil {
		return ""
	}
	names := make([]string, 0, len(r.c.NetworkSettings.Networks))
	for n := range r.c.NetworkSettings.Networks {
		names = append(names, n)
	}
	slices.Sort(names)
	return strings.Join(names, ",")
}

// platformText is a platform that prints itself, and whose fields templates can reach.
type platformText struct{ platforms.Platform }

func (p platformText) String() string { return platforms.FormatAll(p.Platform) }

// ago is how long before now a time in seconds since 1970 was.
func ago(unix int64) string {
	return units.HumanDuration(time.Now().UTC().Sub(time.Unix(unix, 0))) + " ago"
}

// portList writes ports as ps does: neighbouring ports of the same kind as a range,
// those published under another number last.
func portList(ports []container.PortSummary) string {
	ports = slices.Clone(ports)
	slices.SortFunc(ports, func(x, y container.PortSummary) int {
		return cmp.Or(cmp.Compare(x.PrivatePort, y.PrivatePort), x.IP.Compare(y.IP), cmp.Compare(x.PublicPort, y.PublicPort), cmp.Compare(x.Type, y.Type))
	})
	type kind struct{ ip, proto string }
	type span struct{ first, last uint16 }
	open := map[kind]span{}
	var order []kind
	var out, mapped []string
	show := func(k kind, s span) {
		text := strconv.Itoa(int(s.first))
		if s.first != s.last {
			text += "-" + strconv.Itoa(int(s.last))
		}
		if k.ip != "" {
			text = net.JoinHostPort(k.ip, text) + "->" + text
		}
		out = append(out, text+"/"+k.proto)
	}
	for _, p := range ports {
		k := kind{proto: p.Type}
		if p.IP.IsValid() {
			k.ip = p.IP.String()
			if p.PublicPort != p.PrivatePort {
				mapped = append(mapped, fmt.Sprintf("%s->%d/%s", net.JoinHostPort(k.ip, strconv.Itoa(int(p.PublicPort))), p.PrivatePort, p.Type))
				continue
			}
		}
		s, ok := open[k]
		switch {
		case !ok:
			order = append(order, k)
			s = span{p.PrivatePort, p.PrivatePort}
		case p.PrivatePort == s.last+1:
			s.last = p.PrivatePort
		default:
			show(k, s)
			s = span{p.PrivatePort, p.PrivatePort}
		}
		open[k] = s
	}
	for _, k := range order {
		show(k, open[k])
	}
	return strings.Join(append(out, mapped...), ", ")
}
