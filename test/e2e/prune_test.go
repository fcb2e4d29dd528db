package e2e

import (
	"encoding/json"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/test/harness"
)

func TestPrune(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	each(t, func(t *testing.T, program string) {
		running := e.OK(t, program, "run", "-d", "--name", "running", "busybox", "sleep", "600")
		defer e.OK(t, program, "rm", "-f", "running")
		stopped := e.OK(t, program, "create", "-l", "keep=no", "busybox", "true")
		other := e.OK(t, program, "create", "-l", "keep=yes", "busybox", "true")
		src := tree(t, map[string]string{"file": strings.Repeat("x", 100000)})
		e.OK(t, program, "cp", src+"/file", stopped+":/file")

		if r := e.Do(t, program, "n\n", "container", "prune"); r.Code != 0 && program == "cleat" || !strings.Contains(r.Stdout, "WARNING! This will remove all stopped containers.") || strings.Contains(r.Stdout, "Deleted") {
			t.Errorf("%s", r)
		}
		for _, filter := range []string{"until=24h", "label=keep=maybe", "label!=keep"} {
			if r := e.Do(t, program, "", "container", "prune", "-f", "--filter", filter); r.Stdout != "Total reclaimed space: 0B\n" {
				t.Errorf("%s: %s", filter, r)
			}
		}
		if r := e.Do(t, program, "y\n", "container", "prune", "--filter", "label=keep=no"); !strings.Contains(r.Stdout, "Deleted Containers:\n"+stopped+"\n\nTotal reclaimed space: 100kB\n") {
			t.Errorf("%s", r)
		}
		for _, bad := range []string{"name=x", "until=nonsense"} {
			if r := e.Do(t, program, "", "container", "prune", "-f", "--filter", bad); r.Code == 0 || !strings.Contains(r.Stderr, "invalid filter") {
				t.Errorf("%s: %s", bad, r)
			}
		}
		// Images: one that a container uses, one without a name, one unused.
		e.OK(t, program, "commit", "-c", "LABEL which=unused", other, "mine/unused:1")
		dangling := e.OK(t, program, "commit", "-c", "LABEL which=dangling", other)
		if r := e.Do(t, program, "", "image", "prune", "-f", "--filter", "label!=which=dangling"); r.Stdout != "Total reclaimed space: 0B\n" {
			t.Errorf("%s", r)
		}
		r := e.Do(t, program, "", "image", "prune", "-f")
		if !strings.Contains(r.Stdout, "Deleted Images:\ndeleted: "+dangling+"\n\nTotal reclaimed space: ") || strings.Contains(r.Stdout, "space: 0B") {
			t.Errorf("%s", r)
		}
		if r := e.Do(t, program, "", "image", "prune", "-a", "-f"); !strings.Contains(r.Stdout, "untagged: mine/unused:1\ndeleted: sha256:") || strings.Contains(r.Stdout, "busybox") {
			t.Errorf("%s", r)
		}
		if got := e.OK(t, program, "ps", "-aq", "--no-trunc"); !slices.Equal(strings.Fields(got), []string{other, running}) {
			t.Errorf("left: %q", got)
		}
		e.OK(t, program, "network", "create", "unused")
		if r := e.Do(t, program, "n\n", "system", "prune", "-a", "--volumes", "--filter", "label=x"); !strings.Contains(r.Stdout, "WARNING! This will remove:\n  - all stopped containers\n"+
			"  - all networks not used by at least one container\n  - all anonymous volumes not used by at least one container\n"+
			"  - all images without at least one container associated to them\n  - all build cache\n") || !strings.Contains(r.Stdout, "  - label=x\n") {
			t.Errorf("%s", r)
		}
		if r := e.Do(t, program, "", "system", "prune", "-f", "--volumes"); r.Code != 0 || !strings.Contains(r.Stdout, "Deleted Containers:\n"+other+"\n\nDeleted Networks:\nunused\n\n") || !strings.Contains(r.Stdout, "Total reclaimed space: ") {
			t.Errorf("%s", r)
		}
		if r := e.Do(t, program, "", "system", "prune", "-f", "--volumes", "--filter", "until=1h"); r.Code == 0 || !strings.Contains(r.Stderr, `The "until" filter is not supported with "--volumes"`) {
			t.Errorf("%s", r)
		}
	})
}

