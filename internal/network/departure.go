package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/netlink"
	"github.com/cleatlabs/cleat/internal/supervise"
)

// departure is the way of a container's addresses back to their pools. The container has
// ended, or left a network, but its namespace lasts for a while: for some milliseconds, or for as long as the
// kernel still has something to send for it. In that time it answers who asks for its
// addresses, and refuses connections: the next container that has one of them would be
// taken for it. So an address is free when the link is gone or, if somebody is to have the
// address before that, when nothing that comes from the link is heard any more.
type departure struct {
	endpoints []*Endpoint
	inner     *os.File      // the namespace, or nil: see attachment.inner
	done      chan struct{} // the addresses are free

	// Guarded by departures.mu.
	links map[string]bool // the host's ends that are still there
	taken bool            // somebody is about to free the addresses
	known bool            // mute was found out
	mute  bool            // nothing ever came from its links
}

// departures are those that are under way.
type departures struct {
	mute    func(link string) bool         // says whether nothing ever came from a link
	silence func(of *departure, mute bool) // has nothing heard of it any more
	release func(*departure)               // frees the addresses
	wake    chan struct{}

	mu     sync.Mutex
	all    []*departure
	fresh  []*departure // whose links nobody has looked for yet
	links  map[string]*departure
	silent []*departure // whose links are gone
}

func newDepartures(group *supervise.Group, mute func(string) bool, silence func(*departure, bool), release func(*departure)) *departures {
	d := &departures{mute: mute, silence: silence, release: release, wake: make(chan struct{}, 1), links: map[string]*departure{}}
	group.Go("network-departures", d.run)
	return d
}

// add begins a departure.
func (d *departures) add(of *departure) {
	of.done, of.links = make(chan struct{}), map[string]bool{}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range of.endpoints {
		if e.Link != "" {
			of.links[e.Link], d.links[e.Link] = true, of
		}
	}
	d.all, d.fresh = append(d.all, of), append(d.fresh, of)
	d.stir()
}

// stir has run look. The caller holds d.mu.
func (d *departures) stir() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// gone says that a link of the host is no longer there.
func (d *departures) gone(link string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	of := d.links[link]
	if of == nil {
		return
	}
	delete(d.links, link)
	delete(of.links, link)
	if len(of.links) == 0 {
		d.silent = append(d.silent, of)
		d.stir()
	}
}

// missed says that links may have gone unnoticed.
func (d *departures) missed() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fresh = slices.Clone(d.all)
	d.stir()
}

// list is those that are not done.
func (d *departures) list() []*departure {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.all)
}

func (d *departures) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.wake:
			d.pass()
		}
	}
}

// pass looks which of the links are gone already, and frees the addresses of those of which
// nothing is left.
func (d *departures) pass() {
	d.mu.Lock()
	fresh := d.fresh
	d.fresh = nil
	d.mu.Unlock()
	for _, of := range fresh {
		d.look(of)
		for _, e := range of.endpoints {
			if e.Link != "" && !linkExists(e.Link) {
				d.gone(e.Link)
			}
		}
		d.mu.Lock()
		ready := len(of.links) == 0
		d.mu.Unlock()
		// One that has a namespace at hand would keep it from going by itself.
		if ready || of.inner != nil {
			d.finish(of)
		}
	}
	d.mu.Lock()
	silent := d.silent
	d.silent = nil
	d.mu.Unlock()
	for _, of := range silent {
		d.finish(of)
	}
}

// look finds out, while the links are there, whether anything ever came from them.
func (d *departures) look(of *departure) (mute bool) {
	d.mu.Lock()
	known, mute := of.known, of.mute
	of.known = true
	d.mu.Unlock()
	if known {
		return mute
	}
	mute = !slices.ContainsFunc(of.endpoints, func(e *Endpoint) bool { return !d.mute(e.Link) })
	d.mu.Lock()
	of.mute = mute
	d.mu.Unlock()
	return mute
}

// finish ends a departure now, whether its links are gone or not.
func (d *departures) finish(of *departure) {
	d.mu.Lock()
	taken := of.taken
	of.taken = true
	d.mu.Unlock()
	if taken {
		return
	}
	d.silence(of, d.look(of))
	if of.inner != nil {
		of.inner.Close()
	}
	d.release(of)
	d.mu.Lock()
	for link := range of.links {
		delete(d.links, link)
	}
	d.all = slices.DeleteFunc(d.all, func(o *departure) bool { return o == of })
	d.mu.Unlock()
	close(of.done)
}

// linkExists asks without waiting for the kernel's one lock for links, which the end of a
// namespace holds for milliseconds.
func linkExists(name string) bool {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return true
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(name)
	return err != nil || !errors.Is(unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, req), unix.ENODEV)
}

