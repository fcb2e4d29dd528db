package operate

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"
)

// graph says what each service waits for.
type graph map[string][]string

// walk calls visit for each service, for all at once that wait for nothing any more. The
// first error ends it; what has begun is waited for.
func (g graph) walk(ctx context.Context, visit func(ctx context.Context, service string) error) error {
	if cycle := g.cycle(); cycle != nil {
		return fmt.Errorf("dependency cycle detected: %s", arrows(cycle))
	}
	finished := make(map[string]chan struct{}, len(g))
	for service := range g {
		finished[service] = make(chan struct{})
	}
	group, ctx := errgroup.WithContext(ctx)
	for service, needs := range g {
		group.Go(func() error {
			for _, n := range needs {
				if finished[n] == nil {
					continue // not of this walk
				}
				select {
				case <-finished[n]:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			if err := visit(ctx, service); err != nil {
				return err
			}
			close(finished[service])
			return nil
		})
	}
	return group.Wait()
}

// reversed says what waits for each service, so that what is needed ends last.
func (g graph) reversed() graph {
	r := make(graph, len(g))
	for service := range g {
		r[service] = nil
	}
	for service, needs := range g {
		for _, n := range needs {
			if _, ok := g[n]; ok {
				r[n] = append(r[n], service)
			}
		}
	}
	return r
}

// needing are services, and those that wait for one of them, whether at once or through others.
func (g graph) needing(services []string) []string {
	waiting := g.reversed()
	all := slices.Clone(services)
	for i := 0; i < len(all); i++ {
		for _, s := range waiting[all[i]] {
			if !slices.Contains(all, s) {
				all = append(all, s)
			}
		}
	}
	return all
}

// cycle is a cycle, nil if there is none.
func (g graph) cycle() []string {
	visiting, visited := map[string]bool{}, map[string]bool{}
	var path []string
	var visit func(string) []string
	visit = func(s string) []string {
		switch {
		case visiting[s]:
			return append(slices.Clone(path[slices.Index(path, s):]), s)
		case visited[s]:
			return nil
		}
		visiting[s] = true
		path = append(path, s)
		for _, n := range g[s] {
			if found := visit(n); found != nil {
				return found
			}
		}
		path = path[:len(path)-1]
		visiting[s], visited[s] = false, true
		return nil
	}
	for s := range g {
		if found := visit(s); found != nil {
			return found
		}
	}
	return nil
}

func arrows(services []string) string {
	text := ""
	for i, s := range services {
		if i > 0 {
			text += " -> "
		}
		text += s
	}
	return text
}

// Each does one thing to all containers at once, or to as many as may be, and returns all errors.
func (o *Operator) Each(ctx context.Context, list []Container, do func(ctx context.Context, c Container) error) error {
	return each(ctx, list, func(ctx context.Context, c Container) error {
		free, err := o.slot(ctx)
		if err != nil {
			return err
		}
		defer free()
		return do(ctx, c)
	})
}

// each is Each for what only waits, and is not to keep others from what they do.
func each(ctx context.Context, list []Container, do func(ctx context.Context, c Container) error) error {
	errs := make([]error, len(list))
	var group errgroup.Group
	for i, c := range list {
		group.Go(func() error {
			errs[i] = do(ctx, c)
			return nil
		})
	}
	_ = group.Wait() // its errors are in errs
	return errors.Join(errs...)
}
