package command

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"time"

	"github.com/distribution/reference"
	"github.com/docker/cli/cli/command/formatter"
	"github.com/docker/cli/opts"
	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/volume"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/cleatlabs/cleat/client/compose/label"
	"github.com/cleatlabs/cleat/client/compose/operate"
	"github.com/cleatlabs/cleat/client/connect"
	"github.com/cleatlabs/cleat/client/term"
)

// table prints rows under a header, as JSON (one object a line, or an array), or by a
// template.
func (a *app) table(format string, header []string, cells [][]string, rows []any, array bool) error {
	width := 10 // docker compose's columns of what it also gives as an array are wider
	if array {
		width = 20
		if named := strings.ToLower(format); named == "table" || named == "pretty" || named == "json" {
			format = named
		}
	}
	switch {
	case format == "" || format == "table" || format == "pretty" && array:
		t := term.NewTable(a.out, width, 3)
		_, _ = fmt.Fprintln(t, strings.Join(header, "\t"))
		for _, c := range cells {
			_, _ = fmt.Fprintln(t, strings.Join(c, "\t"))
		}
		return t.Flush()
	case format == "json" && array:
		return json.NewEncoder(a.out).Encode(rows)
	case format == "json":
		e := json.NewEncoder(a.out)
		e.SetEscapeHTML(false)
		for _, r := range rows {
			if err := e.Encode(r); err != nil {
				return err
			}
		}
		return nil
	case array && !strings.Contains(format, "{{"):
		return fmt.Errorf("format value %q could not be parsed: choose table, json or a template of Go, as {{.Name}}", format)
	}
	format, titled := strings.CutPrefix(format, "table ")
	out := io.Writer(a.out)
	t := term.NewTable(a.out, 10, 3)
	if titled {
		out, rows = t, append([]any{titles}, rows...)
	}
	tmpl, err := template.New("").Funcs(template.FuncMap{
		"json": func(v any) (string, error) { b, err := json.Marshal(v); return string(b), err },
		"join": strings.Join, "lower": strings.ToLower, "upper": strings.ToUpper,
	}).Parse(strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(format))
	if err != nil {
		return fmt.Errorf("template parsing error: %w", err)
	}
	for _, r := range rows {
		if err := tmpl.Execute(out, r); err != nil {
			return fmt.Errorf("template parsing error: %w", err)
		}
		_, _ = io.WriteString(out, "\n")
	}
	return t.Flush()
}

// titles are what stands above the columns of `--format 'table …'`.
var titles = map[string]string{
	"Availability": "AVAILABILITY", "Command": "COMMAND", "CreatedAt": "CREATED AT", "Driver": "DRIVER", "ExitCode": "EXIT CODE", "Group": "GROUP",
	"Health": "HEALTH", "ID": "CONTAINER ID", "Image": "IMAGE", "Labels": "LABELS", "Links": "LINKS", "LocalVolumes": "LOCAL VOLUMES",
	"Mountpoint": "MOUNTPOINT", "Mounts": "MOUNTS", "Name": "NAME", "Names": "NAMES", "Networks": "NETWORKS", "Ports": "PORTS", "Project": "PROJECT",
	"Publishers": "PUBLISHERS", "RunningFor": "CREATED", "Scope": "SCOPE", "Service": "SERVICE", "Size": "SIZE", "State": "STATE", "Status": "STATUS",
}

// row is what `ps --format json` says of a container.
type row struct {
	Command, CreatedAt string
	ExitCode           int
	Health, ID, Image  string
	Labels             string
	LocalVolumes       string
	Mounts, Name       string
	Names, Networks    string
	Ports, Project     string
	Publishers         []publisher
	RunningFor         string
	Service            string
	Size               string
	State, Status      string
}

type publisher struct {
	URL           string
	TargetPort    int
	PublishedPort int
	Protocol      string
}

