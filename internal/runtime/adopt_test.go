package runtime_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/cgroup"
	"github.com/cleatlabs/cleat/internal/keeper"
	"github.com/cleatlabs/cleat/internal/kernel"
	"github.com/cleatlabs/cleat/internal/runtime"
	"github.com/cleatlabs/cleat/test/expect"
)

// startRaw starts s without anyone reading its output.
func (l *lab) startRaw(s *runtime.Spec) *runtime.Process {
	l.t.Helper()
	p, err := l.r.Start(l.ctx(), s)
	unix.Close(s.RootFD)
	l.check(err)
	return p
}

// persisted is what a record looks like to the next engine.
func (l *lab) persisted(r keeper.Record) keeper.Record {
	l.t.Helper()
	b, err := json.Marshal(r)
	l.check(err)
	var out keeper.Record
	l.check(json.Unmarshal(b, &out))
	return out
}

func (l *lab) adopt(r *runtime.Runtime, rec keeper.Record, s *runtime.Spec) *running {
	l.t.Helper()
	p, err := r.Adopt(l.ctx(), l.persisted(rec))
	l.check(err)
	c := l.collect(p, s)
	l.t.Cleanup(c.remove)
	return c
}

func TestAdoptRunning(t *testing.T) {
	l := newLab(t)
	s := l.spec("sh", "-c", "echo first; read x; echo got $x; exit 5")
	s.OpenStdin = true
	p := l.startRaw(s)
	rec := p.Record()
	p.Detach()
	if err := p.Signal(15); err == nil {
		t.Error("a detached process takes signals")
	}
	c := l.adopt(l.newRuntime(), rec, s)
	if c.PID() != p.PID() {
		t.Error("another PID")
	}
	select {
	case <-c.Done():
		t.Fatal("an adopted process seems to have ended")
	default:
	}
	x := l.runExec(l.exec(c, "true"))
	if x.wait().Code != 0 {
		t.Error("exec into an adopted container")
	}
	io.WriteString(c.Stdin(), "hello\n")
	if st := c.wait(); st.Code != 5 || c.stdout.String() != "first\ngot hello\n" {
		t.Errorf("%+v %q", st, c.stdout.String())
	}
}

// A record that was written while the process was being set up leads to it, too, while its keeper has it.
func TestAdoptByARecordWrittenAhead(t *testing.T) {
	l := newLab(t)
	s := l.spec("sh", "-c", "read x; exit 6")
	s.OpenStdin = true
	var early keeper.Record
	s.Meanwhile = func(r keeper.Record) error { early = r; return nil }
	p := l.startRaw(s)
	if early.PID != 0 || early.KeeperPID == 0 || early.KeeperStart == 0 {
		t.Errorf("the record before there is a process: %+v", early)
	}
	if whole := keeper.Complete(l.persisted(early)); whole != p.Record() {
		t.Errorf("completed: %+v, want %+v", whole, p.Record())
	}
	p.Detach()
	c := l.adopt(l.newRuntime(), keeper.Complete(early), s)
	if c.PID() != p.PID() {
		t.Error("another PID")
	}
	io.WriteString(c.Stdin(), "go\n")
	if st := c.wait(); st.Code != 6 {
		t.Errorf("%+v", st)
	}
	if ended := keeper.Complete(early); ended.PIDStart != 0 {
		t.Errorf("a process that is gone: %+v", ended)
	}
}

// An engine that dies before it has written down that a container runs leaves none that does: the command is not executed
// before.
func TestCommandWaitsForItsRecord(t *testing.T) {
	l := newLab(t)
	s := l.spec("sleep", "600")
	reading := fmt.Sprintf("%d ", unix.SYS_READ)
	s.Meanwhile = func(r keeper.Record) error {
		expect.Eventually(t, "the process waits", func() bool {
			proc := fmt.Sprintf("/proc/%d/", keeper.Complete(r).PID)
			if name, _ := os.ReadFile(proc + "comm"); string(name) == "sleep\n" {
				t.Error("the command was executed before its record was written")
				return true
			}
			call, _ := os.ReadFile(proc + "syscall")
			return strings.HasPrefix(string(call), reading)
		})
		// Who may trace it could take what it has.
		fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", keeper.Complete(r).PID))
		for _, fd := range fds {
			if len(fd.Name()) > 1 || fd.Name() > "4" {
				t.Errorf("the process has %v while it waits: more than stdio, gate and report", fds)
				break
			}
		}
		return err
	}
	l.start(s)
}

