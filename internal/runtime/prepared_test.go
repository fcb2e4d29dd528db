package runtime_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/launch"
	"github.com/cleatlabs/cleat/internal/runtime"
	"github.com/cleatlabs/cleat/test/expect"
)

// members are the processes in a container's control group.
func (c *running) members() []string {
	for _, root := range []string{"/sys/fs/cgroup/memory", "/sys/fs/cgroup"} {
		if b, err := os.ReadFile(filepath.Join(root, c.s.CgroupPath, "cgroup.procs")); err == nil {
			return strings.Fields(string(b))
		}
	}
	return nil
}

// prepare waits until the process of a prepared exec is there, beside the container's.
func (l *lab) prepare(c *running, e *runtime.ExecSpec) (x *runtime.PreparedExec, pid int) {
	l.t.Helper()
	x, err := l.r.Prepare(e)
	l.check(err)
	expect.Eventually(l.t, "the prepared process", func() bool {
		for _, m := range c.members() {
			// The helper that makes it has the PID namespace of the engine.
			ns, _ := os.Readlink("/proc/" + m + "/ns/pid")
			if own, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", c.PID())); ns == own && m != fmt.Sprint(c.PID()) {
				fmt.Sscan(m, &pid)
			}
		}
		return pid != 0 && len(c.members()) == 2
	})
	return x, pid
}

// interfere writes to what a process reports by, as one that may trace it can.
func (l *lab) interfere(pid int, message ...uint64) {
	l.t.Helper()
	pidfd, err := unix.PidfdOpen(pid, 0)
	l.check(err)
	defer unix.Close(pidfd)
	report, err := unix.PidfdGetfd(pidfd, launch.ReportFD, 0)
	l.check(err)
	defer unix.Close(report)
	var b []byte
	for _, word := range message {
		b = binary.LittleEndian.AppendUint64(b, word)
	}
	_, err = unix.Write(report, b)
	l.check(err)
}

// What a process of the container has reported in the place of an exec's makes the engine take no other process of the
// machine for that one.
func TestForgedReport(t *testing.T) {
	l := newLab(t)
	c := l.start(l.spec("sleep", "1000"))
	other := exec.Command("sleep", "1000")
	l.check(other.Start())
	defer func() { _ = other.Process.Kill(); _ = other.Wait() }()
	const itsPID, failure = 1, 2 // kinds of messages
	for _, message := range [][]uint64{{itsPID, uint64(other.Process.Pid), 0}, {failure, 1 << 63, 1}} {
		e := l.exec(c, "sleep", "1000")
		x, pid := l.prepare(c, e)
		l.interfere(pid, message...)
		if p, err := x.Run(l.ctx(), 0, 0); err == nil {
			t.Errorf("%v: the exec is process %d, the container's %d, the other %d", message, p.PID(), pid, other.Process.Pid)
			_ = p.Signal(int(unix.SIGKILL))
		}
		expect.Eventually(t, "the exec's process to be gone", func() bool { return len(c.members()) == 1 })
		l.gone(e)
	}
	// A number that is nobody's.
	e := l.exec(c, "sleep", "1000")
	x, pid := l.prepare(c, e)
	l.interfere(pid, itsPID, 1<<22, 0)
	if r := l.runPrepared(x, 0, 0); r.PID() != 0 || r.Record().PID != 0 {
		t.Errorf("the exec is process %d", r.PID())
	}
	l.check(unix.Kill(pid, unix.SIGKILL))
}

func (l *lab) runPrepared(x *runtime.PreparedExec, rows, cols uint16) *running {
	l.t.Helper()
	p, err := x.Run(l.ctx(), rows, cols)
	l.check(err)
	r := l.collect(p, nil)
	l.t.Cleanup(r.remove)
	return r
}

// gone says that there is nothing of an exec.
func (l *lab) gone(e *runtime.ExecSpec) {
	l.t.Helper()
	if _, err := os.Stat(filepath.Join(l.c.Dir, e.ID)); !os.IsNotExist(err) {
		l.t.Errorf("the directory is left: %v", err)
	}
}

// A prepared exec waits in the container, confined as its command will be, and becomes that command when it is told to.
func TestPreparedExec(t *testing.T) {
	l := newLab(t)
	c := l.start(l.spec("sleep", "1000"))
	e := l.exec(c, "sh", "-c", "grep -E '^(CapEff|Seccomp:|SigBlk)' /proc/self/status; ls /proc/self/fd; echo $$; exit 7")
	e.Seccomp = allowAll
	prepared, pid := l.prepare(c, e)
	for _, want := range []string{"Seccomp:\t2", "CapEff:\t00000000a80425fb", "CapBnd:\t00000000a80425fb", "CapInh:\t0000000000000000"} {
		expect.Eventually(t, want+" while it waits", func() bool {
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
			l.check(err)
			return strings.Contains(string(status), want)
		})
	}
	if fds, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid)); len(fds) > 5 { // stdio, report, gate
		t.Errorf("while it waits: descriptors %v", fds)
	}
	x := l.runPrepared(prepared, 0, 0)
	if st := x.wait(); st.Code != 7 || x.PID() != pid {
		t.Error(st, x.PID(), pid, x.stderr.String())
	}
	for _, want := range []string{"CapEff:\t00000000a80425fb\n", "SigBlk:\t0000000000000000\n", "Seccomp:\t2\n", "\n0\n1\n2\n3\n"} {
		if !strings.Contains(x.stdout.String(), want) {
			t.Errorf("no %q in %s", want, x.stdout.String())
		}
	}
}

