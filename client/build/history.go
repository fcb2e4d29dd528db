package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/docker/go-units"
	control "github.com/moby/buildkit/api/services/control"
	bkclient "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/frontend/dockerfile/dfgitutil"
	"github.com/spf13/pflag"
	"google.golang.org/grpc/codes"

	"github.com/cleatlabs/cleat/client/build/solve"
)

// recordsShown is how many records of the history are asked for.
const recordsShown = 50

const historyTable = "table {{.Ref}}\t{{.Name}}\t{{.Status}}\t{{.CreatedAt}}\t{{.Duration}}"

func (a *app) history() spec {
	return spec{
		use: "history", short: "Commands to work on build records",
		subs: []spec{a.historyInspect(), a.historyLogs(), a.historyLs(), a.historyRm(), a.historyRefused("export"), a.historyRefused("import"), a.historyRefused("open"), a.historyRefused("trace")},
	}
}

// historyRefused are commands for what Docker Desktop shows.
func (a *app) historyRefused(name string) spec {
	return spec{
		use: name, short: "Not supported", hidden: true,
		setup: func(fs *pflag.FlagSet) action {
			fs.ParseErrorsAllowlist.UnknownFlags = true
			return func(context.Context, []string) error {
				return fmt.Errorf("history %s is not supported, as it is for Docker Desktop: see 'history inspect', 'history inspect attachment' and 'history logs --progress rawjson'", name)
			}
		},
	}
}

// record is a build of the engine's history.
type record struct {
	*control.BuildHistoryRecord
	now time.Time // by the engine's clock
}

func (r record) name() string {
	for _, ex := range r.Exporters {
		first, _, _ := strings.Cut(ex.Attrs["name"], ",")
		if first == "" {
			continue
		}
		if named, err := reference.ParseNormalizedNamed(first); err == nil {
			first = strings.TrimSuffix(reference.FamiliarString(named), ":latest")
		}
		return first
	}
	where := r.FrontendAttrs["context"]
	if where == "" || strings.HasPrefix(where, "http://buildkit-session/") {
		where = r.FrontendAttrs["filename"]
	}
	if t := r.FrontendAttrs["target"]; t != "" {
		where += " (" + t + ")"
	}
	return where
}

func (r record) status() string {
	switch {
	case r.CompletedAt == nil:
		return "Running"
	case r.Error == nil:
		return "Completed"
	case codes.Code(r.Error.Code) == codes.Canceled, strings.Contains(r.Error.Message, "context canceled"):
		return "Canceled"
	}
	return "Error"
}

func (r record) duration() time.Duration {
	end := r.now
	if r.CompletedAt != nil {
		end = r.CompletedAt.AsTime()
	}
	return end.Sub(r.CreatedAt.AsTime())
}

