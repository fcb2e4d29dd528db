package engine_test

import (
	"context"
	"testing"

	api "github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/internal/engine"
)

func BenchmarkLifeWithoutNetwork(b *testing.B) { benchmarkLife(b, "none") }
func BenchmarkLifeOnBridge(b *testing.B)       { benchmarkLife(b, "bridge") }

func benchmarkLife(b *testing.B, network api.NetworkMode) {
	l := newLab(b)
	ctx := context.Background()
	for b.Loop() {
		id := l.create(spec{cmd: []string{"true"}, host: func(h *api.HostConfig) { h.NetworkMode = network }})
		done, err := l.Wait(ctx, id, api.WaitConditionNextExit)
		if err != nil {
			b.Fatal(err)
		}
		if err := l.Start(ctx, id); err != nil {
			b.Fatal(err)
		}
		<-done
		if err := l.Remove(ctx, id, engine.RemoveOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}
