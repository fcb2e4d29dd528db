package kernel_test

import (
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/kernel"
)

// The first thread, which some of many goroutines are offered, must never be the
// one that is thrown away.
func TestOnThrowawayThread(t *testing.T) {
	var wg sync.WaitGroup
	for range 300 {
		wg.Add(1)
		go kernel.OnThrowawayThread(func() {
			defer wg.Done()
			if unix.Gettid() == os.Getpid() {
				t.Error("on the first thread")
			}
		})
	}
	wg.Wait()
}
