package launch_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/launch"
	"github.com/cleatlabs/cleat/test/expect"
	"github.com/cleatlabs/cleat/test/harness"
)

// nurseries are the processes of this one that make parked ones.
func nurseries(t *testing.T) []int { return harness.Children(t, "cleat-keeper", "nursery") }

// Several processes are made at once, each with a session of its own and nothing but its socket, and each runs its
// program.
func TestParkSeveral(t *testing.T) {
	s := newStub(t)
	made, err := s.Park(5)
	if err != nil || len(made) != 5 {
		t.Fatalf("%d processes, %v", len(made), err)
	}
	for i, k := range made {
		expect.Eventually(t, "it is a spare", func() bool {
			b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", k.PID()))
			return bytes.HasPrefix(b, []byte("cleat-keeper\x00spare\x00"))
		})
		expect.Eventually(t, "it leads a session", func() bool {
			sid, err := unix.Getsid(k.PID())
			return err == nil && sid == k.PID()
		})
		var fds []string
		expect.Eventually(t, "it has its socket alone", func() bool {
			fds, _ = filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", k.PID()))
			return len(fds) == 4
		})
		sockets := map[string]bool{}
		for _, fd := range fds {
			to, err := os.Readlink(fd)
			if err != nil {
				t.Fatal(err)
			}
			sockets[to] = true
		}
		if len(sockets) != 1 {
			t.Errorf("it holds %v", sockets)
		}
		p := launch.NewProgram(false)
		p.Exit(10 + i)
		if o := runIn(t, s, k, p, "x"); o.status.ExitStatus() != 10+i || o.pid != k.PID() {
			t.Errorf("process %d: %+v", i, o)
		}
	}
}

// A nursery that somebody has killed is replaced, and those that it has made do not mind. None stays when the stub is
// closed.
func TestNurseryKilled(t *testing.T) {
	before := nurseries(t)
	s, err := launch.NewStub(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	ours := func() []int {
		return slices.DeleteFunc(nurseries(t), func(pid int) bool { return slices.Contains(before, pid) })
	}
	first, err := s.Park(2)
	if err != nil {
		t.Fatal(err)
	}
	expect.Eventually(t, "there is one nursery", func() bool { return len(ours()) == 1 })
	killed := ours()[0]
	if err := unix.Kill(killed, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	expect.Eventually(t, "it has ended", func() bool { return len(ours()) == 0 }) // a zombie has no arguments
	for round := range 2 {                                                        // made by the engine, then by a new nursery
		made, err := s.Park(3)
		if err != nil || len(made) != 3 {
			t.Fatalf("round %d: %d processes, %v", round, len(made), err)
		}
		for i, k := range made {
			p := launch.NewProgram(false)
			p.Exit(20 + i)
			if o := runIn(t, s, k, p, "x"); o.status.ExitStatus() != 20+i {
				t.Errorf("round %d, process %d: %+v", round, i, o)
			}
		}
	}
	p := launch.NewProgram(false)
	p.Exit(7)
	if o := runIn(t, s, first[0], p, "x"); o.status.ExitStatus() != 7 {
		t.Errorf("one that the killed nursery had made: %+v", o)
	}
	first[1].Close()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if left := ours(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// What is closed while processes are being started is closed: none of them has a copy of it. A file that has just been
// written can be executed at once, which the kernel refuses, as it does a lease to read, while somebody has it open for
// writing.
func TestStartsCopyNoDescriptors(t *testing.T) {
	s := newStub(t)
	start := func() {
		p := launch.NewProgram(false)
		p.Exit(0)
		run(t, s, p)
	}
	start() // the nursery itself is executed
	var starts sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		starts.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					start()
				}
			}
		})
	}
	defer starts.Wait()
	defer close(stop)
	path := filepath.Join(t.TempDir(), "written")
	for i := range 300 {
		if err := os.WriteFile(path, []byte("x"), 0o755); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
		f.Close()
		if err != nil {
			t.Fatalf("round %d: the closed file is still open for writing: %v", i, err)
		}
	}
}