// healthOf is a container's health, "" without a check. Engines before API 1.52 tell it in the status alone: Up 2 hours
// (healthy).
func healthOf(c operate.Container) string {
	if c.Health != nil {
		if c.Health.Status == container.NoHealthcheck {
			return ""
		}
		return string(c.Health.Status)
	}
	for said, health := range map[string]container.HealthStatus{
		"(healthy)": container.Healthy, "(unhealthy)": container.Unhealthy, "(health: starting)": container.Starting,
	} {
		if strings.HasSuffix(c.Status, " "+said) {
			return string(health)
		}
	}
	return ""
}

func newRow(c operate.Container, exitCode int, noTrunc bool) row {
	id, command := c.ID, c.Command
	if !noTrunc {
		id, command = id[:min(12, len(id))], term.Ellipsis(command, 20)
	}
	labels := make([]string, 0, len(c.Labels))
	for k, v := range c.Labels {
		labels = append(labels, k+"="+v)
	}
	slices.Sort(labels)
	created := time.Unix(c.Created, 0)
	r := row{
		Command: strconv.Quote(command), CreatedAt: created.Format("2006-01-02 15:04:05 -0700 MST"), ExitCode: exitCode, ID: id, Image: c.Image,
		Labels: strings.Join(labels, ","), Name: c.Name, Names: c.Name, Ports: formatter.DisplayablePorts(c.Ports), Project: c.Labels[label.Project],
		Publishers: []publisher{}, RunningFor: units.HumanDuration(time.Since(created)) + " ago", Service: c.Service, Size: "0B",
		State: string(c.State), Status: c.Status,
	}
	if c.State == container.StateRunning { // that of one which has ended is of no use to anybody
		r.Health = healthOf(c)
	}
	for _, p := range c.Ports {
		url := ""
		if p.IP.IsValid() {
			url = p.IP.String()
		}
		r.Publishers = append(r.Publishers, publisher{url, int(p.PrivatePort), int(p.PublicPort), p.Type})
	}
	var mounts, networks []string
	local := 0
	for _, m := range c.Mounts {
		name := cmp.Or(m.Name, m.Source)
		if m.Name != "" {
			local++
		}
		if !noTrunc {
			name = term.Ellipsis(name, 15)
		}
		mounts = append(mounts, name)
	}
	if c.NetworkSettings != nil {
		for n := range c.NetworkSettings.Networks {
			networks = append(networks, n)
		}
	}
	slices.Sort(networks)
	r.Mounts, r.Networks, r.LocalVolumes = strings.Join(mounts, ","), strings.Join(networks, ","), strconv.Itoa(local)
	return r
}

func (a *app) psCommand() *cobra.Command {
	var all, quiet, services, noTrunc, orphans bool
	var format, filter string
	var status []string
	cmd := command("ps [OPTIONS] [SERVICE...]", "List containers", func(ctx context.Context, args []string) error {
		if filter != "" {
			key, value, ok := strings.Cut(filter, "=")
			if !ok || key != "status" {
				return fmt.Errorf("invalid --filter %q: only status=STATE is known", filter)
			}
			status = append(status, value)
		}
		o, list, err := a.containers(ctx, args, all) // those of run, too
		if err != nil {
			return err
		}
		list = slices.DeleteFunc(list, func(c operate.Container) bool {
			if len(status) > 0 {
				return !slices.Contains(status, string(c.State))
			}
			return !all && c.State != container.StateRunning && c.State != container.StatePaused && c.State != container.StateRestarting
		})
		if !orphans {
			list = a.within(o, list)
		}
		slices.SortFunc(list, func(a, b operate.Container) int { return strings.Compare(a.Name, b.Name) })
		switch {
		case quiet:
			for _, c := range list {
				_, _ = fmt.Fprintln(a.out, c.ID)
			}
			return nil
		case services:
			seen := map[string]bool{}
			for _, c := range list {
				if !seen[c.Service] {
					_, _ = fmt.Fprintln(a.out, c.Service)
				}
				seen[c.Service] = true
			}
			return nil
		}
		return a.printContainers(ctx, o, list, format, noTrunc)
	})
	f := cmd.Flags()
	f.BoolVarP(&all, "all", "a", false, "Show all stopped containers (including those created by the run command)")
	f.BoolVarP(&quiet, "quiet", "q", false, "Only display IDs")
	f.BoolVar(&services, "services", false, "Display services")
	f.BoolVar(&noTrunc, "no-trunc", false, "Don't truncate output")
	f.BoolVar(&orphans, "orphans", true, "Include orphaned services (not declared by project)")
	f.StringVar(&format, "format", "table", "Format output using a custom template")
	f.StringVar(&filter, "filter", "", "Filter services by a property (supported filters: status)")
	f.StringArrayVar(&status, "status", nil, "Filter services by status. Values: [paused | restarting | removing | running | dead | created | exited]")
	return cmd
}

