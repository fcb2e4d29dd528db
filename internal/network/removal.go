package network

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/netlink"
	"github.com/cleatlabs/cleat/internal/record"
	"github.com/cleatlabs/cleat/internal/supervise"
)

// removals delete the bridges of networks that are no more. The kernel takes 30 to 60 ms for one, or for many at once,
// as it waits until no processor looks at them any more; nobody has to wait for that with it. Before, the bridge is set
// down, which takes its routes away: its subnet is free for other networks. A note on the disk, which was the network's
// record, says that the bridge is to go until it has: an engine that dies in between leaves it to the next.
type removals struct {
	conn    *netlink.Conn // its own: others would wait for the kernel, too
	records records
	warn    func(string)
	wake    chan struct{}

	mu      sync.Mutex
	pending []*removal
	closed  bool // nobody is left to do it
}

// removal is that of one bridge.
type removal struct {
	rec  *Record
	done chan struct{} // it has gone, or cannot be removed
}

func newRemovals(group *supervise.Group, records records, warn func(string)) (*removals, error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	r := &removals{conn: conn, records: records, warn: warn, wake: make(chan struct{}, 1)}
	group.Go("network-removals", r.run)
	return r, nil
}

// add has a bridge deleted that is down and of which there is a note.
func (r *removals) add(rec *Record) {
	one := &removal{rec, make(chan struct{})}
	r.mu.Lock()
	closed := r.closed
	if !closed {
		r.pending = append(r.pending, one)
	}
	r.mu.Unlock()
	if closed {
		r.finish([]*removal{one})
		return
	}
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// await waits until no bridge of that name is about to go.
func (r *removals) await(ctx context.Context, link string) error {
	for {
		r.mu.Lock()
		i := slices.IndexFunc(r.pending, func(p *removal) bool { return p.rec.Link == link })
		if i < 0 {
			r.mu.Unlock()
			return nil
		}
		done := r.pending[i].done
		r.mu.Unlock()
		select {
		case <-done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// run deletes what there is to delete, also what is left at the end.
func (r *removals) run(ctx context.Context) {
	for {
		r.mu.Lock()
		all := slices.Clone(r.pending)
		r.closed = len(all) == 0 && ctx.Err() != nil
		r.mu.Unlock()
		switch {
		case len(all) > 0:
			r.finish(all)
			continue
		case ctx.Err() != nil:
			return
		}
		select {
		case <-ctx.Done():
		case <-r.wake:
		}
	}
}

func (r *removals) finish(all []*removal) {
	var recs []*Record
	for _, one := range all {
		recs = append(recs, one.rec)
	}
	if err := removeBridges(r.conn, r.records, recs); err != nil {
		r.warn(err.Error())
	}
	r.mu.Lock()
	r.pending = slices.DeleteFunc(r.pending, func(p *removal) bool { return slices.Contains(all, p) })
	r.mu.Unlock()
	for _, one := range all {
		close(one.done)
	}
}

// removeBridges deletes the bridges of networks that are no more, and then the notes of them. One that is up is somebody
// else's, who has taken the name since.
func removeBridges(conn *netlink.Conn, records records, recs []*Record) error {
	if len(recs) == 0 {
		return nil
	}
	group := rand.Uint32() | 1<<31 // nobody else's: the default one is 0, and people count from there
	members := 0
	for _, rec := range recs {
		link, err := conn.LinkByName(rec.Link)
		if err == nil && link.Kind == "bridge" && !link.Up {
			members++
			err = conn.Do(netlink.SetGroup(rec.Link, group))
		}
		if err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("bridge %s of network %s, which was removed, is still there: %w", rec.Link, rec.Name, err)
		}
	}
	if err := conn.Do(netlink.DeleteGroup(group)); err != nil && members > 0 && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("bridges of networks that were removed are still there: %w", err)
	}
	record.Failpoint("network.rm.after-link")
	var errs []error
	for _, rec := range recs {
		errs = append(errs, records.forget(rec))
	}
	return errors.Join(errs...)
}

// sweepRemoved deletes the bridges that an engine before was about to.
func (s *Service) sweepRemoved() error {
	all, err := s.records.removed()
	if err != nil {
		return err
	}
	if err := removeBridges(s.host.conn, s.records, all); err != nil {
		s.warn(err.Error())
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
