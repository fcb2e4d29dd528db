package e2e

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/test/harness"
)

// filesOf reads a tar archive whole.
func filesOf(t *testing.T, archive string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for tr := tar.NewReader(strings.NewReader(archive)); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if _, err := io.Copy(&b, tr); err != nil {
			t.Fatal(err)
		}
		files[strings.TrimSuffix(h.Name, "/")] = b.Bytes()
	}
}

// TestSaveOfBuilds: what builds make is saved as it is, with its attestations, and is the
// same image where it is loaded.
func TestSaveOfBuilds(t *testing.T) {
	here, there := engine(t, "busybox"), harness.Start(t, harness.Options{})
	each(t, func(t *testing.T, program string) {
		plain, attested := "saved/"+program+"-plain:v1", "saved/"+program+"-attested:v1"
		built(t, here, plain)
		built(t, here, attested, "--platform", "linux/amd64,linux/arm64", "--provenance=mode=max")
		r := here.Do(t, program, "", "save", plain, attested)
		if r.Code != 0 {
			t.Fatalf("%s", r.Stderr)
		}
		files := filesOf(t, r.Stdout)
		var manifest []struct {
			Config   string
			RepoTags []string
			Layers   []string
		}
		var index struct{ Manifests []struct{ Digest string } }
		if json.Unmarshal(files["manifest.json"], &manifest) != nil || json.Unmarshal(files["index.json"], &index) != nil || files["oci-layout"] == nil || len(manifest) != 1 || len(index.Manifests) != 2 {
			t.Fatalf("manifest.json %s, index.json %s", files["manifest.json"], files["index.json"])
		}
		for _, m := range manifest {
			// Both names mean the same image for this platform, one of them in an index.
			if len(m.RepoTags) != 2 || files[m.Config] == nil || len(m.Layers) != 2 {
				t.Errorf("%+v", m)
			}
			for _, l := range m.Layers {
				if files[l] == nil {
					t.Errorf("%v: the layer %s is not there", m.RepoTags, l)
				}
			}
			if l := files[m.Layers[1]]; len(l) < 512 || string(l[257:262]) != "ustar" {
				t.Errorf("%v: its own layer is not a plain tar archive", m.RepoTags)
			}
		}
		if r := there.Do(t, program, r.Stdout, "load"); r.Code != 0 || !strings.Contains(r.Stdout, "Loaded image: "+plain) || !strings.Contains(r.Stdout, "Loaded image: "+attested) {
			t.Errorf("%s", r)
		}
		for _, image := range []string{plain, attested} {
			if id, got := here.OK(t, program, "inspect", "-f", "{{.Id}}", image), there.OK(t, program, "inspect", "-f", "{{.Id}}", image); got != id {
				t.Errorf("%s is %s here and %s there", image, id, got)
			}
			if got := there.OK(t, program, "run", "--rm", image); !strings.HasPrefix(got, "FROM busybox") {
				t.Errorf("%s says %q", image, got)
			}
		}
		c := gophers(t, there)
		list, err := c.ImageInspect(c.ctx, attested, client.ImageInspectWithManifests(true))
		if err != nil || len(list.Manifests) != 4 {
			t.Errorf("%+v, %v", list.Manifests, err)
		}
		for _, m := range list.Manifests {
			if !m.Available {
				t.Errorf("%s %+v is not all there", m.Kind, m.Descriptor)
			}
		}
		there.OK(t, program, "rmi", plain, attested)
		only := here.Do(t, "cleat", "", "save", "--platform", "linux/arm64", attested)
		if r := there.Do(t, "cleat", only.Stdout, "load"); r.Code != 0 {
			t.Fatalf("%s", r)
		}
		if got := there.OK(t, "cleat", "inspect", "-f", "{{.Architecture}}", attested); got != "arm64" {
			t.Errorf("it is for %s", got)
		}
		there.OK(t, "cleat", "rmi", attested)
		if left := there.OK(t, "cleat", "images", "-aq"); left != "" {
			t.Errorf("left: %s", left)
		}
	})
}
