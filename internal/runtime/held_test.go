package runtime_test

import (
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What the keeper is given outlives the engine and ends with the process; the process
// sees nothing of it.
func TestHeldDescriptors(t *testing.T) {
	l := newLab(t)
	r, w, err := os.Pipe()
	l.check(err)
	defer r.Close()
	s := l.spec("sh", "-c", "ls /proc/self/fd; read x")
	s.OpenStdin = true
	s.Held = []int{int(w.Fd()), int(w.Fd())}
	p := l.startRaw(s)
	w.Close()
	rec := p.Record()
	p.Detach()
	c := l.adopt(l.newRuntime(), rec, s)
	held := c.TakeHeld()
	if len(held) != 2 {
		t.Fatalf("%d descriptors held", len(held))
	}
	for _, f := range held {
		if _, err := io.WriteString(f, "x"); err != nil {
			t.Error(err)
		}
		f.Close()
	}
	if c.TakeHeld() != nil {
		t.Error("they are handed out twice")
	}
	io.WriteString(c.Stdin(), "\n")
	c.wait()
	if b, err := io.ReadAll(r); string(b) != "xx" || err != nil {
		t.Errorf("read %q, %v", b, err)
	}
	// Its own three, and the one that ls reads the directory by.
	if out := c.stdout.String(); strings.Join(strings.Fields(out), " ") != "0 1 2 3" {
		t.Errorf("the process has\n%s", out)
	}
	s = l.spec("true")
	s.Held = make([]int, 3)
	if _, err := l.r.Start(l.ctx(), s); err == nil {
		t.Error("three descriptors are held")
	}
	unix.Close(s.RootFD)
}
