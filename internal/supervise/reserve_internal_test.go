package supervise

import (
	"testing"
	"time"

	"github.com/cleatlabs/cleat/test/expect"
)

// When a reserve is filled up again. What its timer does is done here by hand, as far as it goes.
func TestWhenAReserveIsFilled(t *testing.T) {
	r := NewReserve(4, 4, time.Hour, func(missing int, put func(int)) {
		for range missing {
			put(1)
		}
	}, func(int) {})
	full := func() bool { return len(r.ready) == 4 }
	take := func(n int) {
		for range n {
			r.Take()
			r.Refill()
		}
	}
	expect.Eventually(t, "it is filled at first", full)
	take(1)
	r.due()
	if full() || !r.armed {
		t.Errorf("somebody has just asked, and much is left: %d are there, the timer is set: %t", len(r.ready), r.armed)
	}
	take(2)
	r.due()
	if !full() || r.armed {
		t.Errorf("most are taken: %d are there, the timer is set: %t", len(r.ready), r.armed)
	}
	take(1)
	r.mu.Lock()
	r.quiet, r.wanted = time.Millisecond, time.Now().Add(time.Millisecond)
	r.mu.Unlock()
	r.due()
	expect.Eventually(t, "it is filled once nobody asks any more", full)
	r.Close()
	if r.Refill(); r.armed {
		t.Error("the timer is set after the end")
	}
	if r.due(); len(r.ready) > 0 {
		t.Error("filled after the end")
	}
}
