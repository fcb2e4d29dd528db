package archive_test

import (
	"bytes"
	"encoding/base64"
	"io"
	"testing"

	"github.com/cleatlabs/cleat/internal/archive"
)

// xzText is "hello hello hello hello hello, this is a text to be compressed" as xz.
const xzText = "/Td6WFoAAATm1rRGAgAhARYAAAB0L+Wj4AA9ACtdADQZSe6N6Vc6yDvIIq3bDzj+nsPgVxjy9VC1IXFii8bChmm/nwk095r4dAAAAILLj9mV0cewAAFHPkJx314ftvN9AQAAAAAEWVo="

func TestDecompressXZ(t *testing.T) {
	data, err := base64.StdEncoding.DecodeString(xzText)
	if err != nil {
		t.Fatal(err)
	}
	const want = "hello hello hello hello hello, this is a text to be compressed"
	for twice, data := range [][]byte{data, append(bytes.Clone(data), data...)} {
		r, done, err := archive.Decompress(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		done()
		if err != nil || string(got) != want+want[:twice*len(want)] {
			t.Errorf("%q, %v", got, err)
		}
	}
}
