package build

import (
	"maps"
	"testing"
)

func TestImageAttributes(t *testing.T) {
	for _, c := range []struct {
		name        string
		given, want map[string]string
	}{
		{"an image that stays", nil, map[string]string{"compression": "uncompressed"}},
		{"names", map[string]string{"name": "a,b:1"}, map[string]string{"name": "docker.io/library/a:latest,docker.io/library/b:1", "compression": "uncompressed"}},
		{"a name from the frontend", map[string]string{"name": "*"}, map[string]string{"name": "*", "compression": "uncompressed"}},
		{"a push", map[string]string{"push": "true"}, map[string]string{"push": "true", "force-compression": "true"}},
		{"a push by its short form", map[string]string{"push": ""}, map[string]string{"push": "", "force-compression": "true"}},
		{"a push as the client wants it", map[string]string{"push": "1", "compression": "zstd"}, map[string]string{"push": "1", "compression": "zstd"}},
		{"a push of what there is", map[string]string{"push": "true", "force-compression": "false"}, map[string]string{"push": "true", "force-compression": "false"}},
		{"no push", map[string]string{"push": "false", "compression": "gzip"}, map[string]string{"push": "false", "compression": "gzip"}},
	} {
		want := maps.Clone(c.want)
		want["dangling-name-prefix"], want["danging-name-empty-only"] = danglingPrefix, "true"
		given := maps.Clone(c.given)
		got, err := imageAttributes(c.given)
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("%s: %v, want %v; %v", c.name, got, want, err)
		}
		if !maps.Equal(given, c.given) {
			t.Errorf("%s: the client's attributes were changed", c.name)
		}
	}
}
