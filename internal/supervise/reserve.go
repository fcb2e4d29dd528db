package supervise

import "time"

// A Reserve keeps a few things ready that somebody will be in a hurry for and that
// take long to make. Its methods may be called concurrently.
type Reserve[T any] struct {
	ready  chan T
	quiet  time.Duration
	fill   func(missing int, put func(T))
	drop   func(T)
	wanted chan struct{}
	quit   chan struct{}
	ended  chan struct{}
}

// NewReserve makes a reserve of n things and begins to fill it. fill makes what is
// missing, as far as it can, and puts it; it runs in one goroutine. drop takes away
// what is left at the end.
func NewReserve[T any](n int, quiet time.Duration, fill func(missing int, put func(T)), drop func(T)) *Reserve[T] {
	r := &Reserve[T]{
		ready: make(chan T, n), quiet: quiet, fill: fill, drop: drop,
		wanted: make(chan struct{}, 1), quit: make(chan struct{}), ended: make(chan struct{}),
	}
	go r.run()
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

// Refill asks for what was taken to be replaced. Whoever has taken something does so
// when he is done. The making waits until nobody has asked for the time quiet, or half
// is used up: it would take a processor, and locks of the kernel's, from those who are
// in a hurry.
func (r *Reserve[T]) Refill() {
	select {
	case r.wanted <- struct{}{}:
	default:
	}
}

// Close ends the making and gives up what is left.
func (r *Reserve[T]) Close() {
	close(r.quit)
	<-r.ended
	for x, ok := r.Take(); ok; x, ok = r.Take() {
		r.drop(x)
	}
}

func (r *Reserve[T]) run() {
	defer close(r.ended)
	r.make()
	quiet := time.NewTimer(r.quiet)
	defer quiet.Stop()
	waiting := false
	for {
		select {
		case <-r.quit:
			return
		case <-r.wanted:
			if !waiting || 2*len(r.ready) >= cap(r.ready) {
				quiet.Reset(r.quiet)
			}
			waiting = true
		case <-quiet.C:
			waiting = false
			r.make()
		}
	}
}

func (r *Reserve[T]) make() {
	if missing := cap(r.ready) - len(r.ready); missing > 0 {
		r.fill(missing, func(x T) { r.ready <- x }) // there is room: nobody else puts
	}
}
