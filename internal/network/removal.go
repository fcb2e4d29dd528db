package network

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/netlink"
	"github.com/cleatlabs/cleat/internal/record"
	"github.com/cleatlabs/cleat/internal/supervise"
)

// removals delete the bridges of networks that are no more. The kernel takes 30 to 60 ms for one, or for many at once,
// as it waits until no processor looks at them any more; nobody has to wait for that with it. Before, the bridge is set
// down, which takes its routes away: its subnet is free for other networks. A note on the disk, which was the network's
// record, says that the bridge is to go until it has: an engine that dies in between leaves it to the next. One that
// cannot be deleted is tried again: with the next that is to go, and after pauses.
type removals struct {
	remove func([]*Record) []error
	wake   chan struct{}
	ended  chan struct{} // closed when nobody is left to do it

	mu      sync.Mutex
	pending []*removal
	closed  bool // nobody is left to do it
}

// The pauses between attempts double from the first to the last.
const (
	firstRetry = time.Second
	lastRetry  = 5 * time.Minute
)

// removal is that of one bridge.
type removal struct {
	rec   *Record
	tried chan struct{} // closed when the next attempt has ended
	err   error         // of the last attempt
}

func newRemovals(group *supervise.Group, remove func([]*Record) []error) *removals {
	r := &removals{remove: remove, wake: make(chan struct{}, 1), ended: make(chan struct{})}
	group.Go("network-removals", r.run)
	return r
}

// add has a bridge deleted that is down and of which there is a note.
func (r *removals) add(rec *Record) {
	r.mu.Lock()
	closed := r.closed
	if !closed {
		r.pending = append(r.pending, &removal{rec: rec, tried: make(chan struct{})})
	}
	r.mu.Unlock()
	if closed {
		r.remove([]*Record{rec}) // what fails has its note, for the next engine
		return
	}
	r.stir()
}

// stir has those that are pending tried now.
func (r *removals) stir() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// await waits until no bridge of that name is about to go, or the engine ends. One that cannot be deleted is tried once
// more, and then the error says why.
func (r *removals) await(ctx context.Context, link string) error {
	for tries := 0; ; tries++ {
		r.mu.Lock()
		i := slices.IndexFunc(r.pending, func(p *removal) bool { return p.rec.Link == link })
		if i < 0 || r.closed {
			r.mu.Unlock()
			return nil
		}
		tried, err := r.pending[i].tried, r.pending[i].err
		r.mu.Unlock()
		if err != nil && tries > 0 {
			return err
		}
		r.stir()
		select {
		case <-tried:
		case <-r.ended:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// warnings name those that could not be deleted so far.
func (r *removals) warnings() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, p := range r.pending {
		if p.err != nil {
			out = append(out, p.err.Error()+"; it is tried again")
		}
	}
	return out
}

// run deletes what there is to delete, also what is left at the end.
func (r *removals) run(ctx context.Context) {
	retry := time.NewTimer(0)
	defer retry.Stop()
	for pause := firstRetry; ; {
		select {
		case <-r.wake: // what it was for is tried now
		default:
		}
		if r.attempt() {
			pause = firstRetry
			retry.Stop()
		} else {
			retry.Reset(pause)
			pause = min(2*pause, lastRetry)
		}
		select {
		case <-r.wake:
		case <-retry.C:
		case <-ctx.Done():
			r.finish()
			return
		}
	}
}

// attempt tries to delete all that are pending, and says whether all have gone.
func (r *removals) attempt() bool {
	r.mu.Lock()
	all := slices.Clone(r.pending)
	r.mu.Unlock()
	if len(all) == 0 {
		return true
	}
	var recs []*Record
	for _, one := range all {
		recs = append(recs, one.rec)
	}
	errs := r.remove(recs)
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, one := range all {
		close(one.tried)
		one.tried, one.err = make(chan struct{}), errs[i]
		if errs[i] == nil {
			r.pending = slices.DeleteFunc(r.pending, func(p *removal) bool { return p == one })
		}
	}
	return errors.Join(errs...) == nil
}

// finish tries all once more, and those that come meanwhile.
func (r *removals) finish() {
	untried := func(p *removal) bool { return p.err == nil }
	for {
		r.attempt()
		r.mu.Lock()
		r.closed = !slices.ContainsFunc(r.pending, untried)
		closed := r.closed
		r.mu.Unlock()
		if closed {
			close(r.ended)
			return
		}
	}
}

// removeBridges deletes the bridges of networks that are no more, and then the notes of them; what is not nil of the
// errors, one for each, is why one is still there. One that is up is somebody else's, who has taken the name since.
func removeBridges(conn *netlink.Conn, records records, recs []*Record) []error {
	if len(recs) == 0 {
		return nil
	}
	group := rand.Uint32() | 1<<31 // nobody else's: the default one is 0, and people count from there
	errs := make([]error, len(recs))
	var members []int
	for i, rec := range recs {
		link, err := conn.LinkByName(rec.Link)
		if err == nil && link.Kind == "bridge" && !link.Up {
			members = append(members, i)
			err = conn.Do(netlink.SetGroup(rec.Link, group))
		}
		errs[i] = stillThere(rec, err)
	}
	if len(members) > 0 && conn.Do(netlink.DeleteGroup(group)) != nil {
		// Each on its own, so that one does not keep the others.
		for _, i := range members {
			errs[i] = stillThere(recs[i], conn.Do(netlink.DeleteLink(recs[i].Link)))
		}
	}
	record.Failpoint("network.rm.after-link")
	for i, rec := range recs {
		if errs[i] == nil {
			errs[i] = records.forget(rec)
		}
	}
	return errs
}

func stillThere(rec *Record, err error) error {
	if err == nil || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return fmt.Errorf("bridge %s of network %s, which was removed, is still there: %w", rec.Link, rec.Name, err)
}

// sweepRemoved deletes the bridges that an engine before was about to. What cannot be deleted now is left to removals.
func (s *Service) sweepRemoved() error {
	all, err := s.records.removed()
	if err != nil {
		return err
	}
	for i, err := range removeBridges(s.host.conn, s.records, all) {
		if err != nil {
			s.undeleted = append(s.undeleted, all[i])
		}
	}
	return nil
}

// quiet sets the bridge down, on the way to its removal. One that is gone is no error.
func (b *bridge) quiet() error {
	err := b.host.conn.Do(netlink.SetDownNamed(b.name()))
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("bridge %q: %w", b.name(), err)
	}
	return nil
}
