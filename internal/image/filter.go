package image

import (
	"context"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/filter"
)

// newFilter makes the test that an image must pass to be listed. Values of one filter
// are alternatives, except for labels, which must all be there; the filters must all
// agree.
func (s *Service) newFilter(ctx context.Context, c *catalog, filters map[string][]string) (func(*listed) bool, error) {
	var tests []func(*listed) bool
	for _, name := range slices.Sorted(maps.Keys(filters)) {
		values := filters[name]
		if len(values) == 0 {
			continue
		}
		test, err := s.filterTest(ctx, c, name, values)
		if err != nil {
			return nil, err
		}
		tests = append(tests, test)
	}
	return func(l *listed) bool {
		for _, t := range tests {
			if !t(l) {
				return false
			}
		}
		return true
	}, nil
}

func (s *Service) filterTest(ctx context.Context, c *catalog, name string, values []string) (func(*listed) bool, error) {
	switch name {
	case "dangling":
		want, err := filter.Bool(name, values)
		return func(l *listed) bool { return l.dangling == want }, err
	case "label":
		return func(l *listed) bool { return filter.HasLabels(l.summary.Labels, values) }, nil
	case "label!":
		return func(l *listed) bool {
			return !slices.ContainsFunc(values, func(unwanted string) bool { return filter.HasLabel(l.summary.Labels, unwanted) })
		}, nil
	case "reference":
		return referenceFilter(values)
	case "before":
		t, err := s.createdOf(ctx, c, values)
		return func(l *listed) bool { return l.created.Before(t) }, err
	case "since":
		t, err := s.createdOf(ctx, c, values)
		return func(l *listed) bool { return l.created.After(t) }, err
	case "until":
		t, err := filter.Until(name, values, time.Now())
		return func(l *listed) bool { return l.created.Before(t) }, err
	}
	return nil, failure.Invalid("invalid filter '%s'", name)
}

// referenceFilter knows an image by its short name and by its whole one (docker.io/library/NAME), each with its tag or
// digest or without.
func referenceFilter(patterns []string) (func(*listed) bool, error) {
	probe, err := reference.ParseNormalizedNamed("probe")
	if err != nil {
		return nil, err
	}
	for _, p := range patterns {
		if _, err := reference.FamiliarMatch(p, probe); err != nil {
			return nil, failure.Invalid("invalid filter 'reference=%s': %w", p, err)
		}
	}
	matches := func(name string) bool {
		named, err := reference.ParseNormalizedNamed(name)
		return err == nil && slices.ContainsFunc(patterns, func(p string) bool {
			short, _ := reference.FamiliarMatch(p, named)
			whole, _ := path.Match(p, named.String())
			bare, _ := path.Match(p, named.Name())
			return short || whole || bare
		})
	}
	return func(l *listed) bool {
		if !slices.ContainsFunc(l.names, matches) {
			return false
		}
		l.narrow(matches)
		return true
	}, nil
}

// narrow lists the image under the names that were asked for, and with the digests
// of their repositories.
func (l *listed) narrow(wanted func(name string) bool) {
	sum := &l.summary
	sum.RepoTags = slices.DeleteFunc(sum.RepoTags, func(n string) bool { return !wanted(n) })
	sum.RepoDigests = slices.DeleteFunc(sum.RepoDigests, func(n string) bool {
		repo, _, _ := strings.Cut(n, "@")
		return !wanted(n) && !slices.ContainsFunc(sum.RepoTags, func(tag string) bool { return strings.HasPrefix(tag, repo+":") })
	})
}

// createdOf is the creation date of the image that before and since compare with.
func (s *Service) createdOf(ctx context.Context, c *catalog, refs []string) (time.Time, error) {
	if len(refs) != 1 {
		return time.Time{}, failure.Invalid("the filters before and since take one image, not %v", refs)
	}
	_, v, err := s.pick(ctx, c, refs[0], "")
	if err != nil {
		return time.Time{}, err
	}
	if v.config.Created == nil {
		return time.Time{}, nil
	}
	return *v.config.Created, nil
}
