package api_test

import (
	"fmt"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/volume"

	"github.com/cleatlabs/cleat/internal/build"
)

// What a client asks to be pruned of the build cache is what the builder is told, in every form that clients have for
// it; what it does not mean is refused.
func TestBuildPrune(t *testing.T) {
	ask := func(t *testing.T, path string, filters string) (reply, *build.PruneRequest, []string) {
		t.Helper()
		f := &fake{}
		if filters != "" {
			path += "&filters=" + url.QueryEscape(filters)
		}
		return serve(t, f).call("POST", path, ""), f.builds.pruned, f.calls
	}
	for _, tc := range []struct {
		path, filters string
		want          build.PruneRequest
	}{
		{"/v1.56/build/prune?", "", build.PruneRequest{}},
		{"/build/prune?all=1", "", build.PruneRequest{All: true}},
		{"/v1.47/build/prune?keep-storage=5", "", build.PruneRequest{Reserved: 5}},
		{"/v1.56/build/prune?reserved-space=5&max-used-space=6&min-free-space=7", "", build.PruneRequest{Reserved: 5, MaxUsed: 6, MinFree: 7}},
		{"/build/prune?", `{"id":{"x":true},"inuse":{}}`, build.PruneRequest{Filters: map[string][]string{"id": {"x"}, "inuse": {}}}},
		{"/build/prune?", `{"label!":["a"],"type":["regular"]}`, build.PruneRequest{Filters: map[string][]string{"type": {"regular"}}}},
		{"/build/prune?", `{"until":["24h"]}`, build.PruneRequest{UnusedFor: 24 * time.Hour}},
		{"/build/prune?", `{"unused-for":["1h"]}`, build.PruneRequest{UnusedFor: time.Hour}},
	} {
		got, req, calls := ask(t, tc.path, tc.filters)
		if got.status != 200 || !strings.Contains(got.body, `"CachesDeleted":["one"]`) || !strings.Contains(got.body, `"SpaceReclaimed":7`) || req == nil {
			t.Errorf("%s %s: %d %s, asked for %+v", tc.path, tc.filters, got.status, got.body, req)
			continue
		}
		if !reflect.DeepEqual(calls, []string{"pruned 7"}) {
			t.Errorf("%s %s: events of %q", tc.path, tc.filters, calls)
		}
		if late := req.UnusedFor - tc.want.UnusedFor; late < 0 || late > time.Minute {
			t.Errorf("%s %s: what is unused for %s", tc.path, tc.filters, req.UnusedFor)
		}
		req.UnusedFor = tc.want.UnusedFor
		if len(req.Filters) == 0 {
			req.Filters = nil
		}
		if !reflect.DeepEqual(*req, tc.want) {
			t.Errorf("%s %s: asked for %+v, want %+v", tc.path, tc.filters, *req, tc.want)
		}
	}
	// Records have no labels.
	if got, req, _ := ask(t, "/build/prune?all=1", `{"label":["a=b"]}`); got.status != 200 || strings.TrimSpace(got.body) != `{"CachesDeleted":[],"SpaceReclaimed":0}` || req != nil {
		t.Errorf("%d %s, asked for %+v", got.status, got.body, req)
	}
	for path, says := range map[string]string{
		"/build/prune?max-used-space=many": "max-used-space", "/build/prune?keep-storage=-1": "negative",
		"/build/prune?filters=" + url.QueryEscape(`{"until":["1h","2h"]}`):                "more than one until filter",
		"/build/prune?filters=" + url.QueryEscape(`{"until":["1h"],"unused-for":["2h"]}`): "more than one until filter",
		"/build/prune?filters=" + url.QueryEscape(`{"until":["soon"]}`):                   "until=soon",
		"/build/prune?filters=" + url.QueryEscape(`{"name":["x"]}`):                       "invalid filter 'name'",
		"/build/prune?filters=nonsense":                                                   "invalid filter",
	} {
		if got, req, _ := ask(t, path, ""); got.status != 400 || !strings.Contains(got.body, says) || req != nil {
			t.Errorf("%s: %d %s, asked for %+v", path, got.status, got.body, req)
		}
	}
}

// Below 1.42 a prune took named volumes, too, whatever the client says.
func TestVolumePrune(t *testing.T) {
	f := &fake{}
	var asked map[string][]string
	f.volumes.prune = func(filters map[string][]string) (*volume.PruneReport, error) {
		asked = filters
		return &volume.PruneReport{}, nil
	}
	d := serve(t, f)
	for path, want := range map[string]string{
		"/v1.41/volumes/prune": "map[all:[true]]", "/v1.42/volumes/prune": "map[]",
		"/v1.41/volumes/prune?filters=" + url.QueryEscape(`{"all":["0"],"label":["a"]}`): "map[all:[true] label:[a]]",
		"/v1.42/volumes/prune?filters=" + url.QueryEscape(`{"all":["0"],"label":["a"]}`): "map[all:[0] label:[a]]",
	} {
		if got := d.call("POST", path, ""); got.status != 200 || fmt.Sprint(asked) != want {
			t.Errorf("%s: %d, asked for %v, want %s", path, got.status, asked, want)
		}
	}
}
