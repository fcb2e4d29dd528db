package build

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/docker/cli/opts"
	"github.com/docker/go-units"
	bkclient "github.com/moby/buildkit/client"
	"github.com/moby/moby/client"
	"github.com/spf13/pflag"

	"github.com/cleatlabs/cleat/client/term"
)

const (
	usageTable = "table {{.ID}}\t{{.Reclaimable}}\t{{.Size}}\t{{.LastUsedAt}}"

	usagePretty = `ID:           {{.ID}}
{{- if .Parents }}
Parents:
{{- range .Parents }}
 - {{.}}
{{- end }}
{{- end }}
Created at:   {{.CreatedAt}}
Mutable:      {{.Mutable}}
Reclaimable:  {{.Reclaimable}}
Shared:       {{.Shared}}
Size:         {{.Size}}
{{- if .Description}}
Description:  {{ .Description }}
{{- end }}
Usage count:  {{.UsageCount}}
{{- if .LastUsedAt}}
Last used:    {{ .LastUsedAt }}
{{- end }}
{{- if .Type}}
Type:         {{ .Type }}
{{- end }}
`
)

// usageHeaders are the columns of du and prune.
func usageHeaders() map[string]string {
	return map[string]string{
		"ID": "ID", "Parents": "PARENTS", "CreatedAt": "CREATED AT", "Mutable": "MUTABLE", "Reclaimable": "RECLAIMABLE", "Shared": "SHARED",
		"Size": "SIZE", "Description": "DESCRIPTION", "UsageCount": "USAGE COUNT", "LastUsedAt": "LAST ACCESSED", "Type": "TYPE",
	}
}

// usageRow is a record of the build cache. A table marks what is written to, or shared
// with an image, by a star.
func usageRow(u *bkclient.UsageInfo, table bool) row {
	id, size := u.ID, units.HumanSize(float64(u.Size))
	if table && u.Mutable {
		id += "*"
	}
	if table && u.Shared {
		size += "*"
	}
	parents := u.Parents
	if parents == nil {
		parents = []string{}
	}
	return row{
		"ID": id, "Parents": parents, "CreatedAt": u.CreatedAt.String(), "Mutable": u.Mutable, "Reclaimable": !u.InUse, "Shared": u.Shared, "Size": size,
		"Description": u.Description, "UsageCount": u.UsageCount, "LastUsedAt": ago(u.LastUsedAt), "Type": string(u.RecordType),
	}
}

func (a *app) du() spec {
	return spec{
		use: "du", short: "Disk usage", args: exactly(0), paths: "builder du,buildx du",
		setup: func(fs *pflag.FlagSet) action {
			filter := opts.NewFilterOpt()
			fs.Var(&filter, "filter", "Provide filter values")
			verbose := fs.Bool("verbose", false, `Shorthand for "--format=pretty"`)
			format := fs.String("format", "", "Format the output")
			patience := fs.Duration("timeout", patienceWithBuilder, "Override the default timeout for loading builder status")
			return func(ctx context.Context, _ []string) error {
				if *format != "" && *verbose {
					return errors.New("--format and --verbose cannot be used together")
				}
				f := *format
				switch {
				case *verbose, f == "pretty":
					f = usagePretty
				case f == "", f == tableFormat:
					f = usageTable
				}
				return a.showUsage(ctx, f, filter.Value(), *patience)
			}
		},
	}
}

// patienceWithBuilder is how long the engine may take to tell of itself.
const patienceWithBuilder = 20 * time.Second

func (a *app) showUsage(ctx context.Context, format string, filters client.Filters, patience time.Duration) error {
	_, which, err := cacheFilter(filters)
	if err != nil {
		return err
	}
	c, err := a.reach(ctx, patience)
	if err != nil {
		return err
	}
	used, err := c.DiskUsage(ctx, bkclient.WithFilter(which))
	if err != nil {
		return err
	}
	rows := make([]row, 0, len(used))
	var total, reclaimable, shared int64
	for _, u := range used {
		rows = append(rows, usageRow(u, strings.HasPrefix(format, tableFormat)))
		size := max(u.Size, 0)
		total += size
		if !u.InUse {
			reclaimable += size
		}
		if u.Shared {
			shared += size
		}
	}
	if err := list(a.stdout, format, usageHeaders(), rows); err != nil {
		return err
	}
	if format != usageTable && format != usagePretty || len(filters) > 0 {
		return nil
	}
	t := term.NewTable(a.stdout, 1, 1)
	if shared > 0 {
		_, _ = fmt.Fprintf(t, "Shared:\t%s\nPrivate:\t%s\n", units.HumanSize(float64(shared)), units.HumanSize(float64(total-shared)))
	}
	_, _ = fmt.Fprintf(t, "Reclaimable:\t%s\nTotal:\t%s\n", units.HumanSize(float64(reclaimable)), units.HumanSize(float64(total)))
	return t.Flush()
}

type pruneFlags struct {
	all, verbose, force     bool
	filter                  opts.FilterOpt
	reserved, minFree, most opts.MemBytes
	patience                time.Duration
}

