package api_test

import (
	"context"
	"io"

	"github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/internal/engine"
)

func (f *fake) StatPath(_ context.Context, name, path string) (*container.PathStat, error) {
	f.called("stat path", name, path)
	return nil, missing("stat path")
}

func (f *fake) ArchivePath(_ context.Context, name, path string) (*engine.PathArchive, error) {
	f.called("archive path", name, path)
	return nil, missing("archive path")
}

func (f *fake) ExtractTo(_ context.Context, name, path string, _ io.Reader, _ engine.CopyOptions) error {
	f.called("extract to", name, path)
	return missing("extract to")
}
