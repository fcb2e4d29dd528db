package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// A project is published as docker compose publishes it: a manifest of the project's type, a layer for each file.
func TestComposePublish(t *testing.T) {
	e := engine(t, "busybox")
	reg := harness.StartRegistry(t, "busybox")
	file := "services:\n  web: {image: " + reg.Addr + "/library/busybox:latest, profiles: [x]}\n"
	a := compose(t, e, map[string]string{"compose.yaml": file, "more.yaml": "services: {web: {command: sleep 1000, image: busybox}}\n", "vars": "A=b\n"})
	get := func(path string) []byte {
		t.Helper()
		req, err := http.NewRequest(http.MethodGet, "http://"+reg.Addr+"/v2/apps/one/"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", "application/vnd.oci.image.manifest.v1+json")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s, %v\n%s", path, res.Status, err, body)
		}
		return body
	}
	type manifest struct {
		ArtifactType string
		Config       struct{ MediaType string }
		Layers       []struct {
			MediaType, Digest string
			Annotations       map[string]string
		}
	}
	read := func(tag string) (m manifest) {
		t.Helper()
		if err := json.Unmarshal(get("manifests/"+tag), &m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	r := a.run(t, "-f", "compose.yaml", "-f", "more.yaml", "publish", reg.Addr+"/apps/one:v1")
	if r.Code != 0 || !strings.Contains(r.Stderr, "published sha256:") {
		t.Fatalf("%s", r)
	}
	m := read("v1")
	if m.ArtifactType != "application/vnd.docker.compose.project" || len(m.Layers) != 2 || m.Layers[0].MediaType != "application/vnd.docker.compose.file+yaml" ||
		m.Layers[1].Annotations["com.docker.compose.file"] != "more.yaml" {
		t.Errorf("%+v", m)
	}
	if got := string(get("blobs/" + m.Layers[0].Digest)); got != file {
		t.Errorf("the file is %q", got)
	}
	// It is read back, also by an include, wherever the reader is.
	there := &application{e: e, dir: contextDir(t, map[string]string{"compose.yaml": "include: [oci://" + reg.Addr + "/apps/one:v1]\n"}), name: a.name, env: []string{"XDG_CACHE_HOME=" + t.TempDir()}}
	for _, line := range [][]string{{"-f", "oci://" + reg.Addr + "/apps/one:v1", "--profile", "x", "config"}, {"--profile", "x", "config"}} {
		if got := there.ok(t, line...); !strings.Contains(got, "- sleep\n") || !strings.Contains(got, "image: busybox\n") {
			t.Errorf("%v: %s", line, got)
		}
	}
	if r := there.run(t, "-f", "oci://"+reg.Addr+"/library/busybox", "config"); r.Code == 0 || !strings.Contains(r.Stderr, "not a compose project OCI artifact") {
		t.Errorf("an image: %s", r)
	}
	a.ok(t, "publish", "--oci-version", "1.0", "--resolve-image-digests", reg.Addr+"/apps/one:old")
	m = read("old")
	if m.ArtifactType != "" || m.Config.MediaType != "application/vnd.docker.compose.config.empty.v1+json" || len(m.Layers) != 2 {
		t.Errorf("%+v", m)
	}

	for name, c := range map[string]struct{ file, want string }{
		"only a build": {"services: {a: {build: .}}", "cannot be published as it only contains a build section"},
		"environment":  {"services: {a: {image: busybox, environment: {A: b}}}", "--with-env"},
		"an include":   {"include: [more.yaml]\nservices: {a: {image: busybox}}\n", "cannot publish compose file with local includes"},
		"an env file":  {"services: {a: {image: busybox, env_file: vars}}", "env_file"},
	} {
		if err := os.WriteFile(filepath.Join(a.dir, "compose.yaml"), []byte(c.file), 0o644); err != nil {
			t.Fatal(err)
		}
		if r := a.run(t, "publish", reg.Addr+"/apps/bad"); r.Code == 0 || !strings.Contains(r.Stderr, c.want) {
			t.Errorf("%s: %s", name, r)
		}
	}
	// What the files name goes with them, and is found by the reader.
	if err := os.WriteFile(filepath.Join(a.dir, "compose.yaml"), []byte("services: {a: {env_file: [vars], extends: {file: more.yaml, service: web}}}"), 0o644); err != nil {
		t.Fatal(err)
	}
	a.ok(t, "publish", "-y", "--with-env", reg.Addr+"/apps/one:whole")
	if got := there.ok(t, "-f", "oci://"+reg.Addr+"/apps/one:whole", "config"); !strings.Contains(got, "A: b\n") || !strings.Contains(got, "- sleep\n") {
		t.Errorf("%s", got)
	}
	// Who is asked and does not agree publishes nothing.
	if err := os.WriteFile(filepath.Join(a.dir, "compose.yaml"), []byte("services: {a: {image: busybox, volumes: ['.:/here']}}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := a.run(t, "publish", reg.Addr+"/apps/asked"); r.Code != 0 || !strings.Contains(r.Stderr, "Are you ok to publish") || strings.Contains(r.Stderr, "published sha256") {
		t.Errorf("%s", r)
	}
	if r := a.run(t, "publish", "-y", reg.Addr+"/apps/asked"); r.Code != 0 || !strings.Contains(r.Stderr, "published sha256") {
		t.Errorf("%s", r)
	}
	if r := a.run(t, "publish", "--app", reg.Addr+"/apps/one"); r.Code == 0 || !strings.Contains(r.Stderr, "--app is not supported") {
		t.Errorf("%s", r)
	}
}
