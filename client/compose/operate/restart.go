package operate

import (
	"context"
	"slices"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/cleatlabs/cleat/client/compose/label"
)

// Restart restarts the services' containers, and then those of services that asked to be
// restarted with them, unless alone is set: these once what they depend on meets their conditions anew. Naming no
// service restarts all.
func (o *Operator) Restart(ctx context.Context, list []Container, services []string, alone bool, timeout *int) error {
	g := Dependencies(list)
	wanted := map[string]bool{}
	for _, c := range list {
		wanted[c.Service] = len(services) == 0 || slices.Contains(services, c.Service)
	}
	if !alone {
		for changed := true; changed; {
			changed = false
			for _, c := range list {
				for _, d := range label.ParseDependencies(c.Labels[label.DependsOn]) {
					if d.Restart && wanted[d.Service] && !wanted[c.Service] {
						wanted[c.Service], changed = true, true
					}
				}
			}
		}
	}
	return g.walk(ctx, func(ctx context.Context, service string) error {
		if !wanted[service] {
			return nil
		}
		mine := OfServices(list, []string{service})
		if err := o.awaitRestarted(ctx, list, mine, wanted); err != nil {
			return err
		}
		return o.Each(ctx, mine, func(ctx context.Context, c Container) error {
			o.Report.Report("Container", c.Name, "Restarting")
			return o.ended(ctx, "Container", c.Name, "Started", o.restart(ctx, c, timeout))
		})
	})
}

// awaitRestarted waits until what has been restarted is as a service's containers want it that are restarted with it.
func (o *Operator) awaitRestarted(ctx context.Context, list, mine []Container, restarted map[string]bool) error {
	s := types.ServiceConfig{Name: mine[0].Service}
	s.DependsOn = types.DependsOnConfig{}
	meant, _ := o.Service(mine[0])
	for _, d := range label.ParseDependencies(mine[0].Labels[label.DependsOn]) {
		if d.Restart && restarted[d.Service] {
			named, known := meant.DependsOn[d.Service]
			s.DependsOn[d.Service] = types.ServiceDependency{Condition: d.Condition, Required: !known || named.Required}
		}
	}
	anew := slices.Clone(list)
	for i := range anew {
		anew[i].State, anew[i].Health = "", nil // they were so before
	}
	n := o.watch(ctx, mine[0].Labels[label.Project])
	defer n.close()
	return o.awaitDependencies(ctx, n, anew, &types.Project{}, s)
}
