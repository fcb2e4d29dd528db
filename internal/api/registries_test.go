package api_test

import (
	"net/http"
	"strings"
	"testing"
)

func TestSearchQueries(t *testing.T) {
	d := serve(t, &fake{})
	for query, want := range map[string]string{
		"term=nginx":       `[{"star_count":0,"is_official":false,"name":"nginx","is_automated":false,"description":"0 any false false"}]`,
		"term=nothing":     `[]`,
		"term=a/b&limit=7": `"description":"7 any false false"`,
		"term=a&limit=x":   `400`,
		"term=a&filters=%7B%22stars%22%3A%5B%223%22%5D%2C%22is-official%22%3A%5B%22true%22%5D%7D": `"star_count":3`,
		"term=a&filters=%7B%22is-official%22%3A%7B%22false%22%3Atrue%7D%7D":                       `"0 false false false"`,
		"term=a&filters=%7B%22is-automated%22%3A%5B%22true%22%5D%7D":                              `"0 any true false"`,
		"term=a&filters=%7B%22stars%22%3A%5B%22many%22%5D%7D":                                     `invalid filter 'stars=many'`,
		"term=a&filters=%7B%22is-official%22%3A%5B%22maybe%22%5D%7D":                              `invalid filter 'is-official=[maybe]'`,
		"term=a&filters=%7B%22colour%22%3A%5B%22red%22%5D%7D":                                     `invalid filter 'colour'`,
	} {
		got := d.call("GET", "/images/search?"+query, "")
		if text := got.body; !strings.Contains(text, want) && !(want == "400" && got.status == http.StatusBadRequest) {
			t.Errorf("%s: %d %s", query, got.status, text)
		}
	}
}

func TestDistributionAnswers(t *testing.T) {
	d := serve(t, &fake{})
	if got := d.call("GET", "/distribution/some/name/json", ""); got.status != http.StatusUnauthorized || !strings.Contains(got.body, "pull access denied for some/name") {
		t.Errorf("%d %s", got.status, got.body)
	}
}
