package command

import (
	"testing"

	"github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/client/compose/operate"
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
