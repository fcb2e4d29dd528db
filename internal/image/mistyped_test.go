package image_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-containerregistry/pkg/compression"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// TestLayersThatAreCompressedUnlikeTheirType: what a layer's first bytes say counts, for it to be unpacked and for what
// is sent on.
func TestLayersThatAreCompressedUnlikeTheirType(t *testing.T) {
	for _, mediaType := range []types.MediaType{types.OCIUncompressedLayer, types.DockerUncompressedLayer, types.OCIUncompressedRestrictedLayer} {
		for _, how := range []compression.Compression{compression.GZip, compression.ZStd} {
			t.Run(string(how)+" "+string(mediaType), func(t *testing.T) {
				plain := layerOf(t, entry{"etc/", ""}, entry{"etc/a", "text"})
				layer, err := tarball.LayerFromOpener(plain.Uncompressed, tarball.WithCompression(how))
				if err != nil {
					t.Fatal(err)
				}
				img, err := mutate.Append(imageOf(t, "amd64"), mutate.Addendum{Layer: layer, MediaType: mediaType})
				if err != nil {
					t.Fatal(err)
				}
				from, to, b := newRegistry(t), newRegistry(t), newBench(t)
				ref := from.push(t, "lab/x:1", img)
				b.pull(t, ref)
				dirs := b.lower(t, b.resolve(t, ref))
				if data, err := os.ReadFile(filepath.Join(dirs[0], "etc/a")); err != nil || string(data) != "text" {
					t.Errorf("unpacked: %q, %v", data, err)
				}
				if !mediaType.IsDistributable() {
					return // such layers are not sent
				}
				if err := b.images.Tag(b.store.Context(t.Context()), ref, to.addr+"/lab/x", "1"); err != nil {
					t.Fatal(err)
				}
				if sent, _ := b.mustPush(t, to.addr+"/lab/x:1", ""); sent.Digest.String() != digestOf(t, img) {
					t.Errorf("%s was pulled, and %s pushed", digestOf(t, img), sent.Digest)
				}
			})
		}
	}
}
