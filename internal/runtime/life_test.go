package runtime_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/rootpath"
	"github.com/cleatlabs/cleat/internal/runtime"
	"github.com/cleatlabs/cleat/test/expect"
)

func TestCommandErrors(t *testing.T) {
	l := newLab(t)
	l.check(os.WriteFile(filepath.Join(l.image, "bin/plain"), []byte("x"), 0o644))
	l.check(os.WriteFile(filepath.Join(l.image, "bin/script"), []byte("#!/no/such/interpreter\n"), 0o755))
	l.check(os.WriteFile(filepath.Join(l.image, "bin/garbage"), []byte("garbage"), 0o755))
	tests := []struct {
		args []string
		code int
		text string
	}{
		{[]string{"foo"}, 127, `exec: "foo": executable file not found in $PATH`},
		{[]string{"/nosuch/foo"}, 127, `exec: "/nosuch/foo": stat /nosuch/foo: no such file or directory`},
		{[]string{"./foo"}, 127, `exec: "./foo": stat ./foo: no such file or directory`},
		{[]string{"/bin/busybox/x"}, 127, `exec: "/bin/busybox/x": stat /bin/busybox/x: not a directory`},
		{[]string{"plain"}, 126, `exec: "plain": permission denied`},
		{[]string{"/bin/plain"}, 126, `exec: "/bin/plain": permission denied: the file is not executable: chmod +x it`},
		{[]string{"/etc"}, 126, `exec: "/etc": is a directory: permission denied`},
		{[]string{"/bin/garbage"}, 126, `exec: "/bin/garbage": exec format error: it is neither a program nor a script with a first line such as #!/bin/sh`},
		{[]string{"/bin/script"}, 127, `exec: "/bin/script": no such file or directory: the file exists, but its interpreter "/no/such/interpreter" does not`},
	}
	for _, tt := range tests {
		err := l.startFails(l.spec(tt.args...))
		var se *runtime.StartError
		if !errors.As(err, &se) || se.Code != tt.code || se.Error() != tt.text {
			t.Errorf("%v: %v", tt.args, err)
		}
	}
	c := l.start(l.spec("sleep", "1000"))
	_, err := l.r.Exec(l.ctx(), l.exec(c, "foo"))
	var se *runtime.StartError
	if !errors.As(err, &se) || se.Code != 127 || se.Error() != `exec: "foo": executable file not found in $PATH` {
		t.Errorf("exec: %v", err)
	}
}

func (l *lab) exec(c *running, args ...string) *runtime.ExecSpec {
	return &runtime.ExecSpec{ID: newID(), ContainerID: c.s.ID, Target: c.Process, Args: args, Env: c.s.Env, Capabilities: defaultCaps, CgroupPath: c.s.CgroupPath}
}

func (l *lab) runExec(e *runtime.ExecSpec) *running {
	l.t.Helper()
	p, err := l.r.Exec(l.ctx(), e)
	if err != nil {
		l.t.Fatal(err)
	}
	x := l.collect(p, nil)
	l.t.Cleanup(x.remove)
	return x
}

