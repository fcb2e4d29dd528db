package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/docker/cli/opts"
	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/volume"
	"github.com/spf13/pflag"
)

// What Cleat does with volumes and Docker does not.
func (a *app) volumeCopies() []spec {
	return []spec{a.volumeClone(), a.volumeRename(), a.volumeSnapshot(), a.volumeSnapshots(), a.volumeRestore()}
}

// copying is how the engine says that it has made a copy.
type copying struct {
	Method   string
	Bytes    int64
	PausedMs float64
}

// tell says on stderr what a copy meant for containers, if anything.
func (a *app) tell(c copying) {
	if c.PausedMs > 0 {
		_, _ = fmt.Fprintf(a.err, "The containers that run with the volume stood still for %v (%s of %s)\n",
			time.Duration(c.PausedMs*float64(time.Millisecond)).Round(10*time.Microsecond), c.Method, units.HumanSize(float64(c.Bytes)))
	}
}

func volumeRoute(name, what string) string { return "/volumes/" + url.PathEscape(name) + "/" + what }

func (a *app) volumeClone() spec {
	return spec{
		use: "clone [OPTIONS] VOLUME NEW-VOLUME", short: "Copy a volume, in use or not, to a new one", args: a.exactArgs(2),
		long: "Copy a volume to a new one. Where the filesystem can share content between files, that takes no time and no space. Containers" +
			"\nthat run with the volume stand still meanwhile, so that the copy is of one instant; none is started with it before it is complete.",
		setup: func(fs *pflag.FlagSet) action {
			var labels []string
			fs.Var(opts.NewListOptsRef(&labels, opts.ValidateLabel), "label", "Set metadata for the new volume (default that of VOLUME)")
			snapshot := fs.String("snapshot", "", "Copy this snapshot of VOLUME")
			return func(ctx context.Context, args []string) error {
				body := map[string]any{"Name": args[1], "Snapshot": *snapshot}
				if len(labels) > 0 {
					body["Labels"] = opts.ConvertKVStringsToMap(labels)
				}
				var res struct {
					Volume volume.Volume
					copying
				}
				if err := a.ownJSON(ctx, ownRequest{method: http.MethodPost, route: volumeRoute(args[0], "clone"), body: body}, &res); err != nil {
					return err
				}
				a.tell(res.copying)
				_, _ = fmt.Fprintln(a.out, res.Volume.Name)
				return nil
			}
		},
	}
}

func (a *app) volumeRename() spec {
	return spec{
		use: "rename VOLUME NEW-NAME", short: "Rename a volume, in use or not", args: a.exactArgs(2),
		long: "Rename a volume. The containers that have it, running or not, have it under its new name from then on.",
		setup: func(*pflag.FlagSet) action {
			return func(ctx context.Context, args []string) error {
				return a.ownJSON(ctx, ownRequest{method: http.MethodPost, route: volumeRoute(args[0], "rename"), query: url.Values{"name": {args[1]}}}, nil)
			}
		},
	}
}

func (a *app) volumeSnapshot() spec {
	return spec{
		use: "snapshot [OPTIONS] VOLUME [SNAPSHOT]", short: "Keep a copy of a volume's data with it", args: a.rangeArgs(1, 2),
		long: "Keep a copy of a volume's data with it, to go back to with `volume restore`. It is made as `volume clone` makes one. SNAPSHOT is" +
			"\nits name, by default the time. A volume that has snapshots is removed by force only.",
		setup: func(fs *pflag.FlagSet) action {
			remove := fs.Bool("rm", false, "Remove the snapshot SNAPSHOT")
			return func(ctx context.Context, args []string) error {
				route := volumeRoute(args[0], "snapshots")
				if *remove {
					if len(args) < 2 {
						return errors.New("name the snapshot to remove")
					}
					return a.ownJSON(ctx, ownRequest{method: http.MethodDelete, route: route, query: url.Values{"snapshot": {args[1]}}}, nil)
				}
				body := map[string]any{}
				if len(args) == 2 {
					body["Name"] = args[1]
				}
				var res struct {
					Name string
					copying
				}
				if err := a.ownJSON(ctx, ownRequest{method: http.MethodPost, route: route, body: body}, &res); err != nil {
					return err
				}
				a.tell(res.copying)
				_, _ = fmt.Fprintln(a.out, res.Name)
				return nil
			}
		},
	}
}

type snapshotRow struct {
	SnapshotName string
	At           time.Time
}

func (r *snapshotRow) MarshalJSON() ([]byte, error) { return marshalRow(r) }
func (r *snapshotRow) Name() string                 { return r.SnapshotName }
func (r *snapshotRow) CreatedAt() string            { return r.At.Local().String() }
func (r *snapshotRow) CreatedSince() string         { return units.HumanDuration(time.Since(r.At)) + " ago" }

func (a *app) volumeSnapshots() spec {
	return spec{
		use: "snapshots [OPTIONS] VOLUME", short: "List the snapshots of a volume", args: a.exactArgs(1),
		setup: func(fs *pflag.FlagSet) action {
			format := fs.String("format", "", formatHelp)
			quiet := fs.BoolP("quiet", "q", false, "Only display names")
			return func(ctx context.Context, args []string) error {
				var list []struct {
					Name      string
					CreatedAt time.Time
				}
				if err := a.ownJSON(ctx, ownRequest{method: http.MethodGet, route: volumeRoute(args[0], "snapshots")}, &list); err != nil {
					return err
				}
				rows := make([]any, len(list))
				for i, s := range list {
					rows[i] = &snapshotRow{s.Name, s.CreatedAt}
				}
				switch {
				case *quiet:
					*format = "{{.Name}}"
				case *format == "" || *format == "table":
					*format = `table {{.Name}}\t{{.CreatedSince}}`
				}
				headers := map[string]string{"Name": "SNAPSHOT", "CreatedAt": "CREATED AT", "CreatedSince": "CREATED"}
				return listing{format: *format, headers: headers}.write(a.out, rows)
			}
		},
	}
}

func (a *app) volumeRestore() spec {
	return spec{
		use: "restore VOLUME SNAPSHOT", short: "Replace a volume's data by those of a snapshot", args: a.exactArgs(2),
		long: "Replace a volume's data by those of a snapshot, in one step. It is refused while a container runs with the volume.",
		setup: func(*pflag.FlagSet) action {
			return func(ctx context.Context, args []string) error {
				return a.ownJSON(ctx, ownRequest{method: http.MethodPost, route: volumeRoute(args[0], "restore"), body: map[string]any{"Snapshot": args[1]}}, nil)
			}
		},
	}
}
