package logship

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"time"

	"github.com/cleatlabs/cleat/internal/logs"
	"github.com/cleatlabs/cleat/internal/logsend"
	"github.com/cleatlabs/cleat/internal/record"
	"github.com/cleatlabs/cleat/internal/stdio"
)

const (
	// reopenWait is between two tries to open the note of how far the sending got.
	reopenWait = 30 * time.Second
	// The kernel's acknowledgement is asked for after firstLook, then ever later up to
	// longestLook, and only while one is outstanding.
	firstLook   = time.Millisecond
	longestLook = 250 * time.Millisecond
	// lastRound is how long an engine that ends goes on sending.
	lastRound = time.Second
)

// flight is a batch that was sent and is not known to have arrived.
type flight struct {
	messages int
	end      logs.Position
}

// delivery is the work of a shipment's goroutine, which owns all of it.
type delivery struct {
	sh     *shipment
	log    *slog.Logger
	cursor *logs.Cursor
	note   *logs.PositionFile
	safe   logs.Position // what came before has arrived, as far as one can know; it is noted

	target  *logsend.Target
	sender  logsend.Sender // nil while there is no connection
	unhook  func() bool    // of the context from sender
	fresh   bool           // sender was just made, and nothing is known to have arrived by it
	flights []flight
	batch   []logsend.Message
	look    time.Duration // until the next look for acknowledgements

	gap      *logs.Position // behind which lines are missing, as was told
	failures int            // in a row
	told     bool
	over     bool
	finished bool // all is sent
}

// open finds out where to begin. It reports false if the container's directory is gone, or the engine ends before that
// works.
func (d *delivery) open(ctx context.Context) bool {
	for {
		note, at, c, err := d.sh.position()
		if err == nil {
			d.note, d.safe = note, at
			d.cursor = logs.NewCursor(c, at, d.lost)
			target, sender, _ := d.sh.current()
			d.use(ctx, target, sender)
			return true
		}
		if errors.Is(err, fs.ErrNotExist) && d.sh.vanish() {
			return false
		}
		d.log.Error("the lines of a container are not sent", "container", d.sh.id, "error", err)
		if !sleep(ctx, reopenWait) {
			d.sh.s.mu.Lock()
			d.sh.leave()
			d.sh.s.mu.Unlock()
			return false
		}
	}
}

func (d *delivery) close() {
	d.hangUp()
	if d.cursor != nil {
		d.cursor.Close()
		_ = d.note.Close()
	}
}

// lost tells of lines that were rotated away, once for what was sent before them: each
// try to send what comes next finds it again.
func (d *delivery) lost() {
	if d.gap != nil && *d.gap == d.safe {
		return
	}
	before := d.safe
	d.gap = &before
	d.log.Warn("lines of a container were rotated away before they could be sent: a larger cache-max-size or cache-max-file keeps more",
		"container", d.sh.id, "name", d.sh.name())
}

// step sends what one look at the log finds, or waits for something to do.
func (d *delivery) step(ctx context.Context) {
	if ctx.Err() != nil {
		d.endRound(ctx)
		return
	}
	lines, err := d.next()
	if err != nil {
		d.failed(ctx, err)
		return
	}
	if len(lines) > 0 {
		if err := d.send(ctx, lines); err != nil {
			d.failed(ctx, err)
		}
		return
	}
	d.cursor.Rest()
	d.batch = nil
	if err := d.settle(); err != nil {
		d.failed(ctx, err)
		return
	}
	if len(d.flights) == 0 && d.sh.finish() {
		d.over, d.finished = true, true
		return
	}
	d.wait(ctx)
}

// wait sleeps until there may be more to do. Without anything under way it is woken by
// nothing but the container.
func (d *delivery) wait(ctx context.Context) {
	if len(d.flights) == 0 {
		d.look = 0
		select {
		case <-d.sh.wake:
		case <-ctx.Done():
		}
		return
	}
	d.look = min(max(2*d.look, firstLook), longestLook)
	t := time.NewTimer(d.look)
	defer t.Stop()
	select {
	case <-d.sh.wake:
	case <-t.C:
	case <-ctx.Done():
	}
}

// next reads on.
func (d *delivery) next() ([]logs.Line, error) {
	d.sh.files.Lock()
	defer d.sh.files.Unlock()
	d.cursor.Move(d.sh.path)
	return d.cursor.Next()
}

// send hands lines to the server.
func (d *delivery) send(ctx context.Context, lines []logs.Line) error {
	if err := d.connect(ctx); err != nil {
		return err
	}
	most := len(lines)
	if n := d.target.MostLines; n > 0 {
		most = min(most, n)
	}
	for len(lines) > 0 {
		part := lines[:min(most, len(lines))]
		sent, err := d.sender.Send(d.messages(part))
		if err == nil {
			sent = len(part)
		}
		if sent > 0 {
			d.flights = append(d.flights, flight{sent, part[sent-1].End})
		}
		if serr := d.settle(); err == nil {
			err = serr
		}
		if err != nil {
			return err
		}
		lines = lines[len(part):]
	}
	return nil
}

