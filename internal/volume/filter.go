package volume

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/cleatlabs/cleat/internal/failure"
)

// parseFilters makes one test out of the filters of a volume list: different
// keys are joined by AND, values of one key by OR, labels must all match.
func parseFilters(filters map[string][]string) (func(name string, e *entry) bool, error) {
	var tests []func(name string, e *entry) bool
	for key, values := range filters {
		if len(values) == 0 {
			continue
		}
		switch key {
		case "dangling":
			want, err := parseBoolean(key, values)
			if err != nil {
				return nil, err
			}
			tests = append(tests, func(_ string, e *entry) bool { return (len(e.refs) == 0) == want })
		case "driver":
			tests = append(tests, func(_ string, e *entry) bool { return slices.Contains(values, e.driver()) })
		case "label", "label!":
			has := key == "label"
			tests = append(tests, func(_ string, e *entry) bool {
				return !slices.ContainsFunc(values, func(v string) bool { return hasLabel(e, v) != has })
			})
		case "name":
			match := nameMatcher(values)
			tests = append(tests, func(name string, _ *entry) bool { return match(name) })
		default:
			return nil, failure.Invalid("invalid filter '%s': volumes are filtered by dangling, driver, label and name", key)
		}
	}
	return func(name string, e *entry) bool {
		for _, test := range tests {
			if !test(name, e) {
				return false
			}
		}
		return true
	}, nil
}

func parseBoolean(key string, values []string) (bool, error) {
	var want, seen bool
	for _, v := range values {
		b, err := strconv.ParseBool(v)
		if err != nil || seen && b != want {
			return false, failure.Invalid("invalid filter '%s=[%s]': give true or false", key, strings.Join(values, " "))
		}
		want, seen = b, true
	}
	return want, nil
}

func hasLabel(e *entry, want string) bool {
	key, value, hasValue := strings.Cut(want, "=")
	got, ok := e.meta.Labels[key]
	return ok && (!hasValue || got == value)
}

// nameMatcher matches as Docker does: a value is a regular expression that may
// match anywhere in the name. One that does not compile is taken literally.
func nameMatcher(values []string) func(string) bool {
	var exprs []*regexp.Regexp
	for _, v := range values {
		re, err := regexp.Compile(v)
		if err != nil {
			re = regexp.MustCompile(regexp.QuoteMeta(v))
		}
		exprs = append(exprs, re)
	}
	return func(name string) bool {
		return slices.ContainsFunc(exprs, func(re *regexp.Regexp) bool { return re.MatchString(name) })
	}
}
