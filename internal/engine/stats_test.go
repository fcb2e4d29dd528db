package engine_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/internal/engine"
	"github.com/cleatlabs/cleat/internal/stats"
	"github.com/cleatlabs/cleat/test/expect"
)

// follow streams a container's records until the test cancels it.
func (l *lab) follow(ctx context.Context, id string) <-chan *api.StatsResponse {
	records := make(chan *api.StatsResponse)
	go func() {
		defer close(records)
		err := l.Stats(ctx, id, stats.Options{Stream: true}, func(s *api.StatsResponse) error {
			select {
			case records <- s:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		if err != nil && !errors.Is(err, context.Canceled) {
			l.tb.Errorf("stats: %v", err)
		}
	}()
	return records
}

func (l *lab) collecting() bool { return slices.Contains(l.tasks.Running(), "stats") }

// TestOneCollectorAndNoneWithoutFollowers: who follows shares the samples, and
// nothing is left of them.
func TestOneCollectorAndNoneWithoutFollowers(t *testing.T) {
	l := newLab(t)
	id := l.start(spec{cmd: []string{"sleep", "600"}})
	if l.collecting() {
		t.Fatal("collects though nobody asks")
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	a, b := l.follow(ctx, id), l.follow(ctx, id)
	for _, ch := range []<-chan *api.StatsResponse{a, b} {
		if first := <-ch; first == nil || first.Read.IsZero() || !first.PreRead.IsZero() || first.PreCPUStats.SystemUsage != 0 {
			t.Errorf("first record: %+v", first)
		}
	}
	second := <-a
	if second == nil || second.PreRead.IsZero() || !second.Read.After(second.PreRead) || second.PreCPUStats.SystemUsage == 0 {
		t.Fatalf("second record: %+v", second)
	}
	if other := <-b; other == nil || !other.Read.Equal(second.Read) && !other.PreRead.Equal(second.Read) {
		t.Errorf("two samples for two followers: %v and %v", second.Read, other)
	}
	if !l.collecting() {
		t.Error("there are records, but no collector")
	}
	cancel()
	for range a {
	}
	for range b {
	}
	expect.Eventually(t, "nothing is collected for nobody", func() bool { return !l.collecting() })
	// And once more, until the container is removed.
	again, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	c := l.follow(again, id)
	<-c
	if err := l.Remove(t.Context(), id, engine.RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	for range c { // ends, or the test does not
	}
	if again.Err() != nil {
		t.Error("the stream of a removed container does not end")
	}
}

func TestStatsOnce(t *testing.T) {
	l := newLab(t)
	id := l.create(spec{cmd: []string{"sleep", "600"}})
	once := func(oneShot bool) *api.StatsResponse {
		t.Helper()
		var got []*api.StatsResponse
		err := l.Stats(t.Context(), id, stats.Options{OneShot: oneShot}, func(s *api.StatsResponse) error { got = append(got, s); return nil })
		if err != nil || len(got) != 1 || got[0].ID != id || len(got[0].Name) < 2 {
			t.Fatalf("%+v, %v", got, err)
		}
		return got[0]
	}
	if s := once(false); !s.Read.IsZero() || s.CPUStats.SystemUsage != 0 || s.MemoryStats.Usage != 0 || s.PidsStats.Current != 0 {
		t.Errorf("one that does not run: %+v", s)
	}
	if err := l.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if s := once(true); s.Read.IsZero() || !s.PreRead.IsZero() || s.PidsStats.Current != 1 || s.MemoryStats.Usage == 0 || s.MemoryStats.Limit == 0 || s.MemoryStats.Limit > 1<<50 {
		t.Errorf("one shot: %+v", s)
	}
	if s := once(false); s.PreRead.IsZero() || s.CPUStats.SystemUsage <= s.PreCPUStats.SystemUsage || s.CPUStats.OnlineCPUs == 0 {
		t.Errorf("two samples: %+v", s)
	}
	if err := l.Stats(t.Context(), "nosuch", stats.Options{}, nil); !errdefs.IsNotFound(err) {
		t.Errorf("stats of none: %v", err)
	}
}
