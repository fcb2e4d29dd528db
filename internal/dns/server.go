package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"github.com/cleatlabs/cleat/internal/supervise"
)

// What one container can occupy at a time.
const (
	clientForwards    = 256 // questions that wait for name servers
	clientConnections = 32
	connectionIdle    = 10 * time.Second // until the next query must have come whole
	writeTimeout      = 5 * time.Second
)

// Server answers the lookups of all containers of an engine.
type Server struct {
	dir     *Directory
	group   *supervise.Group
	forward *forwarder
}

// New returns a server that answers from dir. Its goroutines belong to group.
func New(group *supervise.Group, dir *Directory) *Server {
	return &Server{dir: dir, group: group, forward: newForwarder(group)}
}

// Directory is the one that New was given.
func (s *Server) Directory() *Directory { return s.dir }

// Client is the service of one container.
type Client struct {
	s     *Server
	udp   *net.UDPConn
	tcp   *net.TCPListener
	view  atomic.Pointer[View]
	busy  atomic.Int32 // forwards under way
	conns chan struct{}

	mu     sync.Mutex
	open   map[net.Conn]struct{} // nil when closed
	closed bool
}

// Serve answers queries that come to a UDP socket and to a listening TCP socket,
// until Close. It takes the files over, also when it fails.
func (s *Server) Serve(udp, tcp *os.File, v *View) (*Client, error) {
	defer udp.Close()
	defer tcp.Close()
	c := &Client{s: s, open: map[net.Conn]struct{}{}, conns: make(chan struct{}, clientConnections)}
	c.view.Store(v)
	p, err := net.FilePacketConn(udp)
	if err != nil {
		return nil, fmt.Errorf("socket for name lookups: %w", err)
	}
	l, err := net.FileListener(tcp)
	if err != nil {
		p.Close()
		return nil, fmt.Errorf("socket for name lookups: %w", err)
	}
	var isUDP, isTCP bool
	c.udp, isUDP = p.(*net.UDPConn)
	c.tcp, isTCP = l.(*net.TCPListener)
	if !isUDP || !isTCP {
		p.Close()
		l.Close()
		return nil, fmt.Errorf("sockets for name lookups are %s and %s, not udp and tcp", p.LocalAddr().Network(), l.Addr().Network())
	}
	if !s.group.Go("dns-udp", c.serveUDP) || !s.group.Go("dns-tcp", c.serveTCP) {
		c.Close()
		return nil, supervise.ErrStopped
	}
	return c, nil
}

// See changes what the container sees from now on.
func (c *Client) See(v *View) { c.view.Store(v) }

// Close ends the service: questions under way get no answer.
func (c *Client) Close() {
	c.mu.Lock()
	open := c.open
	c.open, c.closed = nil, true
	c.mu.Unlock()
	c.udp.Close()
	c.tcp.Close()
	for conn := range open {
		conn.Close()
	}
}

func (c *Client) serveUDP(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { c.udp.Close() })
	defer stop()
	buf := make([]byte, queryMax)
	for {
		n, from, err := c.udp.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // of one datagram, such as a port that was unreachable
		}
		c.handle(buf[:n], plainUDP, func(reply []byte) { c.replyUDP(reply, from) })
	}
}

func (c *Client) replyUDP(reply []byte, to netip.AddrPort) {
	_, _ = c.udp.WriteToUDPAddrPort(reply, to) // who asked may have gone
}

// handle answers one query, now or later. raw is only borrowed.
func (c *Client) handle(raw []byte, room int, reply func([]byte)) {
	v := c.view.Load()
	m, room, what := c.s.dir.resolve(v, raw, room)
	switch what {
	case drop:
	case answer:
		reply(pack(m, room))
	case forward:
		var servers []Upstream
		if v.Servers != nil {
			servers = v.Servers()
		}
		c.s.forward.ask(c, servers, append([]byte(nil), raw...), room, reply)
	}
}

func (c *Client) serveTCP(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	for {
		// Bound first: who is not accepted waits in the kernel's queue.
		select {
		case c.conns <- struct{}{}:
		case <-ctx.Done():
			return
		}
		conn, err := c.tcp.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			<-c.conns
			// Out of descriptors: the same would come at once.
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
				return
			}
			continue
		}
		if !c.enter(conn) || !c.s.group.Go("dns-connection", func(context.Context) { c.serveConn(conn) }) {
			conn.Close()
			return
		}
	}
}

func (c *Client) enter(conn net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.open[conn] = struct{}{}
	return true
}

func (c *Client) leave(conn net.Conn) {
	c.mu.Lock()
	delete(c.open, conn)
	c.mu.Unlock()
	conn.Close()
	<-c.conns
}

// serveConn answers the queries of one connection, each as soon as it can be.
func (c *Client) serveConn(conn net.Conn) {
	defer c.leave(conn)
	var mu sync.Mutex
	reply := func(b []byte) {
		mu.Lock()
		defer mu.Unlock()
		_ = conn.SetWriteDeadline(time.Now().Add(writeTimeout))
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(b)), uint16(len(b))), b...)); err != nil {
			// Who does not read has got a part of it, and is not waited for again: not by the kernel either, which would keep
			// the answers for minutes.
			if t, ok := conn.(*net.TCPConn); ok {
				_ = t.SetLinger(0)
			}
			conn.Close()
		}
	}
	buf := make([]byte, queryMax)
	for {
		_ = conn.SetReadDeadline(time.Now().Add(connectionIdle))
		if _, err := io.ReadFull(conn, buf[:2]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint16(buf))
		if n > len(buf) {
			return
		}
		if _, err := io.ReadFull(conn, buf[:n]); err != nil {
			return
		}
		c.handle(buf[:n], dns.MaxMsgSize, reply)
	}
}
