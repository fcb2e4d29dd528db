// Package filter reads the values of filters that lists and prunes of several kinds of objects have in common: labels,
// names, truth values and dates, as Docker means them. Its errors are errdefs.ErrInvalidArgument and name the filter.
package filter

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cleatlabs/cleat/internal/failure"
)

// HasLabel says whether the wanted label, "key" or "key=value", is among labels.
func HasLabel(labels map[string]string, wanted string) bool {
	key, value, valued := strings.Cut(wanted, "=")
	have, ok := labels[key]
	return ok && (!valued || have == value)
}

// HasLabels says whether all wanted labels are among labels.
func HasLabels(labels map[string]string, wanted []string) bool {
	return !slices.ContainsFunc(wanted, func(w string) bool { return !HasLabel(labels, w) })
}

// Names takes names in which one of the values is found, which are regular expressions, as scripts give with ^web$. A
// value that is none is looked for as it stands. Without values it takes all.
func Names(values []string) func(name string) bool {
	exprs := make([]*regexp.Regexp, len(values))
	for i, v := range values {
		var err error
		if exprs[i], err = regexp.Compile(v); err != nil {
			exprs[i] = regexp.MustCompile(regexp.QuoteMeta(v))
		}
	}
	return func(name string) bool {
		return len(exprs) == 0 || slices.ContainsFunc(exprs, func(re *regexp.Regexp) bool { return re.MatchString(name) })
	}
}

// Bool reads a filter that is true or false. Without values it is false.
func Bool(key string, values []string) (bool, error) {
	found := false
	for i, v := range values {
		b, err := strconv.ParseBool(v)
		if err != nil || i > 0 && b != found {
			return false, failure.Invalid("invalid filter '%s=%v': want true or false", key, values)
		}
		found = b
	}
	return found, nil
}

// Until reads a filter that is one point in time: a duration before now, Unix seconds with an optional fraction, or a
// date, in the engine's time zone if it names none. Without a value it is the zero time.
func Until(key string, values []string, now time.Time) (time.Time, error) {
	switch len(values) {
	case 0:
		return time.Time{}, nil
	case 1:
	default:
		return time.Time{}, failure.Invalid("more than one until filter specified")
	}
	text := values[0]
	if d, err := time.ParseDuration(text); err == nil {
		return now.Add(-d), nil
	}
	whole, fraction, _ := strings.Cut(text, ".")
	seconds, err := strconv.ParseInt(whole, 10, 64)
	nanos, nerr := strconv.ParseUint((fraction + "000000000")[:9], 10, 64)
	if err == nil && nerr == nil {
		return time.Unix(seconds, int64(nanos)), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02T15", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, failure.Invalid("invalid filter '%s=%s': want a duration such as 24h, Unix seconds, or a date such as 2006-01-02T15:04:05", key, text)
}