func TestBadSpecsAreRefused(t *testing.T) {
	l := newLab(t)
	for name, change := range map[string]func(s *runtime.Spec){
		"no command":      func(s *runtime.Spec) { s.Args = nil },
		"id with a slash": func(s *runtime.Spec) { s.ID = "../x" },
		"apparmor":        func(s *runtime.Spec) { s.AppArmorProfile = "a\nb" },
		"long host name":  func(s *runtime.Spec) { s.Hostname = strings.Repeat("x", 65) },
		"mount on /":      func(s *runtime.Spec) { s.Mounts = []runtime.Mount{{Target: "/x/..", Type: "tmpfs"}} },
		"mount type":      func(s *runtime.Spec) { s.Mounts = []runtime.Mount{{Target: "/x", Type: "nfs"}} },
		"mount option": func(s *runtime.Spec) {
			s.Mounts = []runtime.Mount{{Target: "/x", Type: "tmpfs", Options: []string{"zz=1"}}}
		},
		"missing source":  func(s *runtime.Spec) { s.Mounts = []runtime.Mount{{Target: "/x", Type: "bind", Source: "/no/such"}} },
		"relative source": func(s *runtime.Spec) { s.Mounts = []runtime.Mount{{Target: "/x", Type: "bind", Source: "x"}} },
		"propagation": func(s *runtime.Spec) {
			s.Mounts = []runtime.Mount{{Target: "/x", Type: "bind", Source: "/tmp", Propagation: "zz"}}
		},
		"oom score":       func(s *runtime.Spec) { s.OOMScoreAdj = 1001 },
		"device":          func(s *runtime.Spec) { s.Devices = []runtime.Device{{Path: "x", Type: 'c'}} },
		"NUL in argument": func(s *runtime.Spec) { s.Args = []string{"echo", "a\x00b"} },
		"NUL in env":      func(s *runtime.Spec) { s.Env = []string{"a\x00b"} },
		"file onto dir": func(s *runtime.Spec) {
			s.Mounts = []runtime.Mount{{Target: "/etc", Type: "bind", Source: "/etc/passwd", IsFile: true}}
		},
		"cgroup path":      func(s *runtime.Spec) { s.CgroupPath = "/a/../b" },
		"huge argument":    func(s *runtime.Spec) { s.Args = []string{"echo", strings.Repeat("x", 1<<20)} },
		"sysctl bad value": func(s *runtime.Spec) { s.Sysctls = map[string]string{"net.ipv4.ip_forward": "many"} },
		"sysctl missing":   func(s *runtime.Spec) { s.Sysctls = map[string]string{"net.no.such": "1"} },
	} {
		s := l.spec("true")
		change(s)
		p, err := l.r.Start(l.ctx(), s)
		unix.Close(s.RootFD)
		if err == nil {
			t.Errorf("%s was accepted", name)
			l.collect(p, s).remove()
		}
	}
}

func TestSignals(t *testing.T) {
	l := newLab(t)
	c := l.start(l.spec("sh", "-c", "trap 'echo term; exit 3' TERM; echo ready; while :; do sleep 0.01; done"))
	expect.Eventually(t, "ready", func() bool { return strings.Contains(c.stdoutSoFar(), "ready") })
	l.check(c.Signal(15))
	if st := c.wait(); st.Code != 3 {
		t.Error(st)
	}
	if err := c.Signal(15); !errors.Is(err, runtime.ErrNotRunning) {
		t.Error(err)
	}
	c = l.start(l.spec("sleep", "1000"))
	before := time.Now()
	l.check(c.Signal(9))
	if st := c.wait(); st.Code != 137 || st.Signal != 9 || st.FinishedAt.Before(before) || st.FinishedAt.After(time.Now()) {
		t.Error(st, before)
	}
}

// stdoutSoFar is racy by nature: it is only ever waited on.
func (c *running) stdoutSoFar() string {
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	return c.stdout.String()
}

func TestStdin(t *testing.T) {
	l := newLab(t)
	s := l.spec("cat")
	s.OpenStdin, s.StdinOnce = true, true
	c := l.start(s)
	io.WriteString(c.Stdin(), "hello\n")
	l.check(c.CloseStdin())
	if c.wait().Code != 0 || c.stdout.String() != "hello\n" {
		t.Error(c.Status(), c.stdout.String())
	}
	// Without OpenStdin it is empty at once.
	if out := l.run(l.spec("cat")); out != "" {
		t.Error(out)
	}
}

func TestStdioBelongsToTheUser(t *testing.T) {
	l := newLab(t)
	s := l.spec("sh", "-c", "echo a > /dev/stdout; echo b > /dev/stderr")
	s.User = rootpath.User{UID: 1000, GID: 1000}
	c := l.start(s)
	if c.wait(); c.stdout.String() != "a\n" || c.stderr.String() != "b\n" {
		t.Error(c.stdout.String(), c.stderr.String())
	}
}

// console reads lines from a terminal.
type console struct {
	f *os.File
	r *bufio.Reader
}

func consoleOf(p *runtime.Process) *console {
	return &console{p.Console(), bufio.NewReader(p.Console())}
}

func (c *console) expect(t testing.TB, want string) {
	t.Helper()
	c.f.SetReadDeadline(time.Now().Add(expect.Patience))
	var seen strings.Builder
	for !strings.Contains(seen.String(), want) {
		b, err := c.r.ReadByte()
		if err != nil {
			t.Fatalf("%v before %q, after %q", err, want, seen.String())
		}
		seen.WriteByte(b)
	}
}

