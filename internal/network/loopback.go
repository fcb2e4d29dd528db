package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/supervise"
)

// errNoIPv6 means that the host has no ::1.
var errNoIPv6 = errors.New("the host has no IPv6 loopback address")

// udpIdle is how long a UDP client on ::1 keeps its way back after the last packet.
const udpIdle = 90 * time.Second

// loopback serves published ports on ::1, which the kernel cannot redirect to
// another address. One goroutine waits for all of its sockets: one that the firewall
// leads all TCP connections to (localtcp.go), and one for each UDP port. It lives and
// dies with the engine: while the engine is down, ::1 refuses and 127.0.0.1 still works.
type loopback struct {
	group *supervise.Group
	epoll *os.File
	fd    int // of epoll

	mu      sync.Mutex
	sockets map[int]*loopbackSocket
	buf     []byte // one datagram
	tcpPort uint16 // of the socket that serves TCP; 0 as long as there is none
	targets map[uint16]netip.AddrPort
}

type loopbackSocket struct {
	fd      int
	proto   network.IPProtocol
	target  netip.AddrPort
	mu      sync.Mutex
	clients map[netip.AddrPort]*net.UDPConn
	closed  bool
}

func newLoopback(group *supervise.Group) (*loopback, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll for published ports on ::1: %w", err)
	}
	// An epoll descriptor can be polled itself: so the wait below parks a goroutine
	// and not a thread.
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("epoll for published ports on ::1: %w", err)
	}
	p := &loopback{group: group, epoll: os.NewFile(uintptr(fd), "loopback-epoll"), fd: fd, sockets: map[int]*loopbackSocket{}, targets: map[uint16]netip.AddrPort{}, buf: make([]byte, 64<<10)}
	group.Go("network-loopback", p.run)
	return p, nil
}

// serveUDP listens on ::1 for the container; port 0 lets the kernel choose. shared
// says that a socket of ours has the port on all addresses.
func (s *Service) serveUDP(port uint16, target netip.AddrPort, shared bool) (fd int, num uint16, err error) {
	fd, num, err = listenLoopback(network.UDP, port, shared)
	if err != nil {
		return -1, 0, err
	}
	if err := s.proxy.add(&loopbackSocket{fd: fd, proto: network.UDP, target: target}); err != nil {
		unix.Close(fd)
		return -1, 0, err
	}
	return fd, num, nil
}

func listenLoopback(proto network.IPProtocol, port uint16, shared bool) (int, uint16, error) {
	typ := unix.SOCK_STREAM
	if proto == network.UDP {
		typ = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(unix.AF_INET6, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		return -1, 0, errNoIPv6
	}
	if err != nil {
		return -1, 0, fmt.Errorf("reserve [::1]:%d/%s: %w", port, proto, err)
	}
	num, err := bindLoopback(fd, proto, port, shared)
	if err != nil {
		unix.Close(fd)
		return -1, 0, err
	}
	return fd, num, nil
}

func bindLoopback(fd int, proto network.IPProtocol, port uint16, shared bool) (uint16, error) {
	// TCP: the engine's connections in TIME_WAIT must not keep the next one from the port;
	// listening keeps others off. UDP: the socket that reserves all IPv6 addresses for the
	// container must not, either; after the bind, nobody shares.
	if shared || proto == network.TCP {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	err := unix.Bind(fd, &unix.SockaddrInet6{Port: int(port), Addr: netip.IPv6Loopback().As16()})
	if shared {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 0)
	}
	if err == nil && proto == network.TCP {
		err = unix.Listen(fd, unix.SOMAXCONN)
	}
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		return 0, errNoIPv6
	}
	if err != nil {
		return 0, bindError(err, proto, netip.IPv6Loopback(), port)
	}
	if port != 0 {
		return port, nil
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return 0, fmt.Errorf("reserve a free port of ::1/%s: %w", proto, err)
	}
	return uint16(name.(*unix.SockaddrInet6).Port), nil
}

func (p *loopback) add(s *loopbackSocket) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.watch(s)
}