// connect makes sure that there is a sender: the one there is, the one that a start
// has made, or a new one. A start's replaces an older one once that has delivered all.
func (d *delivery) connect(ctx context.Context) error {
	if len(d.flights) == 0 {
		if t, next, changed := d.sh.current(); changed {
			d.hangUp()
			d.use(ctx, t, next)
		}
	}
	if d.sender != nil {
		return nil
	}
	sender, err := d.target.Dial(ctx)
	if err != nil {
		return err
	}
	d.use(ctx, d.target, sender)
	d.fresh = true
	return nil
}

// use sends to t from now on, by sender if there is one. When the engine ends, what the
// sender is waiting for then has lastRound to come.
func (d *delivery) use(ctx context.Context, t *logsend.Target, sender logsend.Sender) {
	d.target, d.sender, d.fresh = t, sender, false
	if sender != nil {
		d.unhook = context.AfterFunc(ctx, func() { time.AfterFunc(lastRound, func() { _ = sender.Close() }) })
	}
}

func (d *delivery) messages(lines []logs.Line) []logsend.Message {
	b := d.batch[:0]
	for i := range lines {
		l := &lines[i]
		b = append(b, logsend.Message{
			Stderr: l.Stream == stdio.Stderr, Nano: l.Time.UnixNano(), Line: l.Text, Part: l.Part, Last: l.Last, Number: l.End.Lines,
		})
	}
	d.batch = b
	return b
}

// settle finds out what has arrived, and notes it.
func (d *delivery) settle() error {
	if len(d.flights) == 0 || d.sender == nil {
		return nil
	}
	open, err := d.sender.Outstanding()
	if err != nil {
		return err
	}
	under := 0
	for _, f := range d.flights {
		under += f.messages
	}
	safe := d.safe
	for len(d.flights) > 0 && under-d.flights[0].messages >= open {
		under -= d.flights[0].messages
		safe = d.flights[0].end
		d.flights = d.flights[1:]
	}
	if len(d.flights) == 0 {
		d.flights = nil
	}
	d.keep(safe)
	return nil
}

func (d *delivery) keep(p logs.Position) {
	if p == d.safe {
		return
	}
	record.Failpoint("logship.send.before-note")
	d.safe, d.fresh = p, false
	d.recovered()
	if err := d.note.Save(p); err != nil {
		d.log.Error("lines of a container may be sent again after an end of the engine", "container", d.sh.id, "error", err)
	}
}

// hangUp ends the connection. What was under way on it is sent again.
func (d *delivery) hangUp() {
	if d.sender != nil {
		d.unhook()
		_ = d.sender.Close()
		d.sender = nil
	}
	d.flights = nil
}

// failed goes back to what is known to have arrived, and waits before the next try,
// unless it was only time for a new connection.
func (d *delivery) failed(ctx context.Context, err error) {
	again := logsend.Expired(err) && !d.fresh
	d.hangUp()
	d.cursor.Seek(d.safe)
	d.batch = nil
	if again || ctx.Err() != nil {
		return
	}
	d.failures++
	if d.target.Tries > 0 && d.failures > d.target.Tries {
		d.giveUp("as the log options ask for, after so many tries", "tries", d.target.Tries)
		return
	}
	if d.expired() {
		d.giveUp("of a removed container that have waited for too long", "hours", keepFor.Hours())
		return
	}
	if !d.told {
		d.told = true
		d.log.Warn("lines of a container cannot be sent: they wait in its local log",
			"container", d.sh.id, "name", d.sh.name(), "address", d.target.Address, "error", err)
	}
	d.sh.s.servers.await(ctx, d.target.Address, pause(d.target, d.failures))
}

// recovered is called when something has arrived.
func (d *delivery) recovered() {
	if d.told {
		d.sh.s.servers.reached(d.target.Address)
		d.log.Info("lines of a container are sent again", "container", d.sh.id, "name", d.sh.name(), "address", d.target.Address)
	}
	d.told, d.failures = false, 0
}

func (d *delivery) expired() bool {
	d.sh.files.Lock()
	defer d.sh.files.Unlock()
	return d.sh.dir != "" && time.Now().After(d.sh.until)
}

// giveUp passes over everything that is in the log now.
func (d *delivery) giveUp(why string, args ...any) {
	lines := 0
	for {
		some, err := d.next()
		if err != nil || len(some) == 0 {
			break
		}
		lines += len(some)
	}
	told := d.told
	d.told = false // nothing is sent again
	d.keep(d.cursor.At())
	d.told, d.failures = told, 0
	d.log.Warn("lines of a container are not sent, "+why,
		append([]any{"container", d.sh.id, "name", d.sh.name(), "address", d.target.Address, "lines", lines}, args...)...)
}

// endRound sends what can be sent at once, as the engine ends.
func (d *delivery) endRound(ctx context.Context) {
	d.over = true
	defer func() {
		d.sh.s.mu.Lock()
		d.sh.leave()
		d.sh.s.mu.Unlock()
	}()
	if d.sender == nil {
		return
	}
	deadline := time.Now().Add(lastRound)
	for time.Now().Before(deadline) {
		lines, err := d.next()
		if err == nil && len(lines) > 0 {
			err = d.send(context.WithoutCancel(ctx), lines)
		} else if err == nil {
			err = d.settle()
		}
		if err != nil || len(lines) == 0 && len(d.flights) == 0 {
			return
		}
		if len(lines) == 0 {
			time.Sleep(firstLook)
		}
	}
}

// sleep reports false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
