package solve

import (
	"net"
	"sync"
	"time"
)

// gathered is a connection that writes what is given to it while a write is under way in one piece afterwards. Of a
// context of a thousand files each is told in a message of a hundred bytes, which would be a system call each, and
// wake the engine for each.
type gathered struct {
	net.Conn

	mu      sync.Mutex
	room    sync.Cond // waiting is empty
	waiting []byte
	spare   []byte
	writing bool
	err     error
}

// mostGathered is how many bytes wait before who writes waits, too.
const mostGathered = 256 << 10

func gather(c net.Conn) *gathered {
	g := &gathered{Conn: c}
	g.room.L = &g.mu
	return g
}

func (g *gathered) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.err == nil && len(g.waiting) > mostGathered {
		g.room.Wait()
	}
	if g.err != nil {
		return 0, g.err
	}
	g.waiting = append(g.waiting, p...)
	if !g.writing {
		g.writing = true
		go g.write()
	}
	return len(p), nil
}

// write writes until nothing waits.
func (g *gathered) write() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.err == nil && len(g.waiting) > 0 {
		b := g.waiting
		g.waiting = g.spare[:0]
		g.room.Broadcast()
		g.mu.Unlock()
		_, err := g.Conn.Write(b)
		g.mu.Lock()
		g.spare, g.err = b, err
	}
	g.writing = false
	g.room.Broadcast()
}

// lastWrite is how long Close waits for a peer that takes nothing.
const lastWrite = time.Second

// Close writes what waits first.
func (g *gathered) Close() error {
	g.mu.Lock()
	if g.writing {
		_ = g.Conn.SetWriteDeadline(time.Now().Add(lastWrite)) // it fails for one that is closed, and ends there, too
	}
	for g.writing {
		g.room.Wait()
	}
	g.mu.Unlock()
	return g.Conn.Close()
}