func TestDiskUsage(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox", "hello-world")
	e.OK(t, "cleat", "run", "-d", "--name", "user", "-v", "vol:/vol", "busybox", "sh", "-c", "head -c 1000000 /dev/zero >/vol/f; head -c 2000000 /dev/zero >/own; exec sleep 600")
	defer e.OK(t, "cleat", "rm", "-f", "user")
	ready(t, e, "cleat", "user", "/own")
	e.OK(t, "cleat", "exec", "user", "sh", "-c", "until [ $(stat -c %s /own) = 2000000 ]; do sleep 0.01; done")
	each(t, func(t *testing.T, program string) {
		out := e.OK(t, program, "system", "df")
		for _, want := range []string{
			`TYPE +TOTAL +ACTIVE +SIZE +RECLAIMABLE`, `Images +2 +1 +\S+MB +\S+ \(\d+%\)`, `Containers +1 +1 +2(\.0\d+)?MB +0B \(0%\)`,
			`Local Volumes +1 +1 +1(\.0\d+)?MB +0B \(0%\)`, `Build Cache +0 +0 +0B +0B`,
		} {
			if !regexp.MustCompile(`(?m)^` + want).MatchString(out) {
				t.Errorf("no %s in\n%s", want, out)
			}
		}
		out = e.OK(t, program, "system", "df", "-v")
		for _, want := range []string{
			`Images space usage:`, `REPOSITORY +TAG +IMAGE ID +CREATED +SIZE +SHARED SIZE +UNIQUE SIZE +CONTAINERS`, `busybox +latest .* 1$`,
			`Containers space usage:`, `Local Volumes space usage:`, `vol +1 +1(\.0\d+)?MB`, `Build cache usage: 0B`,
		} {
			if !regexp.MustCompile(`(?m)^` + want).MatchString(out) {
				t.Errorf("no %s in\n%s", want, out)
			}
		}
		if got := e.OK(t, program, "system", "df", "--format", "{{.Type}}={{.TotalCount}}"); got != "Images=2\nContainers=1\nLocal Volumes=1\nBuild Cache=0" {
			t.Errorf("%q", got)
		}
		if got := e.OK(t, program, "ps", "-s", "--format", "{{.Size}}"); !regexp.MustCompile(`^2\.?0?\d*MB \(virtual \S+MB\)$`).MatchString(got) {
			t.Errorf("ps -s: %q", got)
		}
		if got := e.OK(t, program, "inspect", "--size", "-f", "{{.SizeRw}}", "user"); len(got) != 7 {
			t.Errorf("inspect --size: %q", got)
		}
	})
	g := gophers(t, e)
	got, err := g.DiskUsage(g.ctx, client.DiskUsageOptions{Images: true, Volumes: true, Verbose: true})
	if err != nil || got.Images.TotalCount != 2 || len(got.Images.Items) != 2 || got.Volumes.ActiveCount != 1 || got.Containers.TotalCount != 0 || got.Images.TotalSize == 0 {
		t.Errorf("%+v, %v", got, err)
	}
	for _, tc := range []struct {
		path   string
		status int
		keys   []string
	}{
		{"/v1.51/system/df", 200, []string{"BuildCache", "Containers", "Images", "LayersSize", "Volumes"}},
		{"/v1.52/system/df?verbose=1", 200, []string{"BuildCacheUsage", "ContainerUsage", "ImageUsage", "VolumeUsage"}},
		{"/v1.52/system/df?type=volume", 200, []string{"LayersSize", "VolumeUsage", "Volumes"}},
		{"/v1.52/system/df?type=nonsense", 400, []string{"message"}},
		{"/v1.41/system/df?type=nonsense", 200, []string{"BuildCache", "Containers", "Images", "LayersSize", "Volumes"}},
	} {
		status, _, body := request(t, e, "GET", tc.path, "")
		var m map[string]json.RawMessage
		err := json.Unmarshal([]byte(body), &m)
		var keys []string
		for k := range m {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		if err != nil || status != tc.status || !slices.Equal(keys, tc.keys) {
			t.Errorf("%s: %d %v, %v", tc.path, status, keys, err)
		}
	}
}

// The build cache goes with everything else that is unused, whichever client asks: `docker builder prune` without
// buildx, and both clients' `system prune`.
func TestPruneBuildCache(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	dir := contextDir(t, map[string]string{"Dockerfile": "FROM busybox\nCOPY file /file\nRUN rm /file && head -c 300000 /dev/zero >/made\n", "file": strings.Repeat("x", 200000)})
	cached := func(t *testing.T) string {
		return e.OK(t, "cleat", "system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Size}}")
	}
	each(t, func(t *testing.T, program string) {
		for _, tc := range []struct {
			prune []string
			gone  bool
		}{
			{[]string{"builder", "prune", "-f", "--filter", "until=24h"}, false},
			{[]string{"builder", "prune", "-a", "-f"}, true},
			{[]string{"system", "prune", "-f", "--filter", "until=24h"}, false},
			{[]string{"system", "prune", "-f", "--filter", "label=nobody=has"}, false},
			{[]string{"system", "prune", "-a", "-f"}, true},
		} {
			e.Load(t, "busybox") // system prune takes it, too
			e.OK(t, "cleat", "build", "-q", "-t", "made", dir)
			e.OK(t, "cleat", "rmi", "made")
			if out := cached(t); strings.Contains(out, "Build Cache 0 0B") {
				t.Fatalf("nothing is in the build cache: %s", out)
			}
			r := e.Do(t, program, "", tc.prune...)
			if r.Code != 0 {
				t.Errorf("%s", r)
			}
			if gone := strings.Contains(cached(t), "Build Cache 0 0B"); gone != tc.gone {
				t.Errorf("%v: all of the build cache is gone: %v, want %v\n%s%s", tc.prune, gone, tc.gone, r, cached(t))
			}
			if tc.gone && strings.Contains(r.Stdout, "\nTotal reclaimed space: 0B\n") {
				t.Errorf("%v frees nothing: %s", tc.prune, r)
			}
		}
	})
	// What the cache held is not left behind on the disk.
	var cache int64
	err := filepath.WalkDir(filepath.Join(e.DataRoot, "images"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "made" {
			cache++
		}
		return nil
	})
	if err != nil || cache != 0 {
		t.Errorf("%d files of the cache are left, %v", cache, err)
	}
	since := e.OK(t, "docker", "events", "--since", "1h", "--until", now(), "--filter", "type=builder", "--format", "{{.Type}} {{.Action}}")
	if !strings.HasPrefix(since, "builder prune") {
		t.Errorf("events: %q", since)
	}
}
