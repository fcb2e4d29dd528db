package supervise

import (
	"sync"
	"time"
)

// A Reserve keeps a few things ready that somebody will be in a hurry for and that
// take long to make. Its methods may be called concurrently.
type Reserve[T any] struct {
	ready chan T
	n     int // as many are made
	quiet time.Duration
	fill  func(missing int, put func(T))
	drop  func(T)

	making sync.Mutex // held while fill runs

	mu     sync.Mutex
	timer  *time.Timer
	armed  bool
	wanted time.Time // when somebody asked last
	closed bool
}

// NewReserve makes a reserve of n things, with room for most, and begins to fill it.
// fill makes what is missing, as far as it can, and puts it; it runs in one goroutine
// at a time. drop takes away what is left at the end, and what there is no room for.
func NewReserve[T any](n, most int, quiet time.Duration, fill func(missing int, put func(T)), drop func(T)) *Reserve[T] {
	r := &Reserve[T]{ready: make(chan T, most), n: n, quiet: quiet, fill: fill, drop: drop, armed: true}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.timer = time.AfterFunc(0, r.due)
	return r
}

// Take returns one, false when there is none at hand.
func (r *Reserve[T]) Take() (T, bool) {
	select {
	case x := <-r.ready:
		return x, true
	default:
		var none T
		return none, false
	}
}

// Give adds one that somebody had taken, or made. The reserve drops it when it is full
// or closed.
func (r *Reserve[T]) Give(x T) {
	if !r.given(x) {
		r.drop(x)
	}
}

func (r *Reserve[T]) given(x T) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	select {
	case r.ready <- x:
		return true
	default:
		return false
	}
}

// Refill asks for what was taken to be replaced. Whoever has taken something does so
// when he is done. The making waits until nobody has asked for the time quiet, or half
// is used up: it would take a processor, and locks of the kernel's, from those who are
// in a hurry. For their sake, too, nobody is woken here: a timer is set that finds out.
func (r *Reserve[T]) Refill() {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wanted = now
	if !r.armed && !r.closed {
		r.armed = true
		r.timer.Reset(r.quiet)
	}
}

// Close ends the making and gives up what is left.
func (r *Reserve[T]) Close() {
	r.mu.Lock()
	r.closed = true
	r.timer.Stop()
	r.mu.Unlock()
	r.making.Lock() // whoever makes has ended
	defer r.making.Unlock()
	for x, ok := r.Take(); ok; x, ok = r.Take() {
		r.drop(x)
	}
}

// due is the timer's.
func (r *Reserve[T]) due() {
	if !r.isTime() {
		return
	}
	r.making.Lock()
	defer r.making.Unlock()
	r.mu.Lock()
	closed := r.closed
	r.mu.Unlock()
	if missing := r.n - len(r.ready); missing > 0 && !closed {
		r.fill(missing, r.Give)
	}
}

// isTime says whether nobody is in a hurry, or too little is left for that to matter;
// otherwise it sets the timer again.
func (r *Reserve[T]) isTime() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if left := r.quiet - time.Since(r.wanted); left > 0 && 2*len(r.ready) >= r.n && !r.closed {
		r.timer.Reset(left)
		return false
	}
	r.armed = false
	return true
}
