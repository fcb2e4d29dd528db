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
	"sync/atomic"
	"time"

	"github.com/moby/moby/api/types/events"
)

const (
	// ringSize is how many past events are kept, as Docker does.
	ringSize = 256
	// lagLimit is how many events a subscriber may lag behind, of which it may want few.
	// All who lag share one copy of them, of 1 KB or so each.
	lagLimit = 32 << 10
	// lagNoticed is how many events may pass that a subscriber does not want until it
	// is woken to let go of them.
	lagNoticed = 256
)

// Message is Docker's event.
type Message = events.Message

// Bus hands events to subscribers. Its methods may be called concurrently.
type Bus struct {
	mu     sync.Mutex
	ring   []Message // the oldest first once it has been turned by next
	next   int
	last   int64 // stamp of the latest event
	newest *link
	subs   map[*subscriber]struct{}
}

// link is an event in the chain of those that subscribers still have to see. Whoever
// holds one holds all that came after it.
type link struct {
	m      Message
	number uint64
	next   atomic.Pointer[link]
}

// NewBus makes an empty Bus.
func NewBus() *Bus { return &Bus{newest: &link{}, subs: map[*subscriber]struct{}{}} }

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
	if len(b.subs) == 0 {
		return
	}
	added := &link{m: m, number: b.newest.number + 1}
	b.newest.next.Store(added)
	b.newest = added
	for s := range b.subs {
		switch lag := added.number - s.seen.Load(); {
		case lag > lagLimit:
			close(s.lost)
			delete(b.subs, s)
		case lag%lagNoticed == 0 || s.wants(m):
			s.wake()
		}
	}
}

// Subscribe returns the stored events between since and until, if one of them is
// not zero, and a channel of those that follow; filter selects from both (nil
// takes all). The channel is closed at until, if that is not zero: at once when
// it is past. cancel frees the subscription, which also closes the channel; it
// may be called more than once. For a subscriber that falls tens of thousands of
// events behind the channel is closed there: it never sees a gap, and what it
// does not take costs no more memory.
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
	s.seen.Store(b.newest.number)
	at := b.newest
	b.subs[s] = struct{}{}
	b.mu.Unlock()

	go func() {
		s.run(at)
		b.mu.Lock()
		delete(b.subs, s)
		b.mu.Unlock()
	}()
	return past, s.ch, s.cancel
}

// subscriber hands the events of the chain to one channel.
type subscriber struct {
	filter func(Message) bool
	until  time.Time // zero: no end
	ch     chan Message
	seen   atomic.Uint64 // the number of the last event that it has passed or is handing over

	ready    chan struct{}
	lost     chan struct{} // closed when it is too far behind
	done     chan struct{}
	doneOnce sync.Once
}

func newSubscriber(until time.Time, filter func(Message) bool) *subscriber {
	return &subscriber{
		filter: filter, until: until,
		ch: make(chan Message), ready: make(chan struct{}, 1), lost: make(chan struct{}), done: make(chan struct{}),
	}
}

func (s *subscriber) cancel() { s.doneOnce.Do(func() { close(s.done) }) }

func (s *subscriber) wants(m Message) bool {
	return (s.until.IsZero() || m.TimeNano <= s.until.UnixNano()) && (s.filter == nil || s.filter(m))
}

func (s *subscriber) wake() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// run feeds the channel with what comes after at until the end of the subscription.
func (s *subscriber) run(at *link) {
	defer close(s.ch)
	var end <-chan time.Time
	if !s.until.IsZero() {
		t := time.NewTimer(time.Until(s.until))
		defer t.Stop()
		end = t.C
	}
	for over := false; ; {
		for next := at.next.Load(); next != nil; next = at.next.Load() {
			at = next
			s.seen.Store(at.number)
			if !s.wants(at.m) {
				continue
			}
			select {
			case s.ch <- at.m:
			case <-s.lost:
				return
			case <-s.done:
				return
			}
		}
		if over {
			return
		}
		select {
		case <-s.ready:
		case <-end:
			over = true // what was published until now still goes out
		case <-s.lost:
			return
		case <-s.done:
			return
		}
	}
}
