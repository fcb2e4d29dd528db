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
	"github.com/xi2/xz"

	"github.com/cleatlabs/cleat/internal/failure"
)

// maxWindow bounds the memory that a zstd stream can ask for.
const maxWindow = 128 << 20

// maxDictionary does so for an xz stream: it is what xz -9 makes.
const maxDictionary = xz.DefaultDictMax

// ErrEmpty is the error of [Decompress] for a stream that ends at once.
var ErrEmpty = errors.New("the archive is empty")

// Decompress gives the plain form of a stream that may be compressed with gzip, zstd, bzip2
// or xz, by its first bytes. No program is run for it. The returned function frees what was
// needed. What cannot be decompressed is errdefs.ErrInvalidArgument, at the beginning or later.
func Decompress(r io.Reader) (io.Reader, func(), error) {
	from := &source{r: r}
	b := bufio.NewReaderSize(from, 64<<10)
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
			return nil, nil, from.blame(err)
		}
		return decompressed{z, from}, func() { z.Close() }, nil
	case "zstd":
		z, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, nil, from.blame(err)
		}
		return decompressed{z, from}, z.Close, nil
	case "bzip2":
		return decompressed{bzip2.NewReader(b), from}, func() {}, nil
	case "xz":
		z, err := xz.NewReader(b, maxDictionary)
		if err != nil {
			return nil, nil, from.blame(explainXZ(err))
		}
		return decompressed{xzReader{z}, from}, func() {}, nil
	}
	return b, func() {}, nil
}

// source remembers whether what a stream comes from has failed.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// blame tells a damaged stream from one whose source has failed: each format has errors of its own.
func (s *source) blame(err error) error {
	if s.err != nil || failure.Class(err) != nil {
		return err
	}
	return failure.Invalid("the archive is damaged: %w", err)
}

// decompressed is a stream that may be damaged.
type decompressed struct {
	plain io.Reader
	from  *source
}

func (d decompressed) Read(p []byte) (int, error) {
	n, err := d.plain.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = d.from.blame(err)
	}
	return n, err
}

// xzReader gives errors in words that say what to do.
type xzReader struct{ z *xz.Reader }

func (r xzReader) Read(p []byte) (int, error) {
	n, err := r.z.Read(p)
	return n, explainXZ(err)
}

func explainXZ(err error) error {
	if errors.Is(err, xz.ErrMemlimit) {
		return failure.Invalid("the archive needs more memory to decompress than xz -9 asks for, %d MiB: decompress it first (xz -dc FILE | …)", maxDictionary>>20)
	}
	return err
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