// watch waits for what comes to a socket. The caller holds p.mu.
func (p *loopback) watch(s *loopbackSocket) error {
	if p.sockets == nil {
		return errors.New("the network service is closed")
	}
	if err := unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, s.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(s.fd)}); err != nil {
		return fmt.Errorf("wait for connections on ::1: %w", err)
	}
	p.sockets[s.fd] = s
	return nil
}

// remove closes sockets. Connections that are through go on until an end closes.
func (p *loopback) remove(fds []int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, fd := range fds {
		if s := p.sockets[fd]; s != nil {
			delete(p.sockets, fd)
			s.close()
		}
	}
}

// retarget sends what comes to a reservation's ports from now on to another address.
func (p *loopback) retarget(r *reservation, ip netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, port := range r.local {
		p.targets[port] = netip.AddrPortFrom(ip, p.targets[port].Port())
	}
	for _, fd := range r.v6 {
		if s := p.sockets[fd]; s != nil {
			s.target = netip.AddrPortFrom(ip, s.target.Port())
		}
	}
}

func (s *loopbackSocket) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	unix.Close(s.fd)
	for _, c := range s.clients {
		c.Close()
	}
}

func (p *loopback) run(ctx context.Context) {
	defer p.closeAll()
	stop := context.AfterFunc(ctx, func() { _ = p.epoll.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := p.epoll.SyscallConn()
	if err != nil {
		return
	}
	events := make([]unix.EpollEvent, 64)
	for {
		n := 0
		err := raw.Read(func(fd uintptr) bool {
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

func (p *loopback) closeAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.sockets {
		s.close()
	}
	p.sockets = nil
	p.epoll.Close()
}

// serve takes what has come to one socket, and reports that it could not for a while. It
// never blocks: the caller holds p.mu, so that the descriptor cannot be closed and reused
// meanwhile.
func (p *loopback) serve(s *loopbackSocket) (short bool) {
	if s.proto == network.UDP {
		p.serveUDP(s)
		return false
	}
	return p.acceptTCP(s)
}

// relayed begins to copy between a client and a container.
func (p *loopback) relayed(client *net.TCPConn, target netip.AddrPort) bool {
	return p.group.Go("network-loopback-tcp", func(ctx context.Context) { relay(ctx, client, target) })
}

// connOf makes a net.Conn of a descriptor, which it closes in any case.
func connOf(fd int) (*net.TCPConn, error) {
	f := os.NewFile(uintptr(fd), "loopback")
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

func (p *loopback) serveUDP(s *loopbackSocket) {
	n, from, err := unix.Recvfrom(s.fd, p.buf, unix.MSG_DONTWAIT)
	if err != nil {
		return
	}
	client, ok := from.(*unix.SockaddrInet6)
	if !ok {
		return
	}
	key := netip.AddrPortFrom(netip.AddrFrom16(client.Addr), uint16(client.Port))
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.clients[key]
	if c == nil {
		if c, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(s.target)); err != nil {
			return
		}
		if s.clients == nil {
			s.clients = map[netip.AddrPort]*net.UDPConn{}
		}
		s.clients[key] = c
		if !p.group.Go("network-loopback-udp", func(ctx context.Context) { s.answers(ctx, key, c) }) {
			c.Close()
			return
		}
	}
	_ = c.SetReadDeadline(time.Now().Add(udpIdle))
	_, _ = c.Write(p.buf[:n])
}

// answers sends a container's packets back to one client until nothing has come
// either way for udpIdle.
func (s *loopbackSocket) answers(ctx context.Context, client netip.AddrPort, c *net.UDPConn) {
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.clients, client)
		c.Close()
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := c.Read(buf)
		if errors.Is(err, unix.ECONNREFUSED) {
			continue // not listening yet; UDP has no better way to say so
		}
		if err != nil {
			return
		}
		_ = c.SetReadDeadline(time.Now().Add(udpIdle))
		if !s.sendTo(buf[:n], client) {
			return
		}
	}
}

func (s *loopbackSocket) sendTo(p []byte, client netip.AddrPort) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	_ = unix.Sendto(s.fd, p, unix.MSG_DONTWAIT, &unix.SockaddrInet6{Port: int(client.Port()), Addr: client.Addr().As16()})
	return true
}
