package network

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cleatlabs/cleat/internal/firewalld"
	"github.com/cleatlabs/cleat/internal/nft"
)

// lastZoneRetry bounds the pause between tries: containers may be cut off until firewalld has taken their bridge in.
const lastZoneRetry = 20 * time.Second

// zonePatience bounds what a change of the bridges waits for firewalld, which takes some 10 ms where nothing is wrong.
const zonePatience = 500 * time.Millisecond

// zone keeps the bridges in a zone of the host's firewalld, if it has one. What firewalld refuses or has no time for, as
// when it is still starting, is told of and tried again, after pauses as those of removals. Only keepZone speaks to it:
// nobody waits for one that hangs.
type zone struct {
	// failed is what is wrong with the links that have not joined; nil if nothing. Who asks does not wait for firewalld.
	failed   atomic.Pointer[string]
	wake     chan struct{}
	patience time.Duration // how long change waits

	mu      sync.Mutex
	kept    bool            // by keepZone, which is connected
	waiting []chan struct{} // closed when an attempt has ended that begins from now on

	// keepZone's alone.
	client *firewalld.Client
	joined []string // links that have joined
	retry  *time.Timer
	pause  time.Duration
}

// keepZone has the bridges join when firewalld starts or is reloaded and when there are others, until ctx ends.
func (s *Service) keepZone(ctx context.Context) {
	c, err := firewalld.Dial(ctx)
	if errors.Is(err, firewalld.ErrNoBus) {
		return
	}
	if err != nil {
		s.warn(fmt.Sprintf("firewalld, if this host has it, cannot be told of the bridges: %v", err))
		return
	}
	defer c.Close()
	z := &s.zone
	z.client, z.retry = c, time.AfterFunc(lastZoneRetry, z.stir)
	z.keep(true)
	defer func() {
		z.retry.Stop()
		z.failed.Store(nil)
		z.keep(false)
	}()
	for forgotten, open := true, true; open; forgotten, open = c.Await(ctx, z.wake) {
		if forgotten {
			z.joined, z.pause = nil, firstRetry
		}
		s.joinZone(ctx)
	}
}

// keep says whether there is anybody to wait for.
func (z *zone) keep(kept bool) {
	z.mu.Lock()
	z.kept = kept
	z.mu.Unlock()
	if !kept {
		z.tell(z.begin())
	}
}

// begin is who waits for the attempt that begins now.
func (z *zone) begin() []chan struct{} {
	z.mu.Lock()
	defer z.mu.Unlock()
	waiting := z.waiting
	z.waiting = nil
	return waiting
}

func (z *zone) tell(waiting []chan struct{}) {
	for _, w := range waiting {
		close(w)
	}
}

// stir has keepZone look.
func (z *zone) stir() {
	select {
	case z.wake <- struct{}{}:
	default:
	}
}

// change has the bridges that are there join, and those that are gone leave; it waits for that as long as firewalld
// usually takes, and for one that has failed last not at all.
func (z *zone) change() {
	z.mu.Lock()
	if !z.kept {
		z.mu.Unlock()
		return
	}
	done := make(chan struct{})
	z.waiting = append(z.waiting, done)
	z.mu.Unlock()
	z.stir()
	if z.failed.Load() != nil {
		return
	}
	select {
	case <-done:
	case <-time.After(z.patience):
	}
}

// joinZone has the bridges that are there join, and those that are gone leave.
func (s *Service) joinZone(ctx context.Context) {
	z := &s.zone
	defer z.tell(z.begin())
	err := z.follow(ctx, s.bridges())
	switch {
	case ctx.Err() != nil:
	case err == nil:
		z.failed.Store(nil)
		z.pause = firstRetry
		z.retry.Stop()
	default:
		said := err.Error() + "; it is tried again"
		z.failed.Store(&said)
		z.retry.Reset(z.pause)
		z.pause = min(2*z.pause, lastZoneRetry)
	}
}

// follow has those links join, and others leave. A firewalld that does not answer is asked no more.
func (z *zone) follow(ctx context.Context, links []string) error {
	var errs []error
	tell := func(link string, do func(context.Context, string) error) (done bool) {
		if len(errs) > 0 && errors.Is(errs[len(errs)-1], context.DeadlineExceeded) {
			return false
		}
		err := do(ctx, link)
		if err != nil {
			errs = append(errs, fmt.Errorf("bridge %s: %w", link, err))
		}
		return err == nil
	}
	for _, link := range slices.Clone(z.joined) {
		if !slices.Contains(links, link) && tell(link, z.client.Leave) {
			z.joined = slices.DeleteFunc(z.joined, func(l string) bool { return l == link })
		}
	}
	for _, link := range links {
		if !slices.Contains(z.joined, link) && tell(link, z.client.Join) {
			z.joined = append(z.joined, link)
		}
	}
	return errors.Join(errs...)
}

// warnings name what firewalld was told in vain so far.
func (z *zone) warnings() []string {
	if said := z.failed.Load(); said != nil {
		return []string{*said}
	}
	return nil
}

// leaveZone is for Teardown.
func (s *Service) leaveZone(ctx context.Context) error {
	c, err := firewalld.Dial(ctx)
	if errors.Is(err, firewalld.ErrNoBus) {
		return nil
	}
	if err != nil {
		return err
	}
	defer c.Close()
	var errs []error
	for _, b := range s.bridges() {
		errs = append(errs, c.Leave(ctx, b))
	}
	return errors.Join(errs...)
}

// bridgesChanged tells the host's firewall of a bridge that has come or gone.
func (s *Service) bridgesChanged() {
	s.zone.change()
	if !s.cfg.FirewallIntegrate {
		return
	}
	if err := nft.Integrate(s.forwarded(), s.table.Name()); err != nil {
		s.warn(fmt.Sprintf("the host's firewall could not be integrated with: %v", err))
	}
}
