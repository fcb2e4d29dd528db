package api_test

import (
	"context"
	"io"
	"testing"

	volumetypes "github.com/moby/moby/api/types/volume"

	"github.com/cleatlabs/cleat/internal/api"
	"github.com/cleatlabs/cleat/internal/volume"
)

// slowCopies take until they are no longer wanted.
type slowCopies struct {
	api.VolumeCopies
	entered chan struct{}
}

func (s *slowCopies) last(ctx context.Context) error {
	s.entered <- struct{}{}
	<-ctx.Done()
	return ctx.Err()
}

func (s *slowCopies) Clone(ctx context.Context, _ volume.CloneRequest) (*volumetypes.Volume, volume.Copying, error) {
	return nil, volume.Copying{}, s.last(ctx)
}

func (s *slowCopies) Snapshot(ctx context.Context, _, _ string) (volume.Snapshot, volume.Copying, error) {
	return volume.Snapshot{}, volume.Copying{}, s.last(ctx)
}

func (s *slowCopies) Restore(ctx context.Context, _, _ string) (volume.Copying, error) {
	return volume.Copying{}, s.last(ctx)
}

func (s *slowCopies) Import(_ context.Context, _ string, _ map[string]string, r io.Reader) (*volumetypes.Volume, error) {
	s.entered <- struct{}{}
	_, err := io.Copy(io.Discard, r)
	return nil, err
}

// An engine that ends waits for no copy of a volume: it would cut the copy off in the end, and leave the containers
// standing still that stand still for it.
func TestShutdownEndsCopiesOfVolumes(t *testing.T) {
	for name, call := range map[string]string{
		"clone":    "clone HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n{\"Name\":\"b\"}",
		"snapshot": "snapshots HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n{\"Name\":\"b\"}",
		"restore":  "restore HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n{\"Snapshot\":\"b\"}",
		"import":   "import HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-tar\r\nContent-Length: 1000\r\n\r\nthe beginning",
	} {
		t.Run(name, func(t *testing.T) {
			copies := &slowCopies{entered: make(chan struct{}, 1)}
			d := serve(t, &fake{copies: copies})
			w := d.dial()
			w.send("POST /cleat/volumes/a/" + call)
			<-copies.entered
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if err := d.server.Shutdown(ctx); err != nil {
				t.Errorf("the engine waits for it: %v", err)
			}
			w.Close()
		})
	}
}
