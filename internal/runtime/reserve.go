package runtime

import "time"

// A reserve keeps a few things that a start needs and that take long to make. They must be such that the kernel takes them away with the
// engine, in whatever way that ends.
type reserve[T any] struct {
	ready  chan T
	quiet  time.Duration
	fill   func(missing int, put func(T)) // makes what is missing, as far as it can
	drop   func(T)
	wanted chan struct{}
	quit   chan struct{}
	ended  chan struct{}
}

// newReserve makes a reserve of n things and begins to fill it.
func newReserve[T any](n int, quiet time.Duration, fill func(missing int, put func(T)), drop func(T)) *reserve[T] {
	r := &reserve[T]{
		ready: make(chan T, n), quiet: quiet, fill: fill, drop: drop,
		wanted: make(chan struct{}, 1), quit: make(chan struct{}), ended: make(chan struct{}),
	}
	go r.run()
	return r
}

// take returns one, false when there is none at hand.
func (r *reserve[T]) take() (T, bool) {
	select {
	case x := <-r.ready:
		return x, true
	default:
		var none T
		return none, false
	}
}

// refill asks for what was taken to be replaced. A start does so at its end, lest it waits for the kernel to do both; the making then waits
// until no start has come for a moment, or half is used up: it would take a processor, and locks of the kernel's, from those and from what
// they started.
func (r *reserve[T]) refill() {
	select {
	case r.wanted <- struct{}{}:
	default:
	}
}

// close ends the making and gives up what is left.
func (r *reserve[T]) close() {
	close(r.quit)
	<-r.ended
	for x, ok := r.take(); ok; x, ok = r.take() {
		r.drop(x)
	}
}

func (r *reserve[T]) run() {
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

func (r *reserve[T]) make() {
	if missing := cap(r.ready) - len(r.ready); missing > 0 {
		r.fill(missing, func(x T) { r.ready <- x }) // there is room: nobody else puts
	}
}
