package stdio

import (
	"context"
	"io"
	"sync"
)

// subscriptionLimit is how many bytes a subscriber may lag behind before the
// process's output waits for it.
const subscriptionLimit = 1 << 20

// Hub hands the output of a process to live clients. It belongs to a container
// and serves one Pump after the other; a client that subscribes before the
// process starts gets its first byte. Its methods may be called concurrently.
type Hub struct {
	mu     sync.Mutex
	subs   map[*Subscription]struct{}
	closed error
}

// NewHub makes a Hub without subscribers.
func NewHub() *Hub { return &Hub{subs: map[*Subscription]struct{}{}} }

// Subscribe delivers the output from now on. On a closed Hub the subscription
// is at its end.
func (h *Hub) Subscribe(stdout, stderr bool) *Subscription {
	s := &Subscription{hub: h, ready: make(chan struct{}, 1), space: make(chan struct{}, 1), gone: make(chan struct{})}
	s.want[Stdout], s.want[Stderr] = stdout, stderr
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed != nil {
		s.end(h.closed)
		return s
	}
	h.subs[s] = struct{}{}
	return s
}

// End ends the present subscriptions, after what is queued for them, with err
// (nil means io.EOF). Later ones wait for the next process.
func (h *Hub) End(err error) {
	if err == nil {
		err = io.EOF
	}
	h.mu.Lock()
	subs := h.subs
	h.subs = map[*Subscription]struct{}{}
	h.mu.Unlock()
	for s := range subs {
		s.end(err)
	}
}

// Close ends the present and all later subscriptions.
func (h *Hub) Close() {
	h.mu.Lock()
	if h.closed == nil {
		h.closed = io.EOF
	}
	h.mu.Unlock()
	h.End(nil)
}

// write queues p for all subscribers of stream st. It waits for slow ones,
// unless they leave or draining or stop is closed.
func (h *Hub) write(st Stream, p []byte, draining, stop <-chan struct{}) {
	h.mu.Lock()
	if len(h.subs) == 0 {
		h.mu.Unlock()
		return
	}
	subs := make([]*Subscription, 0, len(h.subs))
	for s := range h.subs {
		if s.want[st] {
			subs = append(subs, s)
		}
	}
	h.mu.Unlock()
	for _, s := range subs {
		s.push(st, p, draining, stop)
	}
}

func (h *Hub) remove(s *Subscription) {
	h.mu.Lock()
	delete(h.subs, s)
	h.mu.Unlock()
}

// frame is a run of bytes of one stream.
type frame struct {
	stream Stream
	data   []byte
}

// Subscription is one client's view of a Hub. Next is called by one goroutine;
// Close by any.
type Subscription struct {
	hub  *Hub
	want [3]bool

	mu     sync.Mutex
	queue  []frame
	queued int
	err    error

	ready, space chan struct{}
	gone         chan struct{}
	closeOnce    sync.Once
}

// Next waits for output and returns it with its stream. The bytes are valid
// until the next call. After the last byte it returns io.EOF, or ErrStopped if
// the engine stops while the process goes on.
func (s *Subscription) Next(ctx context.Context) (Stream, []byte, error) {
	for {
		s.mu.Lock()
		if len(s.queue) > 0 {
			f := s.queue[0]
			s.queue[0] = frame{}
			s.queue = s.queue[1:]
			s.queued -= len(f.data)
			if len(s.queue) == 0 {
				s.queue = nil
			}
			s.mu.Unlock()
			signal(s.space)
			return f.stream, f.data, nil
		}
		err := s.err
		s.mu.Unlock()
		if err != nil {
			return 0, nil, err
		}
		select {
		case <-s.ready:
		case <-s.gone:
			return 0, nil, io.ErrClosedPipe
		case <-ctx.Done():
			return 0, nil, ctx.Err()
		}
	}
}

// Close leaves the Hub; the process and other clients do not notice.
func (s *Subscription) Close() {
	s.closeOnce.Do(func() {
		close(s.gone)
		s.hub.remove(s)
	})
}

// frameSize is how far small writes are put together into one frame.
const frameSize = 32 << 10

func (s *Subscription) push(st Stream, p []byte, draining, stop <-chan struct{}) {
	for {
		s.mu.Lock()
		if s.err != nil {
			s.mu.Unlock()
			return
		}
		full := s.queued > 0 && s.queued+len(p) > subscriptionLimit
		if full {
			select {
			case <-draining: // what is left is bounded by the pipe's size
				full = false
			default:
			}
		}
		if !full {
			s.add(st, p)
			s.mu.Unlock()
			signal(s.ready)
			return
		}
		s.mu.Unlock()
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

// add queues a copy of p; s.mu is held.
func (s *Subscription) add(st Stream, p []byte) {
	s.queued += len(p)
	if n := len(s.queue); n > 0 {
		if f := &s.queue[n-1]; f.stream == st && len(f.data)+len(p) <= frameSize {
			f.data = append(f.data, p...)
			return
		}
	}
	s.queue = append(s.queue, frame{st, append([]byte(nil), p...)})
}

func (s *Subscription) end(err error) {
	s.mu.Lock()
	if s.err == nil {
		s.err = err
	}
	s.mu.Unlock()
	signal(s.ready)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
