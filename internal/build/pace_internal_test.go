package build

import (
	"runtime/debug"
	"testing"
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
	defer func() { p.timer.Stop() }()
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
}
