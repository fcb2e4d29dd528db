package logship

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cleatlabs/cleat/internal/logs"
	"github.com/cleatlabs/cleat/internal/logsend"
)

// shipment is the sending of one container's log, over all its runs. It is there from
// a start to when all is sent after the end. The service's lock guards what is not the
// goroutine's.
type shipment struct {
	s    *Service
	key  string // in the service
	id   string // of the container
	wake chan struct{}

	turns atomic.Uint64 // rotations of the log

	// Guarded by s.mu.
	config  logs.Config
	target  *logsend.Target
	next    logsend.Sender // made by a start; nil if there is none
	changed bool           // target is another one than the goroutine's
	ended   bool           // nothing more is written
	held    bool           // its log is being moved
	running bool
	begun   atomic.Bool // a goroutine was started, or was not to be

	// files is held while files are opened by name or renamed, never across the network.
	files sync.Mutex
	dir   string    // of a removed container's lines, "" before the removal
	until time.Time // when these are given up
	path  string    // of the log
}

// renew sets where lines go from now on. sender may be nil.
func (sh *shipment) renew(c logs.Config, t *logsend.Target, sender logsend.Sender) {
	sh.files.Lock()
	sh.path = c.Path
	sh.files.Unlock()
	sh.s.mu.Lock()
	stale := sh.next
	sh.config, sh.target, sh.next, sh.changed = c, t, sender, true
	sh.s.mu.Unlock()
	if stale != nil {
		_ = stale.Close()
	}
}

// begin sends what the log holds already, if there is any of it.
func (sh *shipment) begin() {
	sh.s.mu.Lock()
	c := sh.config
	sh.s.mu.Unlock()
	if unsent, err := logs.Unsent(c); err == nil && !unsent {
		return // the first line starts the goroutine
	}
	sh.poke()
}

// poke tells that something was written or has changed. It costs next to nothing
// while the goroutine runs.
func (sh *shipment) poke() {
	select {
	case sh.wake <- struct{}{}:
	default:
	}
	if sh.begun.Load() {
		return
	}
	sh.s.mu.Lock()
	defer sh.s.mu.Unlock()
	if !sh.running {
		sh.running = sh.s.tasks.Go("log delivery", sh.run)
		sh.begun.Store(true) // if not, the engine ends: the next one sends it
	}
}

// end tells that nothing more is written; what is there is still sent.
func (sh *shipment) end() {
	sh.s.mu.Lock()
	sh.ended = true
	sh.s.mu.Unlock()
	sh.poke()
}

// finish lets the goroutine go if all was written that will be. It reports whether
// that is so.
func (sh *shipment) finish() bool {
	sh.s.mu.Lock()
	defer sh.s.mu.Unlock()
	if !sh.ended || sh.held || len(sh.wake) > 0 {
		return false
	}
	sh.leave()
	if sh.s.byKey[sh.key] == sh {
		delete(sh.s.byKey, sh.key)
	}
	return true
}

// vanish is finish where the container's directory is gone: with it went what the goroutine was woken for.
func (sh *shipment) vanish() bool {
	select {
	case <-sh.wake:
	default:
	}
	return sh.finish()
}

// leave notes that the goroutine is over; s.mu is held.
func (sh *shipment) leave() {
	sh.running = false
	sh.begun.Store(false)
	if sh.next != nil {
		_ = sh.next.Close()
		sh.next = nil
	}
}

// current returns where lines go, and the sender that a start has made, once.
func (sh *shipment) current() (*logsend.Target, logsend.Sender, bool) {
	sh.s.mu.Lock()
	defer sh.s.mu.Unlock()
	changed, next := sh.changed, sh.next
	sh.changed, sh.next = false, nil
	return sh.target, next, changed
}

// position opens the note of how far the sending got.
func (sh *shipment) position() (*logs.PositionFile, logs.Position, logs.Config, error) {
	sh.s.mu.Lock()
	c := sh.config
	sh.s.mu.Unlock()
	sh.files.Lock()
	defer sh.files.Unlock()
	c.Path, c.Turns = sh.path, &sh.turns
	note, at, err := logs.OpenPosition(c)
	return note, at, c, err
}

// name is the container's, for messages.
func (sh *shipment) name() string {
	sh.s.mu.Lock()
	defer sh.s.mu.Unlock()
	return sh.config.ContainerName
}

// moveOut takes what is not sent yet of a container's log out of its directory.
func (sh *shipment) moveOut(c logs.Config) error {
	sh.files.Lock()
	defer sh.files.Unlock()
	if unsent, err := logs.Unsent(c); err == nil && !unsent {
		return nil
	}
	dir, err := pack(sh.s.dir, c)
	if err != nil {
		return err
	}
	if err := moveFiles(c, dir); err != nil {
		return errors.Join(err, discard(dir, c))
	}
	sh.dir, sh.until = dir, time.Now().Add(keepFor)
	sh.path = filepath.Join(dir, filepath.Base(c.Path))
	return nil
}

// run sends until all is sent after the end, or the engine ends.
func (sh *shipment) run(ctx context.Context) {
	d := &delivery{sh: sh, log: sh.s.log}
	defer d.close()
	if !d.open(ctx) {
		return
	}
	for !d.over {
		d.step(ctx)
	}
	if d.finished {
		sh.clear()
	}
}

// clear removes what is left of a removed container.
func (sh *shipment) clear() {
	sh.files.Lock()
	defer sh.files.Unlock()
	if sh.dir == "" {
		return
	}
	if err := os.RemoveAll(sh.dir); err != nil {
		sh.s.log.Warn("left-over lines of a removed container", "dir", sh.dir, "error", err)
	}
}
