package volume

import (
	"slices"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/filter"
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
			want, err := filter.Bool(key, values)
			if err != nil {
				return nil, err
			}
			tests = append(tests, func(_ string, e *entry) bool { return (len(e.refs) == 0) == want })
		case "driver":
			tests = append(tests, func(_ string, e *entry) bool { return slices.Contains(values, e.driver()) })
		case "label", "label!":
			has := key == "label"
			tests = append(tests, func(_ string, e *entry) bool {
				return !slices.ContainsFunc(values, func(v string) bool { return filter.HasLabel(e.meta.Labels, v) != has })
			})
		case "name":
			match := filter.Names(values)
			tests = append(tests, func(name string, _ *entry) bool { return match(name) })
		default:
			return nil, failure.Invalid("invalid filter '%s'", key)
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