// A process whose record cannot be written does not come to its command, and nothing is left of it.
func TestStartWhoseRecordIsNotWritten(t *testing.T) {
	l := newLab(t)
	out := t.TempDir()
	ran := filepath.Join(out, "ran")
	s := l.spec("touch", "/out/ran")
	s.Mounts = append(s.Mounts, runtime.Mount{Type: "bind", Source: out, Target: "/out"})
	full := errors.New("no room")
	var rec keeper.Record
	s.Meanwhile = func(r keeper.Record) error { rec = r; return full }
	if err := l.startFails(s); !errors.Is(err, full) {
		t.Errorf("the start: %v", err)
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("the command was executed")
	}
	if pidfd, err := keeper.OpenProcess(rec.KeeperPID, rec.KeeperStart); err == nil {
		unix.Close(pidfd)
		t.Error("its keeper is there")
	}
	if _, err := os.Stat(rec.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its directory is left: %v", err)
	}
}

// The process goes on without its keeper: that record leads to it all the same.
func TestAdoptByARecordWrittenAheadWithoutKeeper(t *testing.T) {
	l := newLab(t)
	s := l.spec("sleep", "600")
	var early keeper.Record
	s.Meanwhile = func(r keeper.Record) error { early = r; return nil }
	p := l.startRaw(s)
	want := p.Record()
	p.Detach()
	l.check(unix.Kill(want.KeeperPID, unix.SIGKILL))
	unix.Wait4(want.KeeperPID, nil, 0, nil)
	whole := keeper.Complete(early)
	if whole != want {
		t.Errorf("completed: %+v, want %+v", whole, want)
	}
	c := l.adopt(l.newRuntime(), whole, s)
	l.check(c.Signal(9))
	if st := c.wait(); st.Code != 137 && st.Reason == "" {
		t.Errorf("%+v", st)
	}
}

func TestAdoptTerminal(t *testing.T) {
	l := newLab(t)
	s := l.spec("sh", "-c", "echo ready; read x; echo got $x; stty size; exit 2")
	s.TTY, s.OpenStdin = true, true
	p := l.startRaw(s)
	consoleOf(p).expect(t, "ready")
	rec := p.Record()
	p.Detach()
	c := l.adopt(l.newRuntime(), rec, s)
	l.check(c.Resize(33, 44))
	con := consoleOf(c.Process)
	io.WriteString(c.Console(), "typed\n")
	con.expect(t, "got typed\r\n33 44\r\n")
	if st := c.wait(); st.Code != 2 {
		t.Error(st)
	}
}

// Output written and exit codes returned while there is no engine are kept.
func TestAdoptEnded(t *testing.T) {
	l := newLab(t)
	big := strings.Repeat("0123456789abcdef", 4096)
	for _, tty := range []bool{false, true} {
		s := l.spec("sh", "-c", "until [ -e /go/now ]; do sleep 0.01; done; echo out; echo err >&2; cat /go/now; exit 3")
		gate := filepath.Join(l.dir, s.ID+"-gate")
		l.check(os.Mkdir(gate, 0o755))
		s.Mounts = []runtime.Mount{{Target: "/go", Type: "bind", Source: gate}}
		s.TTY = tty
		p := l.startRaw(s)
		rec := p.Record()
		p.Detach()
		content := big
		if tty {
			content = "short\n" // what a terminal holds is small
		}
		l.check(os.WriteFile(filepath.Join(gate, ".now"), []byte(content), 0o644))
		l.check(os.Rename(filepath.Join(gate, ".now"), filepath.Join(gate, "now")))
		expect.Eventually(t, "the keeper's end", func() bool { return unix.Kill(rec.KeeperPID, 0) != nil || zombie(rec.KeeperPID) })
		c := l.adopt(l.newRuntime(), rec, s)
		select {
		case <-c.Done():
		default:
			t.Fatal("Done is open for a process that has ended")
		}
		if st := c.wait(); st.Code != 3 || st.Reason != "" || time.Since(st.FinishedAt) > time.Minute {
			t.Error(st)
		}
		if tty {
			b, err := io.ReadAll(c.Console())
			l.check(err)
			if string(b) != "out\r\nerr\r\nshort\r\n" {
				t.Errorf("terminal: %q", b)
			}
		} else if c.stdout.String() != "out\n"+big || c.stderr.String() != "err\n" {
			t.Errorf("output of %d and %d bytes", c.stdout.Len(), c.stderr.Len())
		}
	}
}

func zombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(b), ") Z ")
}

func TestAdoptWithoutKeeper(t *testing.T) {
	l := newLab(t)
	s := l.spec("sh", "-c", "trap 'exit 6' TERM; echo ready; while :; do sleep 0.01; done")
	p := l.startRaw(s)
	if _, err := io.ReadFull(p.Stdout(), make([]byte, len("ready\n"))); err != nil {
		t.Fatal(err)
	}
	rec := p.Record()
	p.Detach()
	l.check(unix.Kill(rec.KeeperPID, unix.SIGKILL))
	expect.Eventually(t, "the keeper's end", func() bool { return unix.Kill(rec.KeeperPID, 0) != nil || zombie(rec.KeeperPID) })
	c := l.adopt(l.newRuntime(), rec, s)
	c.terminate()
	if st := c.wait(); st.Code != 6 && st.Reason == "" {
		t.Error(st)
	}
	// And one that is gone altogether.
	c.Detach()
	rec.PID, rec.PIDStart = 1<<22-1, 1
	c2, err := l.r.Adopt(l.ctx(), rec)
	l.check(err)
	<-c2.Done()
	if st := c2.Status(); st.Code != 255 || st.Reason == "" {
		t.Error(st)
	}
}

func TestAdoptSomethingElse(t *testing.T) {
	l := newLab(t)
	s := l.spec("sleep", "1000")
	p := l.startRaw(s)
	defer func() {
		l.r.Sweep(nil)
		l.check(l.r.RemoveCgroup(s.CgroupPath))
	}()
	rec := p.Record()
	if _, err := l.newRuntime().Adopt(l.ctx(), rec); !errors.Is(err, keeper.ErrHeld) {
		t.Errorf("taken from a living engine: %v", err)
	}
	p.Detach()
	for name, change := range map[string]func(r *keeper.Record){
		"restarted":        func(r *keeper.Record) { r.BootID = "another" },
		"status file":      func(r *keeper.Record) { r.Dir += "x"; r.KeeperStart++ }, // its keeper alone would prove it
		"keeper's PID":     func(r *keeper.Record) { r.KeeperPID, r.PID = os.Getpid(), os.Getpid() },
		"both start times": func(r *keeper.Record) { r.KeeperStart, r.PIDStart = r.KeeperStart+1, r.PIDStart+1 },
	} {
		other := rec
		change(&other)
		q, err := l.r.Adopt(l.ctx(), other)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		<-q.Done()
		if st := q.Status(); st.Code != 255 || st.Reason == "" {
			t.Errorf("%s: %+v", name, st)
		}
		q.Detach()
	}
	rec.Layout = 99
	if _, err := l.r.Adopt(l.ctx(), rec); err == nil || !strings.Contains(err.Error(), "layout 99") {
		t.Error(err)
	}
}

func TestSweep(t *testing.T) {
	l := newLab(t)
	kept := l.start(l.spec("sleep", "1000"))
	s := l.spec("sleep", "1000")
	lost := l.startRaw(s)
	lostRec := lost.Record()
	x, err := l.r.Exec(l.ctx(), l.exec(kept, "sleep", "1000"))
	l.check(err)
	xRec := x.Record()
	x.Detach()
	lost.Detach()
	stale := filepath.Join(l.c.Dir, "stale")
	l.check(os.Mkdir(stale, 0o700))
	l.newRuntime().Sweep([]keeper.Record{kept.Record()})
	for _, rec := range []keeper.Record{lostRec, xRec} {
		expect.Eventually(t, "the end of what nobody knows", func() bool { return unix.Kill(rec.PID, 0) != nil || zombie(rec.PID) })
		if _, err := os.Stat(rec.Dir); !os.IsNotExist(err) {
			t.Errorf("%s is left", rec.Dir)
		}
	}
	if _, err := os.Stat(stale); !os.IsNotExist(err) {
		t.Error("an empty directory is left")
	}
	select {
	case <-kept.Done():
		t.Error("a kept process was swept")
	default:
	}
	l.check(l.r.RemoveCgroup(s.CgroupPath))
}

