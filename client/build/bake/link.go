package bake

import (
	"fmt"
	"slices"
	"strings"
)

// linker adds to targets those whose results they use as contexts.
type linker struct {
	*file
	all       map[string]*target
	overrides map[string][]override
	done      map[string]bool
}

// link adds those of t; above are the targets that use it.
func (l *linker) link(name string, t *target, above []string) error {
	if l.done[name] {
		return nil
	}
	above = append(above, name)
	for _, where := range t.Contexts {
		other, ok := strings.CutPrefix(where, "target:")
		if !ok {
			continue
		}
		switch {
		case other == name:
			return fmt.Errorf("target %s cannot link to itself", other)
		case slices.Contains(above, other):
			return fmt.Errorf("infinite loop from %s to %s", name, other)
		}
		if l.all[other] == nil {
			linked, err := l.complete(other, l.overrides)
			if err != nil {
				return err
			}
			linked.Outputs = specs{"type=cacheonly"}
			l.all[other] = linked
		}
		if err := l.link(other, l.all[other], above); err != nil {
			return err
		}
		for _, right := range l.all[other].Entitlements {
			if !slices.Contains(t.Entitlements, right) {
				t.Entitlements = append(t.Entitlements, right)
			}
		}
		if theirs := l.all[other].Platforms; len(t.Platforms) > 1 && len(theirs) > 1 {
			for _, p := range t.Platforms {
				if !slices.Contains(theirs, p) {
					return fmt.Errorf("target %s can't be used by %s because its platforms %v are not a subset of %v", other, name, t.Platforms, theirs)
				}
			}
		}
	}
	l.done[name] = true
	return nil
}
