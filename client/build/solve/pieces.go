package solve

import (
	"io"

	"github.com/tonistiigi/fsutil"
)

// pieces is a directory whose files are read, and so sent, in pieces that fit a message of 32 KiB. A file is sent in what
// one read gives, of 32 KiB else: the message around it is larger by a few bytes, and both ends then take a buffer of
// 1 MiB for each and clear it (the sizes are those of gRPC's pool).
type pieces struct{ fsutil.FS }

// pieceSize is a multiple of a page's size.
const pieceSize = 28 << 10

func (p pieces) Open(name string) (io.ReadCloser, error) {
	f, err := p.FS.Open(name)
	if err != nil {
		return nil, err
	}
	return pieceReader{f}, nil
}

type pieceReader struct{ io.ReadCloser }

func (r pieceReader) Read(b []byte) (int, error) {
	return r.ReadCloser.Read(b[:min(len(b), pieceSize)])
}
