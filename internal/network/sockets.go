package network

import (
	"context"

	"github.com/cleatlabs/cleat/internal/supervise"
)

// sockets keeps a few namespaces plugged into the bridge, because making one takes
// the kernel ten times as long as all else that Attach does. They are nameless: when
// the engine ends, in whatever way, they go with their file descriptors.
type sockets struct {
	bridge *bridge
	ready  chan *socket
	wanted chan struct{}
}

// spareSockets bounds what lies idle: each is a namespace and a veth.
const spareSockets = 4

func newSockets(group *supervise.Group, b *bridge) *sockets {
	p := &sockets{bridge: b, ready: make(chan *socket, spareSockets), wanted: make(chan struct{}, 1)}
	p.refill()
	group.Go("network-sockets", p.run)
	return p
}

// take returns a spare socket, or makes one if there is none.
func (p *sockets) take() (*socket, error) {
	select {
	case k := <-p.ready:
		return k, nil
	default:
		return p.bridge.plug()
	}
}

// refill asks for the spares to be replaced. Attach does so at its end: making one
// meanwhile would hold it up, for the kernel makes links one at a time.
func (p *sockets) refill() {
	select {
	case p.wanted <- struct{}{}:
	default:
	}
}

func (p *sockets) run(ctx context.Context) {
	defer p.drain()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.wanted:
		}
		for len(p.ready) < cap(p.ready) && ctx.Err() == nil {
			k, err := p.bridge.plug()
			if err != nil {
				break // the next Attach meets the same and reports it
			}
			p.ready <- k // there is room: nobody else puts
		}
	}
}

// drain gives the spares up.
func (p *sockets) drain() {
	for {
		select {
		case k := <-p.ready:
			p.bridge.disown(k.link)
			k.discard()
		default:
			return
		}
	}
}
