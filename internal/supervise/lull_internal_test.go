package supervise

import (
	"context"
	"testing"
	"time"

	"github.com/cleatlabs/cleat/test/expect"
)

// What ends a pause that would last for ever, one thing at a time.
func TestWhatEndsALull(t *testing.T) {
	for name, c := range map[string]struct {
		set func(*Lull[int])
		end func(*testing.T, *Lull[int])
	}{
		"nothing more comes":  {set: func(l *Lull[int]) { l.pause = time.Millisecond }},
		"it has waited long":  {set: func(l *Lull[int]) { l.delay = time.Millisecond }},
		"there are most":      {end: func(_ *testing.T, l *Lull[int]) { l.Add(2); l.Add(3) }},
		"somebody waits":      {end: func(t *testing.T, l *Lull[int]) { l.Settle(t.Context()) }},
		"the engine ends":     {end: func(_ *testing.T, l *Lull[int]) { l.tasks.cancel(ErrStopped) }},
		"more came, then all": {end: func(t *testing.T, l *Lull[int]) { l.Add(2); l.Settle(t.Context()) }},
	} {
		t.Run(name, func(t *testing.T) {
			done := make(chan int, 3)
			l := NewLull("lull", New(t.Context()), 3, func(_ context.Context, batch []int) {
				for _, n := range batch {
					done <- n
				}
			})
			l.pause, l.delay = time.Hour, time.Hour
			if c.set != nil {
				c.set(l)
			}
			if !l.Add(1) {
				t.Fatal("not taken over")
			}
			if c.end != nil {
				c.end(t, l)
			}
			select {
			case <-done:
			case <-time.After(expect.Patience):
				t.Error("it is not done")
			}
		})
	}
}
