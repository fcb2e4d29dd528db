package build

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"

	"github.com/containerd/containerd/v2/defaults"
	"github.com/moby/buildkit/control"
	"github.com/moby/buildkit/util/grpcerrors"
	"google.golang.org/grpc"
)

// newServer makes the server of BuildKit's control API.
func newServer(c *control.Controller, r *relief) *grpc.Server {
	s := grpc.NewServer(
		grpc.ChainUnaryInterceptor(grpcerrors.UnaryServerInterceptor, r.intercept),
		grpc.ChainStreamInterceptor(grpcerrors.StreamServerInterceptor),
		grpc.MaxRecvMsgSize(defaults.DefaultMaxRecvMsgSize),
		grpc.MaxSendMsgSize(defaults.DefaultMaxSendMsgSize),
	)
	c.Register(s)
	return s
}

// Open opens the builder, if it is not open yet.
func (b *Builder) Open() error {
	_, err := b.open()
	return err
}

// server answers calls of BuildKit's control API. Where the builder cannot be opened that is one that answers each with
// the reason: clients do not show what a request to take the connection over is refused with.
func (b *Builder) server() *grpc.Server {
	s, err := b.open()
	if err != nil {
		return grpc.NewServer(grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error {
			return grpcerrors.ToGRPC(context.Background(), err)
		}))
	}
	return s.server
}

// ServeConn serves BuildKit's control API on one connection, until the client closes it
// or ctx ends.
func (b *Builder) ServeConn(ctx context.Context, conn net.Conn) error {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	one := newOneConn(conn)
	err := b.server().Serve(one)
	if err != nil && one.served() {
		return nil // Accept has said that there is no other connection
	}
	conn.Close() // nobody has taken it: the builder has been closed meanwhile
	return err
}

// ServeHTTP serves one call of BuildKit's control API that came by HTTP/2.
func (b *Builder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.server().ServeHTTP(w, r)
}

// ServeSession makes the client at the other end of conn reachable for builds that name
// its session in their request: for its files, its secrets and its credentials. It
// returns when the client closes conn or ctx ends. header is that of the request.
func (b *Builder) ServeSession(ctx context.Context, conn net.Conn, header http.Header) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// A session is for a build, which has more to do first than this has.
	deferring := make(chan struct{})
	go func() {
		defer close(deferring)
		b.cfg.Store.Defer()
	}()
	defer func() { <-deferring }()
	defer b.pace.begin()()
	// BuildKit itself would find out by asking now and then, and complain.
	if err := b.sessions.HandleConn(ctx, &endingConn{conn, cancel}, header); err != nil {
		return fmt.Errorf("session: %w", err)
	}
	return nil
}

// endingConn tells when nothing comes from the peer any more.
type endingConn struct {
	net.Conn
	ended func()
}

func (c *endingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil {
		c.ended()
	}
	return n, err
}

// HasSession reports whether a client serves a session of that id.
func (b *Builder) HasSession(id string) bool {
	caller, err := b.sessions.Get(context.Background(), id, true)
	return err == nil && caller != nil
}

// oneConn is a listener with one connection. Its second Accept waits until that is
// closed.
type oneConn struct {
	conn   chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newOneConn(conn net.Conn) *oneConn {
	l := &oneConn{conn: make(chan net.Conn, 1), closed: make(chan struct{})}
	l.conn <- &watchedConn{conn, l}
	return l
}

func (l *oneConn) served() bool { return len(l.conn) == 0 }

func (l *oneConn) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	default:
	}
	<-l.closed
	return nil, net.ErrClosed
}

func (l *oneConn) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *oneConn) Addr() net.Addr { return &net.UnixAddr{Name: "hijacked", Net: "unix"} }

// watchedConn ends its listener when it is closed.
type watchedConn struct {
	net.Conn
	listener *oneConn
}

func (c *watchedConn) Close() error {
	c.listener.Close()
	return c.Conn.Close()
}
