package image

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

var (
	plain  = digest.FromString("plain")
	packed = digest.FromString("packed")
	other  = digest.FromString("other")
)

func named(text string) string {
	return strings.NewReplacer("PLAIN", plain.String(), "PACKED", packed.String(), "OTHER", other.String(), "HEX1", plain.Encoded(), "HEX2", packed.Encoded()).Replace(text)
}

var toPacked = replacements{plain: {MediaType: "gz", Digest: packed, Size: 7}, other: {MediaType: "x", Digest: other, Size: 1}}

func TestManifestsAreRewritten(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"order and unknown members stay": {
			`{"z": 1.50, "schemaVersion":2, "layers": [ {"size":9,"digest":"PLAIN","mediaType":"tar","annotations":{"a":"<b>&"}}, {"digest":"OTHER","size":1} ], "a":[1, 2]}`,
			`{"z":1.50,"schemaVersion":2,"layers":[{"size":7,"digest":"PACKED","mediaType":"gz","annotations":{"a":"<b>&"}},{"digest":"OTHER","size":1}],"a":[1, 2]}`,
		},
		"what stays the same keeps its bytes": {`{ "layers": [ {"digest":"OTHER"} ] }`, `{ "layers": [ {"digest":"OTHER"} ] }`},
		"no layers":                           {`{"layers":null}`, `{"layers":null}`},
		"a layer twice":                       {`{"layers":[{"digest":"PLAIN"},{"digest":"PLAIN"}]}`, `{"layers":[{"digest":"PACKED","mediaType":"gz","size":7},{"digest":"PACKED","mediaType":"gz","size":7}]}`},
		"layers that are none":                {`{"layers":[1]}`, ""},
		"an array":                            {`[]`, ""},
		"two objects":                         {`{}{}`, ""},
		"cut off":                             {`{"layers":[`, ""},
	} {
		got, err := rewriteManifest([]byte(named(c.in)), toPacked)
		if (err != nil) != (c.want == "") || err == nil && string(got) != named(c.want) {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
}

func TestIndexesAreRewritten(t *testing.T) {
	const attestation = `{"digest":"OTHER","annotations":{"vnd.docker.reference.type":"attestation-manifest","vnd.docker.reference.digest":"PLAIN"},"platform":{"os":"unknown"}}`
	in := named(`{"manifests":[{"digest":"PLAIN","mediaType":"m","platform":{"os":"linux"}},` + attestation + `]}`)
	all := func(digest.Digest) bool { return true }
	got, err := rewriteIndex([]byte(in), replacements{plain: {MediaType: "m", Digest: packed, Size: 7}}, all)
	want := named(`{"manifests":[{"digest":"PACKED","mediaType":"m","platform":{"os":"linux"},"size":7},` + strings.Replace(attestation, "PLAIN", "PACKED", 1) + `]}`)
	if err != nil || string(got) != want {
		t.Errorf("%s, %v", got, err)
	}
	if got, err := rewriteIndex([]byte(in), nil, all); err != nil || string(got) != in {
		t.Errorf("%s, %v", got, err)
	}
	got, err = rewriteIndex([]byte(in), nil, func(d digest.Digest) bool { return d == plain })
	if err != nil || string(got) != named(`{"manifests":[{"digest":"PLAIN","mediaType":"m","platform":{"os":"linux"}}]}`) {
		t.Errorf("%s, %v", got, err)
	}
}

func TestAttestationsAreRewritten(t *testing.T) {
	in := named(`{"config":{"digest":"OTHER"},"layers":[{"digest":"PLAIN","mediaType":"t"}],"subject":{"digest":"PLAIN","size":1,"mediaType":"m"}}`)
	got, err := rewriteAttestation([]byte(in), replacements{plain: {MediaType: "t", Digest: packed, Size: 3}}, replacements{plain: {MediaType: "m", Digest: packed, Size: 7}})
	if want := named(`{"config":{"digest":"OTHER"},"layers":[{"digest":"PACKED","mediaType":"t","size":3}],"subject":{"digest":"PACKED","size":7,"mediaType":"m"}}`); err != nil || string(got) != want {
		t.Errorf("%s, %v", got, err)
	}
	statement := named(`{"subject":[{"digest":{"sha256":"HEX1"}}],"text":"PLAIN"}`)
	if got := rewriteDigests([]byte(statement), replacements{plain: {Digest: packed}}); string(got) != named(`{"subject":[{"digest":{"sha256":"HEX2"}}],"text":"PACKED"}`) || len(got) != len(statement) {
		t.Errorf("%s", got)
	}
}

func FuzzRewrite(f *testing.F) {
	f.Add([]byte(named(`{"manifests":[{"digest":"PLAIN","annotations":{"vnd.docker.reference.digest":"PLAIN"}}],"layers":[{"digest":"PLAIN"}],"config":{"digest":"PLAIN"},"subject":{"digest":"PLAIN"}}`)))
	f.Add([]byte(`{"layers":null,"manifests":[null],"config":[],"subject":1}`))
	f.Add([]byte(`{"a":1,"a":2,"\u0000":"\ud800"}`))
	f.Fuzz(func(t *testing.T, document []byte) {
		for name, rewrite := range map[string]func(r replacements) ([]byte, error){
			"manifest": func(r replacements) ([]byte, error) { return rewriteManifest(document, r) },
			"index": func(r replacements) ([]byte, error) {
				return rewriteIndex(document, r, func(digest.Digest) bool { return true })
			},
			"attestation": func(r replacements) ([]byte, error) { return rewriteAttestation(document, r, r) },
		} {
			if got, err := rewrite(replacements{}); err == nil && !bytes.Equal(got, document) {
				t.Errorf("%s: %q became %q", name, document, got)
			}
			got, err := rewrite(toPacked)
			if err == nil && !json.Valid(got) {
				t.Errorf("%s: %q became %q", name, document, got)
			}
			if err == nil && !bytes.Equal(got, document) && !bytes.Contains(got, []byte(packed.Encoded())) {
				t.Errorf("%s: %q became %q", name, document, got)
			}
		}
	})
}

func TestSources(t *testing.T) {
	name, err := parseName("registry.example:5000/team/app")
	if err != nil {
		t.Fatal(err)
	}
	list := ""
	for _, repo := range []string{"a", "team/lib", "team/lib", "x"} {
		from, _ := parseName("registry.example:5000/" + repo)
		list = withSource(list, from)
	}
	if list != "a,team/lib,x" {
		t.Errorf("%q", list)
	}
	for labels, want := range map[string]string{list: "team/lib", "": "", "team/app": "", "UP,../x,,b": "b"} {
		info := infoWith(map[string]string{sourceLabel("registry.example:5000"): labels, sourceLabel("registry.example"): "elsewhere"})
		if got := sourceFor(name, info); got != want {
			t.Errorf("%q: %q", labels, got)
		}
	}
	for i := range 20 {
		from, _ := parseName("registry.example/r" + string(rune('a'+i)))
		list = withSource(list, from)
	}
	if n := strings.Count(list, ","); n != maxSources-1 || !strings.HasSuffix(list, "rt") {
		t.Errorf("%q", list)
	}
}

func TestPushedDigestIsOfThisImageOnly(t *testing.T) {
	for label, want := range map[string]digest.Digest{
		plain.String() + "=" + packed.String(): packed, other.String() + "=" + packed.String(): "", plain.String() + "=junk": "", "junk": "", "": "",
	} {
		img := imageWith(ocispec.Descriptor{Digest: plain}, label)
		if got := pushedAs(img); got != want {
			t.Errorf("%q: %q", label, got)
		}
	}
}

func infoWith(labels map[string]string) content.Info { return content.Info{Labels: labels} }

func imageWith(target ocispec.Descriptor, label string) images.Image {
	return images.Image{Target: target, Labels: map[string]string{pushedLabel: label}}
}
