package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/netlink"
	"github.com/cleatlabs/cleat/internal/supervise"
)

// socket is a network namespace with a veth to the host: eth0 and lo are up, the
// sysctls are set, only addresses and routes are missing. It is plugged into a bridge,
// or loose.
type socket struct {
	in   *inside
	link string // the host's end
	eth0 int    // index of the other
}

// discard gives the socket up; its links go with the namespace.
func (k *socket) discard() {
	k.in.close()
	unix.Close(k.in.ns)
}

// sockets keeps a few of them at hand, because making one takes the kernel ten times as
// long as all else that Attach does. They are nameless: when the engine ends, in
// whatever way, they go with their file descriptors.
type sockets struct {
	prepare func() (*socket, error)
	host    *uplink
	ready   chan *socket
	wanted  chan struct{}

	mu     sync.Mutex
	drains int // how often all were given up
}

// spareSockets bounds what lies idle: each is a namespace and a veth.
const spareSockets = 4

func newSockets(group *supervise.Group, name string, prepare func() (*socket, error), host *uplink) *sockets {
	p := &sockets{prepare: prepare, host: host, ready: make(chan *socket, spareSockets), wanted: make(chan struct{}, 1)}
	group.Go(name, p.run)
	return p
}

// take returns a spare socket, or makes one if there is none.
func (p *sockets) take() (*socket, error) {
	select {
	case k := <-p.ready:
		return k, nil
	default:
		return p.prepare()
	}
}

// refill asks for the spares to be replaced. Attach does so at its end: making one
// meanwhile would hold it up, for the kernel makes links one at a time. The rest of the
// start is not to be held up either, nor the next one: see awaitPause.
func (p *sockets) refill() {
	select {
	case p.wanted <- struct{}{}:
	default:
	}
}

const (
	// socketsQuiet is longer than a short-lived container takes with what its client does
	// before the next one.
	socketsQuiet = 8 * time.Millisecond
	// socketsPause is longer than what is left of a start when it has its network.
	socketsPause = 3 * time.Millisecond
)

// awaitPause waits until nobody has asked for socketsQuiet; where few are left, for no
// longer than a start may still take, and not at all when none is.
func (p *sockets) awaitPause(ctx context.Context) {
	quiet := time.NewTimer(socketsQuiet)
	defer quiet.Stop()
	for len(p.ready) > 0 {
		if 2*len(p.ready) < cap(p.ready) {
			quiet.Reset(socketsPause)
		}
		select {
		case <-p.wanted:
			quiet.Reset(socketsQuiet)
		case <-quiet.C:
			return
		case <-ctx.Done():
			return
		}
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
		p.awaitPause(ctx)
		for len(p.ready) < cap(p.ready) && ctx.Err() == nil {
			if err := p.add(); err != nil {
				break // the next Attach meets the same and reports it
			}
		}
	}
}

// add makes one more. It is given up with the others if they are meanwhile: it may be plugged into what has gone.
func (p *sockets) add() error {
	p.mu.Lock()
	before := p.drains
	p.mu.Unlock()
	k, err := p.prepare()
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.drains != before {
		p.giveUp(k)
		return nil
	}
	p.ready <- k // there is room: nobody else puts
	return nil
}

func (p *sockets) giveUp(k *socket) {
	p.host.disown(k.link)
	k.discard()
}

// drain gives the spares up.
func (p *sockets) drain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drains++
	for {
		select {
		case k := <-p.ready:
			p.giveUp(k)
		default:
			return
		}
	}
}

// newNamespace makes a namespace without links but lo, which is up.
func (u *uplink) newNamespace() (*inside, error) {
	in := &inside{home: u.ns, proc: &u.proc}
	var err error
	in.ns, err = netlink.NewNS(u.ns, func() (err error) {
		if err = namespaceSysctls(&u.proc); err != nil {
			return err
		}
		in.conn, err = netlink.Dial(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, err
	}
	const lo = 1 // always
	if err := in.conn.Do(netlink.SetUp(lo)); err != nil {
		in.close()
		unix.Close(in.ns)
		return nil, fmt.Errorf("in the container's namespace: %w", err)
	}
	return in, nil
}

// veth makes a pair whose end here is up and a port of its bridge, if it has one. That
// end has no addresses, nor shall it get one of IPv6, which with its routes would make
// every further link dearer.
func (u *uplink) veth(v netlink.Veth, then ...*netlink.Message) error {
	u.making.Lock()
	defer u.making.Unlock()
	if err := u.conn.Do(netlink.NewVeth(v).Down()); err != nil {
		return err
	}
	err := u.proc.writeInTurn("/proc/sys/net/ipv6/conf/"+v.Name+"/disable_ipv6", "1")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return u.conn.Do(append(then, netlink.SetUpNamed(v.Name))...)
}

// prepare makes a socket that is plugged into the bridge. On failure nothing is left.
func (b *bridge) prepare() (*socket, error) {
	return b.host.socket(func(k *socket) (err error) {
		k.eth0, err = b.join(k.in, k.link, "eth0")
		return err
	})
}

// prepareLoose makes a socket that is not plugged in.
func (s *Service) prepareLoose() (*socket, error) {
	return s.host.socket(func(k *socket) error {
		if err := s.host.veth(netlink.Veth{Name: k.link, Peer: "eth0", PeerNS: k.in.ns}); err != nil {
			return fmt.Errorf("connect a container: %w", err)
		}
		eth0, err := k.in.conn.LinkByName("eth0")
		if err != nil {
			return fmt.Errorf("in the container's namespace: %w", err)
		}
		k.eth0 = eth0.Index
		if err := k.in.conn.Do(netlink.SetUp(k.eth0)); err != nil {
			return fmt.Errorf("in the container's namespace: %w", err)
		}
		// Asking makes the kernel act on the carrier (see awaitCarrier).
		if _, err := k.in.conn.LinkByName("eth0"); err != nil {
			return err
		}
		return k.in.do(func() (err error) {
			k.in.names, err = openNameSockets(false)
			return err
		})
	})
}

// socket makes a namespace and has connect make its veth.
func (u *uplink) socket(connect func(*socket) error) (*socket, error) {
	in, err := u.newNamespace()
	if err != nil {
		return nil, err
	}
	k := &socket{in: in, link: linkPrefix + newID()[:10]}
	u.own(k.link)
	if err := connect(k); err != nil {
		u.disown(k.link)
		k.discard()
		return nil, err
	}
	return k, nil
}

// namespaceSysctls are Docker's settings inside a container's namespace. IPv6 is off
// for links that come, and stays on for lo, which is there already.
func namespaceSysctls(proc *sysctls) error {
	for _, s := range []struct {
		path, value string
		optional    bool
	}{
		{"/proc/sys/net/ipv4/ip_unprivileged_port_start", "0", false},
		{"/proc/sys/net/ipv4/ping_group_range", "0 2147483647", false},
		{"/proc/sys/net/ipv6/conf/default/disable_ipv6", "1", true},
	} {
		err := proc.write(s.path, s.value)
		if s.optional && errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("set %s in the container's namespace: %w", s.path, err)
		}
	}
	return nil
}
