package stdio

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Pump copies the output streams of one process.
type Pump struct {
	cfg     Config
	hub     *Hub
	pool    *Pool
	streams []*stream

	draining, stop, done chan struct{}
	drainOnce, stopOnce  sync.Once

	// mu orders the batches of the streams in the log and guards what records
	// them.
	mu       sync.Mutex
	state    stateStore
	progress progress
	over     bool // the files are closed
}

// Start starts copying. If Dir holds the journals of an engine that was killed
// or stopped, what that had not logged is logged first. Trouble with log or
// journals is reported to OnError and does not fail the start: a process whose
// pipes nobody reads would hang.
func Start(c Config) (*Pump, error) {
	p := &Pump{
		cfg: c, hub: c.Hub, pool: c.Pool, state: stateStore{-1},
		draining: make(chan struct{}), stop: make(chan struct{}), done: make(chan struct{}),
	}
	if p.hub == nil {
		p.hub = NewHub()
	}
	if p.pool == nil {
		p.pool = new(Pool)
	}
	out, tty := c.Stdout, c.Terminal
	if c.TTY != nil {
		out, tty = c.TTY, true
	}
	for _, f := range []struct {
		id  Stream
		f   *os.File
		tty bool
	}{{Stdout, out, c.TTY != nil}, {Stderr, c.Stderr, false}} {
		s := &stream{p: p, id: f.id, direct: !p.journalled()}
		p.streams = append(p.streams, s)
		if f.f == nil {
			continue
		}
		src, err := newSource(f.f, f.tty)
		if err != nil {
			p.closeFiles(false)
			return nil, fmt.Errorf("read the process's output: %w", err)
		}
		s.src = src
	}
	if p.journalled() {
		if err := p.recover(tty); err != nil {
			p.report(Stdout, 0, fmt.Errorf("recover the output of the process: %w", err))
		}
	}
	p.hub.pump.Store(p)
	go p.run()
	return p, nil
}

func (p *Pump) journalled() bool { return p.cfg.Sink != nil && p.cfg.Dir != "" }

// run copies all streams and cleans up after the last one.
func (p *Pump) run() {
	var wg sync.WaitGroup
	ended := make([]bool, len(p.streams))
	last := -1
	for i, s := range p.streams {
		if s.src == nil {
			s.finish()
			ended[i] = true
		} else {
			last = i
		}
	}
	for i, s := range p.streams {
		if s.src != nil && i != last {
			wg.Go(func() { ended[i] = s.run() })
		}
	}
	if last >= 0 { // this goroutine serves the last stream itself
		ended[last] = p.streams[last].run()
	}
	wg.Wait()
	all := true
	for _, e := range ended {
		all = all && e
	}
	p.hub.pump.Store(nil)
	p.closeFiles(all)
	if all {
		p.hub.End(nil)
	} else {
		p.hub.End(ErrStopped)
	}
	if p.cfg.Hub == nil {
		p.hub.Close()
	}
	close(p.done)
}

// closeFiles closes everything; remove deletes journals and state as well. The
// state goes last: journals without a state count as garbage, so a SIGKILL in
// between does not bring anything back.
func (p *Pump) closeFiles(remove bool) {
	for _, s := range p.streams {
		s.close(remove)
	}
	p.mu.Lock()
	p.state.close()
	p.state.fd, p.over = -1, true
	p.mu.Unlock()
	if remove && p.journalled() {
		_ = unix.Unlink(filepath.Join(p.cfg.Dir, stateFile))
	}
}

// recover continues where an earlier engine ended.
func (p *Pump) recover(tty bool) error {
	state, err := openState(p.cfg.Dir, false)
	if errors.Is(err, unix.ENOENT) {
		return nil // the first Pump of this process, or no output until now
	}
	if err != nil {
		return err
	}
	if err := state.load(&p.progress); err != nil {
		state.close()
		if errors.Is(err, errNoState) {
			return nil // killed before the first record: there are no journals yet
		}
		return err
	}
	p.state = state
	if err := p.cfg.Sink.Rewind(p.progress.mark); err != nil {
		p.report(Stdout, 0, fmt.Errorf("cut the log back to its last complete batch: %w", err))
	}
	for i, s := range p.streams {
		j, err := openJournal(s.journalPath(), false)
		if err != nil {
			return err
		}
		j.committed = min(p.progress.pos[i], j.size.Load())
		if i == 0 && tty {
			if err := j.recoverEnd(); err != nil {
				j.close()
				return err
			}
		}
		s.jnl = j
		_ = s.replay(false)
	}
	return nil
}

