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

// removals delete links of the host that are of no use any more. One that cannot be deleted is tried again: with the
// next that is to go, and after pauses. There are those of bridges, and those of containers' links on the host and inside.
//
// A bridge goes behind the removal of its network: the kernel takes 30 to 60 ms for one, or for many at once, as it
// waits until no processor looks at them any more; nobody has to wait for that with it. Before, the bridge is set down,
// which takes its routes away: its subnet is free for other networks. A note on the disk, which was the network's
// record, says that the bridge is to go until it has: an engine that dies in between leaves it to the next, as it does a
// container's link, which the next finds to be nobody's.
type removals[T any] struct {
	link   func(T) string // its name
	remove func([]T) []error
	wake   chan struct{}
	ended  chan struct{} // closed when nobody is left to do it

	mu      sync.Mutex
	pending []*removal[T]
	closed  bool // nobody is left to do it
}

// The pauses between attempts double from the first to the last.
const (
	firstRetry = time.Second
	lastRetry  = 5 * time.Minute
)

// removal is that of one link.
type removal[T any] struct {
	what  T
	tried chan struct{} // closed when the next attempt has ended
	err   error         // of the last attempt
}

// newRemovals deletes by a function that gives an error for each, in the order that it was given them.
func newRemovals[T any](group *supervise.Group, name string, link func(T) string, remove func([]T) []error) *removals[T] {
	r := &removals[T]{link: link, remove: remove, wake: make(chan struct{}, 1), ended: make(chan struct{})}
	group.Go(name, r.run)
	return r
}

// newBridgeRemovals are those of bridges that are down and of which there are notes.
func newBridgeRemovals(group *supervise.Group, remove func([]*Record) []error) *removals[*Record] {
	return newRemovals(group, "network-removals", func(rec *Record) string { return rec.Link }, remove)
}

// newLinkRemovals are those of containers' links, by name.
func newLinkRemovals(group *supervise.Group, remove func([]string) []error) *removals[string] {
	return newRemovals(group, "network-link-removals", func(name string) string { return name }, remove)
}

// newInnerRemovals are those of links inside containers' namespaces.
func newInnerRemovals(group *supervise.Group, remove func([]*innerLink) []error) *removals[*innerLink] {
	return newRemovals(group, "network-inner-link-removals", func(l *innerLink) string { return l.name }, remove)
}

// add has one deleted.
func (r *removals[T]) add(what T) {
	r.mu.Lock()
	closed := r.closed
	if !closed {
		r.pending = append(r.pending, &removal[T]{what: what, tried: make(chan struct{})})
	}
	r.mu.Unlock()
	if closed {
		r.remove([]T{what}) // what fails is left to the next engine
		return
	}
	r.stir()
}

// now deletes some before it returns. Its error is about those that are still there, and tried again.
func (r *removals[T]) now(all []T) error {
	var errs []error
	for i, err := range r.remove(all) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%w; it is tried again", err))
			r.add(all[i])
		}
	}
	return errors.Join(errs...)
}

// all are those that are pending.
func (r *removals[T]) all() []T {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []T
	for _, p := range r.pending {
		all = append(all, p.what)
	}
	return all
}

// stir has those that are pending tried now.
func (r *removals[T]) stir() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// await waits until no link of that name is about to go, or the engine ends. One that cannot be deleted is tried once
// more, and then the error says why.
func (r *removals[T]) await(ctx context.Context, link string) error {
	for tries := 0; ; tries++ {
		r.mu.Lock()
		i := slices.IndexFunc(r.pending, func(p *removal[T]) bool { return r.link(p.what) == link })
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
func (r *removals[T]) warnings() []string {
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
func (r *removals[T]) run(ctx context.Context) {
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
func (r *removals[T]) attempt() bool {
	r.mu.Lock()
	all := slices.Clone(r.pending)
	r.mu.Unlock()
	if len(all) == 0 {
		return true
	}
	var what []T
	for _, one := range all {
		what = append(what, one.what)
	}
	errs := r.remove(what)
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, one := range all {
		close(one.tried)
		one.tried, one.err = make(chan struct{}), errs[i]
		if errs[i] == nil {
			r.pending = slices.DeleteFunc(r.pending, func(p *removal[T]) bool { return p == one })
		}
	}
	return errors.Join(errs...) == nil
}

// finish tries all once more, and those that come meanwhile.
func (r *removals[T]) finish() {
	untried := func(p *removal[T]) bool { return p.err == nil }
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
	all, damaged, err := s.records.removed()
	if err != nil {
		return err
	}
	for _, d := range damaged {
		s.warn(fmt.Sprintf("the bridge of a network that was removed may still be there, as br- and the first 12 digits of the name of this file: %v: delete both", d))
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
