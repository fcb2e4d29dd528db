package image_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/cleatlabs/cleat/internal/image"
	"github.com/cleatlabs/cleat/internal/store"
)

// BenchmarkResolveAndLower is what images cost every container create and start.
func BenchmarkResolveAndLower(b *testing.B) {
	t := newBench(b)
	if _, err := t.load(saved(b, "a:1", imageOf(b, "amd64", layerOf(b, entry{"f", "1"}))), image.LoadOptions{}); err != nil {
		b.Fatal(err)
	}
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		img, err := t.images.Resolve(ctx, "a:1", "")
		if err != nil {
			b.Fatal(err)
		}
		if _, err := t.images.Lower(ctx, img); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPull(b *testing.B) {
	for _, c := range []struct {
		name         string
		layers, size int
		again        bool
	}{{"1x1MiB", 1, 1 << 20, false}, {"1x1MiB again", 1, 1 << 20, true}, {"8x16MiB", 8, 16 << 20, false}} {
		b.Run(c.name, func(b *testing.B) {
			reg, t := newRegistry(b), newBench(b)
			img := imageOf(b, "amd64")
			for i := range c.layers {
				// Half of it compresses, as programs do.
				half := noise(c.size / 2)
				img = appendLayer(b, img, layerOf(b, entry{fmt.Sprintf("f%d", i), half + string(make([]byte, c.size/2))}))
			}
			ref := reg.push(b, "lab/x:1", img)
			ctx := context.Background()
			if c.again {
				t.pull(b, ref)
			}
			b.ResetTimer()
			for range b.N {
				t.pull(b, ref)
				if !c.again {
					b.StopTimer()
					if _, err := t.images.Remove(ctx, ref, image.RemoveOptions{}, nil); err != nil {
						b.Fatal(err)
					}
					if err := t.store.GC(ctx); err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
				}
			}
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	root := filepath.Join(b.TempDir(), "store")
	for range b.N {
		s, err := store.Open(context.Background(), store.Config{Root: root})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		s.Close()
		b.StartTimer()
	}
}
