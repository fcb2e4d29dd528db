package build

import (
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/cleatlabs/cleat/test/expect"
)

// gcPercent reads what is set.
func gcPercent() int {
	n := debug.SetGCPercent(100)
	debug.SetGCPercent(n)
	return n
}

// TestPace holds that garbage waits from the first build on until a while after the last one, and no longer. It must not
// run beside other tests: what it looks at is the program's.
func TestPace(t *testing.T) {
	before := debug.SetGCPercent(123)
	defer debug.SetGCPercent(before)
	p := pace{live: func() uint64 { return 0 }} // what other tests have left in use is not looked at
	first, second := p.begin(), p.begin()
	defer p.stop()
	if got := gcPercent(); got != hurriedGarbage {
		t.Fatalf("while something is built it is %d", got)
	}
	first()
	first() // who ends twice has ended once
	p.relax()
	if got := gcPercent(); got != hurriedGarbage {
		t.Errorf("while the second is built it is %d", got)
	}
	second()
	third := p.begin() // before the time is up
	p.relax()
	if got := gcPercent(); got != hurriedGarbage {
		t.Errorf("while the third is built it is %d", got)
	}
	third()
	timer := p.timer
	p.relax()
	if got := gcPercent(); got != 123 || p.timer != nil {
		t.Errorf("afterwards it is %d", got)
	}
	timer.Stop()
	p.relax() // a timer that had fired already
	p.timer = timer
	if got := gcPercent(); got != 123 {
		t.Errorf("and then %d", got)
	}
	forgotten := 0
	p.forget = func() { forgotten++ }
	p.timer = nil
	fourth := p.begin()
	p.lie() // its timer had fired already
	fourth()
	p.relax()
	if forgotten != 0 {
		t.Error("something is forgotten while it may be wanted")
	}
	p.rest.Stop()
	p.lie()
	p.lie()
	if forgotten != 1 {
		t.Errorf("it is forgotten %d times", forgotten)
	}
}

// TestGarbageBeside holds that a heap which is large already does not grow to many times that.
func TestGarbageBeside(t *testing.T) {
	for live, want := range map[uint64]int{0: 400, 2 << 20: 400, 32 << 20: 400, 64 << 20: 200, 128 << 20: 100, 1 << 30: 100} {
		if got := garbageBeside(live); got != want {
			t.Errorf("beside %d bytes: %d %%, want %d", live, got, want)
		}
	}
}

// TestPaceFollowsTheHeap holds that the collector's rounds set what the next one waits for, while something is built, and
// no longer in a builder that is closed. It must not run beside other tests.
func TestPaceFollowsTheHeap(t *testing.T) {
	before := debug.SetGCPercent(123)
	defer debug.SetGCPercent(before)
	p := pace{live: liveHeap}
	defer p.begin()()
	defer p.stop()
	held := make([]byte, 100<<20)
	expect.Eventually(t, "the heap may grow by less, as much is held", func() bool {
		runtime.GC()
		return gcPercent() < hurriedGarbage/2
	})
	runtime.KeepAlive(held)
	p.stop() // a build that goes on does not bring it back
	runtime.GC()
	if got := gcPercent(); got != 123 || p.timer != nil || p.rest != nil {
		t.Errorf("in a closed builder it is %d", got)
	}
}