// An engine that is killed is nothing to its containers.
func TestEngineKilled(t *testing.T) {
	l := newLab(t)
	s := l.spec("sh", "-c", "n=0; until [ -e /go/now ]; do n=$((n+1)); echo $n; sleep 0.005; done; echo end; exit 4")
	defer unix.Close(s.RootFD)
	gate := filepath.Join(l.dir, "gate")
	l.check(os.Mkdir(gate, 0o755))
	r, w, err := os.Pipe()
	l.check(err)
	defer r.Close()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestHelperEngine$")
	cmd.Env = append(os.Environ(), "CLEAT_HELPER_DIR="+l.c.Dir, "CLEAT_HELPER_ID="+s.ID, "CLEAT_HELPER_GATE="+gate, "CLEAT_HELPER_GROUP="+s.CgroupPath, "CLEAT_HELPER_SCRIPT="+s.Args[2])
	cmd.ExtraFiles = []*os.File{os.NewFile(uintptr(mustDup(t, s.RootFD)), "root"), w}
	cmd.Stderr = os.Stderr
	cmd.Stdout = os.Stderr
	l.check(cmd.Start())
	w.Close()
	cmd.ExtraFiles[0].Close()
	var rec keeper.Record
	l.check(json.NewDecoder(r).Decode(&rec))
	l.check(cmd.Process.Kill())
	cmd.Wait()
	c := l.adopt(l.newRuntime(), rec, s)
	expect.Eventually(t, "output", func() bool { return strings.Contains(c.stdoutSoFar(), "\n20\n") })
	l.check(os.WriteFile(filepath.Join(gate, "now"), nil, 0o644))
	if st := c.wait(); st.Code != 4 {
		t.Error(st)
	}
	for i, line := range lines(c.stdout.String()) {
		if line != fmt.Sprint(i+1) && line != "end" {
			t.Fatalf("line %d is %q", i+1, line)
		}
	}
}

func mustDup(t testing.TB, fd int) int {
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestHelperEngine is the engine that TestEngineKilled kills.
func TestHelperEngine(t *testing.T) {
	dir := os.Getenv("CLEAT_HELPER_DIR")
	if dir == "" {
		t.Skip("runs only for TestEngineKilled")
	}
	l := &lab{t: t}
	features, err := kernel.Probe()
	l.check(err)
	groups, err := cgroup.Detect()
	l.check(err)
	r, err := runtime.New(runtime.Config{Dir: dir, FallbackDir: dir, Cgroups: groups, Features: features})
	l.check(err)
	id := os.Getenv("CLEAT_HELPER_ID")
	s := &runtime.Spec{ID: id, RootFD: 3, Args: []string{"sh", "-c", os.Getenv("CLEAT_HELPER_SCRIPT")}, Env: []string{"PATH=/bin"}, NetNS: runtime.NewNetwork, Hostname: "x",
		CgroupPath: os.Getenv("CLEAT_HELPER_GROUP"), Capabilities: defaultCaps, Resources: cgroup.Resources{Devices: cgroup.DefaultDeviceRules()}, Mounts: []runtime.Mount{{Target: "/go", Type: "bind", Source: os.Getenv("CLEAT_HELPER_GATE")}}}
	p, err := r.Start(context.Background(), s)
	l.check(err)
	l.check(json.NewEncoder(os.NewFile(4, "out")).Encode(p.Record()))
	time.Sleep(time.Hour)
}

func TestStopHint(t *testing.T) {
	l := newLab(t)
	settles := func(want runtime.Reaction, s *runtime.Spec) {
		t.Helper()
		c := l.start(s)
		expect.Eventually(t, fmt.Sprint("the answer ", want), func() bool { return c.StopHint(15) == want })
	}
	settles(runtime.Deaf, l.spec("sleep", "1000"))
	settles(runtime.MayReact, l.spec("sh", "-c", "trap : TERM; while :; do sleep 1; done"))
	s := l.spec("sleep", "1000")
	s.Init = true
	settles(runtime.MayReact, s)
	// One that is always busy is never taken for deaf.
	busy := l.start(l.spec("sh", "-c", "while :; do :; done"))
	expect.Eventually(t, "it runs", func() bool { return busy.StopHint(15) == runtime.Unsettled })
	// Not PID 1: the default action ends it.
	s = l.spec("sleep", "1000")
	s.HostPID = true
	if c := l.start(s); c.StopHint(15) != runtime.MayReact {
		t.Error("a process in the host's PID namespace is said to be shielded")
	}
}
