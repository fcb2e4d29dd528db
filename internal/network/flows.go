package network

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/cleatlabs/cleat/internal/nft"
	"github.com/cleatlabs/cleat/internal/supervise"
)

// forgetter has connection tracking forget flows to UDP ports that were published or
// freed: a client that sent before has an entry that leads elsewhere, which would last as
// long as it goes on sending. The kernel has to look through all that it tracks for that,
// some milliseconds of work, so it is done behind the verbs' backs and for all at once
// that have come together.
type forgetter struct {
	do   func([]nft.Publish)
	wake chan struct{}

	mu      sync.Mutex
	waiting []nft.Publish
}

func newForgetter(group *supervise.Group, do func([]nft.Publish)) *forgetter {
	f := &forgetter{do: do, wake: make(chan struct{}, 1)}
	group.Go("network-flows", f.run)
	return f
}

// forget asks for the flows to these ports to be forgotten.
func (f *forgetter) forget(ports []nft.Publish) {
	udp := slices.DeleteFunc(slices.Clone(ports), func(p nft.Publish) bool { return p.Proto != nft.UDP || p.Open })
	if len(udp) == 0 {
		return
	}
	f.mu.Lock()
	f.waiting = append(f.waiting, udp...)
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *forgetter) run(ctx context.Context) {
	defer f.pass() // what came last is not left over
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.wake:
			f.pass()
		}
	}
}

func (f *forgetter) pass() {
	f.mu.Lock()
	ports := f.waiting
	f.waiting = nil
	f.mu.Unlock()
	if len(ports) > 0 {
		f.do(ports)
	}
}

// forgetNow drops what connection tracking knows about UDP ports.
func (s *Service) forgetNow(ports []nft.Publish) {
	addrs, err := s.host.conn.Addrs()
	local := map[netip.Addr]bool{}
	for _, a := range addrs {
		local[a.Prefix.Addr()] = true
	}
	if err == nil {
		_, err = s.flows.Forget(ports, local)
	}
	if err != nil {
		s.warn(fmt.Sprintf("old flows to published UDP ports could not be forgotten: clients that go on sending may not reach the container: %v", err))
	}
}
