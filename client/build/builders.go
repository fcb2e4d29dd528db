package build

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/docker/go-units"
	bkclient "github.com/moby/buildkit/client"
	"github.com/spf13/pflag"

	"github.com/cleatlabs/cleat/client/term"
)

// The engine is the only builder. What asks for builders is told of it; what would make
// others is refused.

const buildersTable = "table {{.Name}}\t{{.DriverEndpoint}}\t{{.Status}}\t{{.Buildkit}}\t{{.Platforms}}"

func (a *app) ls() spec {
	return spec{
		use: "ls", short: "List builder instances", args: exactly(0),
		setup: func(fs *pflag.FlagSet) action {
			format := fs.String("format", tableFormat, "Format the output")
			noTrunc := fs.Bool("no-trunc", false, "Don't truncate output")
			patience := fs.Duration("timeout", patienceWithBuilder, "Override the default timeout for loading builder status")
			return func(ctx context.Context, _ []string) error {
				ctx, cancel := context.WithTimeout(ctx, *patience)
				defer cancel()
				return a.listBuilders(ctx, *format, *noTrunc)
			}
		},
	}
}

// shownPlatforms is how many platforms a table shows.
const shownPlatforms = 4

func (a *app) listBuilders(ctx context.Context, format string, noTrunc bool) error {
	w, err := a.worker(ctx)
	if err != nil {
		return err
	}
	all := platformNames(w)
	shown := strings.Join(all, ", ")
	if !noTrunc && strings.HasPrefix(format, tableFormat) {
		shown = shortened(all)
	}
	version := w.BuildkitVersion.Version
	if format == jsonFormat {
		node := map[string]any{"Name": theBuilder, "Endpoint": theBuilder, "Status": "running", "Version": version, "Platforms": all, "IDs": []string{w.ID}, "Labels": w.Labels}
		return list(a.stdout, format, nil, []row{{"Name": theBuilder, "Driver": "docker", "Current": true, "Dynamic": false, "Nodes": []any{node}}})
	}
	table := strings.HasPrefix(format, tableFormat)
	star, indent := "", ""
	if table {
		star, indent = "*", ` \_ `
	}
	if format == tableFormat {
		format = buildersTable
	}
	headers := map[string]string{"Name": "NAME/NODE", "DriverEndpoint": "DRIVER/ENDPOINT", "LastActivity": "LAST ACTIVITY", "Status": "STATUS", "Buildkit": "BUILDKIT", "Platforms": "PLATFORMS"}
	return list(a.stdout, format, headers, []row{
		{"Name": theBuilder + star, "DriverEndpoint": "docker", "LastActivity": "", "Status": "", "Buildkit": "", "Platforms": "", "Error": ""},
		{"Name": indent + theBuilder, "DriverEndpoint": indent + theBuilder, "LastActivity": "", "Status": "running", "Buildkit": version, "Platforms": shown, "Error": ""},
	})
}

// shortened is a list of platforms with the variants of an architecture as a number, and
// no more than a table has room for.
func shortened(list []string) string {
	var names []string
	count := map[string]int{}
	for _, p := range list {
		parts := strings.SplitN(p, "/", 3)
		base := strings.Join(parts[:min(2, len(parts))], "/")
		if count[base]++; count[base] == 1 {
			names = append(names, base)
		}
	}
	var out []string
	for i, n := range names {
		switch {
		case i == shownPlatforms:
			return strings.Join(append(out, fmt.Sprintf("(%d more)", len(names)-i)), ", ")
		case count[n] > 1:
			n = fmt.Sprintf("%s (+%d)", n, count[n])
		}
		out = append(out, n)
	}
	return strings.Join(out, ", ")
}

// worker asks the engine's BuildKit for what it can do.
func (a *app) worker(ctx context.Context) (*bkclient.WorkerInfo, error) {
	c, err := a.buildkit(ctx)
	if err != nil {
		return nil, err
	}
	list, err := c.ListWorkers(ctx)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("the engine has no worker that builds")
	}
	return list[0], nil
}

func platformNames(w *bkclient.WorkerInfo) []string {
	var out []string
	for _, p := range w.Platforms {
		out = append(out, platforms.FormatAll(platforms.Normalize(p)))
	}
	return out
}

func (a *app) inspect() spec {
	return spec{
		use: "inspect [NAME]", short: "Inspect current builder instance", args: atMost(1),
		setup: func(fs *pflag.FlagSet) action {
			// It is always there.
			fs.Bool("bootstrap", false, "Ensure builder has booted before inspecting")
			patience := fs.Duration("timeout", patienceWithBuilder, "Override the default timeout for loading builder status")
			return func(ctx context.Context, args []string) error {
				if len(args) > 0 {
					a.builder = args[0]
				}
				ctx, cancel := context.WithTimeout(ctx, *patience)
				defer cancel()
				w, err := a.worker(ctx)
				if err != nil {
					return err
				}
				return inspectBuilder(a.stdout, w)
			}
		},
	}
}

