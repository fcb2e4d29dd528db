package api

import (
	"log/slog"
	"net"
	"net/http"
	"sync"

	"golang.org/x/sys/unix"
)

// crowd are the connections that wait for a call or are in one. They are at most a part of the files that the engine may
// open: clients that leave connections open would else take all, and a container that ended could not be started again
// by its policy. Who comes when they are that many waits until one goes. Connections that calls have taken over are not
// counted.
type crowd struct {
	log  *slog.Logger
	mu   sync.Mutex
	less sync.Cond // some have gone, or a listener was closed
	here int
	told bool
}

func newCrowd(log *slog.Logger) *crowd {
	c := &crowd{log: log}
	c.less.L = &c.mu
	return c
}

// mostConnections is a quarter of the files, as a call may need some itself.
func mostConnections() int {
	const least, most = 16, 1 << 20
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return least
	}
	return int(max(least, min(limit.Cur/4, most)))
}

// changed is http.Server's ConnState.
func (c *crowd) changed(_ net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch state {
	case http.StateNew:
		c.here++
	case http.StateClosed, http.StateHijacked:
		c.here--
		c.less.Broadcast()
	}
}

// gate is a listener that takes nobody in while the crowd is as large as it may be.
type gate struct {
	net.Listener
	crowd  *crowd
	closed bool // guarded by crowd.mu
}

// Accept implements net.Listener.
func (g *gate) Accept() (net.Conn, error) {
	g.crowd.mu.Lock()
	for most := mostConnections(); g.crowd.here >= most && !g.closed; most = mostConnections() {
		if !g.crowd.told {
			g.crowd.told = true
			g.crowd.log.Warn("clients have as many connections open as the engine takes: others wait (is there one that closes none? else start the engine with a higher limit of files: LimitNOFILE of its unit, ulimit -n)", "connections", g.crowd.here)
		}
		g.crowd.less.Wait()
	}
	g.crowd.mu.Unlock()
	return g.Listener.Accept()
}

// Close implements net.Listener.
func (g *gate) Close() error {
	g.crowd.mu.Lock()
	g.closed = true
	g.crowd.mu.Unlock()
	g.crowd.less.Broadcast()
	return g.Listener.Close()
}
