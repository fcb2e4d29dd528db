// Package logsend speaks the protocols of log servers: syslog, the systemd
// journal, GELF and Fluentd's forward protocol.
//
// # What it promises
//
// Options have Docker's names, meanings and error texts, and what is sent looks
// as Docker sends it, so that filters and parsers on the other side go on
// working. A Sender never says that a message has arrived when it knows
// otherwise: over TCP it counts what the other side's kernel has acknowledged,
// with fluentd-request-ack what the server has. Over UDP nobody knows; what the
// kernel took counts, except where it reports that nobody listens.
//
// Nothing is kept between calls: no goroutine, no queue, no timer. Who sends
// holds the messages until they are known to have arrived, and decides when to
// try again.
package logsend

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cleatlabs/cleat/internal/failure"
)

// Message is one line of a container's output, or a piece of a long one.
type Message struct {
	Stderr bool
	Nano   int64  // when it was written, Unix nanoseconds; all pieces of a line have one
	Line   []byte // without its newline; not kept after Send
	// Part counts the pieces of a long line from 1; it is 0 for a whole line. Last is
	// the piece with the line's end.
	Part   int
	Last   bool
	Number uint64 // counts the container's messages, from 1
}

// Time is when the message was written.
func (m *Message) Time() time.Time { return time.Unix(0, m.Nano) }

// Source is the container that messages come from.
type Source struct {
	ID, Name, ImageID, ImageName string // the name without a slash
	Command                      string
	Created                      time.Time
	// Tag is the rendered option tag, Docker's default where it is not given.
	Tag string
	// Attrs are the labels and variables that the options select.
	Attrs map[string]string
	// Run names the present run of the container; it changes with each start.
	Run string
}

// Sender is a connection to a log server. It is used by one goroutine, except
// that Close may come from any and ends a Send that waits.
type Sender interface {
	// Send hands messages over in their order. When it fails, sent tells how many of
	// them were handed over for good before; the connection is of no more use then.
	Send(batch []Message) (sent int, err error)
	// Outstanding is how many messages of those sent last are not known to have
	// arrived. An error means that they may never: they are to be sent again.
	Outstanding() (int, error)
	// Close ends the connection; what is outstanding is left to the kernel.
	Close() error
}

// Target is where the lines of one container go. It is immutable.
type Target struct {
	// Address is for messages to the user.
	Address string
	// Required says that a container must not start when the server cannot be reached.
	Required bool
	// Way out for whose server cannot be reached, one sentence for an error.
	Advice string
	// FirstWait is the pause before the first new try after a failure, and Tries after
	// how many of them in a row what waits is given up; 0 means never.
	FirstWait time.Duration
	Tries     int
	// MostLines bounds how many messages are held in memory, 0 for no bound.
	MostLines int

	dial func(ctx context.Context) (Sender, error)
}

// Dial connects, or says why that is not possible. ctx bounds the waiting.
func (t *Target) Dial(ctx context.Context) (Sender, error) { return t.dial(ctx) }

const (
	driverSyslog   = "syslog"
	driverJournald = "journald"
	driverGELF     = "gelf"
	driverFluentd  = "fluentd"

	dialTimeout  = 10 * time.Second
	writeTimeout = 30 * time.Second
	firstWait    = time.Second / 4
)

// selection are the options by which labels, variables and the tag are chosen; the
// caller renders them.
func selection() []string { return []string{"env", "env-regex", "labels", "labels-regex", "tag"} }

// Drivers lists the drivers' names in alphabetical order.
func Drivers() []string {
	return []string{driverFluentd, driverGELF, driverJournald, driverSyslog}
}

// Known tells whether driver is one of Drivers.
func Known(driver string) bool { return slices.Contains(Drivers(), driver) }

// New reads the options of a driver; the error names the one at fault. The options of
// all drivers (mode, the cache's) are the caller's and must not be among them. Files and
// servers are not looked for before Dial.
func New(driver string, opts map[string]string, src *Source) (*Target, error) {
	t := &Target{FirstWait: firstWait}
	var err error
	switch driver {
	case driverSyslog:
		err = newSyslog(t, opts, src)
	case driverJournald:
		err = newJournald(t, opts, src)
	case driverGELF:
		err = newGELF(t, opts, src)
	case driverFluentd:
		err = newFluentd(t, opts, src)
	default:
		err = failure.NotFound("logger: no log driver named '%s' sends logs", driver)
	}
	if err != nil {
		return nil, err
	}
	return t, nil
}

// knownOptions refuses an option that is not among names.
func knownOptions(driver string, opts map[string]string, names ...string) error {
	names = append(names, selection()...)
	slices.Sort(names)
	for _, name := range slices.Sorted(maps.Keys(opts)) {
		if !slices.Contains(names, name) {
			quoted := "'" + name + "'"
			if driver == driverGELF {
				quoted = `"` + name + `"`
			}
			return failure.Invalid("unknown log opt %s for %s log driver: it knows %s", quoted, driver, strings.Join(names, ", "))
		}
	}
	return nil
}
