package image_test

import (
	"context"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/cleatlabs/cleat/internal/image"
	"github.com/cleatlabs/cleat/internal/registryclient"
)

var registryConfig = registryclient.Config{}

func TestListInspectHistory(t *testing.T) {
	b := newBench(t)
	ctx := context.Background()
	base := layerOf(t, entry{"base", noise(100_000)})
	one := imageOf(t, "amd64", base, layerOf(t, entry{"one", noise(50_000)}))
	two := imageOf(t, "amd64", base)
	for tag, img := range map[string][]byte{"one:1": saved(t, "one:1", one), "two:1": saved(t, "two:1", two)} {
		if _, err := b.load(img, image.LoadOptions{}); err != nil {
			t.Fatalf("%s: %v", tag, err)
		}
	}
	id := b.resolve(t, "one:1").ID.String()
	uses := func() map[string]int64 { return map[string]int64{id: 3} }
	list, err := b.images.List(ctx, image.ListRequest{SharedSize: true, Filters: map[string][]string{"reference": {"one"}}}, uses)
	if err != nil || len(list) != 1 {
		t.Fatalf("listed %+v, %v", list, err)
	}
	s := list[0]
	if s.ID != id || s.ParentID != "" || s.Containers != 3 || s.Created != 1700000000 || !slices.Equal(s.RepoTags, []string{"one:1"}) ||
		!slices.Equal(s.RepoDigests, []string{"one@" + id}) || s.Labels["who"] != "test" || s.Descriptor.Digest.String() != id {
		t.Errorf("summary %+v", s)
	}
	if s.SharedSize < 200_000 || s.SharedSize > 240_000 || s.Size < 300_000 {
		t.Errorf("size %d, shared %d", s.Size, s.SharedSize)
	}
	// Without the other image only what is its own goes; without both, all.
	if total, kept, err := b.images.DiskUsage(ctx, map[string]bool{id: true}); err != nil || total < s.Size || total-kept <= 0 || total-kept > 20_000 {
		t.Errorf("of %d bytes %d stay, %v", total, kept, err)
	}
	if total, kept, err := b.images.DiskUsage(ctx, nil); err != nil || total < s.Size || kept != 0 {
		t.Errorf("of %d bytes %d stay without images, %v", total, kept, err)
	}

	r, err := b.images.Inspect(ctx, "one:1", "")
	if err != nil {
		t.Fatal(err)
	}
	if r.ID != id || r.Os != "linux" || r.Architecture != "amd64" || len(r.RootFS.Layers) != 2 || r.Size < 300_000 || !slices.Equal(r.RepoTags, []string{"one:1"}) ||
		r.Config.Cmd[0] != "sh" || r.Created != "2023-11-14T22:13:20Z" || r.GraphDriver != nil || r.Metadata.LastTagTime.IsZero() {
		t.Errorf("inspected %+v", r)
	}
	if text, _ := json.Marshal(r); strings.Contains(string(text), "null") {
		t.Errorf("null in %s", text)
	}
	if _, err := b.images.Inspect(ctx, "none", ""); !errdefs.IsNotFound(err) || err.Error() != "No such image: none:latest" {
		t.Errorf("unknown image: %v", err)
	}
	if _, err := b.images.Inspect(ctx, "one:1", `{"os":"linux","architecture":"arm64"}`); !errdefs.IsNotFound(err) {
		t.Errorf("other platform: %v", err)
	}

	h, err := b.images.History(ctx, "one:1", "")
	if err != nil || len(h) != 2 {
		t.Fatalf("history %+v, %v", h, err)
	}
	if h[0].ID != id || h[1].ID != "<missing>" || h[0].CreatedBy != "step 1" || h[1].Size < 100_000 || h[0].Size < 50_000 || h[0].Size > 60_000 ||
		!slices.Equal(h[0].Tags, []string{"one:1"}) || h[1].Tags != nil || h[0].Created != 1700000000 {
		t.Errorf("history %+v", h)
	}
}