// ensureState makes the state file, with the log's present end, before the
// first journal.
func (p *Pump) ensureState() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state.fd >= 0 {
		return nil
	}
	state, err := openState(p.cfg.Dir, true)
	if err != nil {
		return err
	}
	p.progress = progress{}
	if p.progress.mark, err = p.cfg.Sink.Mark(); err == nil {
		err = state.save(&p.progress)
	}
	if err != nil {
		state.close()
		return err
	}
	p.state = state
	return nil
}

// append logs the whole lines of p and returns how many bytes that was. After
// each batch it calls consumed and records the progress. A log that cannot be
// written loses the bytes rather than stopping the process.
func (p *Pump) append(s Stream, b []byte, last bool, consumed func(n int)) (total int) {
	now := time.Now()
	for {
		p.mu.Lock()
		n, err := p.cfg.Sink.Append(s, b[total:], now, last)
		dropped := 0
		if err != nil && n == 0 {
			n = len(b) - total
			dropped = n
		}
		total += n
		consumed(n)
		var serr error
		if n > 0 {
			serr = p.saveState()
		}
		p.mu.Unlock()
		if err != nil {
			p.report(s, dropped, err)
		}
		if serr != nil {
			p.report(s, 0, serr)
		}
		if n == 0 || total == len(b) {
			return total
		}
	}
}

// saveState records the batch that was just logged; p.mu is held.
func (p *Pump) saveState() error {
	if p.state.fd < 0 {
		return nil
	}
	var err error
	if p.progress.mark, err = p.cfg.Sink.Mark(); err != nil {
		return err
	}
	return p.state.save(&p.progress)
}

// join adds sub to the Hub, together with what it needs to go on exactly where
// the log ends at this moment, and says where that is.
func (p *Pump) join(sub *Subscription) (Mark, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		p.hub.add(sub)
		return Mark{}, nil
	}
	mark, err := p.progress.mark, error(nil)
	if p.state.fd < 0 {
		mark, err = p.cfg.Sink.Mark()
	}
	if err == nil {
		err = p.enter(sub)
	}
	if err != nil {
		return Mark{}, fmt.Errorf("join the output of the process: %w", err)
	}
	return mark, nil
}

// enter makes sub one of the live clients, with what is not in the log before it. It is one
// of them first, and waits for none: what a stream takes after catchUp has looked is pushed
// to it, and what was taken before is not pushed twice. p.mu is held.
func (p *Pump) enter(sub *Subscription) error {
	sub.mu.Lock()
	open := p.hub.enter(sub)
	var err error
	for _, s := range p.streams {
		if err == nil {
			err = s.catchUp(sub)
		}
	}
	sub.mu.Unlock()
	switch {
	case err != nil:
		p.hub.remove(sub)
	case !open:
		sub.end(io.EOF)
	}
	return err
}

func (p *Pump) report(s Stream, dropped int, err error) {
	if p.cfg.OnError != nil {
		p.cfg.OnError(s, dropped, err)
	}
}

// Done is closed when all streams are at their end (or drained, or stopped) and
// everything is delivered.
func (p *Pump) Done() <-chan struct{} { return p.done }

// Stop ends copying at a clean point and leaves the rest in the pipes and
// journals, for the next engine. Subscriptions end with ErrStopped. It returns
// when the Pump uses its files no more, and may be called at any time.
func (p *Pump) Stop() {
	p.stopOnce.Do(func() { close(p.stop) })
	p.wake()
	<-p.done
}

// Drain is called after the process has exited: it delivers what has been
// written until now and ends the streams, even if a stray descendant of the
// process keeps a pipe open. It returns when Done is closed. A slow subscriber
// does not delay it.
func (p *Pump) Drain() {
	p.drainOnce.Do(func() { close(p.draining) })
	p.wake()
	<-p.done
}

func (p *Pump) wake() {
	for _, s := range p.streams {
		if s.src != nil {
			s.src.wake()
		}
	}
}

// Subscribe is Subscribe of the Pump's Hub.
func (p *Pump) Subscribe(stdout, stderr bool) *Subscription { return p.hub.Subscribe(stdout, stderr) }
