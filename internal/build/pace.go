package build

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"

	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/cache/contenthash"
)

// pace lets garbage be while something is built. A build is short and leaves much of it, beside an engine that holds
// little: the collector would go round for every few megabytes, on the processor that the build's own goroutines want.
// It grows by so many megabytes only: what a large build holds would let as much again and again be garbage.
type pace struct {
	live    func() uint64 // how many bytes the collector's last round has found in use
	mu      sync.Mutex
	builds  int
	usual   int         // the percentage that was set before; valid while timer is not nil
	timer   *time.Timer // ends it
	watched bool        // the collector's next round comes to round
	rest    *time.Timer // comes a while after that; nil while something is built
	// forget gives up what only a next build would use; nil if there is nothing.
	forget func()
}

const (
	// hurriedGarbage is the percentage by which the heap may grow between two rounds of the collector while something
	// is built, if that is no more than mostGarbage bytes or usualGarbage.
	hurriedGarbage = 400
	usualGarbage   = 100
	mostGarbage    = 128 << 20
	// hurriedTime is how long it stays so, and memory is given back: another build may follow.
	hurriedTime = 5 * time.Second
	// restTime is how long after that what the next build could use is kept in memory.
	restTime = time.Minute
)

// begin is for the beginning of a build, whose end is told by the returned function.
func (p *pace) begin() (end func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.builds++
	if p.rest != nil {
		p.rest.Stop()
		p.rest = nil
	}
	if p.timer == nil {
		p.usual = debug.SetGCPercent(garbageBeside(p.live()))
		p.timer = time.AfterFunc(hurriedTime, p.relax)
		p.watch()
	}
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.builds--; p.timer != nil {
			p.timer.Reset(hurriedTime)
		}
	})
}

// garbageBeside is the percentage of live bytes that may be garbage beside them while something is built.
func garbageBeside(live uint64) int {
	return int(max(usualGarbage, min(hurriedGarbage, mostGarbage*100/max(live, 1))))
}

// liveHeap asks the runtime how many bytes the collector's last round has found in use.
func liveHeap() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// watch has round called after the collector's next one. The caller holds mu.
func (p *pace) watch() {
	if !p.watched {
		p.watched = true
		runtime.AddCleanup(new(*pace), (*pace).round, p)
	}
}

// round follows what the build holds, round by round.
func (p *pace) round() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.watched = false; p.timer != nil {
		debug.SetGCPercent(garbageBeside(p.live()))
		p.watch()
	}
}

func (p *pace) relax() {
	p.mu.Lock()
	over := p.builds == 0 && p.timer != nil // else the last of them comes back to it
	if over {
		debug.SetGCPercent(p.usual)
		p.timer = nil
		p.rest = time.AfterFunc(restTime, p.lie)
	}
	p.mu.Unlock()
	if over {
		debug.FreeOSMemory()
	}
}

// lie is for an engine in which nothing has been built for a while.
func (p *pace) lie() {
	p.mu.Lock()
	over := p.builds == 0 && p.rest != nil
	if over {
		p.rest = nil
	}
	p.mu.Unlock()
	if !over {
		return
	}
	if p.forget != nil {
		p.forget()
	}
	runtime.GC() // the first round only retires what pools hold
	debug.FreeOSMemory()
}

// stop is for a builder that is closed: nothing comes later of what was built.
func (p *pace) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
		debug.SetGCPercent(p.usual)
	}
	if p.rest != nil {
		p.rest.Stop()
		p.rest = nil
	}
}

// forget gives up what only a next build would use.
func (b *Builder) forget() {
	b.forgetChecksums()
	if err := b.cfg.Store.LetGo(); err != nil {
		b.warn(err)
	}
}

// forgetChecksums has BuildKit's trees of files' checksums, of the last twenty contexts and layers, read from its
// database again when they are wanted.
func (b *Builder) forgetChecksums() {
	b.mu.Lock()
	s := b.opened
	b.mu.Unlock()
	if s == nil {
		return
	}
	records, err := s.worker.MetadataStore.All()
	if err != nil {
		return // the engine is going
	}
	for _, r := range records {
		contenthash.ClearCacheContext(recordID{id: r.ID()})
	}
}

// recordID is a record of which nothing but its id is asked for.
type recordID struct {
	cache.RefMetadata
	id string
}

// ID implements cache.RefMetadata.
func (r recordID) ID() string { return r.id }