func TestListFilters(t *testing.T) {
	b := newBench(t)
	ctx := context.Background()
	for _, tag := range []string{"a:1", "b:1", "deep/c:2"} {
		if _, err := b.load(saved(t, tag, imageOf(t, "amd64", layerOf(t, entry{"f", tag}))), image.LoadOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.load(ociArchive(t, "", imageOf(t, "amd64", layerOf(t, entry{"f", "x"}))), image.LoadOptions{}); err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		filters map[string][]string
		want    []string
		err     string
	}{
		{nil, []string{"", "a:1", "b:1", "deep/c:2"}, ""},
		{map[string][]string{"dangling": {"true"}}, []string{""}, ""},
		{map[string][]string{"dangling": {"0"}}, []string{"a:1", "b:1", "deep/c:2"}, ""},
		{map[string][]string{"dangling": {"maybe"}}, nil, "invalid filter 'dangling=[maybe]'"},
		{map[string][]string{"dangling": {"true", "false"}}, nil, "invalid filter 'dangling=[true false]'"},
		{map[string][]string{"reference": {"a", "b:*"}}, []string{"a:1", "b:1"}, ""},
		{map[string][]string{"reference": {"*/c"}}, []string{"deep/c:2"}, ""},
		{map[string][]string{"reference": {"docker.io/library/a", "docker.io/deep/*:2"}}, []string{"a:1", "deep/c:2"}, ""},
		{map[string][]string{"reference": {"docker.io/a", "library/a", "docker.io/library/a:2"}}, nil, ""},
		{map[string][]string{"reference": {"*:2"}}, nil, ""},
		{map[string][]string{"reference": {"a["}}, nil, "invalid filter 'reference=a['"},
		{map[string][]string{"label": {"who"}, "reference": {"a"}}, []string{"a:1"}, ""},
		{map[string][]string{"label": {"who=test"}, "dangling": {"true"}}, []string{""}, ""},
		{map[string][]string{"label": {"who=other"}}, nil, ""},
		{map[string][]string{"label": {"who", "none"}}, nil, ""},
		{map[string][]string{"label!": {"who=other", "none"}, "reference": {"a"}}, []string{"a:1"}, ""},
		{map[string][]string{"label!": {"none", "who"}}, nil, ""},
		{map[string][]string{"until": {"1h"}}, []string{"", "a:1", "b:1", "deep/c:2"}, ""},
		{map[string][]string{"until": {"1600000000"}}, nil, ""},
		{map[string][]string{"until": {"2023-11-14T22:13:21Z"}, "reference": {"a"}}, []string{"a:1"}, ""},
		{map[string][]string{"until": {"soon"}}, nil, "invalid filter 'until=soon'"},
		{map[string][]string{"before": {"a:1"}}, nil, ""},
		{map[string][]string{"since": {"none:1"}}, nil, "No such image: none:1"},
		{map[string][]string{"color": {"red"}}, nil, "invalid filter 'color'"},
	}
	for _, c := range cases {
		list, err := b.images.List(ctx, image.ListRequest{Filters: c.filters}, nil)
		if c.err != "" {
			if err == nil || !strings.HasPrefix(err.Error(), c.err) {
				t.Errorf("%v: error %v, want %s", c.filters, err, c.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%v: %v", c.filters, err)
		}
		var names []string
		for _, s := range list {
			names = append(names, s.RepoTags...)
			if len(s.RepoTags) == 0 {
				names = append(names, "")
			}
			if s.RepoTags == nil || s.RepoDigests == nil || s.SharedSize != -1 || s.Containers != -1 {
				t.Errorf("summary %+v", s)
			}
		}
		slices.Sort(names)
		if !reflect.DeepEqual(names, c.want) {
			t.Errorf("%v: %q, want %q", c.filters, names, c.want)
		}
	}
}

func TestTagRules(t *testing.T) {
	b := newBench(t)
	ctx := context.Background()
	if _, err := b.load(saved(t, "a:1", imageOf(t, "amd64", layerOf(t, entry{"f", "1"}))), image.LoadOptions{}); err != nil {
		t.Fatal(err)
	}
	id := b.resolve(t, "a:1").ID
	for _, c := range []struct {
		src, repo, tag string
		class          func(error) bool
	}{
		{"none", "b", "1", errdefs.IsNotFound},
		{"a:1", "B", "1", errdefs.IsInvalidArgument},
		{"a:1", "b", "a/b", errdefs.IsInvalidArgument},
		{"a:1", "b@" + id.String(), "", errdefs.IsInvalidArgument},
		{"a:1", "sha256", "", errdefs.IsInvalidArgument},
	} {
		if err := b.images.Tag(ctx, c.src, c.repo, c.tag); err == nil || !c.class(err) {
			t.Errorf("tag %v: %v", c, err)
		}
	}
	for _, c := range [][3]string{{"b", "2", "b:2"}, {"c", "", "c:latest"}, {"d:3", "", "d:3"}, {"host:5000/e", "1", "host:5000/e:1"}} {
		if err := b.images.Tag(ctx, id.Encoded()[:12], c[0], c[1]); err != nil {
			t.Fatal(err)
		}
		if got := b.resolve(t, c[2]); got.ID != id {
			t.Errorf("%s is %s", c[2], got.ID)
		}
		if want := "tag " + id.String() + " " + c[2]; !slices.Contains(b.events, want) {
			t.Errorf("no event %q in %q", want, b.events)
		}
	}
}