func TestTerminal(t *testing.T) {
	l := newLab(t)
	s := l.spec("sh", "-c", "tty; stty size; stat -c %t:%T /dev/console; [ /dev/console -ef /dev/pts/0 ] && echo same; stat -c '%u %a' /dev/pts/0; trap 'stty size' WINCH; echo ok; read x || read x; echo got $x; sleep 1000")
	s.TTY, s.OpenStdin, s.Rows, s.Cols = true, true, 30, 100
	s.User = rootpath.User{UID: 1000, GID: 1000}
	c := l.start(s)
	con := consoleOf(c.Process)
	con.expect(t, "/dev/pts/0\r\n30 100\r\n88:0\r\n")
	con.expect(t, "1000 620\r\nok\r\n")
	l.check(c.Resize(40, 120))
	con.expect(t, "40 120\r\n")
	io.WriteString(con.f, "typed\n")
	con.expect(t, "got typed\r\n")
	io.WriteString(con.f, "\x03")
	if st := c.wait(); st.Code != 130 {
		t.Error("^C does not reach the foreground:", st)
	}
}

func TestInit(t *testing.T) {
	l := newLab(t)
	s := l.spec("sh", "-c", "echo $$; cat /proc/1/comm; (sleep 0.01 &) ; sleep 0.1; cat /proc/[0-9]*/stat | grep -c ' Z '; trap 'echo term; exit 4' TERM; echo ready; while :; do sleep 0.01; done")
	s.Init, s.Seccomp = true, allowAll
	c := l.start(s)
	expect.Eventually(t, "ready", func() bool { return strings.Contains(c.stdoutSoFar(), "ready") })
	l.check(c.Signal(15))
	if st := c.wait(); st.Code != 4 || c.stdout.String() != "2\ncleat-init\n0\nready\nterm\n" {
		t.Errorf("%+v %q", st, c.stdout.String())
	}
	s = l.spec("sh", "-c", "until grep -q cleat-init /proc/1/cmdline; do sleep 0.01; done; cat /proc/1/cmdline; exit 0", strings.Repeat("long", 1024))
	s.Init = true
	title := strings.Join(append([]string{"cleat-init", "--"}, s.Args...), "\x00")[:4095] + "\x00"
	if got := l.run(s); got != title {
		t.Errorf("title %q", got)
	}
	s = l.spec("sh", "-c", "kill -9 $$")
	s.Init = true
	if st := l.start(s).wait(); st.Code != 137 {
		t.Error(st)
	}
	s = l.spec("nosuch")
	s.Init = true
	if err := l.startFails(s); err.Error() != `exec: "nosuch": executable file not found in $PATH` {
		t.Error(err)
	}
	s = l.spec("sh", "-c", "echo ok; read x")
	s.Init, s.TTY = true, true
	c = l.start(s)
	con := consoleOf(c.Process)
	con.expect(t, "ok")
	io.WriteString(con.f, "\x03")
	if st := c.wait(); st.Code != 130 {
		t.Error("^C under init:", st)
	}
}

