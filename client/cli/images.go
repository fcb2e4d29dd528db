package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/docker/cli/opts"
	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/pflag"

	"github.com/cleatlabs/cleat/client/term"
)

type imagesOptions struct {
	all, digests, noTrunc, quiet, tree bool
	format                             string
	filter                             opts.FilterOpt
}

func (a *app) images() spec {
	return spec{
		use: "images [OPTIONS] [REPOSITORY[:TAG]]", short: "List images",
		args: a.maxArgs(1), top: 8, shownAs: []string{"image ls", "image list", "images"},
		setup: func(fs *pflag.FlagSet) action {
			o := imagesOptions{filter: opts.NewFilterOpt()}
			fs.BoolVarP(&o.all, "all", "a", false, "Show all images (default hides intermediate images)")
			fs.BoolVar(&o.digests, "digests", false, "Show digests")
			fs.VarP(&o.filter, "filter", "f", "Filter output based on conditions provided")
			fs.StringVar(&o.format, "format", "", formatHelp)
			fs.BoolVar(&o.noTrunc, "no-trunc", false, "Don't truncate output")
			fs.BoolVarP(&o.quiet, "quiet", "q", false, "Only show image IDs")
			fs.BoolVar(&o.tree, "tree", false, "List multi-platform images as a tree (EXPERIMENTAL)")
			return func(ctx context.Context, args []string) error { return a.listImages(ctx, o, args) }
		},
	}
}

func (a *app) listImages(ctx context.Context, o imagesOptions, args []string) error {
	if o.tree {
		if err := o.checkTree(); err != nil {
			return err
		}
	}
	filters := o.filter.Value()
	if len(args) > 0 {
		filters.Add("reference", args[0])
	}
	c, err := a.api()
	if err != nil {
		return err
	}
	if o.tree {
		return a.imageTree(ctx, c, o.all, filters)
	}
	res, err := c.ImageList(ctx, client.ImageListOptions{All: o.all, Filters: filters})
	if err != nil {
		return err
	}
	if o.format == "" && !o.quiet {
		o.format = a.config().ImagesFormat
	}
	format := imageFormat(o.format, o.quiet, o.digests)
	perDigest := o.digests || strings.Contains(format, "{{.Digest}}")
	var rows []any
	for i := range res.Items {
		for _, r := range imageRows(&res.Items[i], perDigest, o.digests) {
			r.trunc = !o.noTrunc
			rows = append(rows, r)
		}
	}
	return listing{format: format, headers: imageHeaders}.write(a.out, rows)
}

func imageFormat(format string, quiet, digests bool) string {
	switch {
	case quiet && (format == "" || format == "table"):
		return quietID
	case quiet && format == "raw":
		return "image_id: {{.ID}}"
	case format == "" || format == "table":
		if digests {
			return `table {{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{if .CreatedSince }}{{.CreatedSince}}{{else}}N/A{{end}}\t{{.Size}}`
		}
		return `table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{if .CreatedSince }}{{.CreatedSince}}{{else}}N/A{{end}}\t{{.Size}}`
	case format == "raw":
		text := "repository: {{ .Repository }}\ntag: {{.Tag}}\n"
		if digests {
			text += "digest: {{.Digest}}\n"
		}
		return text + "image_id: {{.ID}}\ncreated_at: {{.CreatedAt}}\nvirtual_size: {{.Size}}\n"
	case isTable(format) && digests && !strings.Contains(format, "{{.Digest}}"):
		return format + "\t{{.Digest}}"
	}
	return format
}

var imageHeaders = map[string]string{
	"ID": "IMAGE ID", "Repository": "REPOSITORY", "Tag": "TAG", "Digest": "DIGEST", "CreatedSince": "CREATED", "CreatedAt": "CREATED AT",
	"Size": "SIZE", "VirtualSize": "SIZE", "Containers": "CONTAINERS", "SharedSize": "SHARED SIZE", "UniqueSize": "UNIQUE SIZE",
}

// imageRow is an image under one of its names.
type imageRow struct {
	i                 *image.Summary
	repo, tag, digest string
	trunc             bool
}

