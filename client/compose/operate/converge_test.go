package operate

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/moby/moby/api/types/container"
)

// saidSteps collects what is reported.
type saidSteps []string

func (s *saidSteps) Report(kind, name, state string) { *s = append(*s, kind+" "+name+" "+state) }
func (s *saidSteps) Warn(text string)                { *s = append(*s, text) }

// What is given up because of something else is not blamed for it.
func TestCancelledStepsHaveNoErrorOfTheirOwn(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range []struct {
		name  string
		cause error // of the end of the context; nil: it goes on
		err   error
		want  string
	}{
		{"done", nil, nil, "Container c Created"},
		{"its own error", nil, broken, "Container c Error broken"},
		{"another's error", broken, fmt.Errorf("post: %w", broken), "Container c Canceled"},
		{"an interrupt", context.Canceled, fmt.Errorf("post: %w", context.Canceled), "Container c Canceled"},
		{"its own error at the end", context.Canceled, broken, "Container c Error broken"},
		{"done at the end", context.Canceled, nil, "Container c Created"},
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		if c.cause != nil {
			cancel(c.cause)
		}
		var s saidSteps
		o := &Operator{Report: &s}
		err := o.ended(ctx, "Container", "c", "Created", c.err)
		if (err != nil) != (c.err != nil) || len(s) != 1 || s[0] != c.want {
			t.Errorf("%s: %v, %q", c.name, err, s)
		}
		cancel(nil)
	}
}

// After a Create what the engine would list is known without asking it.
func TestListAfterACreate(t *testing.T) {
	of := func(service string, number int, id string, state container.ContainerState) Container {
		return Container{Service: service, Number: number, Summary: container.Summary{ID: id, State: state}}
	}
	c := &converging{
		existing: []Container{of("web", 1, "old", container.StateRunning), of("other", 1, "kept", container.StateExited), of("web", 2, "surplus", container.StateRunning)},
		made:     map[string][]Container{"web": {of("web", 1, "new", container.StateCreated)}, "db": {of("db", 1, "db", container.StateCreated)}},
	}
	var got []string
	for _, m := range c.list() {
		got = append(got, m.ID)
	}
	if fmt.Sprint(got) != "[db kept new]" {
		t.Errorf("%v", got)
	}
}
