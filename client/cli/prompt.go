package cli

import (
	"context"
	"strings"

	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/client/term"
)

// confirm asks the user; only y or Y is a yes.
func (a *app) confirm(ctx context.Context, question string) (bool, error) {
	return term.Confirm(ctx, a.in, a.out, question+" [y/N]", "y")
}

// pruneFilters adds to the filters of a prune those of the user's configuration
// (pruneFilters in config.json), which given ones override.
func (a *app) pruneFilters(given client.Filters) client.Filters {
	out := make(client.Filters)
	for key, values := range given {
		for value := range values {
			out.Add(key, value)
		}
	}
	for _, f := range a.config().PruneFilters {
		key, value, ok := strings.Cut(f, "=")
		if !ok {
			continue
		}
		// A label that is asked for is not excluded by the configuration, nor the
		// other way round.
		opposite := map[string]string{"label": "label!", "label!": "label"}[key]
		if opposite != "" && given[opposite][value] {
			continue
		}
		out.Add(key, value)
	}
	return out
}
