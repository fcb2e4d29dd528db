package build

import (
	"runtime/debug"
	"sync"
	"time"
)

// pace lets garbage be while something is built. A build is short and leaves much of it, beside an engine that holds
// little: the collector would go round for every few megabytes, on the processor that the build's own goroutines want.
// Memory stays small, for it is a small heap that grows.
type pace struct {
	mu     sync.Mutex
	builds int
	usual  int         // the percentage that was set before; valid while timer is not nil
	timer  *time.Timer // ends it
}

const (
	// hurriedGarbage is the percentage by which the heap may grow between two rounds of the collector while something
	// is built.
	hurriedGarbage = 400
	// hurriedTime is how long it stays so, and memory is given back: another build may follow.
	hurriedTime = 5 * time.Second
)

// begin is for the beginning of a build, whose end is told by the returned function.
func (p *pace) begin() (end func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.builds++
	if p.timer == nil {
		p.usual = debug.SetGCPercent(hurriedGarbage)
		p.timer = time.AfterFunc(hurriedTime, p.relax)
	}
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.builds--; p.timer != nil {
			p.timer.Reset(hurriedTime)
		}
	})
}

func (p *pace) relax() {
	p.mu.Lock()
	over := p.builds == 0 && p.timer != nil // else the last of them comes back to it
	if over {
		debug.SetGCPercent(p.usual)
		p.timer = nil
	}
	p.mu.Unlock()
	if over {
		debug.FreeOSMemory()
	}
}
