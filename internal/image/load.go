package image

import (
	"context"
	"errors"
	"io"

	"github.com/moby/moby/api/types/jsonstream"
)

// Load takes all images of an archive.
func (s *Service) Load(ctx context.Context, r io.Reader, opts LoadOptions, progress func(jsonstream.Message)) error {
	return errors.New("not yet")
}

// Close waits for background work.
func (s *Service) Close() error { return nil }