func (a *app) printContainers(ctx context.Context, o *operate.Operator, list []operate.Container, format string, noTrunc bool) error {
	cells, rows := make([][]string, 0, len(list)), make([]any, 0, len(list))
	for _, c := range list {
		code := 0
		if c.State == container.StateExited && format != "" && format != "table" {
			inspected, err := connect.Container(ctx, o.API, c.ID)
			if err != nil {
				return err
			}
			code = inspected.State.ExitCode
		}
		r := newRow(c, code, noTrunc)
		rows = append(rows, r)
		cells = append(cells, []string{r.Name, r.Image, r.Command, r.Service, r.RunningFor, r.Status, r.Ports})
	}
	return a.table(format, []string{"NAME", "IMAGE", "COMMAND", "SERVICE", "CREATED", "STATUS", "PORTS"}, cells, rows, false)
}

// stack is what `ls` says of a project.
type stack struct{ Name, Status, ConfigFiles string }

func (a *app) lsCommand() *cobra.Command {
	var all, quiet bool
	var format string
	filter := opts.NewFilterOpt()
	cmd := command("ls [OPTIONS]", "List running compose projects", func(ctx context.Context, _ []string) error {
		for key := range filter.Value() {
			if key != "name" {
				return fmt.Errorf("invalid filter '%s': only name=PATTERN is known", key)
			}
		}
		api, err := a.connect(ctx)
		if err != nil {
			return err
		}
		list, err := api.ContainerList(ctx, client.ContainerListOptions{All: all, Filters: make(client.Filters).Add("label", label.Project)})
		if err != nil {
			return err
		}
		stacks := stacks(list.Items, filter.Value()["name"])
		cells, rows := [][]string{}, []any{}
		for _, s := range stacks {
			if quiet {
				_, _ = fmt.Fprintln(a.out, s.Name)
				continue
			}
			cells, rows = append(cells, []string{s.Name, s.Status, s.ConfigFiles}), append(rows, s)
		}
		if quiet {
			return nil
		}
		return a.table(format, []string{"NAME", "STATUS", "CONFIG FILES"}, cells, rows, true)
	})
	cmd.Flags().BoolVarP(&all, "all", "a", false, "Show all stopped Compose projects")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Only display project names")
	cmd.Flags().StringVar(&format, "format", "table", "Format the output. Values: [table | json]")
	cmd.Flags().Var(&filter, "filter", "Filter output based on conditions provided")
	return cmd
}

// stacks are the projects of containers whose names any of the patterns is or matches, by name; without patterns all of
// them. The files of one are those of all its containers, in the order in which they are met.
func stacks(list []container.Summary, patterns map[string]bool) []stack {
	states, files := map[string]map[string]int{}, map[string][]string{}
	for _, c := range list {
		name := c.Labels[label.Project]
		if len(patterns) > 0 && !matchesAny(patterns, name) {
			continue
		}
		if states[name] == nil {
			states[name] = map[string]int{}
		}
		states[name][string(c.State)]++
		for _, f := range strings.Split(c.Labels[label.ConfigFiles], ",") {
			if f != "" && !slices.Contains(files[name], f) {
				files[name] = append(files[name], f)
			}
		}
	}
	found := make([]stack, 0, len(states))
	for name, counts := range states {
		var parts []string
		for state, n := range counts {
			parts = append(parts, fmt.Sprintf("%s(%d)", state, n))
		}
		slices.Sort(parts)
		found = append(found, stack{name, strings.Join(parts, ", "), strings.Join(files[name], ",")})
	}
	slices.SortFunc(found, func(a, b stack) int { return strings.Compare(a.Name, b.Name) })
	return found
}

