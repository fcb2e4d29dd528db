package network

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/supervise"
)

// errNoIPv6 means that the host has no IPv6, or not that address of it.
var errNoIPv6 = errors.New("the host has no IPv6")

// shortPause is how long nothing is taken once descriptors or memory were short.
const shortPause = 50 * time.Millisecond

// takeBatch is how many connections or datagrams are taken from a socket before others
// have their turn.
const takeBatch = 64

// mostDatagram is more than the largest one of UDP.
const mostDatagram = 64 << 10

// filesOfRelay is how many descriptors a relayed connection takes at most: two sockets
// and a pipe for each direction, through which the kernel moves the data.
const filesOfRelay = 6

// proxy serves published ports where the kernel cannot redirect packets to the container:
// on ::1, from which there is no way to another host, to link-local addresses of IPv6, from
// which there is none to another link, and on every IPv6 address for a container that has none. The container sees the engine as its client. One goroutine
// waits for all its sockets, which also hold the ports against others. It lives and dies
// with the engine: while that is down, those addresses refuse, and all others go on.
type proxy struct {
	group *supervise.Group
	file  *os.File // of epoll
	epoll syscall.RawConn
	most  int64 // that may be relayed at one time, so that the engine keeps files for itself
	open  atomic.Int64

	answered sync.Pool // of buffers, each for one datagram of a container

	mu      sync.Mutex
	sockets map[int]*servedSocket
	buf     []byte // one datagram
	oob     []byte
}

// servedSocket is one port that the proxy serves.
type servedSocket struct {
	fd      int
	proto   network.IPProtocol
	port    uint16         // of the host
	target  netip.AddrPort // guarded by proxy.mu
	mu      sync.Mutex
	clients map[udpClient]*net.UDPConn
	closed  bool
}

func newProxy(group *supervise.Group) (*proxy, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll for published ports: %w", err)
	}
	// An epoll descriptor can be polled itself: so the wait below parks a goroutine
	// and not a thread.
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("epoll for published ports: %w", err)
	}
	file := os.NewFile(uintptr(fd), "proxy-epoll")
	epoll, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("epoll for published ports: %w", err)
	}
	p := &proxy{group: group, file: file, epoll: epoll, most: mostRelayed(), sockets: map[int]*servedSocket{},
		buf: make([]byte, mostDatagram), oob: make([]byte, unix.CmsgSpace(unix.SizeofInet6Pktinfo))}
	p.answered.New = func() any { b := make([]byte, mostDatagram); return &b }
	group.Go("network-proxy", p.run)
	return p, nil
}

// mostRelayed leaves at least half of the files that the engine may open to the rest of it.
func mostRelayed() int64 {
	const least, most = 16, 32 << 10
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return least
	}
	return int64(max(least, min(limit.Cur/(2*filesOfRelay), most)))
}

// add serves sockets that are bound. A thousand take some milliseconds: what await waits for goes on beside what else
// there is to do for them. With an error of either not all are served, and they are the caller's to remove.
func (p *proxy) add(served []*servedSocket) (await func() error, err error) {
	p.mu.Lock()
	if p.sockets == nil {
		p.mu.Unlock()
		return nil, errProxyClosed
	}
	for _, s := range served {
		p.sockets[s.fd] = s
	}
	p.mu.Unlock()
	if len(served) < sharePorts {
		return func() error { return nil }, p.listen(served)
	}
	listening := make(chan error, 1)
	if !p.group.Go("network-proxy-listen", func(context.Context) { listening <- p.listen(served) }) {
		return nil, errProxyClosed
	}
	return func() error { return <-listening }, nil
}

var errProxyClosed = errors.New("the network service is closed")

// listen has clients come to sockets that are not closed meanwhile.
func (p *proxy) listen(served []*servedSocket) error {
	var failed error
	err := p.epoll.Control(func(epoll uintptr) {
		for _, s := range served {
			if failed = s.listen(int(epoll)); failed != nil {
				failed = fmt.Errorf("serve published port %d/%s on IPv6: %w", s.port, s.proto, failed)
				return
			}
		}
	})
	return cmp.Or(failed, err)
}

func (s *servedSocket) listen(epoll int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	if s.proto == network.TCP {
		if err := unix.Listen(s.fd, unix.SOMAXCONN); err != nil {
			return err
		}
		// Connections take it from here, so that nobody minds those that end in TIME_WAIT.
		if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return err
		}
	}
	return unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, s.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(s.fd)})
}

