package image_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestPullNamesUnpacksAndTellsInDockersWords(t *testing.T) {
	reg, b := newRegistry(t), newBench(t)
	img := imageOf(t, "amd64",
		layerOf(t, entry{"etc/", ""}, entry{"etc/base", "base"}, entry{"etc/gone", "x"}, entry{"dir/", ""}, entry{"dir/hidden", "x"}),
		layerOf(t, entry{"etc/", ""}, entry{"etc/top", "top"}, entry{"etc/.wh.gone", ""}, entry{"dir/", ""}, entry{"dir/.wh..wh..opq", ""}, entry{"dir/new", "n"}))
	ref := reg.push(t, "lab/two:1", img)

	lines := b.pull(t, ref)
	if lines[0] != "1: Pulling from lab/two" {
		t.Errorf("first message is %q", lines[0])
	}
	id := digestOf(t, img)
	want := []string{"Digest: " + id, "Status: Downloaded newer image for " + ref}
	if got := lines[len(lines)-2:]; !slices.Equal(got, want) {
		t.Errorf("last messages are %q, want %q", got, want)
	}
	layers, _ := img.Layers()
	for _, l := range layers {
		short := strings.TrimPrefix(digestOf(t, l), "sha256:")[:12]
		var steps []string
		for _, line := range lines {
			if s, ok := strings.CutPrefix(line, short+": "); ok && (len(steps) == 0 || steps[len(steps)-1] != s) {
				steps = append(steps, s)
			}
		}
		if steps[0] != "Pulling fs layer" || steps[len(steps)-1] != "Pull complete" || !slices.Contains(steps, "Download complete") || !slices.Contains(steps, "Extracting") {
			t.Errorf("layer %s went through %q", short, steps)
		}
	}
	if !slices.Contains(b.events, "pull "+ref+" "+strings.TrimSuffix(ref, ":1")) {
		t.Errorf("no pull event in %q", b.events)
	}

	got := b.resolve(t, ref)
	if got.ID.String() != id || got.Ref != ref || len(got.Config.Config.Cmd) != 1 {
		t.Errorf("resolved to %+v", got)
	}
	dirs := b.lower(t, got)
	if len(dirs) != 2 {
		t.Fatalf("lower directories %q", dirs)
	}
	if data, err := os.ReadFile(filepath.Join(dirs[0], "etc/top")); err != nil || string(data) != "top" {
		t.Errorf("the topmost layer does not come first: %q, %v", data, err)
	}
	if fi, err := os.Lstat(filepath.Join(dirs[0], "etc/gone")); err != nil || fi.Mode()&os.ModeCharDevice == 0 {
		t.Errorf("the whiteout was not converted: %v, %v", fi, err)
	}
	if c := b.contents(t); c.ingests != 0 || c.leases != 1 || c.names != 1 {
		t.Errorf("the store holds %+v", c)
	}

	again := b.pull(t, ref)
	want = []string{"1: Pulling from lab/two", "Digest: " + id, "Status: Image is up to date for " + ref}
	if !slices.Equal(again, want) {
		t.Errorf("a second pull says %q", again)
	}
	if n := reg.count("/blobs/"); n != 3 {
		t.Errorf("%d blobs were fetched for both pulls, want 3", n)
	}
}

func TestResolveFindsEveryEqualSpelling(t *testing.T) {
	reg, b := newRegistry(t), newBench(t)
	img := imageOf(t, "amd64", layerOf(t, entry{"f", "1"}))
	ref := reg.push(t, "lab/one:latest", img)
	b.pull(t, ref)
	ctx := context.Background()
	if err := b.images.Tag(ctx, ref, "tool", ""); err != nil {
		t.Fatal(err)
	}
	id := digestOf(t, img)
	hex := strings.TrimPrefix(id, "sha256:")
	for _, spelling := range []string{ref, strings.TrimSuffix(ref, ":latest"), "tool", "tool:latest", "library/tool", "docker.io/tool", "docker.io/library/tool:latest",
		"index.docker.io/library/tool", "tool@" + id, "tool:other@" + id, id, hex, hex[:12], "sha256:" + hex[:12], hex[:4]} {
		got, err := b.images.Resolve(ctx, spelling, "")
		if err != nil || got.ID.String() != id {
			t.Errorf("%s resolves to %v, %v", spelling, got, err)
		}
	}
	for spelling, text := range map[string]string{
		"nothing":      "No such image: nothing:latest",
		"tool:2":       "No such image: tool:2",
		"other@" + id:  "No such image: other@" + id,
		"000000000000": "No such image: 000000000000:latest",
		"Tool":         "invalid reference format: repository name (library/Tool) must be lowercase",
	} {
		if _, err := b.images.Resolve(ctx, spelling, ""); err == nil || err.Error() != text {
			t.Errorf("%s: error %v, want %s", spelling, err, text)
		}
	}
}
