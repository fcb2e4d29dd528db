package launch_test

import (
	"context"
	"os"
	"testing"

	"github.com/cleatlabs/cleat/internal/launch"
	"golang.org/x/sys/unix"
)

// The floor of every start: the stub executed and gone again.
func BenchmarkStubExit(b *testing.B) {
	s := newStub(b)
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer null.Close()
	for b.Loop() {
		p := launch.NewProgram(false)
		p.Exit(0)
		c, err := s.Start(p, "stub", [3]int{int(null.Fd()), int(null.Fd()), int(null.Fd())}, nil)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := c.Await(context.Background()); err != nil {
			b.Fatal(err)
		}
		unix.Wait4(c.PID, nil, 0, nil)
		unix.Close(c.PIDFD)
	}
}
