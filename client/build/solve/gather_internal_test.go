package solve

import (
	"bytes"
	"io"
	"net"
	"sync/atomic"
	"testing"
)

// counted counts writes.
type counted struct {
	net.Conn
	writes atomic.Int64
}

func (c *counted) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

// TestGatheredKeepsTheOrder holds that all arrives as it was written, in fewer pieces, and what was written last
// before Close, too.
func TestGatheredKeepsTheOrder(t *testing.T) {
	near, far := net.Pipe()
	c := &counted{Conn: near}
	g := gather(c)
	var want bytes.Buffer
	got := make(chan []byte)
	go func() {
		b, _ := io.ReadAll(far)
		got <- b
	}()
	const writes = 20000
	for i := range writes {
		piece := bytes.Repeat([]byte{byte(i), byte(i >> 8)}, i%300)
		want.Write(piece)
		if n, err := g.Write(piece); err != nil || n != len(piece) {
			t.Fatal(n, err)
		}
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if b := <-got; !bytes.Equal(b, want.Bytes()) {
		t.Errorf("%d bytes came of %d, or others", len(b), want.Len())
	}
	if n := c.writes.Load(); n >= writes {
		t.Errorf("%d writes for %d", n, writes)
	}
}

// TestGatheredTellsOfErrors holds that a broken connection is told to who writes, and that one that nobody reads from
// can be closed.
func TestGatheredTellsOfErrors(t *testing.T) {
	near, far := net.Pipe()
	g := gather(near)
	far.Close()
	var err error
	for range 100 * mostGathered / 1000 {
		if _, err = g.Write(make([]byte, 1000)); err != nil {
			break
		}
	}
	if err == nil {
		t.Error("nobody is told that the connection is broken")
	}
	_ = g.Close()

	near, far = net.Pipe()
	defer far.Close()
	g = gather(near)
	if _, err := g.Write([]byte("nobody reads this")); err != nil {
		t.Fatal(err)
	}
	_ = g.Close() // it returns
	if _, err := far.Read(make([]byte, 1)); err == nil {
		t.Error("it is not closed")
	}
}
