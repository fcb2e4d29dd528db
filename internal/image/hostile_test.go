package image_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/image"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	own "github.com/cleatlabs/cleat/internal/image"
)

// layoutTar is an OCI layout that is written by hand.
type layoutTar struct {
	buf bytes.Buffer
	tw  *tar.Writer
}

func newLayoutTar() *layoutTar {
	l := &layoutTar{}
	l.tw = tar.NewWriter(&l.buf)
	l.file("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	return l
}

func (l *layoutTar) file(name string, text []byte) {
	l.tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))})
	l.tw.Write(text)
}

// add adds a blob and gives its descriptor in JSON.
func (l *layoutTar) add(mediaType, text string) string {
	sum := fmt.Sprintf("%x", sha256.Sum256([]byte(text)))
	l.file("blobs/sha256/"+sum, []byte(text))
	return fmt.Sprintf(`{"mediaType":%q,"digest":"sha256:%s","size":%d}`, mediaType, sum, len(text))
}

// of ends it with an index of one descriptor.
func (l *layoutTar) of(descriptor string) []byte {
	l.file("index.json", []byte(`{"schemaVersion":2,"manifests":[`+descriptor+`]}`))
	l.tw.Close()
	return l.buf.Bytes()
}

func (l *layoutTar) manifest(config, layers string) string {
	return l.add(ocispec.MediaTypeImageManifest, `{"schemaVersion":2,"mediaType":"`+ocispec.MediaTypeImageManifest+`","config":`+
		l.add(ocispec.MediaTypeImageConfig, config)+`,"layers":[`+layers+`]}`)
}

const plainConfig = `{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}`

// Of what describes an image a few kilobytes in an archive can have been made to fill any memory, or take any time.
func TestLoadOfExcessiveDescriptions(t *testing.T) {
	for name, c := range map[string]struct {
		make func(l *layoutTar) string
		want string
	}{
		"a size that is not the blob's": {func(l *layoutTar) string {
			d := l.add(ocispec.MediaTypeImageManifest, strings.Repeat(" ", 32<<20))
			return strings.Replace(d, fmt.Sprintf(`"size":%d`, 32<<20), `"size":100`, 1)
		}, "has 33554432 bytes, but 100 are declared"},
		"indexes of indexes": {func(l *layoutTar) string {
			d := l.manifest(plainConfig, "")
			for range 3 {
				d = l.add(ocispec.MediaTypeImageIndex, `{"schemaVersion":2,"manifests":[`+strings.Repeat(d+",", 3000)+d+`]}`)
			}
			return d
		}, "than 32 MiB of manifests"},
		"a history without an end": {func(l *layoutTar) string {
			return l.manifest(strings.Replace(plainConfig, "{", `{"history":[`+strings.Repeat("{},", 1_000_000)+"{}],", 1), "")
		}, "than 10000 steps"},
		"layers without an end": {func(l *layoutTar) string {
			return l.manifest(plainConfig, strings.Repeat("{},", 100_000)+"{}")
		}, "than 1000 layers"},
	} {
		t.Run(name, func(t *testing.T) {
			b, l := newBench(t), newLayoutTar()
			out, err := b.load(l.of(c.make(l)), own.LoadOptions{})
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(out, "Loaded") {
				t.Errorf("%q, %v, want %q", out, err, c.want)
			}
			b.mustBeEmpty(t)
		})
	}
}

// The steps are told newest first, however many there are.
func TestHistoryOrder(t *testing.T) {
	b, l := newBench(t), newLayoutTar()
	steps := make([]string, 9000)
	for i := range steps {
		steps[i] = fmt.Sprintf(`{"created_by":"%d","empty_layer":true}`, i)
	}
	if _, err := b.load(l.of(l.manifest(strings.Replace(plainConfig, "{", `{"history":[`+strings.Join(steps, ",")+"],", 1), "")), own.LoadOptions{}); err != nil {
		t.Fatal(err)
	}
	list, err := b.images.List(t.Context(), own.ListRequest{}, nil)
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	var items []image.HistoryResponseItem
	if items, err = b.images.History(t.Context(), list[0].ID, ""); err != nil || len(items) != len(steps) {
		t.Fatal(len(items), err)
	}
	text, _ := json.Marshal([]image.HistoryResponseItem{items[0], items[len(items)-1]})
	if items[0].CreatedBy != "8999" || items[0].ID != list[0].ID || items[8999].CreatedBy != "0" || items[8999].ID != "<missing>" {
		t.Errorf("%s", text)
	}
}
