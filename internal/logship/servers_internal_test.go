package logship

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cleatlabs/cleat/internal/logsend"
)

// A delivery that pauses goes on when another has reached the same server, and not when it was another server.
func TestServerThatComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s servers
		begin := time.Now()
		took := make(chan time.Duration, 3)
		await := func(ctx context.Context, address string, d time.Duration) {
			s.await(ctx, address, d)
			took <- time.Since(begin)
		}
		cancelled, cancel := context.WithCancel(t.Context())
		go await(t.Context(), "tcp://a", time.Hour)
		go await(t.Context(), "tcp://a", time.Hour)
		go await(cancelled, "tcp://b", time.Hour)
		time.Sleep(time.Second)
		s.reached("tcp://a")
		s.reached("tcp://a")
		for range 2 {
			if d := <-took; d != time.Second {
				t.Errorf("went on after %s", d)
			}
		}
		time.Sleep(time.Second)
		cancel()
		if d := <-took; d != 2*time.Second {
			t.Errorf("ended after %s", d)
		}
		s.await(t.Context(), "tcp://a", 3*time.Second)
		if d := time.Since(begin); d != 5*time.Second {
			t.Errorf("paused until %s", d)
		}
	})
}

func TestPausesGrow(t *testing.T) {
	for _, c := range []struct {
		target       logsend.Target
		first, later time.Duration
	}{
		{logsend.Target{FirstWait: time.Second / 4}, time.Second / 4, 5 * time.Second},
		{logsend.Target{FirstWait: time.Second / 4, Tries: 10}, time.Second / 4, 30 * time.Second},
		{logsend.Target{FirstWait: time.Minute}, time.Minute, time.Minute},
	} {
		if got := pause(&c.target, 1); got != c.first {
			t.Errorf("%+v: first %s, want %s", c.target, got, c.first)
		}
		if got := pause(&c.target, 1000); got != c.later {
			t.Errorf("%+v: later %s, want %s", c.target, got, c.later)
		}
		if one, two := pause(&c.target, 1), pause(&c.target, 2); two < one || c.first < c.later && two == one {
			t.Errorf("%+v: %s, then %s", c.target, one, two)
		}
	}
}