// imageRows are the lines of one image: one for each tag, with perDigest one for each
// tag and digest, and those of repositories that hold it by digest only.
func imageRows(img *image.Summary, perDigest, digestColumn bool) []*imageRow {
	type named struct{ repo, value string }
	var tags []named
	digests := map[string][]string{}
	var digestRepos []string
	tagged := map[string]bool{}
	for _, s := range img.RepoTags {
		ref, err := reference.ParseNormalizedNamed(s)
		if t, ok := ref.(reference.NamedTagged); err == nil && ok {
			repo := reference.FamiliarName(ref)
			tags = append(tags, named{repo, t.Tag()})
			tagged[repo] = true
		}
	}
	for _, s := range img.RepoDigests {
		ref, err := reference.ParseNormalizedNamed(s)
		if d, ok := ref.(reference.Canonical); err == nil && ok {
			repo := reference.FamiliarName(ref)
			if digests[repo] == nil {
				digestRepos = append(digestRepos, repo)
			}
			digests[repo] = append(digests[repo], d.Digest().String())
		}
	}
	if len(tags) == 0 && len(digestRepos) == 0 {
		return []*imageRow{{i: img, repo: "<none>", tag: "<none>", digest: "<none>"}}
	}
	var rows []*imageRow
	for _, t := range tags {
		if !perDigest || len(digests[t.repo]) == 0 {
			rows = append(rows, &imageRow{i: img, repo: t.repo, tag: t.value, digest: "<none>"})
			continue
		}
		for _, d := range digests[t.repo] {
			rows = append(rows, &imageRow{i: img, repo: t.repo, tag: t.value, digest: d})
		}
	}
	for _, repo := range digestRepos {
		switch {
		case tagged[repo]:
		case digestColumn:
			for _, d := range digests[repo] {
				rows = append(rows, &imageRow{i: img, repo: repo, tag: "<none>", digest: d})
			}
		default:
			rows = append(rows, &imageRow{i: img, repo: repo, tag: "<none>"})
		}
	}
	return rows
}

func (r *imageRow) MarshalJSON() ([]byte, error) { return marshalRow(r) }

func (r *imageRow) ID() string {
	if r.trunc {
		return shortID(r.i.ID)
	}
	return r.i.ID
}

func (r *imageRow) Repository() string { return r.repo }
func (r *imageRow) Tag() string        { return r.tag }
func (r *imageRow) Digest() string     { return r.digest }

func (r *imageRow) CreatedSince() string {
	if time.Unix(r.i.Created, 0).IsZero() {
		return ""
	}
	return ago(r.i.Created)
}

func (r *imageRow) CreatedAt() string { return time.Unix(r.i.Created, 0).String() }
func (r *imageRow) Size() string      { return units.HumanSizeWithPrecision(float64(r.i.Size), 3) }

func (r *imageRow) Containers() string {
	if r.i.Containers == -1 {
		return "N/A"
	}
	return strconv.FormatInt(r.i.Containers, 10)
}

func (r *imageRow) SharedSize() string {
	if r.i.SharedSize == -1 {
		return "N/A"
	}
	return units.HumanSize(float64(r.i.SharedSize))
}

func (r *imageRow) UniqueSize() string {
	if r.i.Size == -1 || r.i.SharedSize == -1 {
		return "N/A"
	}
	return units.HumanSize(float64(r.i.Size - r.i.SharedSize))
}

// VirtualSize is Size: the two were different before layers were shared by digest.
func (r *imageRow) VirtualSize() string { return units.HumanSize(float64(r.i.Size)) }

func (a *app) history() spec {
	return spec{
		use: "history [OPTIONS] IMAGE", short: "Show the history of an image",
		args: a.exactArgs(1), shownAs: []string{"image history", "history"},
		setup: func(fs *pflag.FlagSet) action {
			format := fs.String("format", "", formatHelp)
			human := fs.BoolP("human", "H", true, "Print sizes and dates in human readable format")
			noTrunc := fs.Bool("no-trunc", false, "Don't truncate output")
			platform := fs.String("platform", "", `Show history for the given platform. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")`)
			quiet := fs.BoolP("quiet", "q", false, "Only show image IDs")
			return func(ctx context.Context, args []string) error {
				var options []client.ImageHistoryOption
				if *platform != "" {
					p, err := platforms.Parse(*platform)
					if err != nil {
						return fmt.Errorf("invalid platform: %w", err)
					}
					options = append(options, client.ImageHistoryWithPlatform(p))
				}
				c, err := a.api()
				if err != nil {
					return err
				}
				res, err := c.ImageHistory(ctx, args[0], options...)
				if err != nil {
					return err
				}
				rows := make([]any, len(res.Items))
				for i := range res.Items {
					rows[i] = &historyRow{h: &res.Items[i], trunc: !*noTrunc, human: *human}
				}
				return listing{format: historyFormat(*format, *quiet, *human), headers: historyHeaders}.write(a.out, rows)
			}
		},
	}
}

