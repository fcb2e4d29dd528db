package cli

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	"github.com/moby/moby/client"
)

// confirm asks the user; only y or Y is a yes. When ctx ends first, which a signal
// does, that is the answer.
func (a *app) confirm(ctx context.Context, question string) (bool, error) {
	_, _ = fmt.Fprintf(a.out, "%s [y/N] ", question)
	answer := make(chan bool, 1) // the reader may outlive the question
	go func() {
		s := bufio.NewScanner(a.in)
		answer <- s.Scan() && strings.EqualFold(strings.TrimSpace(s.Text()), "y")
	}()
	select {
	case <-ctx.Done():
		_, _ = fmt.Fprintln(a.out)
		return false, context.Cause(ctx)
	case yes := <-answer:
		return yes, nil
	}
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