func inspectBuilder(out io.Writer, w *bkclient.WorkerInfo) error {
	t := term.NewTable(out, 0, 1)
	_, _ = fmt.Fprintf(t, "Name:\t%s\nDriver:\tdocker\n\nNodes:\n", theBuilder)
	_, _ = fmt.Fprintf(t, "Name:\t%s\nEndpoint:\t%s\nStatus:\trunning\nBuildKit version:\t%s\n", theBuilder, theBuilder, w.BuildkitVersion.Version)
	if names := platformNames(w); len(names) > 0 {
		_, _ = fmt.Fprintf(t, "Platforms:\t%s\n", strings.Join(names, ", "))
	}
	if len(w.Labels) > 0 {
		_, _ = fmt.Fprintln(t, "Labels:")
	}
	for _, k := range slices.Sorted(maps.Keys(w.Labels)) {
		_, _ = fmt.Fprintf(t, " %s:\t%s\n", k, w.Labels[k])
	}
	for i, rule := range w.GCPolicy {
		_, _ = fmt.Fprintf(t, "GC Policy rule#%d:\n All:\t%v\n", i, rule.All)
		if len(rule.Filter) > 0 {
			_, _ = fmt.Fprintf(t, " Filters:\t%s\n", strings.Join(rule.Filter, " "))
		}
		if rule.KeepDuration > 0 {
			_, _ = fmt.Fprintf(t, " Keep Duration:\t%v\n", rule.KeepDuration)
		}
		for _, space := range []struct {
			name  string
			bytes int64
		}{{"Reserved Space", rule.ReservedSpace}, {"Max Used Space", rule.MaxUsedSpace}, {"Min Free Space", rule.MinFreeSpace}} {
			if space.bytes > 0 {
				_, _ = fmt.Fprintf(t, " %s:\t%s\n", space.name, units.BytesSize(float64(space.bytes)))
			}
		}
	}
	return t.Flush()
}

func (a *app) use() spec {
	return spec{
		use: "use NAME", short: "Set the current builder instance", args: exactly(1),
		setup: func(fs *pflag.FlagSet) action {
			// There is one builder, so that it is the current one and the default in any case.
			fs.Bool("default", false, "Set builder as default for current context")
			fs.Bool("global", false, "Builder persists context changes")
			return func(_ context.Context, args []string) error { return a.checkBuilder(args[0]) }
		},
	}
}

func (a *app) versionInfo() spec {
	return spec{
		use: "version", short: "Show buildx version information", args: exactly(0),
		setup: func(*pflag.FlagSet) action {
			return func(context.Context, []string) error {
				_, err := fmt.Fprintf(a.stdout, "github.com/cleatlabs/cleat %s cleat-build\n", a.version)
				return err
			}
		},
	}
}

// others are buildx's commands that are refused, above all those that would make or end other builders.
func (a *app) others() []spec {
	const one = "the engine builds itself, and is the one builder that there is"
	var out []spec
	for name, why := range map[string]string{
		"create": one, "rm": one, "stop": one,
		"dap":    "to look into a step, use 'build --invoke on-error'",
		"policy": "policies are not evaluated here; images and sources can be named by digest",
		"replay": "'history inspect attachment' shows what a build was made from",
	} {
		out = append(out, spec{
			use: name, short: "Not supported", hidden: true,
			setup: func(fs *pflag.FlagSet) action {
				fs.ParseErrorsAllowlist.UnknownFlags = true
				return func(context.Context, []string) error {
					return fmt.Errorf("%s is not supported: %s", name, why)
				}
			},
		})
	}
	return out
}

func (a *app) dialStdio() spec {
	return spec{
		use: "dial-stdio", short: "Proxy current stdio streams to builder instance", args: exactly(0), hidden: true,
		setup: func(*pflag.FlagSet) action {
			return func(ctx context.Context, _ []string) error {
				e, err := a.connect()
				if err != nil {
					return err
				}
				conn, err := e.Hijack(ctx, "/grpc", "h2c", nil)
				if err != nil {
					return err
				}
				defer func() { _ = conn.Close() }()
				stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
				defer stop()
				go func() {
					_, _ = io.Copy(conn, a.stdin)
					if half, ok := conn.(interface{ CloseWrite() error }); ok {
						_ = half.CloseWrite()
					}
				}()
				_, err = io.Copy(a.stdout, conn)
				if ctx.Err() != nil {
					return ctx.Err()
				}
				return err
			}
		},
	}
}
