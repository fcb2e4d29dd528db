package label

import (
	"slices"
	"testing"
)

func TestParseDependencies(t *testing.T) {
	for text, want := range map[string][]Dependency{
		"":                          nil,
		"db":                        {{"db", "service_started", false}},
		"db:service_healthy:false":  {{"db", "service_healthy", false}},
		"a::true,b:service_started": {{"a", "service_started", true}, {"b", "service_started", false}},
		",:x:true,,c:y:maybe:more":  {{"c", "y", false}},
	} {
		if got := ParseDependencies(text); !slices.Equal(got, want) {
			t.Errorf("%q: %+v, want %+v", text, got, want)
		}
	}
}
