package store

import (
	"context"
	"fmt"
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
			if _, err := s.meta.GarbageCollect(ctx); err != nil {
				s.warn(fmt.Errorf("collect unused images and layers: %w", err))
			}
		case reply := <-c.sync:
			_, err := s.meta.GarbageCollect(ctx)
			reply <- err
		}
	}
}

func (c *collector) stop() {
	close(c.quit)
	<-c.done
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