func TestPreparedExecDiscarded(t *testing.T) {
	l := newLab(t)
	c := l.start(l.spec("sleep", "1000"))
	e := l.exec(c, "touch", "/tmp/ran")
	prepared, _ := l.prepare(c, e)
	prepared.Discard()
	l.gone(e)
	if m := c.members(); len(m) != 1 {
		t.Errorf("processes %v", m)
	}
	// At once, before there is a process.
	prepared, err := l.r.Prepare(e)
	l.check(err)
	prepared.Discard()
	l.gone(e)
	x := l.runExec(l.exec(c, "ls", "/tmp"))
	if x.wait(); x.stdout.String() != "" {
		t.Error("it has run its command")
	}
}

// Whatever becomes of a prepared process before it is wanted, the exec is what it would have been without.
func TestPreparedExecMadeAnew(t *testing.T) {
	l := newLab(t)
	c := l.start(l.spec("sleep", "1000"))

	prepared, pid := l.prepare(c, l.exec(c, "echo", "here"))
	l.check(syscall.Kill(pid, syscall.SIGKILL))
	expect.Eventually(t, "the end", func() bool { return len(c.members()) == 1 })
	x := l.runPrepared(prepared, 0, 0)
	if st := x.wait(); st.Code != 0 || x.stdout.String() != "here\n" || x.PID() == pid {
		t.Error("one that was killed:", st, x.stdout.String())
	}

	e := l.exec(c, "ls", "/proc/self/cwd/")
	e.Cwd = "/tmp/later"
	prepared, err := l.r.Prepare(e)
	l.check(err)
	expect.Eventually(t, "its failure", func() bool { return len(c.members()) == 1 && !prepared.Waits() })
	l.runExec(l.exec(c, "mkdir", "/tmp/later")).wait()
	if st := l.runPrepared(prepared, 0, 0).wait(); st.Code != 0 {
		t.Error("a directory that was made meanwhile:", st)
	}

	e = l.exec(c, "echo", "unread")
	e.Seccomp = denyRead
	prepared, err = l.r.Prepare(e)
	l.check(err)
	x = l.runPrepared(prepared, 0, 0)
	if st := x.wait(); st.Code != 0 || x.stdout.String() != "unread\n" {
		t.Error("a filter that forbids read:", st, x.stdout.String(), x.stderr.String())
	}

	prepared, err = l.r.Prepare(l.exec(c, "nosuch"))
	l.check(err)
	var failed *runtime.StartError
	if _, err := prepared.Run(l.ctx(), 0, 0); !errors.As(err, &failed) || failed.Code != 127 {
		t.Error("a command that is not there:", err)
	}

	e = l.exec(c, "true")
	prepared, _ = l.prepare(c, e)
	c.Signal(9)
	c.wait()
	if _, err := prepared.Run(l.ctx(), 0, 0); !errors.Is(err, runtime.ErrNotRunning) {
		t.Error("a container that has ended:", err)
	}
	l.gone(e)
	if _, err := l.r.Prepare(e); !errors.Is(err, runtime.ErrNotRunning) {
		t.Error("a container that has ended:", err)
	}
}

// denyRead answers EPERM to read(2) of amd64 (0) and arm64 (63), and allows all else.
var denyRead = []byte{
	0x20, 0, 0, 0, 0, 0, 0, 0, // number
	0x15, 0, 2, 0, 0, 0, 0, 0, // 0: deny
	0x15, 0, 1, 0, 63, 0, 0, 0, // 63: deny
	6, 0, 0, 0, 0, 0, 0xff, 0x7f, // allow
	6, 0, 0, 0, 1, 0, 5, 0, // EPERM
}

func TestPreparedExecTerminal(t *testing.T) {
	l := newLab(t)
	c := l.start(l.spec("sleep", "1000"))
	e := l.exec(c, "sh", "-c", "stty size; read x; echo got $x")
	e.TTY, e.OpenStdin, e.Rows, e.Cols = true, true, 10, 20
	prepared, _ := l.prepare(c, e)
	x := l.runPrepared(prepared, 30, 40)
	con := consoleOf(x.Process)
	con.expect(t, "30 40\r\n")
	if _, err := con.f.WriteString("y\n"); err != nil {
		t.Fatal(err)
	}
	con.expect(t, "got y\r\n")
	x.wait()
}