// matchesAny says whether a name is one of the patterns or matches it. What is no regular expression matches nothing
// else, as with docker compose.
func matchesAny(patterns map[string]bool, name string) bool {
	for p := range patterns {
		if found, err := regexp.MatchString(p, name); p == name || err == nil && found {
			return true
		}
	}
	return false
}

func (a *app) imagesCommand() *cobra.Command {
	var quiet bool
	var format string
	type image struct {
		ID, ContainerName, Repository, Tag, Platform string
		Size                                         int64
		LastTagTime                                  time.Time
	}
	cmd := command("images [OPTIONS] [SERVICE...]", "List images used by the created containers", func(ctx context.Context, args []string) error {
		o, list, err := a.containers(ctx, nil, true) // those of run, too
		if err != nil {
			return err
		}
		a.warnOfUnknown(o, list, args)
		list = operate.OfServices(list, args)
		cells, rows := [][]string{}, []any{}
		seen := map[string]bool{}
		for _, c := range list {
			found, err := o.API.ImageInspect(ctx, c.ImageID)
			if err != nil {
				return err
			}
			if quiet {
				if !seen[found.ID] {
					_, _ = fmt.Fprintln(a.out, strings.TrimPrefix(found.ID, "sha256:"))
				}
				seen[found.ID] = true
				continue
			}
			repository, tag := tagOf(found.RepoTags, c.Image)
			i := image{found.ID, c.Name, repository, tag, found.Os + "/" + found.Architecture, found.Size, found.Metadata.LastTagTime}
			if i.LastTagTime.IsZero() {
				i.LastTagTime, _ = time.Parse(time.RFC3339Nano, found.Created) // zero where the image does not say
			}
			id := strings.TrimPrefix(i.ID, "sha256:")
			rows, cells = append(rows, i), append(cells, []string{
				i.ContainerName, i.Repository, i.Tag, i.Platform, id[:min(12, len(id))],
				units.HumanSizeWithPrecision(float64(i.Size), 3), units.HumanDuration(time.Since(i.LastTagTime)) + " ago",
			})
		}
		if quiet {
			return nil
		}
		return a.table(format, []string{"CONTAINER", "REPOSITORY", "TAG", "PLATFORM", "IMAGE ID", "SIZE", "CREATED"}, cells, rows, true)
	})
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Only display IDs")
	cmd.Flags().StringVar(&format, "format", "table", "Format the output. Values: [table | json]")
	return cmd
}

// tagOf is the one of an image's tags by which a container was made, or else the first.
func tagOf(tags []string, made string) (repository, tag string) {
	if len(tags) == 0 {
		return "<none>", "<none>"
	}
	chosen := tags[0]
	if named, err := reference.ParseDockerRef(made); err == nil && slices.Contains(tags, reference.FamiliarString(named)) {
		chosen = reference.FamiliarString(named)
	}
	i := strings.LastIndexByte(chosen, ':')
	return chosen[:i], chosen[i+1:]
}

// volumeRow is what `volumes --format json` says of a volume.
type volumeRow struct{ Availability, Driver, Group, Labels, Links, Mountpoint, Name, Scope, Size, Status string }

func newVolumeRow(v volume.Volume) volumeRow {
	const unknown = "N/A" // what only clusters have, and what is not counted here
	labels := make([]string, 0, len(v.Labels))
	for _, key := range slices.Sorted(maps.Keys(v.Labels)) {
		labels = append(labels, key+"="+v.Labels[key])
	}
	return volumeRow{unknown, v.Driver, unknown, strings.Join(labels, ","), unknown, v.Mountpoint, v.Name, v.Scope, unknown, unknown}
}