func historyFormat(format string, quiet, human bool) string {
	switch {
	case format != "" && format != "table":
		return format
	case quiet:
		return quietID
	case !human:
		return `table {{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}`
	}
	return `table {{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}`
}

var historyHeaders = map[string]string{
	"ID": "IMAGE", "CreatedSince": "CREATED", "CreatedAt": "CREATED AT", "CreatedBy": "CREATED BY", "Size": "SIZE", "Comment": "COMMENT",
}

// historyRow is one step of an image's making.
type historyRow struct {
	h            *image.HistoryResponseItem
	trunc, human bool
}

func (r *historyRow) MarshalJSON() ([]byte, error) { return marshalRow(r) }

func (r *historyRow) ID() string {
	if r.trunc {
		return shortID(r.h.ID)
	}
	return r.h.ID
}

func (r *historyRow) CreatedAt() string { return time.Unix(r.h.Created, 0).Format(time.RFC3339) }

func (r *historyRow) CreatedSince() string {
	if !r.human {
		return r.CreatedAt()
	}
	if time.Unix(r.h.Created, 0).Year() < 2000 {
		return "N/A" // reproducible images carry a date before containers
	}
	return ago(r.h.Created)
}

func (r *historyRow) CreatedBy() string {
	text := strings.ReplaceAll(r.h.CreatedBy, "\t", " ")
	if r.trunc {
		return term.Ellipsis(text, 45)
	}
	return text
}

func (r *historyRow) Size() string {
	if r.human {
		return units.HumanSizeWithPrecision(float64(r.h.Size), 3)
	}
	return strconv.FormatInt(r.h.Size, 10)
}

func (r *historyRow) Comment() string { return r.h.Comment }

func (a *app) tag() spec {
	return spec{
		use: "tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", short: "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
		args: a.exactArgs(2), shownAs: []string{"image tag", "tag"},
		setup: func(fs *pflag.FlagSet) action {
			fs.SetInterspersed(false)
			return func(ctx context.Context, args []string) error {
				c, err := a.api()
				if err != nil {
					return err
				}
				_, err = c.ImageTag(ctx, client.ImageTagOptions{Source: args[0], Target: args[1]})
				return err
			}
		},
	}
}

func (a *app) rmi() spec {
	return spec{
		use: "rmi [OPTIONS] IMAGE [IMAGE...]", short: "Remove one or more images",
		args: a.minArgs(1), shownAs: []string{"image rm", "image remove", "rmi"},
		setup: func(fs *pflag.FlagSet) action {
			force := fs.BoolP("force", "f", false, "Force removal of the image")
			noPrune := fs.Bool("no-prune", false, "Do not delete untagged parents")
			platform := fs.StringSlice("platform", nil, `Remove only the given platform variant. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")`)
			return func(ctx context.Context, names []string) error {
				ps, err := parsePlatforms(*platform)
				if err != nil {
					return err
				}
				return a.removeImages(ctx, names, client.ImageRemoveOptions{Force: *force, PruneChildren: !*noPrune, Platforms: ps})
			}
		},
	}
}

func parsePlatforms(list []string) ([]ocispec.Platform, error) {
	var out []ocispec.Platform
	for _, s := range list {
		p, err := platforms.Parse(s)
		if err != nil {
			return nil, fmt.Errorf("invalid platform: %w", err)
		}
		out = append(out, p)
	}
	return out, nil
}

func (a *app) removeImages(ctx context.Context, names []string, o client.ImageRemoveOptions) error {
	c, err := a.api()
	if err != nil {
		return err
	}
	var errs []error
	serious := false
	for _, name := range names {
		res, err := c.ImageRemove(ctx, name, o)
		if err != nil {
			serious = serious || !errdefs.IsNotFound(err)
			errs = append(errs, err)
			continue
		}
		for _, d := range res.Items {
			if d.Deleted != "" {
				_, _ = fmt.Fprintln(a.out, "Deleted:", d.Deleted)
			} else {
				_, _ = fmt.Fprintln(a.out, "Untagged:", d.Untagged)
			}
		}
	}
	err = errors.Join(errs...)
	if err != nil && o.Force && !serious {
		_, _ = fmt.Fprintln(a.err, a.explain(err)) // none of them is there, which is what was wanted
		return nil
	}
	return err
}
