package stdio

import "errors"

// Pump copies the output streams of one process.
type Pump struct {
	hub  *Hub
	done chan struct{}
}

// Start starts copying. If Dir holds the journals of an engine that was killed,
// what it had not logged is logged first.
func Start(c Config) (*Pump, error) { return nil, errors.New("stdio: Start: not built yet") }

// Done is closed when all streams are at their end (or drained, or stopped) and
// everything is delivered.
func (p *Pump) Done() <-chan struct{} { return p.done }

// Stop ends copying at a clean point and leaves the rest in the pipes and
// journals, for the next engine. Subscriptions end with ErrStopped.
func (p *Pump) Stop() {}

// Drain is called after the process has exited: it delivers what has been
// written until now and ends the streams, even if a stray descendant of the
// process keeps a pipe open. It returns when Done is closed. A slow subscriber
// does not delay it.
func (p *Pump) Drain() {}

// Subscribe is Subscribe of the Pump's Hub.
func (p *Pump) Subscribe(stdout, stderr bool) *Subscription { return p.hub.Subscribe(stdout, stderr) }