func (a *app) volumesCommand() *cobra.Command {
	var quiet bool
	var format string
	cmd := command("volumes [OPTIONS] [SERVICE...]", "List volumes", func(ctx context.Context, args []string) error {
		o, list, err := a.containers(ctx, args, false)
		if err != nil {
			return err
		}
		name, _, err := a.known(ctx)
		if err != nil {
			return err
		}
		used := map[string]bool{}
		for _, c := range list {
			for _, m := range c.Mounts {
				used[m.Name] = true
			}
		}
		volumes, err := o.API.VolumeList(ctx, client.VolumeListOptions{Filters: make(client.Filters).Add("label", label.Project+"="+name)})
		if err != nil {
			return err
		}
		cells, rows := [][]string{}, []any{}
		for _, v := range volumes.Items {
			if len(args) > 0 && !used[v.Name] {
				continue
			}
			if quiet {
				_, _ = fmt.Fprintln(a.out, v.Name)
				continue
			}
			cells, rows = append(cells, []string{v.Driver, v.Name}), append(rows, newVolumeRow(v))
		}
		if quiet {
			return nil
		}
		return a.table(format, []string{"DRIVER", "VOLUME NAME"}, cells, rows, false)
	})
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Only display volume names")
	cmd.Flags().StringVar(&format, "format", "table", "Format output using a custom template")
	return cmd
}

// warnOfUnknown is for the lists that docker compose shows empty of services that there are not.
func (a *app) warnOfUnknown(o *operate.Operator, list []operate.Container, services []string) {
	for _, s := range unknownOf(o.Project, list, services) {
		a.reporter.Warn("no such service: " + s)
	}
}

func (a *app) topCommand() *cobra.Command {
	return command("top [SERVICES...]", "Display the running processes", func(ctx context.Context, args []string) error {
		o, list, err := a.containers(ctx, nil, true) // those of run, too
		if err != nil {
			return err
		}
		a.warnOfUnknown(o, list, args)
		t := term.NewTable(a.out, 4, 2)
		header := ""
		for _, c := range operate.OfServices(list, args) {
			if c.State != container.StateRunning && c.State != container.StatePaused {
				continue
			}
			found, err := o.API.ContainerTop(ctx, c.ID, client.ContainerTopOptions{})
			if err != nil {
				return err
			}
			if titles := "SERVICE\t#\t" + strings.Join(found.Titles, "\t"); titles != header {
				_, _ = fmt.Fprintln(t, titles)
				header = titles
			}
			for _, p := range found.Processes {
				_, _ = fmt.Fprintln(t, c.Service+"\t"+c.Labels[label.Number]+"\t"+strings.Join(p, "\t"))
			}
		}
		return t.Flush()
	})
}

func (a *app) portCommand() *cobra.Command {
	var protocol string
	var index int
	cmd := command("port [OPTIONS] SERVICE PRIVATE_PORT", "Print the public port for a port binding", func(ctx context.Context, args []string) error {
		if len(args) != 2 {
			return errors.New("requires 2 arguments: SERVICE PRIVATE_PORT")
		}
		private, err := strconv.ParseUint(args[1], 10, 16)
		if err != nil {
			return fmt.Errorf("invalid port %q", args[1])
		}
		c, err := a.one(ctx, args[0], index, false)
		if err != nil {
			return err
		}
		for _, p := range c.Ports {
			if uint64(p.PrivatePort) == private && p.Type == protocol && p.PublicPort != 0 {
				_, _ = fmt.Fprintf(a.out, "%s:%d\n", p.IP, p.PublicPort)
				return nil
			}
		}
		public := make([]string, len(c.Ports))
		for i, p := range c.Ports {
			public[i] = fmt.Sprintf("%d/%s", p.PublicPort, p.Type)
		}
		return fmt.Errorf("no port %s/%s for container %s: %s", args[1], protocol, c.Name, strings.Join(public, ", "))
	})
	cmd.Flags().StringVar(&protocol, "protocol", "tcp", "tcp or udp")
	cmd.Flags().IntVar(&index, "index", 0, "Index of the container if service has multiple replicas")
	return cmd
}
