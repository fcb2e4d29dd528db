package archive_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/zstd"

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

// What is damaged is who sent it to blame for, in every format; a source that fails is not.
func TestDecompressDamaged(t *testing.T) {
	plain := bytes.Repeat([]byte("to be compressed, "), 1000)
	var gz, zst bytes.Buffer
	z := gzip.NewWriter(&gz)
	_, err := z.Write(plain)
	if err := errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	w, err := zstd.NewWriter(&zst)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Write(plain)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	xz, err := base64.StdEncoding.DecodeString(xzText)
	if err != nil {
		t.Fatal(err)
	}
	flipped := func(b []byte) []byte {
		b = bytes.Clone(b)
		b[len(b)-6] ^= 0xff
		return b
	}
	read := func(r io.Reader) error {
		plain, done, err := archive.Decompress(r)
		if err != nil {
			return err
		}
		defer done()
		_, err = io.Copy(io.Discard, plain)
		return err
	}
	broken := errors.New("the client has gone")
	for name, data := range map[string][]byte{
		"gzip": flipped(gz.Bytes()), "gzip cut off": gz.Bytes()[:gz.Len()-3], "zstd": flipped(zst.Bytes()), "zstd of rubbish": []byte("(\xb5/\xfd\x04\x00xxxxxxxx"),
		"xz": flipped(xz), "bzip2": []byte("BZh9xxxxxxxxxxxxxxxx"), "bzip2 cut off": []byte("BZh91AY&SY"),
	} {
		if err := read(bytes.NewReader(data)); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", name, err)
		}
		fails := io.MultiReader(bytes.NewReader(data[:6]), iotest.ErrReader(broken))
		if err := read(fails); !errors.Is(err, broken) || errdefs.IsInvalidArgument(err) {
			t.Errorf("%s of a source that fails: %v", name, err)
		}
	}
}
