package image

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/distribution/reference"

	"github.com/cleatlabs/cleat/internal/failure"
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
		want, err := boolFilter(name, values)
		return func(l *listed) bool { return l.dangling == want }, err
	case "label":
		return func(l *listed) bool {
			return !slices.ContainsFunc(values, func(v string) bool { return !hasLabel(l.summary.Labels, v) })
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
		t, err := untilFilter(values)
		return func(l *listed) bool { return l.created.Before(t) }, err
	}
	return nil, failure.Invalid("invalid filter '%s'", name)
}

func boolFilter(name string, values []string) (bool, error) {
	want, known := false, false
	for _, v := range values {
		b, err := strconv.ParseBool(v)
		if err != nil || (known && b != want) {
			return false, failure.Invalid("invalid filter '%s=%v'", name, values)
		}
		want, known = b, true
	}
	return want, nil
}

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
			ok, _ := reference.FamiliarMatch(p, named)
			return ok
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

// untilFilter reads a point in time: a duration before now, Unix seconds, or a date.
func untilFilter(values []string) (time.Time, error) {
	if len(values) != 1 {
		return time.Time{}, failure.Invalid("the filter until takes one point in time, not %v", values)
	}
	v := values[0]
	if d, err := time.ParseDuration(v); err == nil {
		return time.Now().Add(-d), nil
	}
	if seconds, fraction, _ := strings.Cut(v, "."); seconds != "" {
		sec, err := strconv.ParseInt(seconds, 10, 64)
		nano, nerr := strconv.ParseInt((fraction + "000000000")[:9], 10, 64)
		if err == nil && nerr == nil {
			return time.Unix(sec, nano), nil
		}
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02T15", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, v, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, failure.Invalid("invalid filter 'until=%s': neither a duration (24h), Unix seconds nor a date (2006-01-02T15:04:05)", v)
}
