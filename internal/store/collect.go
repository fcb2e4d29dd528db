package store

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/gc"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// collector runs the garbage collector in one goroutine of its own. Requests that come
// while a collection runs are answered by one further collection.
type collector struct {
	wanted chan struct{}
	sync   chan chan error
	quit   chan struct{}
	done   chan struct{}
}

func startCollector(s *Store) *collector {
	c := &collector{
		wanted: make(chan struct{}, 1),
		sync:   make(chan chan error),
		quit:   make(chan struct{}),
		done:   make(chan struct{}),
	}
	go c.run(s)
	return c
}

func (c *collector) run(s *Store) {
	defer close(c.done)
	ctx := s.Context(context.Background())
	for {
		select {
		case <-c.quit:
			return
		case <-c.wanted:
			if _, err := s.GarbageCollect(ctx); err != nil {
				s.warn(fmt.Errorf("collect unused images and layers: %w", err))
			}
		case reply := <-c.sync:
			_, err := s.GarbageCollect(ctx)
			reply <- err
		}
	}
}

func (c *collector) stop() {
	close(c.quit)
	<-c.done
}

// GarbageCollect frees what nobody refers to. It does so only by what is on the disk: what a transaction that a crash
// of the machine takes back has let go must still be there then. A collection that has begun goes on when ctx ends: what
// the prune of a client that has gone away let go is not to stay, and containerd's collector leaves a goroutine behind
// when it is interrupted.
func (s *Store) GarbageCollect(ctx context.Context) (gc.Stats, error) {
	if err := s.timed.expire(ctx); err != nil {
		s.warn(fmt.Errorf("end leases whose time has passed: %w", err))
	}
	resume, err := s.deferrals.suspend()
	defer resume()
	if err != nil {
		return nil, err
	}
	defer s.generation.Add(1) // what of an image is here may have changed
	stats, err := s.meta.GarbageCollect(context.WithoutCancel(ctx))
	if err != nil {
		return stats, err
	}
	return stats, s.forgetChildren()
}

// ScheduleGC makes the collector run soon. It returns at once.
func (s *Store) ScheduleGC() {
	select {
	case s.collector.wanted <- struct{}{}:
	default:
	}
}

// GC collects and returns when the space is free again. It is for tests and for
// commands whose answer is the space freed; everything else schedules.
func (s *Store) GC(ctx context.Context) error {
	reply := make(chan error, 1)
	select {
	case s.collector.sync <- reply:
	case <-s.collector.done:
		return fmt.Errorf("the image store is closed")
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-reply:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Occupied is how many bytes the blobs and the unpacked layers take on the disk. A layer
// of several names is there once.
func (s *Store) Occupied(ctx context.Context) (total int64, err error) {
	spaces, err := s.namespaces(ctx)
	if err != nil {
		return 0, err
	}
	seen := map[digest.Digest]bool{}
	for _, space := range spaces {
		err := s.Content.Walk(namespaces.WithNamespace(ctx, space), func(i content.Info) error {
			if !seen[i.Digest] {
				seen[i.Digest] = true
				total += s.blobs.onDisk(i.Digest, i.Size)
			}
			return nil
		})
		if err != nil {
			return 0, fmt.Errorf("measure the blobs: %w", err)
		}
	}
	var layers []string // they are measured after the walk, which is a transaction
	err = s.overlay.Walk(ctx, func(_ context.Context, i snapshots.Info) error {
		if i.Kind == snapshots.KindCommitted {
			layers = append(layers, i.Name)
		}
		return nil
	})
	if err != nil && !errdefs.IsNotFound(err) {
		return 0, fmt.Errorf("measure the layers: %w", err)
	}
	for _, name := range layers {
		u, err := s.overlay.Usage(ctx, name)
		if err != nil && !errdefs.IsNotFound(err) {
			return 0, fmt.Errorf("measure the layer %s: %w", name, err)
		}
		total += u.Size
	}
	return total, nil
}
