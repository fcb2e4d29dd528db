package network

import (
	"context"
	"slices"
	"sync"

	"github.com/cleatlabs/cleat/internal/supervise"
)

// aheadBridges bounds how many networks have a socket that is plugged in ahead.
const aheadBridges = 4

// ahead keeps a socket plugged into each of the bridges that containers have come to
// lately, as plugging one in is half of what connecting to a network takes: who comes to
// one bridge again and again, as the services of an application do, finds it done. The
// sockets are made of loose ones, and go with the engine as these do.
type ahead struct {
	host   *uplink
	loose  *sockets
	wanted chan struct{}

	mu sync.Mutex
	// lately are the bridges, that of the last container first.
	lately []*readySocket
	closed bool // nothing is made any more
}

// readySocket is a bridge with its socket, or without one for the moment.
type readySocket struct {
	bridge *bridge
	socket *socket // nil: none yet
	again  bool    // more than one container has come
}

func newAhead(group *supervise.Group, host *uplink, loose *sockets) *ahead {
	p := &ahead{host: host, loose: loose, wanted: make(chan struct{}, 1)}
	group.Go("network-sockets-ahead", p.run)
	return p
}

// take returns the socket of a bridge, nil if there is none.
func (p *ahead) take(b *bridge) *socket {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.lately {
		if r.bridge == b {
			k := r.socket
			r.socket = nil
			return k
		}
	}
	return nil
}

// came says that a container has come to a bridge. It is called at the end of Attach, as
// making a socket meanwhile would hold that up.
func (p *ahead) came(b *bridge) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	r := &readySocket{bridge: b}
	if i := p.index(b); i >= 0 {
		r = p.lately[i]
		r.again = true
		p.lately = slices.Delete(p.lately, i, i+1)
	}
	p.lately = slices.Insert(p.lately, 0, r)
	select {
	case p.wanted <- struct{}{}:
	default:
	}
}

// index finds a bridge, -1 if it is not there. The caller holds p.mu.
func (p *ahead) index(b *bridge) int {
	return slices.IndexFunc(p.lately, func(r *readySocket) bool { return r.bridge == b })
}

// drop gives up what is plugged into a bridge that goes away.
func (p *ahead) drop(b *bridge) {
	p.mu.Lock()
	i := p.index(b)
	if i < 0 {
		p.mu.Unlock()
		return
	}
	k := p.lately[i].socket
	p.lately = slices.Delete(p.lately, i, i+1)
	p.mu.Unlock()
	p.discard(k)
}

func (p *ahead) discard(k *socket) {
	if k != nil {
		p.host.disown(k.link)
		k.discard()
	}
}

func (p *ahead) run(ctx context.Context) {
	defer p.drain()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.wanted:
		}
		for ctx.Err() == nil && p.step() {
		}
	}
}

// step gives up one bridge too many, or plugs a socket into one that has none; false if
// there is nothing to do.
func (p *ahead) step() bool {
	p.mu.Lock()
	if n := len(p.lately); n > aheadBridges {
		last := p.lately[n-1]
		p.lately = p.lately[:n-1]
		p.mu.Unlock()
		p.discard(last.socket)
		return true
	}
	i := slices.IndexFunc(p.lately, func(r *readySocket) bool { return r.again && r.socket == nil })
	if i < 0 {
		p.mu.Unlock()
		return false
	}
	r := p.lately[i]
	p.mu.Unlock()
	k, err := p.loose.take()
	p.loose.refill()
	if err == nil {
		if err = r.bridge.adopt(k); err != nil {
			p.discard(k)
		}
	}
	p.mu.Lock()
	there := slices.Contains(p.lately, r)
	if err == nil && there && r.socket == nil {
		r.socket = k
		p.mu.Unlock()
		return true
	}
	r.again = false // the next container meets the fault and reports it
	p.mu.Unlock()
	if err == nil {
		p.discard(k)
	}
	return true
}

func (p *ahead) drain() {
	p.mu.Lock()
	all := p.lately
	p.lately, p.closed = nil, true
	p.mu.Unlock()
	for _, r := range all {
		p.discard(r.socket)
	}
}