// records asks for the history, newest first; ref may be empty, the beginning of one, or
// ^N for the one N builds ago.
func (a *app) records(ctx context.Context, ref string, filters []string) ([]record, error) {
	back := -1
	if n, ok := strings.CutPrefix(ref, "^"); ok {
		var err error
		if back, err = strconv.Atoi(n); err != nil || back < 0 {
			return nil, fmt.Errorf("invalid offset %q", ref)
		}
		ref = ""
	}
	match, err := historyFilter(filters, time.Now())
	if err != nil {
		return nil, err
	}
	c, err := a.buildkit(ctx)
	if err != nil {
		return nil, err
	}
	stream, err := c.ControlClient().ListenBuildHistory(ctx, &control.BuildHistoryRequest{EarlyExit: true})
	if err != nil {
		return nil, err
	}
	now := time.Now()
	if md, err := stream.Header(); err == nil && len(md["buildkit-current-timestamp"]) > 0 {
		if t, err := time.Parse(time.RFC3339Nano, md["buildkit-current-timestamp"][0]); err == nil {
			now = t
		}
	}
	var out []record
	for {
		ev, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if ev.Record == nil || ev.Type == control.BuildHistoryEventType_DELETED {
			continue
		}
		if r := (record{ev.Record, now}); strings.HasPrefix(r.Ref, ref) && match(r) {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(x, y record) int {
		if (x.CompletedAt == nil) != (y.CompletedAt == nil) {
			if x.CompletedAt == nil {
				return -1
			}
			return 1
		}
		return y.CreatedAt.AsTime().Compare(x.CreatedAt.AsTime())
	})
	if back >= 0 {
		if back >= len(out) {
			return nil, fmt.Errorf("there is no build %d builds ago: the history has %d", back, len(out))
		}
		out = out[back : back+1]
	}
	return out, nil
}

// oneRecord is the record that ref means: the last build if it is empty.
func (a *app) oneRecord(ctx context.Context, ref string) (record, error) {
	ref = ref[strings.LastIndexByte(ref, '/')+1:] // BUILDER/NODE/REF
	list, err := a.records(ctx, ref, nil)
	if err != nil {
		return record{}, err
	}
	switch {
	case len(list) == 0 && ref == "":
		return record{}, errors.New("no records found")
	case len(list) == 0:
		return record{}, fmt.Errorf("no record found for ref %q", ref)
	case len(list) > 1 && ref != "" && list[0].Ref != ref:
		return record{}, fmt.Errorf("ref %q is the beginning of %d records", ref, len(list))
	}
	return list[0], nil
}

// historyFilter makes a test of filters such as status=error and duration>10s.
func historyFilter(filters []string, now time.Time) (func(record) bool, error) {
	var tests []func(record) bool
	for _, f := range filters {
		key, op, value, ok := cutOperator(f)
		if !ok {
			return nil, fmt.Errorf("invalid filter %q, expected KEY=VALUE, e.g. status=error", f)
		}
		var test func(record) bool
		var err error
		switch key {
		case "ref", "repository", "status":
			test, err = valueTest(key, op, value)
		case "startedAt", "completedAt", "duration":
			test, err = timeTest(key, op, value, now)
		default:
			err = errors.New("choose ref, repository, status, startedAt, completedAt or duration")
		}
		if err != nil {
			return nil, fmt.Errorf("invalid filter %q: %w", f, err)
		}
		tests = append(tests, test)
	}
	return func(r record) bool {
		return !slices.ContainsFunc(tests, func(test func(record) bool) bool { return !test(r) })
	}, nil
}

func cutOperator(f string) (key, op, value string, ok bool) {
	for _, op := range []string{"!=", "<=", ">=", "=", "<", ">"} {
		if k, v, ok := strings.Cut(f, op); ok {
			return k, op, v, true
		}
	}
	return "", "", "", false
}

func valueTest(key, op, value string) (func(record) bool, error) {
	if op != "=" && op != "!=" {
		return nil, fmt.Errorf("%s is compared by = or !=", key)
	}
	of := map[string]func(record) string{
		"ref":    func(r record) string { return r.Ref },
		"status": func(r record) string { return strings.ToLower(r.status()) },
		"repository": func(r record) string {
			if ref, ok, _ := dfgitutil.ParseGitRef(r.FrontendAttrs["context"]); ok {
				return ref.Remote
			}
			return r.FrontendAttrs["vcs:source"]
		},
	}[key]
	return func(r record) bool {
		same := of(r) == value || (key != "status" && op == "=" && strings.Contains(of(r), value))
		return same == (op == "=")
	}, nil
}

func timeTest(key, op, value string, now time.Time) (func(record) bool, error) {
	if op == "=" || op == "!=" {
		return nil, fmt.Errorf("%s is compared by <=, <, >= or >", key)
	}
	d, err := time.ParseDuration(value)
	limit := int64(d)
	if key != "duration" {
		at := now.Add(-d)
		if err != nil {
			at, err = time.Parse(time.RFC3339, value)
		}
		limit = at.UnixNano()
	}
	if err != nil {
		return nil, fmt.Errorf("%q is no duration (24h) or time (2006-01-02T15:04:05Z)", value)
	}
	return func(r record) bool {
		var v int64
		switch key {
		case "duration":
			v = int64(r.duration())
		case "startedAt":
			v = r.CreatedAt.AsTime().UnixNano()
		default:
			if r.CompletedAt == nil {
				return false
			}
			v = r.CompletedAt.AsTime().UnixNano()
		}
		switch op {
		case ">=":
			return v >= limit
		case "<=":
			return v <= limit
		case ">":
			return v > limit
		}
		return v < limit
	}, nil
}

func (a *app) historyLs() spec {
	return spec{
		use: "ls [OPTIONS]", short: "List build records", args: exactly(0),
		setup: func(fs *pflag.FlagSet) action {
			format := fs.String("format", tableFormat, "Format the output")
			noTrunc := fs.Bool("no-trunc", false, "Don't truncate output")
			filters := fs.StringArray("filter", nil, `Provide filter values (e.g., "status=error")`)
			return func(ctx context.Context, _ []string) error {
				records, err := a.records(ctx, "", *filters)
				if err != nil {
					return err
				}
				return a.listRecords(records[:min(len(records), recordsShown)], *format, *noTrunc)
			}
		},
	}
}

func (a *app) listRecords(records []record, format string, noTrunc bool) error {
	const widest = 36
	if format == tableFormat {
		format = historyTable
	}
	rows := make([]row, 0, len(records))
	for _, r := range records {
		full := theBuilder + "/" + theBuilder + "/" + r.Ref
		if format == jsonFormat {
			m := row{
				"ref": full, "name": r.name(), "status": r.status(), "created_at": r.CreatedAt.AsTime().Format(time.RFC3339Nano),
				"total_steps": r.NumTotalSteps, "completed_steps": r.NumCompletedSteps, "cached_steps": r.NumCachedSteps,
			}
			if r.CompletedAt != nil {
				m["completed_at"] = r.CompletedAt.AsTime().Format(time.RFC3339Nano)
			}
			rows = append(rows, m)
			continue
		}
		name, took := r.name(), span(r.duration())
		if !noTrunc && strings.HasPrefix(format, tableFormat) && len(name) > widest {
			name = ".." + name[len(name)-widest+2:]
		}
		if r.CompletedAt == nil {
			took += "+"
		}
		rows = append(rows, row{
			"Ref": r.Ref, "FullRef": full, "Name": name, "Status": r.status(), "CreatedAt": units.HumanDuration(time.Since(r.CreatedAt.AsTime())) + " ago",
			"Duration": took, "Link": "",
		})
	}
	headers := map[string]string{"Ref": "BUILD ID", "Name": "NAME", "Status": "STATUS", "CreatedAt": "CREATED AT", "Duration": "DURATION", "Link": "", "FullRef": "BUILD REF"}
	return list(a.stdout, format, headers, rows)
}

func (a *app) historyLogs() spec {
	return spec{
		use: "logs [OPTIONS] [REF]", short: "Print the logs of a build record", args: atMost(1),
		setup: func(fs *pflag.FlagSet) action {
			progress := fs.String("progress", "plain", "Set type of progress output (plain, rawjson, tty)")
			return func(ctx context.Context, args []string) error {
				return a.showLogs(ctx, append(args, "")[0], *progress)
			}
		},
	}
}

func (a *app) showLogs(ctx context.Context, ref, progress string) error {
	mode, err := displayMode(progress, false)
	if err != nil {
		return err
	}
	if mode == "auto" {
		mode = "plain"
	}
	r, err := a.oneRecord(ctx, ref)
	if err != nil {
		return err
	}
	c, err := a.buildkit(ctx)
	if err != nil {
		return err
	}
	stream, err := c.ControlClient().Status(ctx, &control.StatusRequest{Ref: r.Ref})
	if err != nil {
		return err
	}
	p, err := solve.NewProgress(ctx, a.stderr, mode, "", "")
	if err != nil {
		return err
	}
	for err == nil {
		var s *control.StatusResponse
		if s, err = stream.Recv(); err == nil {
			p.Show(bkclient.NewSolveStatus(s))
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return errors.Join(err, p.Wait())
}

func (a *app) historyRm() spec {
	return spec{
		use: "rm [OPTIONS] [REF...]", short: "Remove build records",
		setup: func(fs *pflag.FlagSet) action {
			all := fs.Bool("all", false, "Remove all build records")
			return func(ctx context.Context, refs []string) error {
				switch {
				case *all && len(refs) > 0:
					return errors.New("rm requires either --all or at least one argument")
				case !*all && len(refs) == 0:
					return errors.New("rm requires at least one argument")
				}
				return a.removeRecords(ctx, refs, *all)
			}
		},
	}
}

func (a *app) removeRecords(ctx context.Context, refs []string, all bool) error {
	var errs []error
	var full []string
	if all {
		list, err := a.records(ctx, "", nil)
		if err != nil {
			return err
		}
		for _, r := range list {
			if r.CompletedAt != nil {
				full = append(full, r.Ref)
			}
		}
	}
	for _, ref := range refs {
		r, err := a.oneRecord(ctx, ref)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		full = append(full, r.Ref)
	}
	c, err := a.buildkit(ctx)
	if err != nil {
		return err
	}
	for _, ref := range full {
		if _, err := c.ControlClient().UpdateBuildHistory(ctx, &control.UpdateBuildHistoryRequest{Ref: ref, Delete: true}); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
