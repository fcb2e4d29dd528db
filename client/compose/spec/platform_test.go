package spec

import (
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
)

func TestPlatforms(t *testing.T) {
	list := func(p ...string) []string { return p }
	for name, c := range map[string]struct {
		platform, byDefault string
		build               []string
		one                 bool
		want                string
		wantBuild           []string
		bad                 string
	}{
		"nothing said":               {},
		"of the service":             {platform: "linux/a", want: "linux/a", wantBuild: list("linux/a")},
		"by default":                 {byDefault: "linux/a", want: "linux/a", wantBuild: list("linux/a")},
		"the service wins":           {platform: "linux/b", byDefault: "linux/a", want: "linux/b", wantBuild: list("linux/b")},
		"several, to be pushed":      {build: list("linux/a", "linux/b"), wantBuild: list("linux/a", "linux/b")},
		"several, to be run":         {build: list("linux/a", "linux/b"), one: true},
		"one of several, to be run":  {platform: "linux/b", build: list("linux/a", "linux/b"), one: true, want: "linux/b", wantBuild: list("linux/b")},
		"one of several":             {platform: "linux/b", build: list("linux/a", "linux/b"), want: "linux/b", wantBuild: list("linux/a", "linux/b")},
		"none of the service's":      {platform: "linux/c", build: list("linux/a"), bad: "build configuration does not support platform: linux/c"},
		"none of the environment's":  {byDefault: "linux/c", build: list("linux/a"), bad: "does not support value set by DOCKER_DEFAULT_PLATFORM: linux/c"},
		"the one that there is, run": {build: list("linux/a"), one: true, wantBuild: list("linux/a")},
	} {
		p := &types.Project{Environment: types.Mapping{"DOCKER_DEFAULT_PLATFORM": c.byDefault}, Services: types.Services{
			"image": {Name: "image"},
		}}
		s := types.ServiceConfig{Name: "a"}
		s.Platform, s.Build = c.platform, &types.BuildConfig{Platforms: c.build}
		p.Services["a"] = s
		err := Platforms(p, c.one)
		if (err != nil) != (c.bad != "") || err != nil && !strings.Contains(err.Error(), c.bad) {
			t.Errorf("%s: %v", name, err)
		}
		a := p.Services["a"]
		if err == nil && (a.Platform != c.want || !slices.Equal(a.Build.Platforms, c.wantBuild)) {
			t.Errorf("%s: %q, built for %q", name, a.Platform, a.Build.Platforms)
		}
		if p.Services["image"].Platform != "" {
			t.Errorf("%s: a service that is not built has another configuration", name)
		}
	}
}
