package stdio

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// stream copies one output stream. Its goroutine owns it, except that what
// belongs to the log (journal.committed, Pump.progress) is changed under
// Pump.mu.
type stream struct {
	p   *Pump
	id  Stream
	src *source
	jnl *journal // nil until the first output, and in direct mode

	// Direct mode: there is no Sink, no Dir, or the journal failed.
	direct  bool
	count   int64  // bytes taken so far: the position in direct mode
	pending []byte // the unfinished line, if there is a Sink
}

func (s *stream) index() int { return int(s.id) - 1 }

func (s *stream) journalPath() string { return filepath.Join(s.p.cfg.Dir, s.id.String()+".journal") }

// run copies until the end of the stream or a stop; it reports whether the end
// was reached.
func (s *stream) run() (ended bool) {
	for {
		err := s.step()
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			if isClosed(s.p.stop) {
				return false
			}
			s.src.drain()
		case errors.Is(err, os.ErrClosed):
			return false
		case errors.Is(err, io.EOF):
			s.finish()
			return true
		default:
			// Nothing can be read from this file any more; the process finds
			// its pipe closed as it would after any reader's death.
			s.p.report(s.id, 0, fmt.Errorf("read %s: %w", s.id, err))
			s.finish()
			return true
		}
	}
}

// step copies one batch.
func (s *stream) step() error {
	if s.direct {
		return s.stepDirect()
	}
	if s.jnl == nil {
		if err := s.src.peek(); err != nil {
			return err
		}
		if err := s.open(); err != nil {
			s.fallBack(err)
			return nil
		}
	}
	return s.stepJournal()
}

// open makes the journal at the first output.
func (s *stream) open() error {
	if err := s.p.ensureState(); err != nil {
		return err
	}
	j, err := openJournal(s.journalPath(), true)
	if err != nil {
		return err
	}
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	s.jnl = j
	if s.p.progress.pos[s.index()] == 0 {
		return nil
	}
	// The journal of an earlier engine could not be used: this one starts anew.
	s.p.progress.pos[s.index()] = 0
	return s.p.saveState()
}

func (s *stream) stepJournal() error {
	j := s.jnl
	before := j.pending()
	n, err := s.src.take(bufferSize-before, func(fd, limit int) (int, error) {
		var n int
		var err error
		if s.src.tty {
			n, err = j.read(fd, limit)
		} else {
			n, err = j.splice(fd, limit)
		}
		if err == unix.EAGAIN {
			j.release(pageSize) // about to wait: give memory back
		}
		return n, err
	})
	switch {
	case err == nil:
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, os.ErrClosed), errors.Is(err, io.EOF):
		return err
	default: // the tmpfs is full
		s.fallBack(err)
		return nil
	}
	return s.deliver(before, n, false)
}

// deliver hands the newest n bytes of the journal to the live clients, and
// them and the unfinished line before them to the log.
func (s *stream) deliver(before, n int, last bool) error {
	buf := s.p.pool.Get()
	defer s.p.pool.Put(buf)
	all := (*buf)[:before+n]
	fresh := all[before:]
	j := s.jnl
	if err := j.readAt(fresh, j.committed+int64(before)); err != nil {
		return s.unreadable(err)
	}
	s.p.hub.write(s.id, j.size.Load()-int64(n), fresh, s.p.draining, s.p.stop)
	if !last && len(all) < MaxLine && bytes.IndexByte(fresh, '\n') < 0 {
		return nil // still the same line
	}
	if err := j.readAt(all[:before], j.committed); err != nil {
		return s.unreadable(err)
	}
	s.log(all, last)
	j.release(punchStep)
	return nil
}

// unreadable gives up what is in the journal, which cannot be read back.
func (s *stream) unreadable(err error) error {
	s.p.mu.Lock()
	n := s.jnl.pending()
	s.jnl.committed = s.jnl.size.Load()
	s.p.mu.Unlock()
	s.p.report(s.id, n, err)
	return nil
}

