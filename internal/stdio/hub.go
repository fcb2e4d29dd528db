package stdio

import (
	"context"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Hub hands the output of a process to live clients. It belongs to a container
// and serves one Pump after the other; a client that subscribes before the
// process starts gets its first byte. Its methods may be called concurrently.
type Hub struct {
	mu     sync.Mutex
	subs   atomic.Pointer[[]*Subscription] // replaced, never changed in place
	pump   atomic.Pointer[Pump]            // the one that runs, or nil
	closed bool
	ending []*Subscription // that are at their end, while their clients still take what was queued
}

// NewHub makes a Hub without subscribers.
func NewHub() *Hub { return &Hub{} }

// Subscribe delivers the output from now on. On a closed Hub the subscription
// is at its end.
func (h *Hub) Subscribe(stdout, stderr bool) *Subscription {
	s := newSubscription(h, stdout, stderr)
	h.add(s)
	return s
}

// SubscribeAfterLog is Subscribe for a client that reads the log first: read up
// to the returned Mark, what follows it comes from the subscription, without a
// gap or a double, unfinished lines included. The Mark is zero if no process
// runs or nothing is logged: then the whole log comes first.
func (h *Hub) SubscribeAfterLog(stdout, stderr bool) (*Subscription, Mark, error) {
	p := h.pump.Load()
	if p == nil || p.cfg.Sink == nil {
		return h.Subscribe(stdout, stderr), Mark{}, nil
	}
	s := newSubscription(h, stdout, stderr)
	mark, err := p.join(s)
	if err != nil {
		return nil, Mark{}, err
	}
	return s, mark, nil
}

func (h *Hub) add(s *Subscription) {
	if !h.enter(s) {
		s.end(io.EOF)
	}
}

// enter is add; it reports false if the Hub is closed.
func (h *Hub) enter(s *Subscription) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	subs := append(slices.Clone(h.list()), s)
	h.subs.Store(&subs)
	return true
}

func (h *Hub) remove(s *Subscription) {
	h.mu.Lock()
	defer h.mu.Unlock()
	subs := slices.Clone(h.list())
	isIt := func(o *Subscription) bool { return o == s }
	subs = slices.DeleteFunc(subs, isIt)
	h.subs.Store(&subs)
	h.ending = slices.DeleteFunc(h.ending, isIt)
}

// Delivered waits until the clients whose subscriptions have ended have closed them, as
// they do when they have passed the output on; ctx's end, or patience, ends the wait.
func (h *Hub) Delivered(ctx context.Context, patience time.Duration) {
	h.mu.Lock()
	ending := slices.Clone(h.ending)
	h.mu.Unlock()
	if len(ending) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, s := range ending {
		select {
		case <-s.gone:
		case <-ctx.Done():
			return
		}
	}
}

func (h *Hub) list() []*Subscription {
	if p := h.subs.Load(); p != nil {
		return *p
	}
	return nil
}

// End ends the present subscriptions, after what is queued for them, with err
// (nil means io.EOF). Later ones wait for the next process. The Pump does this
// at the end of its streams; a start that failed must do it itself.
func (h *Hub) End(err error) {
	if err == nil {
		err = io.EOF
	}
	h.mu.Lock()
	subs := h.list()
	h.subs.Store(nil)
	h.ending = append(h.ending, subs...)
	h.mu.Unlock()
	for _, s := range subs {
		s.end(err)
	}
}

// Close ends the present and all later subscriptions.
func (h *Hub) Close() {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.End(nil)
}

// write queues p, which stands at position at of stream st, for the
// subscribers of st. It waits for slow ones, unless they leave or the Pump
// drains or stops.
func (h *Hub) write(st Stream, at int64, p []byte, draining, stop <-chan struct{}) {
	subs := h.list()
	for _, s := range subs {
		s.push(st, at, p, limitOf(len(subs)), draining, stop)
	}
}
