package build

import (
	"context"
	"fmt"
	"strings"
	"testing"

	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
)

// warnings takes a frontend's.
type warnings struct {
	gateway.Client
	told []string
	size int
}

func (w *warnings) Warn(_ context.Context, _ digest.Digest, msg string, opts gateway.WarnOpts) error {
	w.told = append(w.told, msg)
	w.size += len(opts.SourceInfo.GetData())
	return nil
}

// TestWarningsAreBounded: each has the Dockerfile with it, so that many of a large one are too much. Few of a small one
// are all told.
func TestWarningsAreBounded(t *testing.T) {
	for _, c := range []struct{ size, times, most int }{{10_000, 100, 100}, {1 << 20, 1000, 9}, {64 << 20, 3, 1}} {
		w := &warnings{}
		g := &guard{Client: w}
		for i := range c.times {
			if err := g.Warn(t.Context(), "", fmt.Sprint("warning ", i), gateway.WarnOpts{SourceInfo: &pb.SourceInfo{Data: make([]byte, c.size)}}); err != nil {
				t.Fatal(err)
			}
		}
		last := w.told[len(w.told)-1]
		if len(w.told) > c.most || w.size > mostWarned || len(w.told) < c.times != strings.Contains(last, "more warnings") {
			t.Errorf("%d of %d bytes: %d are told with %d bytes, the last is %q", c.times, c.size, len(w.told), w.size, last)
		}
	}
}