// log appends the whole lines of p, the uncommitted part of the journal, and
// records it.
func (s *stream) log(p []byte, last bool) {
	s.p.append(s.id, p, last, func(n int) {
		s.jnl.committed += int64(n)
		s.p.progress.pos[s.index()] = s.jnl.committed
	})
}

// replay logs what a killed engine had taken out of the stream but not logged.
// It is not for live clients: they may have seen it.
func (s *stream) replay(last bool) error {
	j := s.jnl
	buf := s.p.pool.Get()
	defer s.p.pool.Put(buf)
	for j.pending() > 0 {
		all := (*buf)[:min(j.pending(), bufferSize)]
		if err := j.readAt(all, j.committed); err != nil {
			return s.unreadable(err)
		}
		before := j.committed
		s.log(all, last && len(all) == j.pending())
		if j.committed == before {
			return nil // an unfinished line
		}
	}
	return nil
}

// finish logs an unfinished last line.
func (s *stream) finish() {
	if s.p.cfg.Sink == nil {
		return
	}
	if s.jnl != nil {
		_ = s.replay(true)
	}
	if len(s.pending) > 0 {
		s.logDirect(nil, true)
	}
}

// fallBack goes on without a journal: output still reaches the log and the
// clients, but a SIGKILL of the engine may now lose what is in its memory.
func (s *stream) fallBack(err error) {
	s.p.report(s.id, 0, fmt.Errorf("the output of the process is not protected against a crash of the engine: %w", err))
	s.direct = true
	if s.jnl == nil {
		return
	}
	s.count = s.jnl.size.Load()
	rest := make([]byte, s.jnl.pending())
	if err := s.jnl.readAt(rest, s.jnl.committed); err != nil {
		_ = s.unreadable(err)
		return
	}
	s.pending = rest
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	s.jnl.committed = s.jnl.size.Load()
	s.p.progress.pos[s.index()] = s.jnl.size.Load()
	s.jnl.close()
	s.jnl = nil
}

func (s *stream) stepDirect() error {
	var buf *[]byte
	n, err := s.src.take(bufferSize, func(fd, limit int) (int, error) {
		if buf == nil {
			buf = s.p.pool.Get()
		}
		n, err := unix.Read(fd, (*buf)[:min(limit, len(*buf))])
		if err == unix.EAGAIN { // about to wait: hold no buffer
			s.p.pool.Put(buf)
			buf = nil
		}
		return n, err
	})
	if buf == nil {
		return err
	}
	defer s.p.pool.Put(buf)
	if err != nil {
		return err
	}
	fresh := (*buf)[:n]
	s.p.hub.write(s.id, s.count, fresh, s.p.draining, s.p.stop)
	s.count += int64(n)
	if s.p.cfg.Sink != nil {
		s.logDirect(fresh, false)
	}
	return nil
}

func (s *stream) logDirect(fresh []byte, last bool) {
	all := fresh
	if len(s.pending) > 0 {
		s.pending = append(s.pending, fresh...)
		all = s.pending
	}
	n := s.p.append(s.id, all, last, func(int) {})
	if n == len(all) {
		s.pending = nil
		return
	}
	s.pending = append([]byte(nil), all[n:]...)
}

// catchUp gives a new subscription what was taken out of the stream but is not
// in the log, and notes where it goes on; Pump.mu and sub.mu are held.
func (s *stream) catchUp(sub *Subscription) error {
	if s.jnl == nil {
		return nil
	}
	size := s.jnl.size.Load()
	b := make([]byte, size-s.jnl.committed)
	if err := s.jnl.readFile(b, s.jnl.committed); err != nil {
		return err
	}
	sub.next[s.id] = size
	if len(b) > 0 && sub.want[s.id] {
		sub.add(s.id, b)
	}
	return nil
}

// close closes the stream's files and, when everything is delivered, removes
// the journal.
func (s *stream) close(remove bool) {
	s.p.mu.Lock()
	if s.jnl != nil {
		s.jnl.close()
		s.jnl = nil
	}
	s.p.mu.Unlock()
	if remove && s.p.journalled() {
		_ = unix.Unlink(s.journalPath())
	}
	if s.src != nil {
		s.src.close()
	}
}
