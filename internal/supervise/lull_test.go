package supervise_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/cleatlabs/cleat/internal/supervise"
)

// All that is added is done once, in batches, by a task that is there only while there is something to do.
func TestLull(t *testing.T) {
	tasks := supervise.New(t.Context())
	batches := make(chan []int)
	l := supervise.NewLull("lull", tasks, 3, func(_ context.Context, batch []int) { batches <- batch })
	next := 0
	for lap := range 2 {
		for n := range 5 {
			l.Add(5*lap + n)
		}
		for next < 5*(lap+1) {
			for _, got := range <-batches {
				if got != next {
					t.Fatalf("%d is done, not %d", got, next)
				}
				next++
			}
		}
	}
	// The last batch's task finds nothing more and goes; Stop waits for it.
	if err := tasks.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if l.Add(0) {
		t.Error("taken over though nobody does it any more")
	}
}

// What is pending when the engine ends is done at once, not after the pause.
func TestLullOfAnEngineThatEnds(t *testing.T) {
	tasks := supervise.New(t.Context())
	done := make(chan int, 1)
	l := supervise.NewLull("lull", tasks, 8, func(_ context.Context, batch []int) { done <- batch[0] })
	if !l.Add(1) {
		t.Fatal("not taken over")
	}
	if err := tasks.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := <-done; n != 1 { // Stop has waited for it
		t.Errorf("%d is done", n)
	}
}

// Who waits for what was put off finds it done, be it pending, under way or done already.
func TestLullThatSettles(t *testing.T) {
	tasks := supervise.New(t.Context())
	var done atomic.Int32
	l := supervise.NewLull("lull", tasks, 100, func(_ context.Context, batch []int) { done.Add(int32(len(batch))) })
	l.Settle(t.Context()) // nothing was ever added
	for n := range 20 {
		l.Add(n)
		if n%3 == 0 {
			continue
		}
		l.Settle(t.Context())
		if got := int(done.Load()); got != n+1 {
			t.Fatalf("%d of %d are done", got, n+1)
		}
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	l.Add(0)
	l.Settle(over) // does not wait
	if err := tasks.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}