// remove closes sockets. Connections that are through go on until an end closes.
func (p *proxy) remove(served []*servedSocket) {
	p.mu.Lock()
	for _, s := range served {
		if p.sockets[s.fd] == s {
			delete(p.sockets, s.fd)
		}
	}
	p.mu.Unlock()
	share(len(served), func(_, from, to int) {
		for _, s := range served[from:to] {
			s.close()
		}
	})
}

// ports are those that it serves.
func (p *proxy) ports() map[servedPort]bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make(map[servedPort]bool, len(p.sockets))
	for _, s := range p.sockets {
		all[servedPort{protoNumber(s.proto), s.port}] = true
	}
	return all
}

// retarget sends what comes to these sockets from now on to another address.
func (p *proxy) retarget(served []*servedSocket, ip netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range served {
		s.target = netip.AddrPortFrom(ip, s.target.Port())
	}
}

func (s *servedSocket) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	unix.Close(s.fd)
	for _, c := range s.clients {
		c.Close()
	}
}

func (p *proxy) run(ctx context.Context) {
	defer p.closeAll()
	stop := context.AfterFunc(ctx, func() { _ = p.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	events := make([]unix.EpollEvent, 64)
	for {
		n := 0
		err := p.epoll.Read(func(fd uintptr) bool {
			n, _ = unix.EpollWait(int(fd), events, 0)
			return n > 0
		})
		if err != nil {
			return
		}
		short := false
		for _, e := range events[:n] {
			p.mu.Lock()
			s := p.sockets[int(e.Fd)]
			if s != nil {
				short = p.serve(s) || short
			}
			p.mu.Unlock()
		}
		if short {
			select {
			case <-time.After(shortPause):
			case <-ctx.Done():
				return
			}
		}
	}
}

func (p *proxy) closeAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.sockets {
		s.close()
	}
	p.sockets = nil
	p.file.Close()
}

// serve takes what has come to one socket, and reports that it could not for a while. It
// never blocks: the caller holds p.mu, so that the descriptor cannot be closed and reused
// meanwhile.
func (p *proxy) serve(s *servedSocket) (short bool) {
	if s.proto == network.UDP {
		p.takeDatagrams(s)
		return false
	}
	return p.acceptTCP(s)
}

// goRelay has one more client served, unless most are.
func (p *proxy) goRelay(name string, most int64, serve func(context.Context)) bool {
	if p.open.Add(1) > most {
		p.open.Add(-1)
		return false
	}
	started := p.group.Go(name, func(ctx context.Context) {
		defer p.open.Add(-1)
		serve(ctx)
	})
	if !started {
		p.open.Add(-1)
	}
	return started
}

// acceptTCP takes connections. It reports that descriptors or memory are short: what waits
// is told of again at once, though it cannot be taken for a while. The caller holds p.mu.
func (p *proxy) acceptTCP(s *servedSocket) (short bool) {
	for range takeBatch {
		fd, from, err := unix.Accept4(s.fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		switch err {
		case nil:
			p.takeTCP(fd, from, s.target)
		case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM:
			return true
		default:
			return false // there are no more, or the client has gone
		}
	}
	return false
}

func (p *proxy) takeTCP(fd int, from unix.Sockaddr, target netip.AddrPort) {
	if a, ok := from.(*unix.SockaddrInet6); !ok || netip.AddrFrom16(a.Addr).Is4In6() {
		// IPv4 is the firewall's to redirect, with what it lets through and what not. What
		// it has not redirected is refused, as if the socket were only bound.
		refuse(fd)
		return
	}
	client, err := connOf(fd)
	if err != nil {
		return
	}
	if !p.goRelay("network-proxy-tcp", p.most, func(ctx context.Context) { relay(ctx, client, target) }) {
		_ = client.SetLinger(0)
		client.Close()
	}
}

// refuse ends a connection with a reset.
func refuse(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	unix.Close(fd)
}

// connOf makes a net.Conn of a descriptor, which it closes in any case.
func connOf(fd int) (*net.TCPConn, error) {
	f := os.NewFile(uintptr(fd), "published-port")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// relay copies both ways and hands on half-closes.
func relay(ctx context.Context, client *net.TCPConn, target netip.AddrPort) {
	defer client.Close()
	d := net.Dialer{Timeout: 10 * time.Second}
	c, err := d.DialContext(ctx, "tcp", target.String())
	if err != nil {
		_ = client.SetLinger(0) // refused here too, instead of an empty answer
		return
	}
	server := c.(*net.TCPConn)
	defer server.Close()
	stop := context.AfterFunc(ctx, func() { client.Close(); server.Close() })
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(server, client)
		_ = server.CloseWrite()
	}()
	_, _ = io.Copy(client, server)
	_ = client.CloseWrite()
	<-done
}
