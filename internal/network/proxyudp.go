package network

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// udpIdle is how long a UDP client of the proxy keeps its way back after the last packet.
const udpIdle = 90 * time.Second

// udpClient is who sends, and to which address of the host: answers come from there.
type udpClient struct {
	from  netip.AddrPort
	zone  uint32 // link of a link-local sender
	local [16]byte
	link  uint32 // that the packet came by, if local is link-local
}

// takeDatagrams hands on what has come, each client's by a socket of its own. The caller
// holds p.mu.
func (p *proxy) takeDatagrams(s *servedSocket) {
	for range takeBatch {
		n, oobn, _, from, err := unix.Recvmsg(s.fd, p.buf, p.oob, unix.MSG_DONTWAIT)
		if err != nil {
			return
		}
		if client, ok := clientOf(from, p.oob[:oobn]); ok {
			p.handOn(s, client, p.buf[:n])
		}
	}
}

func clientOf(from unix.Sockaddr, oob []byte) (udpClient, bool) {
	a, ok := from.(*unix.SockaddrInet6)
	if !ok {
		return udpClient{}, false
	}
	c := udpClient{from: netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port)), zone: a.ZoneId}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return udpClient{}, false
	}
	for _, m := range msgs {
		if m.Header.Level != unix.IPPROTO_IPV6 || m.Header.Type != unix.IPV6_PKTINFO || len(m.Data) < unix.SizeofInet6Pktinfo {
			continue
		}
		c.local = [16]byte(m.Data)
		if netip.AddrFrom16(c.local).IsLinkLocalUnicast() {
			c.link = binary.NativeEndian.Uint32(m.Data[16:])
		}
		// A multicast address is none to answer from.
		return c, !netip.AddrFrom16(c.local).IsMulticast()
	}
	return udpClient{}, false
}

func (p *proxy) handOn(s *servedSocket, client udpClient, datagram []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.clients[client]
	if c == nil {
		var err error
		if c, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(s.target)); err != nil {
			return
		}
		if s.clients == nil {
			s.clients = map[udpClient]*net.UDPConn{}
		}
		s.clients[client] = c
		if !p.goRelay("network-proxy-udp", p.most/2, func(ctx context.Context) { p.answers(ctx, s, client, c) }) {
			delete(s.clients, client)
			c.Close()
			return
		}
	}
	_ = c.SetReadDeadline(time.Now().Add(udpIdle))
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	// One that there is no room for is lost, as datagrams are: with a container that answers no ARP that would be awaited
	// for seconds, by all who are served.
	_ = raw.Write(func(fd uintptr) bool {
		_, _ = unix.Write(int(fd), datagram)
		return true
	})
}

// answers sends a container's packets back to one client until nothing has come
// either way for udpIdle.
func (p *proxy) answers(ctx context.Context, s *servedSocket, client udpClient, c *net.UDPConn) {
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.clients[client] == c {
			delete(s.clients, client)
		}
		c.Close()
	}()
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	for p.answer(s, client, c, raw) {
	}
}

// answer sends one packet back. It reports false when there are to be no more. A buffer is
// taken only when there may be a packet: whoever sends to a published port, from as many
// addresses as he likes, must not cost the engine one for each.
func (p *proxy) answer(s *servedSocket, client udpClient, c *net.UDPConn, raw syscall.RawConn) bool {
	var n int
	var failed error
	var buf *[]byte
	err := raw.Read(func(fd uintptr) bool {
		buf = p.answered.Get().(*[]byte)
		if n, failed = unix.Read(int(fd), *buf); failed != unix.EAGAIN {
			return true
		}
		p.answered.Put(buf)
		return false
	})
	if err != nil {
		return false
	}
	defer p.answered.Put(buf)
	if failed == unix.ECONNREFUSED || failed == unix.EINTR {
		return true // not listening yet; UDP has no better way to say so
	}
	if failed != nil {
		return false
	}
	_ = c.SetReadDeadline(time.Now().Add(udpIdle))
	return s.sendTo((*buf)[:n], client)
}

func (s *servedSocket) sendTo(p []byte, client udpClient) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	from := unix.PktInfo6(&unix.Inet6Pktinfo{Addr: client.local, Ifindex: client.link})
	to := &unix.SockaddrInet6{Port: int(client.from.Port()), ZoneId: client.zone, Addr: client.from.Addr().As16()}
	_, _ = unix.SendmsgN(s.fd, p, from, to, unix.MSG_DONTWAIT)
	return true
}
