package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/docker/cli/templates"
	"github.com/docker/go-units"
	"github.com/moby/moby/client"
	"github.com/spf13/pflag"
)

func (a *app) systemDF() spec {
	return spec{
		use: "df [OPTIONS]", short: "Show docker disk usage", args: a.noArgs,
		setup: func(fs *pflag.FlagSet) action {
			format := fs.String("format", "", formatHelp)
			verbose := fs.BoolP("verbose", "v", false, "Show detailed information on space usage")
			return func(ctx context.Context, _ []string) error {
				c, err := a.api()
				if err != nil {
					return err
				}
				du, err := c.DiskUsage(ctx, client.DiskUsageOptions{Verbose: *verbose})
				if err != nil {
					return err
				}
				if *verbose {
					return a.showDiskUsageItems(&du, *format)
				}
				return a.showDiskUsage(&du, *format)
			}
		},
	}
}

func (a *app) showDiskUsage(du *client.DiskUsageResult, format string) error {
	switch format {
	case "", "table":
		format = `table {{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}`
	case "raw":
		format = "type: {{.Type}}\ntotal: {{.TotalCount}}\nactive: {{.Active}}\nsize: {{.Size}}\nreclaimable: {{.Reclaimable}}\n"
	}
	rows := []any{
		&usageRow{"Images", du.Images.TotalCount, du.Images.ActiveCount, du.Images.TotalSize, du.Images.Reclaimable, true},
		&usageRow{"Containers", du.Containers.TotalCount, du.Containers.ActiveCount, du.Containers.TotalSize, du.Containers.Reclaimable, true},
		&usageRow{"Local Volumes", du.Volumes.TotalCount, du.Volumes.ActiveCount, du.Volumes.TotalSize, du.Volumes.Reclaimable, true},
		&usageRow{"Build Cache", du.BuildCache.TotalCount, du.BuildCache.ActiveCount, du.BuildCache.TotalSize, du.BuildCache.Reclaimable, false},
	}
	headers := map[string]string{"Type": "TYPE", "TotalCount": "TOTAL", "Active": "ACTIVE", "Size": "SIZE", "Reclaimable": "RECLAIMABLE"}
	return listing{format: format, headers: headers}.write(a.out, rows)
}

// usageRow is one kind of object.
type usageRow struct {
	kind                             string
	total, active, size, reclaimable int64
	percent                          bool
}

func (r *usageRow) MarshalJSON() ([]byte, error) { return marshalRow(r) }
func (r *usageRow) Type() string                 { return r.kind }
func (r *usageRow) TotalCount() string           { return strconv.FormatInt(r.total, 10) }
func (r *usageRow) Active() string               { return strconv.FormatInt(r.active, 10) }
func (r *usageRow) Size() string                 { return units.HumanSize(float64(r.size)) }

func (r *usageRow) Reclaimable() string {
	if r.percent && r.size > 0 {
		return fmt.Sprintf("%s (%v%%)", units.HumanSize(float64(r.reclaimable)), r.reclaimable*100/r.size)
	}
	return units.HumanSize(float64(r.reclaimable))
}

// usageItems are all objects, as templates see them.
type usageItems struct {
	Images     []*imageRow
	Containers []*containerRow
	Volumes    []*volumeRow
	BuildCache []*buildCacheRow
}

func (a *app) showDiskUsageItems(du *client.DiskUsageResult, format string) error {
	items := usageItems{Images: []*imageRow{}, Containers: []*containerRow{}, Volumes: []*volumeRow{}}
	table := format == "" || isTable(format)
	for i := range du.Images.Items {
		row := imageRows(&du.Images.Items[i], false, false)[0]
		row.trunc, row.digest = table, "" // the sizes are not those of one digest
		items.Images = append(items.Images, row)
	}
	for i := range du.Containers.Items {
		c := &du.Containers.Items[i]
		c.SizeRootFs = 0 // that is the image's
		items.Containers = append(items.Containers, &containerRow{c: c, trunc: table})
	}
	for i := range du.Volumes.Items {
		items.Volumes = append(items.Volumes, &volumeRow{&du.Volumes.Items[i]})
	}
	items.BuildCache = buildCacheRows(du.BuildCache.Items, table)
	if format == "raw" {
		format = rawUsageItems()
	}
	if format != "" && format != "table" {
		tmpl, err := templates.Parse(templateText(format))
		if err != nil {
			return fmt.Errorf("template parsing error: %w", err)
		}
		if err := tmpl.Execute(a.out, items); err != nil {
			return fmt.Errorf("template parsing error: %w", err)
		}
		return nil
	}
	return a.usageTables(&items, du.BuildCache.TotalSize)
}

// rawUsageItems is the template that shows every object's fields in lines of their own.
func rawUsageItems() string {
	each := func(list, kind, format string) string {
		return "{{range ." + list + "}}type: " + kind + "\n" + format + "\n{{end -}}\n"
	}
	return each("Images", "Image", imageFormat("raw", false, true)) + each("Containers", "Container", containerFormat("raw", false, true)) +
		each("Volumes", "Volume", volumeFormat("raw", false)) + strings.TrimSuffix(each("BuildCache", "Build Cache", rawBuildCache), "\n")
}

func (a *app) usageTables(items *usageItems, cache int64) error {
	for _, part := range []struct {
		title, format string
		headers       map[string]string
		rows          []any
	}{
		{"Images space usage:", `table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}`, imageHeaders, anys(items.Images)},
		{"\nContainers space usage:", `table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}`, containerHeaders, anys(items.Containers)},
		{"\nLocal Volumes space usage:", `table {{.Name}}\t{{.Links}}\t{{.Size}}`, volumeHeaders, anys(items.Volumes)},
		{"\nBuild cache usage: " + units.HumanSize(float64(cache)), `table {{.ID}}\t{{.CacheType}}\t{{.Size}}\t{{.CreatedSince}}\t{{.LastUsedSince}}\t{{.UsageCount}}\t{{.Shared}}`, buildCacheHeaders, anys(items.BuildCache)},
	} {
		_, _ = fmt.Fprintf(a.out, "%s\n\n", part.title)
		if err := (listing{format: part.format, headers: part.headers}).write(a.out, part.rows); err != nil {
			return err
		}
	}
	return nil
}

func anys[T any](list []T) []any {
	out := make([]any, len(list))
	for i := range list {
		out[i] = list[i]
	}
	return out
}
