// Package events tells clients what happens to containers, images, networks and
// volumes.
//
// A Bus keeps the last 256 events and hands every new one to its subscribers; a
// subscriber gets past and live events without a gap and without a double, in
// the order in which they were published. Publishing never waits for a
// subscriber.
package events

import (
	"sync"
	"time"

	"github.com/moby/moby/api/types/events"
)

const (
	// ringSize is how many past events are kept, as Docker does.
	ringSize = 256
	// queueLimit is how many events a subscriber may lag behind.
	queueLimit = 64 << 10
)

// Message is Docker's event.
type Message = events.Message

// Bus hands events to subscribers. Its methods may be called concurrently.
type Bus struct {
	mu   sync.Mutex
	ring []Message // the oldest first once it has been turned by next
	next int
	last int64 // stamp of the latest event
	subs map[*subscriber]struct{}
}

// NewBus makes an empty Bus.
func NewBus() *Bus { return &Bus{subs: map[*subscriber]struct{}{}} }

// Publish stamps Time, TimeNano and Scope (local) where they are zero and hands
// the event to all subscribers. Events get different stamps, so that a client
// can go on after the last one that it saw.
func (b *Bus) Publish(m Message) {
	if m.Scope == "" {
		m.Scope = "local"
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if m.TimeNano == 0 {
		now := time.Now().UnixNano()
		// Not after the clock was set back: that would stop time here.
		if behind := b.last - now; behind >= 0 && behind < int64(time.Second) {
			now = b.last + 1
		}
		m.TimeNano = now
	}
	b.last = m.TimeNano
	if m.Time == 0 {
		m.Time = m.TimeNano / int64(time.Second)
	}
	if len(b.ring) < ringSize {
		b.ring = append(b.ring, m)
	} else {
		b.ring[b.next] = m
		b.next = (b.next + 1) % ringSize
	}
	for s := range b.subs {
		if !s.push(m) {
			delete(b.subs, s)
		}
	}
}

// Subscribe returns the stored events between since and until, if one of them is
// not zero, and a channel of those that follow; filter selects from both (nil
// takes all). The channel is closed at until, if that is not zero: at once when
// it is past. cancel frees the subscription, which also closes the channel; it
// may be called more than once. A subscriber that falls tens of thousands of
// events behind gets what is queued and then a closed channel, never a gap.
func (b *Bus) Subscribe(since, until time.Time, filter func(Message) bool) (past []Message, ch <-chan Message, cancel func()) {
	s := newSubscriber(until, filter)
	b.mu.Lock()
	if !since.IsZero() || !until.IsZero() {
		for i := range b.ring {
			m := b.ring[(b.next+i)%len(b.ring)]
			if (since.IsZero() || m.TimeNano >= since.UnixNano()) && s.wants(m) {
				past = append(past, m)
			}
		}
	}
	b.subs[s] = struct{}{}
	b.mu.Unlock()

	go func() {
		s.run()
		b.mu.Lock()
		delete(b.subs, s)
		b.mu.Unlock()
	}()
	return past, s.ch, s.cancel
}

// subscriber queues events for one channel.
type subscriber struct {
	filter func(Message) bool
	until  time.Time // zero: no end
	ch     chan Message

	mu    sync.Mutex
	queue []Message
	lost  bool // the queue was full: end after it

	ready    chan struct{}
	done     chan struct{}
	doneOnce sync.Once
}

func newSubscriber(until time.Time, filter func(Message) bool) *subscriber {
	return &subscriber{filter: filter, until: until, ch: make(chan Message), ready: make(chan struct{}, 1), done: make(chan struct{})}
}

func (s *subscriber) cancel() { s.doneOnce.Do(func() { close(s.done) }) }

func (s *subscriber) wants(m Message) bool {
	return (s.until.IsZero() || m.TimeNano <= s.until.UnixNano()) && (s.filter == nil || s.filter(m))
}

// push queues m; false means that the subscriber needs no more.
func (s *subscriber) push(m Message) bool {
	if !s.wants(m) {
		return true
	}
	s.mu.Lock()
	s.lost = len(s.queue) >= queueLimit
	if !s.lost {
		s.queue = append(s.queue, m)
	}
	lost := s.lost
	s.mu.Unlock()
	select {
	case s.ready <- struct{}{}:
	default:
	}
	return !lost
}

func (s *subscriber) take() (queue []Message, lost bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	queue, s.queue = s.queue, nil
	return queue, s.lost
}

// run feeds the channel until the end of the subscription.
func (s *subscriber) run() {
	defer close(s.ch)
	var end <-chan time.Time
	if !s.until.IsZero() {
		t := time.NewTimer(time.Until(s.until))
		defer t.Stop()
		end = t.C
	}
	for over := false; ; {
		queue, lost := s.take()
		for _, m := range queue {
			select {
			case s.ch <- m:
			case <-s.done:
				return
			}
		}
		if over || lost && len(queue) == 0 {
			return
		}
		if lost {
			continue
		}
		select {
		case <-s.ready:
		case <-end:
			over = true // what was published until now still goes out
		case <-s.done:
			return
		}
	}
}
