package archive

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/cleatlabs/cleat/internal/failure"
)

// maxWindow bounds the memory that a zstd stream can ask for.
const maxWindow = 128 << 20

// ErrEmpty is the error of [Decompress] for a stream that ends at once.
var ErrEmpty = errors.New("the archive is empty")

// Decompress gives the plain form of a stream that may be compressed with gzip, zstd or
// bzip2, by its first bytes. No program is run for it. The returned function frees what
// was needed. A stream in xz, which is not supported, is errdefs.ErrInvalidArgument.
func Decompress(r io.Reader) (io.Reader, func(), error) {
	b := bufio.NewReaderSize(r, 64<<10)
	head, err := b.Peek(6)
	if len(head) == 0 {
		if err == nil || errors.Is(err, io.EOF) {
			return nil, nil, ErrEmpty
		}
		return nil, nil, fmt.Errorf("read the archive: %w", err)
	}
	switch Compression(head) {
	case "gzip":
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, nil, err
		}
		return z, func() { z.Close() }, nil
	case "zstd":
		z, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	case "bzip2":
		return bzip2.NewReader(b), func() {}, nil
	case "xz":
		return nil, nil, failure.Invalid("the archive is compressed with xz, which is not supported: decompress it first (xz -dc FILE | …)")
	}
	return b, func() {}, nil
}

// Compression tells by the first six bytes of a stream how it is compressed: gzip, zstd,
// bzip2, xz, or "" for anything else.
func Compression(head []byte) string {
	for name, magic := range map[string]string{
		"gzip": "\x1f\x8b\x08", "zstd": "\x28\xb5\x2f\xfd", "bzip2": "BZh", "xz": "\xfd7zXZ\x00",
	} {
		if bytes.HasPrefix(head, []byte(magic)) {
			return name
		}
	}
	return ""
}
