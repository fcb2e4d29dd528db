package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/containerd/platforms"
	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/client"
)

// checkTree refuses what a tree cannot be combined with, in Docker's words.
func (o *imagesOptions) checkTree() error {
	for _, c := range []struct {
		given bool
		flag  string
	}{{o.quiet, "quiet"}, {o.noTrunc, "no-trunc"}, {o.digests, "show-digest"}, {o.format != "", "format"}} {
		if c.given {
			return errors.New("--" + c.flag + " is not yet supported with --tree")
		}
	}
	return nil
}

// imageTree lists images with what they are for each platform.
func (a *app) imageTree(ctx context.Context, c client.APIClient, all bool, filters client.Filters) error {
	res, err := c.ImageList(ctx, client.ImageListOptions{All: all, Filters: filters, Manifests: true})
	if err != nil {
		return err
	}
	return writeImageTree(a.out, res.Items)
}

// treeLine is a line of the tree. One without an ID has a further name only.
type treeLine struct {
	name, id, usage, content, extra string
}

// treeImage gives the lines of one image.
func treeImage(i *image.Summary) []treeLine {
	names := slices.Sorted(slices.Values(i.RepoTags))
	if len(names) == 0 {
		names = []string{"<untagged>"}
	}
	size := func(n int64) string { return units.HumanSizeWithPrecision(float64(n), 3) }
	used := func(is bool) string {
		if is {
			return "U"
		}
		return ""
	}
	top := treeLine{id: shortID(i.ID), usage: size(i.Size)}
	inUse, total := i.Containers > 0, int64(0)
	var below []treeLine
	for _, m := range i.Manifests {
		total += m.Size.Content
		if m.Kind != image.ManifestKindImage || m.ImageData == nil {
			continue
		}
		running := len(m.ImageData.Containers) > 0
		inUse = inUse || running
		below = append(below, treeLine{
			name: "├─ " + platforms.Format(m.ImageData.Platform), id: shortID(m.ID),
			usage: size(m.Size.Total), content: size(m.Size.Content), extra: used(running),
		})
	}
	if n := len(below); n > 0 {
		below[n-1].name = "└─ " + strings.TrimPrefix(below[n-1].name, "├─ ")
	}
	top.content, top.extra = size(total), used(inUse)
	var lines []treeLine
	for k, name := range names {
		line := treeLine{name: name}
		if k == len(names)-1 {
			line = top
			line.name = name
		}
		lines = append(lines, line)
	}
	return append(lines, below...)
}

// writeImageTree prints Docker's tree as it is without a terminal: no colours, no legend.
func writeImageTree(w io.Writer, images []image.Summary) error {
	trees := make([][]treeLine, len(images))
	width := len("IMAGE")
	for i := range images {
		trees[i] = treeImage(&images[i])
		for _, l := range trees[i] {
			width = max(width, utf8.RuneCountInString(l.name))
		}
	}
	slices.SortStableFunc(trees, func(a, b []treeLine) int {
		untagged := func(t []treeLine) int {
			if strings.HasPrefix(t[0].name, "<") {
				return 1
			}
			return 0
		}
		return cmp.Or(cmp.Compare(untagged(a), untagged(b)), cmp.Compare(a[0].name, b[0].name))
	})
	var b strings.Builder
	line := func(l treeLine) {
		b.WriteString(strings.TrimRight(fmt.Sprintf("%-*s   %-12s   %10s   %12s   %s", width, l.name, l.id, l.usage, l.content, l.extra), " ") + "\n")
	}
	line(treeLine{"IMAGE", "ID", "DISK USAGE", "CONTENT SIZE", "EXTRA"})
	for _, t := range trees {
		for _, l := range t {
			line(l)
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}
