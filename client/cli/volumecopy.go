package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/docker/cli/opts"
	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/volume"
	"github.com/spf13/pflag"
)

// What Cleat does with volumes and Docker does not.
func (a *app) volumeCopies() []spec {
	return []spec{a.volumeClone(), a.volumeRename(), a.volumeSnapshot(), a.volumeSnapshots(), a.volumeRestore(), a.volumeExport(), a.volumeImport()}
}

// copying is how the engine says that it has made a copy.
type copying struct {
	Method   string
	Bytes    int64
	PausedMs float64
}

// tell says on stderr what a copy meant for containers, if anything, where a person reads it: cron would mail it.
func (a *app) tell(c copying) {
	if c.PausedMs > 0 && a.err.IsTerminal() {
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

func (a *app) volumeExport() spec {
	return spec{
		use: "export [OPTIONS] VOLUME", short: "Write a volume's data as a tar archive", args: a.exactArgs(1),
		long: "Write a volume's data as a tar archive to a file or STDOUT. If containers run with the volume, a copy of one instant is made first," +
			"\nas `volume clone` makes one, and written while they go on.",
		setup: func(fs *pflag.FlagSet) action {
			output := fs.StringP("output", "o", "", "Write to a file, instead of STDOUT")
			snapshot := fs.String("snapshot", "", "Export this snapshot of VOLUME")
			return func(ctx context.Context, args []string) (err error) {
				if *output == "" && a.out.IsTerminal() {
					return errors.New("cowardly refusing to save to a terminal. Use the -o flag or redirect")
				}
				query := url.Values{}
				if *snapshot != "" {
					query.Set("snapshot", *snapshot)
				}
				resp, err := a.own(ctx, ownRequest{method: http.MethodGet, route: volumeRoute(args[0], "export"), query: query})
				if err != nil {
					return err
				}
				defer func() { _ = resp.Body.Close() }()
				var how copying
				if json.Unmarshal([]byte(resp.Header.Get("Cleat-Copying")), &how) == nil {
					a.tell(how)
				}
				if *output == "" {
					_, err = io.Copy(a.out, resp.Body)
					return whole(err)
				}
				return writeWhole(*output, resp.Body)
			}
		},
	}
}

// whole explains an answer that ends before its end.
func whole(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the engine has cut the archive short, it is not whole: a container was started with the volume, or see the engine's log")
	}
	return err
}

// writeWhole writes a file that appears when it is complete.
func writeWhole(name string, r io.Reader) error {
	if st, err := os.Stat(name); err == nil && !st.Mode().IsRegular() { // a device or a pipe
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, r)
		return errors.Join(whole(err), f.Close())
	}
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".")
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	err = errors.Join(whole(err), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

func (a *app) volumeImport() spec {
	return spec{
		use: "import [OPTIONS] VOLUME [FILE|-]", short: "Make a volume of a tar archive", args: a.rangeArgs(1, 2),
		long: "Make a new volume of a tar archive, which may be compressed with gzip, zstd or bzip2, from a file or STDIN.",
		setup: func(fs *pflag.FlagSet) action {
			var labels []string
			fs.Var(opts.NewListOptsRef(&labels, opts.ValidateLabel), "label", "Set metadata for the volume")
			return func(ctx context.Context, args []string) error {
				var from io.Reader = a.in
				switch {
				case len(args) == 2 && args[1] != "-":
					f, err := os.Open(args[1])
					if err != nil {
						return err
					}
					defer func() { _ = f.Close() }()
					from = f
				case a.in.IsTerminal():
					return errors.New("requested to read from STDIN, but it is a terminal: name a file")
				}
				var made volume.Volume
				err := a.ownJSON(ctx, ownRequest{method: http.MethodPost, route: volumeRoute(args[0], "import"), query: url.Values{"label": labels}, stream: io.NopCloser(from)}, &made)
				if err != nil {
					return err
				}
				_, _ = fmt.Fprintln(a.out, made.Name)
				return nil
			}
		},
	}
}
