package operate

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/client/compose/label"
)

func TestWalkKeepsTheOrder(t *testing.T) {
	g := graph{"web": {"api", "cache"}, "api": {"db"}, "cache": nil, "db": nil, "other": {"not of this walk"}}
	for _, c := range []struct {
		name   string
		g      graph
		before func(a, b string) bool // a must come before b
	}{
		{"forward", g, func(a, b string) bool { return slices.Contains(g[b], a) }},
		{"reversed", g.reversed(), func(a, b string) bool { return slices.Contains(g[a], b) }},
	} {
		var mu sync.Mutex
		var order []string
		err := c.g.walk(t.Context(), func(_ context.Context, s string) error {
			mu.Lock()
			defer mu.Unlock()
			order = append(order, s)
			return nil
		})
		if err != nil || len(order) != len(g) {
			t.Fatalf("%s: %v, %v", c.name, order, err)
		}
		for i, b := range order {
			for _, a := range order[i+1:] {
				if c.before(a, b) {
					t.Errorf("%s: %s came after %s in %v", c.name, a, b, order)
				}
			}
		}
	}
}

func TestWalkEndsWithTheFirstError(t *testing.T) {
	broken := errors.New("broken")
	err := graph{"a": nil, "b": {"a"}}.walk(t.Context(), func(_ context.Context, s string) error {
		if s == "b" {
			t.Error("what needs the broken one was done")
		}
		return broken
	})
	if !errors.Is(err, broken) {
		t.Error(err)
	}
}

func TestCircles(t *testing.T) {
	err := graph{"a": {"b"}, "b": {"c"}, "c": {"a"}}.walk(t.Context(), func(context.Context, string) error { return nil })
	if err == nil || !strings.HasPrefix(err.Error(), "dependency cycle detected: ") || strings.Count(err.Error(), "->") != 3 {
		t.Error(err)
	}
	if c := (graph{"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "d": nil}).cycle(); c != nil {
		t.Errorf("a diamond is no circle: %v", c)
	}
}

func TestDependenciesByLabels(t *testing.T) {
	of := func(service, on string) Container {
		return Container{Service: service, Summary: container.Summary{Labels: map[string]string{label.DependsOn: on}}}
	}
	g := Dependencies([]Container{of("web", "db:service_healthy:false,api:service_started:true"), of("web", ""), of("db", ""), of("api", "db")})
	if !slices.Equal(g["web"], []string{"db", "api"}) || !slices.Equal(g["api"], []string{"db"}) || len(g["db"]) != 0 {
		t.Errorf("%v", g)
	}
	// Somebody's labels may say anything: taking down must go on.
	if g := Dependencies([]Container{of("a", "b"), of("b", "a")}); g.cycle() != nil {
		t.Errorf("%v", g)
	}
}

func FuzzDependencies(f *testing.F) {
	f.Add("db:service_healthy:true,x")
	f.Fuzz(func(t *testing.T, value string) {
		for _, d := range label.ParseDependencies(value) {
			if d.Service == "" || strings.ContainsAny(d.Service, ":,") {
				t.Errorf("%q: %+v", value, d)
			}
		}
	})
}