func (a *app) prune() spec {
	return spec{
		use: "prune", short: "Remove build cache", args: exactly(0), paths: "builder prune,buildx prune",
		setup: func(fs *pflag.FlagSet) action {
			f := pruneFlags{filter: opts.NewFilterOpt()}
			fs.BoolVarP(&f.all, "all", "a", false, "Include internal/frontend images")
			fs.Var(&f.filter, "filter", `Provide filter values (e.g., "until=24h")`)
			fs.Var(&f.reserved, "reserved-space", "Amount of disk space always allowed to keep for cache")
			fs.Var(&f.minFree, "min-free-space", "Target amount of free disk space after pruning")
			fs.Var(&f.most, "max-used-space", "Maximum amount of disk space allowed to keep for cache")
			fs.BoolVar(&f.verbose, "verbose", false, "Provide a more verbose output")
			fs.BoolVarP(&f.force, "force", "f", false, "Do not prompt for confirmation")
			fs.DurationVar(&f.patience, "timeout", patienceWithBuilder, "Override the default timeout for loading builder status")
			fs.Var(&f.reserved, "keep-storage", "Amount of disk space to keep for cache")
			_ = fs.MarkHidden("keep-storage") // the name of before; it still works
			return func(ctx context.Context, _ []string) error { return a.runPrune(ctx, &f) }
		},
	}
}

func (a *app) runPrune(ctx context.Context, f *pruneFlags) error {
	keep, which, err := cacheFilter(withDefaults(f.filter.Value(), a.config().PruneFilters))
	if err != nil {
		return err
	}
	if !f.force {
		what := "all dangling build cache"
		if f.all {
			what = "all build cache"
		}
		if yes, err := a.confirm(ctx, "WARNING! This will remove "+what+". Are you sure you want to continue?"); !yes || err != nil {
			return err
		}
	}
	c, err := a.reach(ctx, f.patience)
	if err != nil {
		return err
	}
	options := []bkclient.PruneOption{bkclient.WithKeepOpt(keep, f.reserved.Value(), f.most.Value(), f.minFree.Value()), bkclient.WithFilter(which)}
	if f.all {
		options = append(options, bkclient.PruneAll)
	}
	ch, done := make(chan bkclient.UsageInfo), make(chan int64)
	go func() { done <- a.showPruned(ch, f.verbose) }()
	err = c.Prune(ctx, ch, options...)
	close(ch)
	total := <-done
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "Total:\t%s\n", units.HumanSize(float64(total)))
	return err
}

// showPruned prints each record as it goes and returns how much they were, bytes.
func (a *app) showPruned(ch <-chan bkclient.UsageInfo, verbose bool) int64 {
	var total int64
	first := true
	for u := range ch {
		if verbose {
			_ = list(a.stdout, usagePretty, nil, []row{usageRow(&u, false)})
		} else {
			if first {
				first = false
				_, _ = fmt.Fprintf(a.stdout, "%-40s\t%s\t%s\t%s\n", "ID", "RECLAIMABLE", "SIZE", "LAST ACCESSED")
			}
			r := usageRow(&u, true)
			_, _ = fmt.Fprintf(a.stdout, "%-40s\t%-11v\t%s\t%s\n", r["ID"], r["Reclaimable"], r["Size"], r["LastUsedAt"])
		}
		total += u.Size
	}
	return total
}

// withDefaults adds the filters of the user's configuration to those given, which override them.
func withDefaults(given client.Filters, defaults []string) client.Filters {
	out := client.Filters{}
	for k, values := range given {
		for v := range values {
			out.Add(k, v)
		}
	}
	for _, d := range defaults {
		if k, v, ok := strings.Cut(d, "="); ok && len(given[k]) == 0 && !strings.HasPrefix(k, "label") {
			out.Add(k, v)
		}
	}
	return out
}

// cacheFilters are the keys of filters; BuildKit takes any other and finds nothing by it. No record has a label.
func cacheFilters() []string {
	return []string{"description", "id", "immutable", "inuse", "label", "mutable", "parents", "private", "shared", "type", "until", "unused-for"}
}

// cacheFilter is a list of filters as BuildKit takes them: how long unused records are
// kept, and which are meant.
func cacheFilter(filters client.Filters) (keep time.Duration, which []string, err error) {
	age := "until"
	if len(filters["unused-for"]) > 0 {
		if len(filters[age]) > 0 {
			return 0, nil, errors.New(`conflicting filters "until" and "unused-for"`)
		}
		age = "unused-for" // the name of before
	}
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(filters)) {
		if !slices.Contains(cacheFilters(), strings.TrimRight(key, "!~")) {
			return 0, nil, fmt.Errorf("invalid filter '%s': must be one of %s", key, strings.Join(cacheFilters(), ", "))
		}
		values := slices.Sorted(maps.Keys(filters[key]))
		if len(values) > 1 {
			return 0, nil, fmt.Errorf("%q filter expects only one value", key)
		}
		switch {
		case len(values) == 0:
			parts = append(parts, key)
		case key == age:
			if keep, err = time.ParseDuration(values[0]); err != nil {
				return 0, nil, fmt.Errorf("%q filter expects a duration (e.g., '24h'), not %q", age, values[0])
			}
		case key == "id":
			parts = append(parts, "id~="+values[0])
		case strings.HasSuffix(key, "!"), strings.HasSuffix(key, "~"):
			parts = append(parts, key+"="+values[0])
		default:
			parts = append(parts, key+"=="+values[0])
		}
	}
	return keep, []string{strings.Join(parts, ",")}, nil
}

// confirm asks the user; only y or Y is a yes.
func (a *app) confirm(ctx context.Context, question string) (bool, error) {
	return term.Confirm(ctx, a.stdin, a.stdout, question+" [y/N]", "y")
}

// reach is buildkit, once the engine has told of it: patience is for that, not for what is asked then.
func (a *app) reach(ctx context.Context, patience time.Duration) (*bkclient.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c, err := a.buildkit(ctx)
	if err == nil {
		_, err = c.ListWorkers(ctx)
	}
	return c, err
}

// buildkit is the engine's BuildKit.
func (a *app) buildkit(ctx context.Context) (*bkclient.Client, error) {
	e, err := a.connect()
	if err != nil {
		return nil, err
	}
	return e.BuildKit(ctx)
}
