package runtime_test

import (
	"fmt"
	"os"
	"sync"
	"testing"
)

// Many at once: nothing is mixed up, nothing is left.
func TestParallel(t *testing.T) {
	l := newLab(t)
	before := openFiles(t)
	const containers, workers = 50, 8
	queue := make(chan int)
	var wg sync.WaitGroup
	for range workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range queue {
				c := l.start(l.spec("sh", "-c", fmt.Sprintf("echo %d; exit %d", i, i)))
				x, err := l.r.Exec(l.ctx(), l.exec(c, "true"))
				if err == nil {
					<-x.Done()
					err = x.Release()
				}
				_ = err // the container may have ended first
				if st := c.wait(); st.Code != i || c.stdout.String() != fmt.Sprintln(i) {
					t.Errorf("container %d: %+v %q", i, st, c.stdout.String())
				}
				c.remove()
			}
		}()
	}
	for i := range containers {
		queue <- i
	}
	close(queue)
	wg.Wait()
	if entries, err := os.ReadDir(l.c.Dir); err != nil || len(entries) != 2 {
		t.Errorf("left: %v", entries)
	}
	// The poller and its like may open a few once; spare keepers are 4, with two descriptors each, spare network
	// namespaces and instances of /dev 8 each, with one.
	if after := openFiles(t); after > before+8+4*2+2*8 {
		t.Errorf("%d open files before, %d after", before, after)
	}
}

func openFiles(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
