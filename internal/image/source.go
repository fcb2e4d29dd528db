package image

import (
	"context"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// maxSources is how many repositories of one registry are remembered for a blob.
const maxSources = 8

// sourceLabel is on blobs that a registry has, in the repositories that its value lists:
// from there they can be mounted into others.
func sourceLabel(domain string) string { return labels.LabelDistributionSource + "." + domain }

// sourceFor gives a repository, other than name's own, of name's registry that is
// believed to have a blob: the one that is nearest in name, "" if there is none.
func sourceFor(name reference.Named, info content.Info) string {
	own := reference.Path(name)
	best, nearest := "", -1
	for repository := range strings.SplitSeq(info.Labels[sourceLabel(reference.Domain(name))], ",") {
		if repository == own || repository == "" {
			continue
		}
		if _, err := reference.WithName(repository); err != nil {
			continue
		}
		if n := commonPrefix(repository, own); n > nearest {
			best, nearest = repository, n
		}
	}
	return best
}

func commonPrefix(a, b string) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}

// withSource adds name's repository to a list of them, which keeps the newest.
func withSource(list string, name reference.Named) string {
	var all []string
	if list != "" {
		all = strings.Split(list, ",")
	}
	if slices.Contains(all, reference.Path(name)) {
		return list
	}
	all = append(all, reference.Path(name))
	return strings.Join(all[max(0, len(all)-maxSources):], ",")
}

// sourced is a content store that labels what is written to it with where it came from:
// in the commit of the blob itself, which costs nothing.
type sourced struct {
	content.Ingester
	name reference.Named
}

func (s *sourced) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	w, err := s.Ingester.Writer(ctx, opts...)
	if err != nil {
		return nil, err
	}
	return &sourcedWriter{w, s.name}, nil
}

type sourcedWriter struct {
	content.Writer
	name reference.Named
}

func (w *sourcedWriter) Commit(ctx context.Context, size int64, expected digest.Digest, opts ...content.Opt) error {
	return w.Writer.Commit(ctx, size, expected, append(opts, func(info *content.Info) error {
		if info.Labels == nil {
			info.Labels = map[string]string{}
		}
		key := sourceLabel(reference.Domain(w.name))
		if value := withSource(info.Labels[key], w.name); labels.Validate(key, value) == nil {
			info.Labels[key] = value
		}
		return nil
	})...)
}
