// Package events tells clients what happens to containers, images, networks and
// volumes.
//
// A Bus keeps the last 256 events and hands every new one to its subscribers; a
// subscriber gets past and live events without a gap and without a double, in
// the order in which they were published. Publishing never waits for a
// subscriber.
package events

import (
	"time"

	"github.com/moby/moby/api/types/events"
)

// Message is Docker's event.
type Message = events.Message

// Bus hands events to subscribers. Its methods may be called concurrently.
type Bus struct{}

// NewBus makes an empty Bus.
func NewBus() *Bus { return &Bus{} }

// Publish stamps Time, TimeNano and Scope (local) where they are zero and
// hands the event to all subscribers.
func (b *Bus) Publish(m Message) {}

// Subscribe returns the stored events from since on, if since is not zero, and
// a channel of those that follow, both filtered (nil takes all) and ended by
// until, if that is not zero: the channel is closed then, at once if until is
// in the past. cancel frees the subscription; it may be called more than once.
// A subscriber that falls too far behind loses its channel too (it is closed)
// rather than events in the middle.
func (b *Bus) Subscribe(since, until time.Time, filter func(Message) bool) (past []Message, ch <-chan Message, cancel func()) {
	return nil, nil, func() {}
}

// NewFilter makes the filter of the events endpoint out of its filters
// parameter. Unknown keys are passed over, as Docker does.
func NewFilter(filters map[string][]string) (func(Message) bool, error) { return nil, nil }
