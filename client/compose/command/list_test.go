package command

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/docker/cli/opts"
	"github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/client/compose/label"
	"github.com/cleatlabs/cleat/client/compose/operate"
	"github.com/cleatlabs/cleat/client/term"
)

// The health is that of the list where it has one, else what the status says of it.
func TestHealthInLists(t *testing.T) {
	for _, c := range []struct {
		status string
		health *container.HealthSummary
		want   string
	}{
		{"Up 2 hours", nil, ""},
		{"Up 2 hours (healthy)", nil, "healthy"},
		{"Up 2 hours (unhealthy)", nil, "unhealthy"},
		{"Up 2 seconds (health: starting)", nil, "starting"},
		{"Up 2 hours (Paused)", nil, ""},
		{"Up 2 hours (healthy)", &container.HealthSummary{Status: container.Unhealthy}, "unhealthy"},
		{"Up 2 hours", &container.HealthSummary{Status: container.NoHealthcheck}, ""},
	} {
		if got := healthOf(operate.Container{Summary: container.Summary{Status: c.status, Health: c.health}}); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

func TestFilesOfStacks(t *testing.T) {
	of := func(project, files string) container.Summary {
		return container.Summary{State: "running", Labels: map[string]string{label.Project: project, label.ConfigFiles: files}}
	}
	got := stacks([]container.Summary{of("b", "/b/compose.yaml"), of("a", "/a/compose.yaml,/a/dev.yaml"), of("a", "/a/compose.yaml,/a/prod.yaml"), of("c", "")}, nil)
	want := []stack{{"a", "running(2)", "/a/compose.yaml,/a/dev.yaml,/a/prod.yaml"}, {"b", "running(1)", "/b/compose.yaml"}, {"c", "running(1)", ""}}
	if !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
}

// The names that ls is given are patterns, and each counts, as with docker compose.
func TestProjectsByName(t *testing.T) {
	var list []container.Summary
	for _, name := range []string{"aa", "ab", "ba", "ab"} {
		list = append(list, container.Summary{State: container.StateRunning, Labels: map[string]string{label.Project: name}})
	}
	for _, c := range []struct{ filters, want string }{
		{"", "aa ab ba"},
		{"name=a", "aa ab ba"},
		{"name=^a", "aa ab"},
		{"name=a$", "aa ba"},
		{"name=aa name=ba", "aa ba"},
		{"NAME=b$", "ab"},
		{"name=", "aa ab ba"},
		{"name=[ name=ab", "ab"},
	} {
		filter := opts.NewFilterOpt()
		for _, f := range strings.Fields(c.filters) {
			if err := filter.Set(f); err != nil {
				t.Fatal(err)
			}
		}
		var got []string
		for _, s := range stacks(list, filter.Value()["name"]) {
			got = append(got, s.Name)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%q: %v, want %s", c.filters, got, c.want)
		}
	}
}

func TestTagOf(t *testing.T) {
	for _, c := range []struct {
		tags []string
		made string
		want string
	}{
		{nil, "web", "<none> <none>"},
		{[]string{"first:1", "web:latest"}, "web", "web latest"},
		{[]string{"first:1", "web:2"}, "docker.io/library/web:2", "web 2"},
		{[]string{"localhost:5000/first:1", "web:2"}, "web", "localhost:5000/first 1"},
		{[]string{"first:1"}, "sha256:7d1a0f", "first 1"},
	} {
		if repository, tag := tagOf(c.tags, c.made); repository+" "+tag != c.want {
			t.Errorf("%v of %v: %s %s", c.made, c.tags, repository, tag)
		}
	}
}

// Columns are as wide as docker compose's: of what it also gives as an array, 20, of all else 10.
func TestWidthsOfColumns(t *testing.T) {
	for _, c := range []struct {
		format string
		array  bool
		want   string
	}{
		{"table", true, "NAME                STATUS\nweb                 running(1)\n"},
		{"PRETTY", true, "NAME                STATUS\nweb                 running(1)\n"},
		{"", false, "NAME      STATUS\nweb       running(1)\n"},
		{"JSON", true, "[1]\n"},
		{"json", false, "1\n"},
	} {
		var out bytes.Buffer
		a := &app{out: term.NewOutput(&out)}
		if err := a.table(c.format, []string{"NAME", "STATUS"}, [][]string{{"web", "running(1)"}}, []any{1}, c.array); err != nil || out.String() != c.want {
			t.Errorf("%q: %v, %q", c.format, err, out.String())
		}
	}
}
