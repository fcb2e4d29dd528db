package spec_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/client/compose/canonical"
	"github.com/cleatlabs/cleat/client/compose/label"
	"github.com/cleatlabs/cleat/client/compose/project"
	"github.com/cleatlabs/cleat/client/compose/spec"
	"github.com/cleatlabs/cleat/test/expect"
)

func load(t *testing.T, text string) *types.Project {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata")); err != nil { // what the project refers to
		t.Fatal(err)
	}
	file := filepath.Join(dir, "compose.yaml")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	p, err := project.Load(context.Background(), project.Options{Files: []string{file}}, project.Raw{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func golden(t *testing.T, name string, value any) {
	t.Helper()
	got, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	expect.Golden(t, "testdata/"+name, string(got)+"\n")
}

func TestEveryAttribute(t *testing.T) {
	text, err := os.ReadFile("testdata/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p := load(t, string(text))
	r := &spec.Replica{
		Project: p, Service: p.Services["all"], Number: 1, Name: spec.ContainerName(p, p.Services["all"], 1, "-"), Image: "busybox:1", ImageID: "sha256:1",
		Others: func(service string) (string, error) { return "id-of-" + service, nil }, Linked: func(service string) []string { return []string{"full-" + service + "-1"} },
	}
	got, err := r.Request()
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{label.WorkingDir, label.ConfigFiles, label.ConfigHash} {
		if got.Create.Config.Labels[key] == "" {
			t.Errorf("no label %s", key)
		}
		delete(got.Create.Config.Labels, key) // they say where the test ran
	}
	golden(t, "service.json", got)

	n, err := spec.Network(p, "front", p.Networks["front"])
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "network.json", n)
	v, err := spec.Volume(p, "data", p.Volumes["data"])
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "volume.json", v)
}

func TestOlderEnginesAreConnectedLater(t *testing.T) {
	p := load(t, "name: x\nservices: {a: {image: i, networks: {n1: {priority: 1}, n2: }}}\nnetworks: {n1: , n2: }\n")
	r := &spec.Replica{Project: p, Service: p.Services["a"], Number: 1, Name: "x-a-1", API: "1.43"}
	got, err := r.Request()
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Create.NetworkingConfig.EndpointsConfig) != 1 || len(got.Later) != 1 || got.Later[0] != "x_n2" {
		t.Errorf("%+v", got)
	}
}

// The anonymous volumes of a container pass on to the one that takes its place.
func TestReplacementKeepsAnonymousVolumes(t *testing.T) {
	p := load(t, "name: x\nservices: {a: {image: i, volumes: [/anon, 'data:/data']}}\nvolumes: {data: }\n")
	old := &container.InspectResponse{ID: "0123456789abcdef", Name: "/x-a-1", Config: &container.Config{Volumes: map[string]struct{}{"/of/image": {}, "/of/former/image": {}}}}
	for target, name := range map[string]string{"/anon": "1111", "/of/image": "2222", "/data": "x_data", "/not/any/more": "x_old", "/of/former/image": "3333"} {
		old.Mounts = append(old.Mounts, container.MountPoint{Type: "volume", Name: name, Destination: target, RW: true})
	}
	asked := map[string]struct{}{"/of/image": {}, "/of/image/now": {}}
	got, err := (&spec.Replica{Project: p, Service: p.Services["a"], Number: 1, Name: "x-a-1", Replaces: old, ImageVolumes: asked}).Request()
	if err != nil {
		t.Fatal(err)
	}
	sources := map[string]string{}
	for _, m := range got.Create.HostConfig.Mounts {
		sources[m.Target] = m.Source
	}
	if sources["/anon"] != "1111" || sources["/of/image"] != "2222" || len(sources) != 2 {
		t.Errorf("%v", sources)
	}
	if got.Create.Config.Labels[label.Replace] != "a-1" {
		t.Errorf("%v", got.Create.Config.Labels)
	}
}

func TestWhatIsNotSupportedIsNamed(t *testing.T) {
	for attribute, text := range map[string]string{
		"credential_spec":   "credential_spec: {file: x}",
		"isolation":         "isolation: hyperv",
		"cpu_count":         "cpu_count: 2",
		"cpu_percent":       "cpu_percent: 5",
		"generic_resources": "deploy: {resources: {reservations: {generic_resources: [{discrete_resource_spec: {kind: k, value: 1}}]}}}",
		"external secret":   "secrets: [ext]",
		"restart":           "restart: 'on-failure:x'",
		"dns":               "dns: [nowhere]",
		"expose":            "expose: ['x']",
	} {
		p := load(t, "name: x\nservices: {a: {image: i, "+text+"}}\nsecrets: {ext: {external: true}}\n")
		_, err := (&spec.Replica{Project: p, Service: p.Services["a"], Number: 1, Name: "x-a-1"}).Request()
		if err == nil || !strings.Contains(err.Error(), attribute) || !strings.Contains(err.Error(), `service "a"`) {
			t.Errorf("%s: %v", attribute, err)
		}
	}
}

func TestHashIgnoresWhatMakesNoContainer(t *testing.T) {
	hash := func(text string) string {
		p := load(t, "name: x\nservices: {a: {image: i, "+text+"}, b: {image: i}}\n")
		h, err := canonical.ServiceHash(p.Services["a"])
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	same := hash("environment: {A: b}")
	for _, text := range []string{"scale: 3", "depends_on: [b]", "pull_policy: always", "profiles: []"} {
		if hash("environment: {A: b}, "+text) != same {
			t.Errorf("%s makes containers anew", text)
		}
	}
	if hash("environment: {A: c}") == same {
		t.Error("a variable does not make the container anew")
	}
}

// Two services cannot have the same container name, unless only one of them has a container.
func TestSharedNames(t *testing.T) {
	for more, want := range map[string]string{
		"":                   `service "b": the container name "own" is that of service "a", too`,
		", scale: 0":         "",
		", profiles: [dev]":  "",
		", restart: always ": `is that of service "a", too`,
	} {
		err := spec.Check(load(t, "services: {a: {image: x, container_name: own}, b: {image: x, container_name: own"+more+"}}"))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", more, err, want)
		}
	}
}
