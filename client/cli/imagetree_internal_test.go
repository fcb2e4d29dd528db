package cli

import (
	"strings"
	"testing"

	"github.com/moby/moby/api/types/image"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestImageTree(t *testing.T) {
	manifest := func(id, arch string, kind image.ManifestKind, total, content int64, containers ...string) image.ManifestSummary {
		m := image.ManifestSummary{ID: "sha256:" + strings.Repeat(id, 64), Kind: kind}
		m.Size.Total, m.Size.Content = total, content
		if kind == image.ManifestKindImage {
			m.ImageData = &image.ImageProperties{Platform: ocispec.Platform{OS: "linux", Architecture: arch}, Containers: containers}
		}
		return m
	}
	var b strings.Builder
	err := writeImageTree(&b, []image.Summary{
		{ID: "sha256:" + strings.Repeat("9", 64), Size: 5},
		{
			ID: "sha256:" + strings.Repeat("1", 64), RepoTags: []string{"web:v2", "registry.example.com:5000/team/web:v1"}, Size: 12_300_000,
			Manifests: []image.ManifestSummary{
				manifest("a", "amd64", image.ManifestKindImage, 8_000_000, 3_000_000, "c1"),
				manifest("b", "arm64", image.ManifestKindImage, 4_300_000, 1_300_000),
				manifest("c", "", image.ManifestKindAttestation, 1000, 1000),
			},
		},
		{ID: "sha256:" + strings.Repeat("2", 64), RepoTags: []string{"app:latest"}, Size: 1_000, Containers: 2},
	})
	want := `IMAGE                                   ID             DISK USAGE   CONTENT SIZE   EXTRA
app:latest                              222222222222          1kB             0B   U

registry.example.com:5000/team/web:v1
web:v2                                  111111111111       12.3MB          4.3MB   U
├─ linux/amd64                          aaaaaaaaaaaa          8MB            3MB   U
└─ linux/arm64                          bbbbbbbbbbbb        4.3MB          1.3MB

<untagged>                              999999999999           5B             0B

`
	if err != nil || b.String() != want {
		t.Errorf("%v\n%s", err, b.String())
	}
	for flag, o := range map[string]imagesOptions{"quiet": {quiet: true}, "no-trunc": {noTrunc: true}, "show-digest": {digests: true}, "format": {format: "x"}} {
		if err := o.checkTree(); err == nil || err.Error() != "--"+flag+" is not yet supported with --tree" {
			t.Errorf("%s: %v", flag, err)
		}
	}
}
