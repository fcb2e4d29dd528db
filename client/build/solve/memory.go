package solve

import (
	"bytes"
	"context"
	"io"
	gofs "io/fs"
	"os"

	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
)

// memory is a directory with one file, or none, that exists only here.
type memory struct {
	name string
	data []byte
}

func (m memory) Walk(_ context.Context, target string, fn gofs.WalkDirFunc) error {
	if m.name == "" || (target != "" && target != "." && target != "/" && target != m.name) {
		return nil
	}
	return fn(m.name, &fsutil.DirEntryInfo{Stat: &types.Stat{Path: m.name, Mode: 0o644, Size: int64(len(m.data))}}, nil)
}

func (m memory) Open(path string) (io.ReadCloser, error) {
	if m.name == "" || path != m.name {
		return nil, &os.PathError{Op: "open", Path: path, Err: os.ErrNotExist}
	}
	return io.NopCloser(bytes.NewReader(m.data)), nil
}
