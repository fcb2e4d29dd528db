package stdio

import (
	"context"
	"io"
	"sync"
)

const (
	// hubLimit is how many bytes the subscribers of one Hub may lag behind, all
	// together, before the process's output waits for them; subscriptionLimit is
	// the most for one, and leastLimit what each has however many there are.
	hubLimit          = 16 << 20
	subscriptionLimit = 1 << 20
	leastLimit        = frameSize
	// frameSize is how far small writes are put together into one frame while
	// the subscriber is busy.
	frameSize = 32 << 10
)

// frame is a run of bytes of one stream.
type frame struct {
	stream Stream
	data   []byte
}

// Subscription is one client's view of a Hub. Next is called by one goroutine
// at a time; Close by any.
type Subscription struct {
	hub  *Hub
	want [3]bool // by Stream

	mu     sync.Mutex
	queue  []frame
	queued int
	next   [3]int64 // by Stream: bytes at lower positions were delivered already
	taken  []byte   // what Next returned last
	spare  []byte   // a used buffer
	err    error

	ready, space chan struct{}
	gone         chan struct{}
	until        <-chan struct{} // see Until
	closeOnce    sync.Once
}

func newSubscription(h *Hub, stdout, stderr bool) *Subscription {
	s := &Subscription{hub: h, ready: make(chan struct{}, 1), space: make(chan struct{}, 1), gone: make(chan struct{})}
	s.want[Stdout], s.want[Stderr] = stdout, stderr
	return s
}

// Until ends the subscription at the latest when over is closed, after what is queued by then. It is for output of one
// process alone: one that has closed its streams may be at its end, and a subscription that comes then would wait for the
// next process. It must be called before Next.
func (s *Subscription) Until(over <-chan struct{}) { s.until = over }

// Next waits for output and returns it with its stream. The bytes are valid
// until the next call. After the last byte it returns io.EOF, or ErrStopped if
// the engine stops while the process goes on; after Close, io.ErrClosedPipe.
func (s *Subscription) Next(ctx context.Context) (Stream, []byte, error) {
	for {
		f, err := s.pop()
		if f.data != nil || err != nil {
			return f.stream, f.data, err
		}
		select {
		case <-s.ready:
		case <-s.until:
			s.until = nil
			s.end(io.EOF)
		case <-s.gone:
			return 0, nil, io.ErrClosedPipe
		case <-ctx.Done():
			return 0, nil, ctx.Err()
		}
	}
}

func (s *Subscription) pop() (frame, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		// About to wait: an idle client holds no buffers.
		s.spare, s.taken, s.queue = nil, nil, nil
		return frame{}, s.err
	}
	s.spare = s.taken
	f := s.queue[0]
	s.queue[0] = frame{}
	s.queue = s.queue[1:]
	s.queued -= len(f.data)
	s.taken = f.data
	signal(s.space)
	return f, nil
}

// Close leaves the Hub; the process and other clients do not notice.
func (s *Subscription) Close() {
	s.closeOnce.Do(func() {
		close(s.gone)
		s.hub.remove(s)
	})
}

// limitOf is how many bytes each of so many subscribers may lag behind.
func limitOf(subscribers int) int {
	return min(max(hubLimit/max(subscribers, 1), leastLimit), subscriptionLimit)
}

// push queues p, which stands at position at of stream st, in pieces of limit at
// most. It waits while more than that would be queued.
func (s *Subscription) push(st Stream, at int64, p []byte, limit int, draining, stop <-chan struct{}) {
	if !s.want[st] {
		return
	}
	for len(p) > 0 {
		piece := p[:min(len(p), limit)]
		if s.tryPush(st, at, piece, limit, isClosed(draining)) {
			at, p = at+int64(len(piece)), p[len(piece):]
			continue
		}
		select {
		case <-s.space:
		case <-draining:
		case <-s.gone:
			return
		case <-stop:
			return
		}
	}
}

// tryPush reports whether p is queued or not wanted. While the Pump drains
// there is no limit: what is left is bounded by the size of the pipe, and an
// exited process must not wait for a client.
func (s *Subscription) tryPush(st Stream, at int64, p []byte, limit int, unlimited bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if skip := s.next[st] - at; skip > 0 {
		p = p[min(skip, int64(len(p))):]
	}
	if s.err != nil || len(p) == 0 {
		return true
	}
	if !unlimited && s.queued > 0 && s.queued+len(p) > limit {
		return false
	}
	s.add(st, p)
	signal(s.ready)
	return true
}

// add queues a copy of p; s.mu is held.
func (s *Subscription) add(st Stream, p []byte) {
	s.queued += len(p)
	if n := len(s.queue); n > 0 {
		if f := &s.queue[n-1]; f.stream == st && len(f.data)+len(p) <= frameSize {
			f.data = append(f.data, p...)
			return
		}
	}
	s.queue = append(s.queue, frame{st, append(s.spare[:0], p...)})
	s.spare = nil
}

func (s *Subscription) end(err error) {
	s.mu.Lock()
	if s.err == nil {
		s.err = err
	}
	s.mu.Unlock()
	signal(s.ready)
}

// signal wakes the one goroutine that waits on c, now or when it comes to wait.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
