package network

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/cleatlabs/cleat/internal/firewalld"
	"github.com/cleatlabs/cleat/internal/nft"
)

// zone keeps the bridges in a zone of the host's firewalld, if it has one.
type zone struct {
	mu     sync.Mutex
	client *firewalld.Client // nil: not connected
	joined []string          // links that were asked to join
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
	s.zone.mu.Lock()
	s.zone.client = c
	s.zone.mu.Unlock()
	defer func() {
		s.zone.mu.Lock()
		s.zone.client = nil
		s.zone.mu.Unlock()
	}()
	for again := true; again; again = c.Await(ctx) {
		s.zone.mu.Lock()
		s.zone.joined = nil // firewalld has forgotten them
		s.zone.mu.Unlock()
		s.joinZone(ctx)
	}
}

// joinZone has the bridges that are there join, and those that are gone leave.
func (s *Service) joinZone(ctx context.Context) {
	s.zone.mu.Lock()
	defer s.zone.mu.Unlock()
	if s.zone.client == nil {
		return
	}
	bridges := s.bridges()
	for _, b := range s.zone.joined {
		if !slices.Contains(bridges, b) {
			s.zoneError(ctx, b, s.zone.client.Leave(ctx, b))
		}
	}
	for _, b := range bridges {
		if !slices.Contains(s.zone.joined, b) {
			s.zoneError(ctx, b, s.zone.client.Join(ctx, b))
		}
	}
	s.zone.joined = bridges
}

func (s *Service) zoneError(ctx context.Context, bridge string, err error) {
	if err != nil && ctx.Err() == nil {
		s.warn(fmt.Sprintf("bridge %s: %v", bridge, err))
	}
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
