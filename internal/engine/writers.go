package engine

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/failure"
)

// stallGrace is how long a client that copies into a container may send nothing while
// somebody waits to start it.
const stallGrace = 2 * time.Second

// Why a copy into a container ends before its client has sent all.
var (
	errEvicted = failure.Conflict("the container is being removed")
	errStalled = failure.Conflict("the container is wanted for something else, and the client has sent nothing for %v", stallGrace)
)

// writers are the copies that go on into containers which do not run: they keep these
// from being started and removed, for as long as clients take to send. Whoever removes
// a container by force does not wait for them; whoever wants it for something else
// waits as long as the client goes on sending.
type writers struct {
	mu      sync.Mutex
	copies  map[string]*writer // by container
	doomed  map[string]int     // containers that are being removed by force
	awaited map[string]int     // and those that somebody waits for
}

// writer is one copy.
type writer struct {
	end   func(error)               // called once at most, with the writers' lock held
	since atomic.Pointer[time.Time] // when the read began that waits for the client; nil if none does
}

// reader notes when it waits for r.
func (wr *writer) reader(r io.Reader) io.Reader { return &notingReader{r, wr} }

type notingReader struct {
	io.Reader
	writer *writer
}

func (n *notingReader) Read(p []byte) (int, error) {
	now := time.Now()
	n.writer.since.Store(&now)
	defer n.writer.since.Store(nil)
	return n.Reader.Read(p)
}

// begin notes a copy into a container; end is called, once at most, when it has to
// give way. The copy calls done when it has ended.
func (w *writers) begin(id string, end func(error)) (copied *writer, done func()) {
	wr := &writer{end: end}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.doomed[id] > 0 {
		end(errEvicted)
		return wr, func() {}
	}
	if w.copies == nil {
		w.copies = map[string]*writer{}
	}
	w.copies[id] = wr
	if w.awaited[id] > 0 {
		w.watch(id, wr, stallGrace)
	}
	return wr, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.copies[id] == wr {
			delete(w.copies, id)
		}
	}
}

// evict ends the copy into a container, and those that begin before done is called.
func (w *writers) evict(id string) (done func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.doomed == nil {
		w.doomed = map[string]int{}
	}
	w.doomed[id]++
	if wr := w.copies[id]; wr != nil {
		w.cut(id, wr, errEvicted)
	}
	return w.counted(w.doomed, id)
}

// lock is the container's lock, for which a copy into it does not have to be waited for
// once its client sends no more.
func (w *writers) lock(ctx context.Context, c *container.Container) (unlock func(), err error) {
	defer w.await(c.ID())()
	return c.Lock(ctx)
}

func (w *writers) await(id string) (done func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.awaited == nil {
		w.awaited = map[string]int{}
	}
	w.awaited[id]++
	if wr := w.copies[id]; wr != nil {
		w.watch(id, wr, stallGrace)
	}
	return w.counted(w.awaited, id)
}

// watch ends a copy whose client has sent nothing for too long, as long as somebody waits
// for the container. The caller holds w.mu.
func (w *writers) watch(id string, wr *writer, after time.Duration) {
	time.AfterFunc(after, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.awaited[id] == 0 || w.copies[id] != wr {
			return
		}
		idle := time.Duration(0)
		if since := wr.since.Load(); since != nil {
			idle = time.Since(*since)
		}
		if idle >= stallGrace {
			w.cut(id, wr, errStalled)
			return
		}
		w.watch(id, wr, stallGrace-idle)
	})
}

// cut ends a copy. The caller holds w.mu.
func (w *writers) cut(id string, wr *writer, why error) {
	delete(w.copies, id)
	wr.end(why)
}

// counted takes one from a count.
func (w *writers) counted(counts map[string]int, id string) func() {
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if counts[id]--; counts[id] == 0 {
			delete(counts, id)
		}
	}
}
