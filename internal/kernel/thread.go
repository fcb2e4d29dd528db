package kernel

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// OnThrowawayThread runs f on an operating system thread that ends with it, for what changes the thread for good. The
// process's first thread cannot end, and /proc/self shows its namespaces: f is passed on to another while that one is
// held. It is meant to be started as a goroutine.
func OnThrowawayThread(f func()) {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	if unix.Gettid() != os.Getpid() {
		f()
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		OnThrowawayThread(f)
	}()
	<-done
	runtime.UnlockOSThread()
}
