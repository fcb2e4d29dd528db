package engine

import "sync"

// writers are the copies that go on into containers which do not run: they keep these
// from being started and removed, for as long as clients take to send. Whoever removes
// a container by force does not wait for them.
type writers struct {
	mu     sync.Mutex
	ends   map[string]func() // by container: what ends its copy
	doomed map[string]int    // containers that are being removed by force
}

// begin notes a copy into a container; end is called, once at most, when it has to
// give way. The copy calls done when it has ended.
func (w *writers) begin(id string, end func()) (done func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.doomed[id] > 0 {
		end()
		return func() {}
	}
	if w.ends == nil {
		w.ends = map[string]func(){}
	}
	w.ends[id] = end
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.ends, id)
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
	if end := w.ends[id]; end != nil {
		delete(w.ends, id)
		end()
	}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.doomed[id]--; w.doomed[id] == 0 {
			delete(w.doomed, id)
		}
	}
}
