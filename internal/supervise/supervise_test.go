package supervise_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/cleatlabs/cleat/internal/supervise"
)

func TestStopEndsAndWaitsForAll(t *testing.T) {
	g := supervise.New(t.Context())
	ended := make(chan struct{}, 3)
	for range 3 {
		if !g.Go("worker", func(ctx context.Context) { <-ctx.Done(); ended <- struct{}{} }) {
			t.Fatal("a live group refused a goroutine")
		}
	}
	if got := g.Running(); len(got) != 1 || got[0] != "worker ×3" {
		t.Errorf("Running = %q", got)
	}
	if err := g.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(ended) != 3 {
		t.Errorf("Stop returned with %d of 3 ended", len(ended))
	}
	if g.Go("late", func(context.Context) { t.Error("ran after Stop") }) {
		t.Error("a stopped group took a goroutine")
	}
	if context.Cause(g.Context()) != supervise.ErrStopped {
		t.Errorf("cause = %v", context.Cause(g.Context()))
	}
}

func TestStopNamesWhatDoesNotEnd(t *testing.T) {
	g := supervise.New(t.Context())
	release := make(chan struct{})
	g.Go("stuck", func(context.Context) { <-release })
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := g.Stop(ctx); err == nil || !strings.Contains(err.Error(), "stuck") {
		t.Errorf("Stop = %v, want the name of the stuck goroutine", err)
	}
	close(release)
	if err := g.Stop(t.Context()); err != nil {
		t.Errorf("second Stop = %v", err)
	}
	if got := g.Running(); len(got) != 0 {
		t.Errorf("still Running: %q", got)
	}
}