func TestExec(t *testing.T) {
	l := newLab(t)
	s := l.spec("sleep", "1000")
	s.Cwd = "/work"
	c := l.start(s)
	e := l.exec(c, "sh", "-c", "for n in mnt uts ipc pid net cgroup; do readlink /proc/self/ns/$n; done; pwd; id; cat /proc/self/cgroup; grep -E '^(Cap|SigBlk|NoNew|Seccomp:)' /proc/self/status; cat /proc/self/oom_score_adj; ls /proc/self/fd; exit 9")
	e.Cwd, e.User, e.Seccomp, e.OOMScoreAdj = "/work", rootpath.User{UID: 5, GID: 6, Groups: []int{6, 7}}, allowAll, 77
	x := l.runExec(e)
	if st := x.wait(); st.Code != 9 {
		t.Fatal(st, x.stderr.String())
	}
	out := x.stdout.String()
	for _, kind := range []string{"mnt", "uts", "ipc", "pid", "net", "cgroup"} {
		ns, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", c.PID(), kind))
		if !strings.Contains(out, ns) {
			t.Errorf("not in the container's %s namespace", kind)
		}
	}
	for _, want := range []string{"/work\nuid=5 gid=6 groups=6,7\n", ":memory:/\n", "CapEff:\t0000000000000000", "CapBnd:\t00000000a80425fb", "SigBlk:\t0000000000000000", "NoNewPrivs:\t0", "Seccomp:\t2\n77\n0\n1\n2\n3\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	e = l.exec(c, "cat")
	e.OpenStdin = true
	p, err := l.r.Exec(l.ctx(), e)
	l.check(err)
	x = l.collect(p, nil)
	io.WriteString(x.Stdin(), "in\n")
	x.CloseStdin()
	if x.wait(); x.stdout.String() != "in\n" {
		t.Error(x.stdout.String())
	}
	x.remove()
	for _, dir := range []string{"/nosuch", "/proc/self/fd/7", "/proc/1/root"} {
		e = l.exec(c, "true")
		e.Cwd = dir
		if _, err := l.r.Exec(l.ctx(), e); err == nil || !strings.Contains(err.Error(), dir) {
			t.Errorf("cwd %s: %v", dir, err)
		}
	}
	c.Signal(9)
	c.wait()
	if _, err := l.r.Exec(l.ctx(), l.exec(c, "true")); !errors.Is(err, runtime.ErrNotRunning) {
		t.Error(err)
	}
}

func TestExecTerminal(t *testing.T) {
	l := newLab(t)
	c := l.start(l.spec("sleep", "1000"))
	e := l.exec(c, "sh", "-c", "tty; stty size; echo $$ >/dev/tty; read x; echo got $x; exit 3")
	e.TTY, e.OpenStdin, e.Rows, e.Cols = true, true, 10, 20
	p, err := l.r.Exec(l.ctx(), e)
	l.check(err)
	x := l.collect(p, nil)
	con := consoleOf(p)
	con.expect(t, "/dev/pts/0\r\n10 20\r\n")
	io.WriteString(con.f, "y\n")
	con.expect(t, "got y\r\n")
	if st := x.wait(); st.Code != 3 {
		t.Error(st)
	}
	x.remove()
	// Whatever a container has put at /dev/pts is not opened as a terminal.
	s := l.spec("sh", "-c", "umount /dev/pts && mknod /dev/pts/ptmx p && echo ok && sleep 1000")
	s.Capabilities |= 1 << unix.CAP_SYS_ADMIN
	c = l.start(s)
	expect.Eventually(t, "umount", func() bool { return strings.Contains(c.stdoutSoFar(), "ok") })
	e = l.exec(c, "true")
	e.TTY = true
	if _, err := l.r.Exec(l.ctx(), e); err == nil || !strings.Contains(err.Error(), "not a devpts") {
		t.Error(err)
	}
}

func TestCancelledStart(t *testing.T) {
	l := newLab(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	s := l.spec("sleep", "1000")
	p, err := l.r.Start(ctx, s)
	unix.Close(s.RootFD)
	if !errors.Is(err, context.Canceled) {
		if err == nil {
			l.collect(p, s).remove()
		}
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(l.c.Dir, s.ID)); !os.IsNotExist(err) {
		t.Error("the directory is left")
	}
}

// A process that joins a frozen group stands still: the caller's context ends the wait, and nothing of it is left after
// the thaw.
func TestExecIntoFrozen(t *testing.T) {
	l := newLab(t)
	c := l.start(l.spec("sleep", "1000"))
	g, err := l.r.Group(c.s.CgroupPath)
	l.check(err)
	l.check(g.Freeze())
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	e := l.exec(c, "touch", "/tmp/done")
	p, err := l.r.Exec(ctx, e)
	l.check(g.Thaw())
	if !errors.Is(err, context.DeadlineExceeded) {
		if err == nil {
			l.collect(p, nil).remove()
		}
		t.Fatal(err)
	}
	expect.Eventually(t, "the group to hold the container's process alone", func() bool {
		pids, err := g.Procs()
		return err == nil && len(pids) == 1
	})
	if _, err := os.Stat(filepath.Join(l.dir, c.s.ID+"-u", "tmp/done")); err == nil {
		t.Error("the cancelled exec ran")
	}
	if _, err := os.Stat(filepath.Join(l.c.Dir, e.ID)); !os.IsNotExist(err) {
		t.Error("its directory is left")
	}
}

func TestMemoryTooSmall(t *testing.T) {
	l := newLab(t)
	s := l.spec("sleep", "1000")
	s.Resources.Memory = 4096
	if err := l.startFails(s); !strings.Contains(err.Error(), "memory limit") {
		t.Error(err)
	}
}

func TestKeeper(t *testing.T) {
	l := newLab(t)
	c := l.start(l.spec("sleep", "1000"))
	k := c.Record().KeeperPID
	read := func(name string) string {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", k, name))
		l.check(err)
		return string(b)
	}
	if got := read("comm"); got != "cleat-keeper\n" {
		t.Error(got)
	}
	if b := read("cmdline"); !strings.HasPrefix(b, "cleat-keeper "+c.ID()) {
		t.Error(b)
	}
	if cwd, _ := os.Readlink(fmt.Sprintf("/proc/%d/cwd", k)); cwd != "/" {
		t.Error(cwd)
	}
	// The process may run before its keeper has let go of what only the start needed.
	expect.Eventually(t, "the keeper has three descriptors", func() bool {
		fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", k))
		l.check(err)
		var names []string
		for _, f := range fds {
			names = append(names, f.Name())
		}
		return strings.Join(names, " ") == "5 6 7"
	})
	if strings.Contains(read("maps"), "cleat-launch") {
		t.Error("the program is still mapped")
	}
	if strings.Contains(read("cgroup"), c.ID()) {
		t.Error("the keeper is in the container's control group")
	}
	status := read("status")
	if !strings.Contains(status, "SigBlk:\tfffffffffffbfeff") {
		t.Error(status)
	}
	if l.r.HeldCapabilities()&(1<<unix.CAP_SYS_RESOURCE) != 0 && read("oom_score_adj") != "-999\n" {
		t.Error(read("oom_score_adj"))
	}
	// Signals do not end it.
	for sig := 1; sig < 64; sig++ {
		if sig != 9 && sig != 19 {
			l.check(unix.Kill(k, syscall.Signal(sig)))
		}
	}
	l.check(c.Signal(15))
	c.l.check(c.Signal(9))
	if st := c.wait(); st.Code != 137 {
		t.Error(st)
	}
}

func TestKilledKeeper(t *testing.T) {
	l := newLab(t)
	c := l.start(l.spec("sh", "-c", "trap 'exit 6' TERM; echo ready; while :; do sleep 0.01; done"))
	expect.Eventually(t, "ready", func() bool { return strings.Contains(c.stdoutSoFar(), "ready") })
	l.check(unix.Kill(c.Record().KeeperPID, unix.SIGKILL))
	select {
	case <-c.Done():
		t.Fatal("the container went with its keeper")
	case <-time.After(50 * time.Millisecond):
	}
	c.terminate()
	if st := c.wait(); st.Code != 6 || st.Reason != "" {
		t.Error(st)
	}
}

// A keeper that somebody has stopped collects the process that is killed all the same.
func TestStoppedKeeper(t *testing.T) {
	l := newLab(t)
	c := l.start(l.spec("sleep", "600"))
	keeper := c.Record().KeeperPID
	l.check(unix.Kill(keeper, unix.SIGSTOP))
	expect.Eventually(t, "the keeper is stopped", func() bool {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", keeper))
		return err == nil && strings.Contains(string(text), "State:\tT")
	})
	l.check(c.Signal(9))
	if st := c.wait(); st.Code != 137 {
		t.Error(st)
	}
}

func TestDumpMatchesGolden(t *testing.T) {
	l := newLab(t)
	l.c.Features.LastCap = 40
	l.r = l.newRuntime()
	s := &runtime.Spec{
		ID: "0123456789ab", RootFD: -1, Args: []string{"nginx", "-g", "daemon off;"}, Env: []string{"PATH=/usr/sbin:/usr/bin"}, Cwd: "/srv",
		User: rootpath.User{UID: 101, GID: 101, Groups: []int{101}}, Hostname: "0123456789ab", NetNS: runtime.NewNetwork, Capabilities: defaultCaps,
		Seccomp: allowAll, MaskedPaths: []string{"/proc/keys", "/proc/fs", "/proc/no-such-thing"}, ReadonlyPaths: []string{"/proc/sys"}, ReadonlyRootfs: true,
		Mounts: []runtime.Mount{
			{Target: "/data", Type: "bind", Source: "/srv/data", ReadOnly: true},
			{Target: "/run", Type: "tmpfs", Options: []string{"size=64m"}},
		},
		Rlimits: []runtime.Rlimit{{Type: "nofile", Soft: 1024, Hard: 4096}}, Init: true, TTY: true,
	}
	got, err := l.r.Dump(s)
	l.check(err)
	again, err := l.r.Dump(s)
	l.check(err)
	got = strings.ReplaceAll(got, l.c.Dir, "/run/cleat")
	if strings.ReplaceAll(again, l.c.Dir, "/run/cleat") != got {
		t.Error("two dumps of one container differ")
	}
	expect.Golden(t, "testdata/default.golden", got)
}
