package build

import (
	"runtime/debug"
	"testing"
	"time"
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
	var p pace
	first, second := p.begin(), p.begin()
	defer func() {
		for _, timer := range []*time.Timer{p.timer, p.rest} {
			if timer != nil {
				timer.Stop()
			}
		}
	}()
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
