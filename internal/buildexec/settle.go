package buildexec

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	cmount "github.com/cleatlabs/cleat/internal/mount"
	"github.com/cleatlabs/cleat/internal/record"
)

// settling gets what steps have written onto the disk, behind their backs. The kernel would do it at the end of each
// step: to take an overlay down, it first writes out everything that is dirty on the filesystem below, be it others',
// while the step waits. A volatile overlay leaves that out, and the syncs that a step's own programs ask for, too (a
// package manager asks for thousands). Nothing is lost with that but by a crash of the machine, and what counts then is
// that the engine names no image whose contents are not there: who is about to name one calls Settle.
type settling struct {
	log *slog.Logger

	turn  sync.Mutex // held while filesystems are synced: who comes meanwhile waits for that, and then for what has come since
	mu    sync.Mutex
	dirty map[uint64]*written // by device
	ahead sync.WaitGroup
	timer *time.Timer
	over  bool

	failed error                // held by turn; why something of it is not on the disk, nor ever will be
	sync   func(*written) error // nil for (*written).sync
}

// written is where steps have written on a filesystem.
type written struct {
	fd     int // of a directory there
	uppers []string
}

// settleTime is how long after the last step its filesystem is synced, if nobody asks before: a build's next step is
// not to compete with that.
const settleTime = 2 * time.Second

// wrote notes that a step has written to an overlay, and has ended.
func (s *settling) wrote(upper string) error {
	var st unix.Stat_t
	if err := unix.Stat(upper, &st); err != nil {
		return fmt.Errorf("%s: %w", upper, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.dirty[st.Dev]
	if w == nil {
		fd, err := unix.Open(upper, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("%s: %w", upper, err)
		}
		if s.dirty == nil {
			s.dirty = map[uint64]*written{}
		}
		w = &written{fd: fd}
		s.dirty[st.Dev] = w
	}
	if !slices.Contains(w.uppers, upper) {
		w.uppers = append(w.uppers, upper)
	}
	if !s.over {
		s.ahead.Go(func() { beginWriting(upper) })
	}
	switch {
	case s.over:
	case s.timer == nil:
		s.timer = time.AfterFunc(settleTime, s.background)
	default:
		s.timer.Reset(settleTime)
	}
	return nil
}

func (s *settling) background() {
	if err := s.settle(); err != nil {
		s.log.Warn("what build steps have written may not be on the disk", "error", err)
	}
}

// settle syncs the filesystems that were written to since it was last called. Once the disk has not
// taken something it fails for ever: see [record.Unwritten].
func (s *settling) settle() error {
	s.turn.Lock()
	defer s.turn.Unlock()
	s.mu.Lock()
	list := s.dirty
	s.dirty = nil
	s.mu.Unlock()
	var errs []error
	for dev, w := range list {
		err := s.syncOf(w)
		switch {
		case err == nil:
		case errors.Is(err, unix.EIO) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT): // for good
			if s.failed == nil {
				s.failed = record.Unwritten(w.uppers[0], err)
			}
		default: // it was not even tried, for want of descriptors perhaps: the next who asks is not to be told that it is there
			s.keep(dev, w)
			errs = append(errs, err)
			continue
		}
		errs = append(errs, unix.Close(w.fd))
	}
	return errors.Join(append(errs, s.failed)...)
}

// keep takes back what could not be synced.
func (s *settling) keep(dev uint64, w *written) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if since := s.dirty[dev]; since != nil {
		since.uppers = append(since.uppers, w.uppers...)
		unix.Close(w.fd)
		return
	}
	if s.dirty == nil {
		s.dirty = map[uint64]*written{}
	}
	s.dirty[dev] = w
}

func (s *settling) syncOf(w *written) error {
	if s.sync != nil {
		return s.sync(w)
	}
	return w.sync()
}

func (s *settling) close() error {
	s.mu.Lock()
	s.over = true
	if s.timer != nil {
		s.timer.Stop()
	}
	s.mu.Unlock()
	s.ahead.Wait()
	return s.settle()
}

// Settle returns when everything that steps have written until now is on the disk. It is for who gives a name to what
// they have made.
func (e *Executor) Settle() error {
	if err := e.settling.settle(); err != nil {
		return fmt.Errorf("what build steps have written is not on the disk: %w", err)
	}
	return nil
}

// volatile makes an overlay that is never synced. Its mark goes at once: it would keep others from mounting the
// directories again, also after the engine was killed.
func volatile(o cmount.Overlay, mount func(cmount.Overlay) (int, error)) (int, error) {
	o.Volatile = true
	fd, err := mount(o)
	if err != nil {
		return -1, err
	}
	if err := o.ForgetVolatile(); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// Wrote has Settle see to a directory of a layer, too, that no step has written to.
func (e *Executor) Wrote(dir string) error { return e.settling.wrote(dir) }
