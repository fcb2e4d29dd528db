package launch_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/launch"
	"github.com/cleatlabs/cleat/test/expect"
)

func park(t testing.TB, s *launch.Stub) *launch.Parked {
	t.Helper()
	made, err := s.Park(1)
	if err != nil {
		t.Fatal(err)
	}
	return made[0]
}

// A parked process is, to its program, like a new one: the same descriptors, signals and report, and the name that the
// start gives it.
func TestParked(t *testing.T) {
	s := newStub(t)
	k := park(t, s)
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	fd := int(dir.Fd())

	p := launch.NewProgram(false)
	p.Call(unix.SYS_CLOSE, "program", launch.Int(launch.ProgramFD))
	p.Call(unix.SYS_CLOSE_RANGE, "report", launch.Int(launch.ReportFD), launch.Int(launch.ReportFD), launch.Int(unix.CLOSE_RANGE_CLOEXEC))
	p.Call(unix.SYS_FCHDIR, "last", launch.Int(launch.FirstFD+3))
	p.ReportReached()
	busybox(p, "sh", "-c", "for f in /proc/$$/fd/*; do echo -n \"${f##*/} \"; done; busybox grep -E 'Sig(Blk|Ign)' /proc/self/status; pwd; exit 5")
	o := runIn(t, s, k, p, "", -1, fd, -1, fd)
	if o.pid != k.PID() || o.err != nil || !o.report.Reached || o.status.ExitStatus() != 5 {
		t.Errorf("%+v in process %d", o, k.PID())
	}
	// 3 is the shell's own, for the list.
	want := fmt.Sprintf("0 1 2 3 %d %d SigBlk:\tfffffffffffbfeff\nSigIgn:\t0000000000000000\n%s\n", launch.FirstFD+1, launch.FirstFD+3, dir.Name())
	if o.stdout != want {
		t.Errorf("descriptors, signals and directory:\n%swant\n%s", o.stdout, want)
	}

	p = launch.NewProgram(false)
	p.Call(unix.SYS_CHDIR, "/nowhere", p.Str("/nowhere"))
	if o = runIn(t, s, park(t, s), p, "x"); o.err == nil || o.err.Error() != "chdir /nowhere: no such file or directory" {
		t.Errorf("a failing program: %v", o.err)
	}
}

func TestParkedTitle(t *testing.T) {
	s := newStub(t)
	k := park(t, s)
	read := func(name string) string {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", k.PID(), name))
		if err != nil {
			t.Error(err)
		}
		return strings.TrimRight(string(b), "\x00\n")
	}
	expect.Eventually(t, "it is shown as spare", func() bool { return read("cmdline") == "cleat-keeper\x00spare" })
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p := launch.NewProgram(false)
	p.Sync("hold", launch.Int(launch.FirstFD))
	p.Exit(0)
	id := strings.Repeat("0123456789abcdef", 4)
	c, err := s.StartIn(k, p, "cleat-keeper "+id, [3]int{int(r.Fd()), int(r.Fd()), int(r.Fd())}, []int{int(r.Fd())})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(c.PIDFD)
	expect.Eventually(t, "it has its name", func() bool { return read("cmdline") == "cleat-keeper "+id })
	if got := read("comm"); got != "cleat-keeper" {
		t.Errorf("its short name is %q", got)
	}
	w.Close() // the end of its input fails the program
	c.Await(context.Background())
	unix.Wait4(c.PID, nil, 0, nil)
}

// What a parked process cannot do is done by a new one: it has been killed meanwhile, or the message has no room.
func TestParkedInVain(t *testing.T) {
	s := newStub(t)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	many := make([]int, 300)
	for i := range many {
		many[i] = int(null.Fd())
	}
	holes := make([]int, 80)
	for i := range holes {
		holes[i] = -1
	}
	for _, tt := range []struct {
		name, title string
		files       []int
		kill        bool
	}{
		{name: "killed", kill: true},
		{name: "many descriptors", files: many},
		{name: "unused numbers beyond the set", files: holes},
		{name: "long name", title: strings.Repeat("x", 100)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := park(t, s)
			if tt.kill {
				if err := unix.Kill(k.PID(), unix.SIGKILL); err != nil {
					t.Fatal(err)
				}
				if err := unix.Waitid(unix.P_PID, k.PID(), nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
					t.Fatal(err)
				}
			}
			p := launch.NewProgram(false)
			p.Exit(7)
			o := runIn(t, s, k, p, tt.title, tt.files...)
			if o.err != nil || o.status.ExitStatus() != 7 || o.pid == k.PID() {
				t.Errorf("%+v, parked was %d", o, k.PID())
			}
			if _, err := unix.Wait4(k.PID(), nil, unix.WNOHANG, nil); err != unix.ECHILD {
				t.Errorf("the parked process was not collected: %v", err)
			}
		})
	}
}

// A parked process ends with who has parked it.
func TestParkedEnd(t *testing.T) {
	s := newStub(t)
	k := park(t, s)
	k.Close()
	if err := unix.Kill(k.PID(), 0); err != unix.ESRCH {
		t.Errorf("after Close: %v", err)
	}
	if os.Getenv("LAUNCH_TEST_PARK") != "" {
		fmt.Println(park(t, s).PID())
		unix.Kill(os.Getpid(), unix.SIGKILL)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^TestParkedEnd$")
	dir := t.TempDir() // for what the killed one leaves
	cmd.Env = append(os.Environ(), "LAUNCH_TEST_PARK=1", "TMPDIR="+dir, "GOTMPDIR="+dir)
	out, _ := cmd.CombinedOutput() // killed
	pid := 0
	if _, err := fmt.Sscan(string(out), &pid); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	expect.Eventually(t, "it ended with the killed one", func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || strings.Contains(string(b), ") Z ")
	})
}

// BenchmarkParkedExit is BenchmarkStubExit by processes that wait already.
func BenchmarkParkedExit(b *testing.B) {
	s := newStub(b)
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer null.Close()
	for b.Loop() {
		b.StopTimer()
		k := park(b, s)
		time.Sleep(time.Millisecond)
		b.StartTimer()
		p := launch.NewProgram(false)
		p.Exit(0)
		c, err := s.StartIn(k, p, "stub", [3]int{int(null.Fd()), int(null.Fd()), int(null.Fd())}, nil)
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