// depart begins the departure of a container's endpoints. The caller holds s.mu.
func (s *Service) depart(a *attachment, endpoints []*Endpoint) {
	of := &departure{inner: a.inner}
	a.inner = nil
	s.begin(of, endpoints)
}

// retire begins the departure of one endpoint of a container that lives on.
func (s *Service) retire(a *attachment, e *Endpoint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(a.options, e.NetworkID)
	if s.part(a.sandbox.ContainerID, e) {
		s.begin(&departure{}, []*Endpoint{e})
	}
}

// begin has a departure take its course. The caller holds s.mu.
func (s *Service) begin(of *departure, endpoints []*Endpoint) {
	for _, e := range endpoints {
		n := s.networks[e.NetworkID]
		if n.drv == nil || !e.IP.IsValid() && !e.IP6.IsValid() {
			continue
		}
		for _, ip := range []netip.Addr{e.IP, e.IP6} {
			if ip.IsValid() {
				n.addrs.leave(ip)
			}
		}
		of.endpoints = append(of.endpoints, e)
	}
	if len(of.endpoints) > 0 {
		s.leaving.add(of)
	} else if of.inner != nil {
		of.inner.Close()
	}
}

// silence has nothing heard any more of a container that has ended, nor of those who talked
// to it: of a mute one, nobody has got an answer.
func (s *Service) silence(of *departure, mute bool) {
	ns := -1
	if of.inner != nil {
		ns = int(of.inner.Fd())
	}
	var errs []error
	for _, e := range of.endpoints {
		d := s.driverOf(e)
		if d == nil {
			continue
		}
		errs = append(errs, d.silence(ns, e))
		if d.outside() || mute {
			continue // the host tracks nothing of it, and to look for it is to look through all that it tracks
		}
		for _, ip := range []netip.Addr{e.IP, e.IP6} {
			if ip.IsValid() {
				errs = append(errs, s.flows.ForgetAddress(ip))
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		s.warn(fmt.Sprintf("an ended container may still be heard on its network for a moment: %v", err))
	}
}

// release frees the addresses of a container of which nothing is heard any more.
func (s *Service) release(of *departure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range of.endpoints {
		if n := s.networks[e.NetworkID]; n != nil {
			n.give(e)
		}
	}
}

// awaitReturns frees addresses which are on their way back and which one of these endpoints
// is to have: that it names, or that is the lowest.
func (s *Service) awaitReturns(ctx context.Context, wants []EndpointRequest) error {
	for _, of := range s.leaving.list() {
		if !s.awaits(wants, of) {
			continue
		}
		s.leaving.finish(of)
		select {
		case <-of.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (s *Service) awaits(wants []EndpointRequest, of *departure) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range wants {
		n, err := s.wanted(&wants[i])
		if err != nil || n.drv == nil {
			continue // joining it says what is wrong
		}
		for _, e := range of.endpoints {
			if e.NetworkID == n.rec.ID && (n.awaits(wants[i].IP, e.IP) || n.awaits(wants[i].IP6, e.IP6)) {
				return true
			}
		}
	}
	return false
}

// awaits says whether an endpoint that wants an address, or any, is to have one that is
// leaving.
func (n *netw) awaits(want, leaving netip.Addr) bool {
	switch {
	case !leaving.IsValid():
		return false
	case want.IsValid():
		return want == leaving
	}
	return n.addrs.prefers(leaving)
}

// silence has nothing heard of an ended container. The link itself goes with its namespace; to delete it would take a
// hundred times as long. One that the bridge does not let go of is deleted all the same, and tried again until it has
// gone: that is told of as long as it lasts.
func (b *bridge) silence(_ int, e *Endpoint) error {
	if e.Link != "" && linkExists(e.Link) && b.mute(e.Link) != nil {
		_ = b.host.unused.now([]string{e.Link})
	}
	return nil
}

// mute has the bridge take nothing more from a port and know no address behind it. A port that is gone is no error.
func (b *bridge) mute(link string) error {
	err := error(unix.EBUSY)
	if b.made {
		err = b.host.conn.Do(netlink.SilencePort(link))
	}
	if errors.Is(err, unix.EBUSY) {
		// The bridge decides about its ports itself, at once (STP) or some time later, as
		// it has a forward delay that is not ours to change. This takes longer.
		err = b.host.conn.Do(netlink.SetMaster(link, 0))
	}
	if err == nil || errors.Is(err, unix.ENODEV) {
		return nil // or the kernel was faster
	}
	return fmt.Errorf("silence a port of bridge %q: %w", b.name(), err)
}

// silence deletes the link: there is no port of the host that could be closed, and the parent takes no second link with
// the same hardware address. It is not tried again, for which its namespace, with which it goes, would have to be kept.
func (l *lan) silence(ns int, e *Endpoint) error {
	link, err := l.inner(ns, e)
	if link == nil || err != nil {
		return err
	}
	defer link.ns.Close()
	return l.host.deleteInner(link)
}
