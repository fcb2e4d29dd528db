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
	do   func(added, freed []nft.Publish)
	wake chan struct{}

	mu           sync.Mutex
	added, freed []nft.Publish
}

func newForgetter(group *supervise.Group, do func(added, freed []nft.Publish)) *forgetter {
	f := &forgetter{do: do, wake: make(chan struct{}, 1)}
	group.Go("network-flows", f.run)
	return f
}

// forget asks for the flows to these ports to be forgotten: for those which were added the
// flows that lead elsewhere, for those which were freed the flows that lead there.
func (f *forgetter) forget(added, freed []nft.Publish) {
	other := func(p nft.Publish) bool { return p.Proto != nft.UDP || p.Open }
	added, freed = slices.DeleteFunc(slices.Clone(added), other), slices.DeleteFunc(slices.Clone(freed), other)
	if len(added)+len(freed) == 0 {
		return
	}
	f.mu.Lock()
	f.added, f.freed = append(f.added, added...), append(f.freed, freed...)
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
	added, freed := f.added, f.freed
	f.added, f.freed = nil, nil
	f.mu.Unlock()
	if len(added)+len(freed) > 0 {
		f.do(added, freed)
	}
}

// forgetNow drops what connection tracking knows about UDP ports.
func (s *Service) forgetNow(added, freed []nft.Publish) {
	addrs, err := s.host.conn.Addrs()
	local := map[netip.Addr]bool{}
	for _, a := range addrs {
		local[a.Prefix.Addr()] = true
	}
	if err == nil {
		_, err = s.flows.Forget(added, freed, local)
	}
	if err != nil {
		s.warn(fmt.Sprintf("old flows to published UDP ports could not be forgotten: clients that go on sending may not reach the container: %v", err))
	}
}
