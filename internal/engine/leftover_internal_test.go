package engine

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// What a run leaves is taken away once, by whoever comes first, and nobody goes on before it is: who starts the
// container again must not meet its last control group.
func TestTidyOnce(t *testing.T) {
	l := newLeftover()
	var cleaned atomic.Int32
	inside, goOn := make(chan struct{}), make(chan struct{})
	l.clean = func() {
		close(inside)
		<-goOn
		cleaned.Add(1)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			l.tidy()
			if n := cleaned.Load(); n != 1 {
				t.Errorf("went on when it was cleaned up %d times", n)
			}
		})
	}
	select {
	case <-inside:
		t.Error("cleaned up before the exit was dealt with")
	case <-time.After(time.Millisecond):
	}
	close(l.known)
	<-inside
	close(goOn)
	wg.Wait()
}
