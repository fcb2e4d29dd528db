package artifact

import (
	"io"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestFilesOfAnArtifact(t *testing.T) {
	layer := func(kind string, annotations ...string) ocispec.Descriptor {
		d := ocispec.Descriptor{MediaType: kind, Annotations: map[string]string{}}
		for i := 0; i < len(annotations); i += 2 {
			d.Annotations[annotations[i]] = annotations[i+1]
		}
		return d
	}
	get := func(ocispec.Descriptor) ([]byte, error) { return []byte("x"), nil }
	for name, c := range map[string]struct {
		layers []ocispec.Descriptor
		want   string // the file's content, or what the error says
	}{
		"one":            {[]ocispec.Descriptor{layer(fileType, fileName, "a.yaml")}, "x"},
		"two":            {[]ocispec.Descriptor{layer(fileType), layer(fileType), layer("other")}, "x\n---\nx"},
		"with others":    {[]ocispec.Descriptor{layer(fileType), layer(envType, envName, "a.env"), layer(fileType, extendsKey, "true", fileName, "b.yaml")}, "x"},
		"none":           {nil, "no Compose file"},
		"out of the way": {[]ocispec.Descriptor{layer(fileType), layer(envType, envName, "../../etc/cron.d/x")}, "no name of a file"},
		"no name":        {[]ocispec.Descriptor{layer(fileType), layer(envType)}, "no name of a file"},
		"in its place":   {[]ocispec.Descriptor{layer(fileType), layer(envType, envName, "compose.yaml")}, "no name of a file"},
		"too large":      {[]ocispec.Descriptor{{MediaType: fileType, Size: largest/2 + 1}, {MediaType: fileType, Size: largest / 2}}, "more than 16 MiB"},
		"of no size":     {[]ocispec.Descriptor{{MediaType: fileType, Size: -1}}, "more than 16 MiB"},
		"the parent":     {[]ocispec.Descriptor{layer(fileType), layer(fileType, extendsKey, "true", fileName, "..")}, "no name of a file"},
	} {
		files, err := filesIn(ocispec.Manifest{Layers: c.layers}, get)
		if err != nil && !strings.Contains(err.Error(), c.want) || err == nil && string(files["compose.yaml"]) != c.want {
			t.Errorf("%s: %q, %v", name, files["compose.yaml"], err)
		}
	}
}

// A registry may send more than the manifest says, or less: what it is compared by is at the end.
func TestALayerIsReadToItsEnd(t *testing.T) {
	for text, ok := range map[string]bool{"1234": true, "123": false, "12345": false, "": false} {
		ended := false
		r := io.MultiReader(strings.NewReader(text), readerFunc(func([]byte) (int, error) { ended = true; return 0, io.EOF }))
		content, err := readWhole(r, ocispec.Descriptor{Size: 4})
		if (err == nil) != ok || ok && (!ended || string(content) != text) {
			t.Errorf("%q: %q, %v, read to the end: %t", text, content, err, ended)
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
