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

// zone keeps the bridges in a zone of the host's firewalld, if it has one. What firewalld refuses or has no time for, as
// when it is still starting, is told of and tried again, after pauses as those of removals.
type zone struct {
	// failed is what is wrong with the links that have not joined; nil if nothing. Who asks does not wait for firewalld.
	failed atomic.Pointer[string]

	mu     sync.Mutex        // held while firewalld is told: one after another
	client *firewalld.Client // nil: not connected
	joined []string          // links that have joined
	retry  *time.Timer
	pause  time.Duration
}

// keepZone has the bridges join when firewalld starts or is reloaded, until ctx ends.
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
	z.mu.Lock()
	z.client, z.retry = c, time.NewTimer(lastZoneRetry)
	z.mu.Unlock()
	defer func() {
		z.mu.Lock()
		z.client = nil
		z.failed.Store(nil)
		z.retry.Stop()
		z.mu.Unlock()
	}()
	for forgotten, open := true, true; open; forgotten, open = c.Await(ctx, z.retry.C) {
		if forgotten {
			z.mu.Lock()
			z.joined, z.pause = nil, firstRetry
			z.mu.Unlock()
		}
		s.joinZone(ctx)
	}
}

// joinZone has the bridges that are there join, and those that are gone leave.
func (s *Service) joinZone(ctx context.Context) {
	z := &s.zone
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.client == nil {
		return
	}
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

// follow has those links join, and others leave. A firewalld that does not answer is asked no more. The caller holds z.mu.
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
	s.joinZone(s.group.Context())
	if !s.cfg.FirewallIntegrate {
		return
	}
	if err := nft.Integrate(s.forwarded(), s.table.Name()); err != nil {
		s.warn(fmt.Sprintf("the host's firewall could not be integrated with: %v", err))
	}
}
