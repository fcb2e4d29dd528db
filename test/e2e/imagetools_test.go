package e2e

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// TestImagetools: an image of two platforms is put together in the registry, also from
// another repository, and stock buildx sees in it what cleat sees.
func TestImagetools(t *testing.T) {
	e, reg := builder(t), harness.StartRegistry(t)
	repo := reg.Addr + "/tools/" + name(t)
	dir := project(t, files{"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
	for _, p := range []string{"amd64", "arm64"} {
		image := repo + "-" + p + ":1"
		dropImages(t, e, image)
		build(t, e, "cleat", dir, "--platform", "linux/"+p, "--provenance=false", "--push", "-t", image)
	}
	meta := filepath.Join(dir, "meta.json")
	e.OK(t, "cleat", "buildx", "imagetools", "create", "-t", repo+":1", "-t", repo+":2", "--annotation", "index:made.by=test", "--metadata-file", meta, repo+"-amd64:1", repo+"-arm64:1")
	if data, err := os.ReadFile(meta); err != nil || !strings.Contains(string(data), "application/vnd.oci.image.index.v1+json") {
		t.Errorf("%s, %v", data, err)
	}
	raw := e.OK(t, "cleat", "buildx", "imagetools", "inspect", "--raw", repo+":2")
	if theirs := e.OK(t, "docker", "buildx", "imagetools", "inspect", "--raw", repo+":1"); theirs != raw {
		t.Errorf("buildx sees\n%s\ncleat\n%s", theirs, raw)
	}
	var idx struct {
		Annotations map[string]string
		Manifests   []struct {
			Digest   string
			Platform struct{ Architecture string }
		}
	}
	if err := json.Unmarshal([]byte(raw), &idx); err != nil || len(idx.Manifests) != 2 || idx.Manifests[0].Platform.Architecture != "amd64" || idx.Annotations["made.by"] != "test" {
		t.Fatalf("%v\n%s", err, raw)
	}
	if got := e.OK(t, "cleat", "buildx", "imagetools", "inspect", repo+":1"); !strings.Contains(got, "Platform:  linux/arm64") || !strings.Contains(got, "MediaType: application/vnd.oci.image.index.v1+json") {
		t.Errorf("%s", got)
	}
	if got := e.OK(t, "cleat", "buildx", "imagetools", "inspect", "--format", `{{(index .Image "linux/arm64").Architecture}}`, repo+":1"); got != "arm64" {
		t.Errorf("%q", got)
	}
	for _, args := range [][]string{{repo + ":1"}, {repo + "-amd64:1"}, {"-v", repo + ":1"}, {"-v", repo + "-arm64:1"}} {
		args = append([]string{"manifest", "inspect", "--insecure"}, args...)
		ours, theirs := e.OK(t, "cleat", args...), e.OK(t, "docker", args...)
		var a, b any
		if err := errors.Join(json.Unmarshal([]byte(ours), &a), json.Unmarshal([]byte(theirs), &b)); err != nil {
			t.Fatal(err)
		}
		if list, ok := a.(map[string]any); ok {
			delete(list, "annotations") // which docker leaves out of a list's
		}
		if !reflect.DeepEqual(a, b) {
			t.Errorf("%q: cleat says\n%s\ndocker\n%s", args, ours, theirs)
		}
	}
	if r := e.Cleat(t, "manifest", "inspect", repo+":nonsuch"); r.Code != 1 || r.Stderr != "no such manifest: "+repo+":nonsuch\n" {
		t.Errorf("%s", r)
	}
	if r := e.Cleat(t, "manifest", "create", repo+":x", repo+":1"); r.Code != 1 || !strings.Contains(r.Stderr, "imagetools create -t") {
		t.Errorf("%s", r)
	}
	// What was copied can be pulled from where it is now.
	dropImages(t, e, repo+":1")
	e.OK(t, "cleat", "pull", repo+":1")
	e.OK(t, "cleat", "buildx", "imagetools", "create", "-t", repo+":one", "-p", "linux/arm64", repo+":1")
	e.OK(t, "cleat", "buildx", "imagetools", "create", "-t", repo+":one", "--append", idx.Manifests[0].Digest)
	if got := e.OK(t, "cleat", "buildx", "imagetools", "inspect", "--raw", repo+":one"); !strings.Contains(got, "arm64") || !strings.Contains(got, "amd64") {
		t.Errorf("%s", got)
	}
	// A descriptor says more of an image, in whichever repository that is, and comes first.
	first, second := idx.Manifests[0].Digest, idx.Manifests[1].Digest
	descriptors := project(t, files{
		"said": `{"digest": "` + second + `", "annotations": {"made.for": "test"}, "platform": {"os.version": "7"}}`,
		"lie":  `{"digest": "` + second + `", "size": 7}`, "manifest": `{"schemaVersion": 2}`, "none": `{"size": 7}`,
	})
	said := []string{"buildx", "imagetools", "create", "--dry-run", "-f", filepath.Join(descriptors, "said"), repo + "@" + first}
	ours, theirs := e.OK(t, "cleat", said...), e.OK(t, "docker", said...)
	if ours != theirs || strings.Index(ours, first) < strings.Index(ours, second) || !strings.Contains(ours, `"made.for": "test"`) {
		t.Errorf("cleat says\n%s\nbuildx\n%s", ours, theirs)
	}
	// One that says more of an image that the index has is said of that.
	e.OK(t, "cleat", "buildx", "imagetools", "create", "-t", repo+":1", "--append", "-f", filepath.Join(descriptors, "said"))
	if got := e.OK(t, "cleat", "buildx", "imagetools", "inspect", "--raw", repo+":1"); strings.Count(got, "made.for") != 1 || strings.Count(got, `"digest"`) != 2 {
		t.Errorf("%s", got)
	}
	for file, want := range map[string]string{"lie": "its descriptor says 7", "manifest": "a descriptor of one is needed", "none": "its digest"} {
		if r := e.Cleat(t, "buildx", "imagetools", "create", "-t", repo+":x", "-f", filepath.Join(descriptors, file)); r.Code != 1 || !strings.Contains(r.Stderr, want) {
			t.Errorf("%s", r)
		}
	}
	for line, want := range map[string]string{
		"create " + repo + ":1":                                  "no tags specified",
		"create -t " + repo + ":x":                               "no sources specified",
		"create -t " + repo + ":x " + repo + ":nonsuch":          "not found",
		"create -t " + repo + ":x -p linux/s390x " + repo + ":1": "no source is for linux/s390x",
		"create --dry-run --annotation a=b " + repo + ":1":       "write index:a=b",
		"inspect " + repo + ":nonsuch":                           "not found",
		"inspect --raw --format x " + repo + ":1":                "cannot be used together",
	} {
		if r := e.Cleat(t, append([]string{"buildx", "imagetools"}, strings.Fields(line)...)...); r.Code != 1 || !strings.Contains(r.Stderr, want) {
			t.Errorf("%s", r)
		}
	}
}
