package e2e

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	cranename "github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/cleatlabs/cleat/test/harness"
)

// built builds a small image with our own client.
func built(t *testing.T, e *harness.Engine, image string, args ...string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM busybox\nCOPY Dockerfile /note\nCMD [\"cat\", \"/note\"]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := e.Cleat(t, append(append([]string{"build", "-q", "-t", image}, args...), dir)...); r.Code != 0 {
		t.Fatalf("%s", r)
	}
	t.Cleanup(func() { e.Cleat(t, "rmi", "-f", image) })
}

// TestPushOfBuilds sends what builds make, and reads at the registry whether all of it
// holds together.
func TestPushOfBuilds(t *testing.T) {
	reg := harness.StartRegistry(t)
	here, there := engine(t, "busybox"), harness.Start(t, harness.Options{})
	for what, c := range map[string]struct {
		args      []string
		platforms int // 0: no index
		attested  bool
	}{
		"plain":         {nil, 0, false},
		"attested":      {[]string{"--provenance=mode=max", "--sbom=false"}, 1, true},
		"two platforms": {[]string{"--platform", "linux/amd64,linux/arm64", "--provenance=mode=min"}, 2, true},
	} {
		t.Run(what, func(t *testing.T) {
			image := reg.Addr + "/built/" + strings.ReplaceAll(what, " ", "-") + ":v1"
			built(t, here, image, c.args...)
			digest := pushedDigest(t, here.Do(t, "docker", "", "push", image))
			if got := here.OK(t, "docker", "inspect", "-f", "{{.RepoDigests}}", image); !strings.Contains(got, "@"+digest) {
				t.Errorf("it has the digests %s, the registry %s", got, digest)
			}
			ref, err := cranename.ParseReference(image)
			if err != nil {
				t.Fatal(err)
			}
			desc, err := remote.Get(ref)
			if err != nil || desc.Digest.String() != digest {
				t.Fatalf("the registry has %v, %v", desc, err)
			}
			if c.platforms == 0 {
				img, err := desc.Image()
				if err != nil {
					t.Fatal(err)
				}
				wholeImage(t, img)
			} else {
				wholeIndex(t, desc, c.platforms, c.attested)
			}
			if got := there.OK(t, "cleat", "run", "--rm", image); !strings.HasPrefix(got, "FROM busybox") {
				t.Errorf("elsewhere it says %q", got)
			}
			// Elsewhere there is one platform of it; that is what can be sent on.
			other := reg.Addr + "/again/" + strings.ReplaceAll(what, " ", "-") + ":v1"
			there.OK(t, "cleat", "tag", image, other)
			r := there.Do(t, "cleat", "", "push", other)
			again := pushedDigest(t, r)
			if (again == digest) != (c.platforms == 0) || c.platforms > 0 && !strings.Contains(r.Stderr, "Info: Not all multiplatform-content is present and only the available single-platform image was pushed\n"+digest+" -> "+again) {
				t.Errorf("%s", r)
			}
			there.OK(t, "cleat", "rmi", "-f", image, other)
			// Into a repository that has the rest, the whole of it is sent.
			there.OK(t, "cleat", "pull", "-q", image)
			there.OK(t, "cleat", "tag", image, strings.Replace(image, ":v1", ":v2", 1))
			if r := there.Do(t, "cleat", "", "push", strings.Replace(image, ":v1", ":v2", 1)); r.Code != 0 || !strings.Contains(r.Stdout, "v2: digest: "+digest) {
				t.Errorf("%s", r)
			}
		})
	}
}

// wholeImage fails unless an image's layers are compressed and there.
func wholeImage(t *testing.T, img v1.Image) {
	t.Helper()
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		mediaType, err := l.MediaType()
		if err != nil || !strings.HasSuffix(string(mediaType), "gzip") {
			t.Errorf("a layer is of the type %s, %v", mediaType, err)
		}
		want, err := l.DiffID() // of the config
		if err != nil {
			t.Fatal(err)
		}
		rc, err := l.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := v1.SHA256(rc)
		rc.Close()
		if err != nil || got != want {
			t.Errorf("a layer is %s, not %s: %v", got, want, err)
		}
	}
}

// wholeIndex fails unless all that an index names is there, and what attests an image is
// about the image that it names.
func wholeIndex(t *testing.T, desc *remote.Descriptor, platforms int, attested bool) {
	t.Helper()
	index, err := desc.ImageIndex()
	if err != nil {
		t.Fatal(err)
	}
	m, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	images, about := map[string]bool{}, map[string]v1.Descriptor{}
	for _, d := range m.Manifests {
		if subject := d.Annotations["vnd.docker.reference.digest"]; subject != "" {
			about[subject] = d
			continue
		}
		images[d.Digest.String()] = true
		img, err := index.Image(d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		wholeImage(t, img)
	}
	if len(images) != platforms || attested != (len(about) == platforms) {
		t.Errorf("it has %d images and %d attestations", len(images), len(about))
	}
	for subject, d := range about {
		if !images[subject] {
			t.Errorf("the attestation %s is about %s, which is not in the index", d.Digest, subject)
		}
		att, err := index.Image(d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		layers, err := att.Layers()
		if err != nil || len(layers) == 0 {
			t.Fatalf("%v, %v", layers, err)
		}
		for _, l := range layers {
			rc, err := l.Compressed()
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(rc)
			rc.Close()
			var statement struct {
				Subject []struct{ Digest map[string]string }
			}
			if err != nil || json.Unmarshal(text, &statement) != nil || len(statement.Subject) == 0 || "sha256:"+statement.Subject[0].Digest["sha256"] != subject {
				t.Errorf("a statement about %s has the subject %+v, %v", subject, statement.Subject, err)
			}
		}
	}
}
