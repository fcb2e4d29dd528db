package supervise

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cleatlabs/cleat/test/expect"
)

func TestReserve(t *testing.T) {
	var made, dropped atomic.Int64
	fill := func(missing int, put func(int64)) {
		for range missing {
			put(made.Add(1))
		}
	}
	r := NewReserve(4, 4, time.Hour, fill, func(int64) { dropped.Add(1) })
	expect.Eventually(t, "it is filled at the beginning", func() bool { return made.Load() == 4 })
	if _, ok := r.Take(); !ok {
		t.Fatal("nothing is ready")
	}
	r.Refill()
	if n := made.Load(); n != 4 {
		t.Errorf("%d were made while somebody is in a hurry", n)
	}
	for range 3 {
		r.Take()
	}
	if x, ok := r.Take(); ok {
		t.Errorf("%d from an empty reserve", x)
	}
	r.Close()
	if dropped.Load() != 0 {
		t.Errorf("%d are left", dropped.Load())
	}
	r.Refill() // must not wake what has ended
}

// What is used up comes again, by the time of quiet at the latest, and is dropped at
// the end.
func TestReserveComesAgain(t *testing.T) {
	var made, dropped atomic.Int64
	var filling atomic.Bool
	r := NewReserve(4, 4, time.Millisecond, func(missing int, put func(int)) {
		if filling.Swap(true) {
			t.Error("filled by two")
		}
		for range missing {
			made.Add(1)
			put(0)
		}
		filling.Store(false)
	}, func(int) { dropped.Add(1) })
	var taken atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				if _, ok := r.Take(); ok {
					taken.Add(1)
				}
				r.Refill()
			}
		})
	}
	wg.Wait()
	expect.Eventually(t, "it is full again", func() bool { return made.Load()-taken.Load() == 4 })
	r.Close()
	if made.Load() != taken.Load()+dropped.Load() || dropped.Load() != 4 {
		t.Errorf("%d made, %d taken, %d dropped", made.Load(), taken.Load(), dropped.Load())
	}
}

// One that cannot be filled is tried again when somebody asks.
func TestReserveFails(t *testing.T) {
	var tries atomic.Int64
	r := NewReserve(2, 2, time.Millisecond, func(int, func(int)) { tries.Add(1) }, func(int) {})
	defer r.Close()
	expect.Eventually(t, "the first", func() bool { return tries.Load() == 1 })
	r.Refill()
	expect.Eventually(t, "the second", func() bool { return tries.Load() == 2 })
}

// What is given lies ready beside what was made, as far as there is room; the rest is dropped.
func TestReserveTakesBack(t *testing.T) {
	var dropped []int
	r := NewReserve(1, 3, time.Hour, func(missing int, put func(int)) { put(1) }, func(x int) { dropped = append(dropped, x) })
	expect.Eventually(t, "it is filled at the beginning", func() bool { return len(r.ready) == 1 })
	for x := 2; x <= 5; x++ {
		r.Give(x)
	}
	if !slices.Equal(dropped, []int{4, 5}) {
		t.Errorf("dropped of five for three places: %v", dropped)
	}
	for want := 1; want <= 3; want++ {
		if x, ok := r.Take(); !ok || x != want {
			t.Errorf("%d, %v instead of %d", x, ok, want)
		}
	}
	r.Close()
	r.Give(6)
	if !slices.Equal(dropped, []int{4, 5, 6}) {
		t.Errorf("dropped after the end: %v", dropped)
	}
}
