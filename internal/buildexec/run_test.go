package buildexec_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/network"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/test/expect"
)

func TestProcess(t *testing.T) {
	l := newLab(t)
	l.check(os.WriteFile(l.image+"/etc/passwd", []byte("root:x:0:0::/root:/bin/sh\nweb:x:33:33::/srv/web:/bin/sh\n"), 0o644))
	l.check(os.WriteFile(l.image+"/etc/group", []byte("root:x:0:\nweb:x:33:\nextra:x:77:web\n"), 0o644))
	for _, tc := range []struct {
		name   string
		change func(m *executor.Meta)
		script string
		want   string
	}{
		{"root", nil, "id -u; id -g; echo $HOME; hostname; pwd; umask", "0\n0\n/root\nbuildkitsandbox\n/\n0022\n"},
		{"user", func(m *executor.Meta) { m.User = "web" }, "id -u; id -g; id -G; echo $HOME", "33\n33\n33 77\n/srv/web\n"},
		{"user and group", func(m *executor.Meta) { m.User = "5:extra" }, "id -u; id -g; id -G; echo $HOME", "5\n77\n77\n/\n"},
		{"numbers", func(m *executor.Meta) { m.User = "1000:1001" }, "id -u; id -g; id -G", "1000\n1001\n1001\n"},
		{"environment", func(m *executor.Meta) { m.Env = append(m.Env, "A=b c", "HOME=/h") }, "echo $A $HOME", "b c /h\n"},
		{"host name", func(m *executor.Meta) { m.Hostname = "box" }, "hostname; cat /etc/hosts", "box\n127.0.0.1\tlocalhost box\n::1\tlocalhost ip6-localhost ip6-loopback\n"},
		{"extra hosts", func(m *executor.Meta) {
			m.ExtraHosts = []executor.HostIP{{Host: "db", IP: net.ParseIP("10.1.2.3")}, {Host: "db6", IP: net.ParseIP("fd00::1")}}
		}, "tail -n 2 /etc/hosts", "10.1.2.3\tdb\nfd00::1\tdb6\n"},
		{"working directory", func(m *executor.Meta) { m.Cwd, m.User = "/new/dir", "33:33" }, "pwd; stat -c '%u:%g %a' . ..", "/new/dir\n33:33 755\n33:33 755\n"},
		{"limits", func(m *executor.Meta) {
			m.Ulimit = []*pb.Ulimit{{Name: "nofile", Soft: 123, Hard: 456}, {Name: "core", Soft: -1, Hard: -1}}
		}, "ulimit -n; ulimit -Hn; ulimit -c", "123\n456\nunlimited\n"},
		{"read-only root", func(m *executor.Meta) { m.ReadonlyRootFS = true }, "touch /x 2>/dev/null || echo refused", "refused\n"},
		{"resolver", nil, "cat /etc/resolv.conf; echo x 2>/dev/null > /etc/resolv.conf || echo refused", "nameserver 192.0.2.53\nsearch example.org\nrefused\n"},
		{"no input", nil, "cat; echo end", "end\n"},
		{"no terminal", nil, "tty", "not a tty\n"},
		{"first process", nil, "echo $$; set -- /proc/[0-9]*; echo $#", "1\n1\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := &lab{engine: l.engine, t: t, image: l.image, n: l.take(20)}
			j := l.job(tc.script)
			if tc.change != nil {
				tc.change(&j.info.Meta)
			}
			err := l.run(j)
			if got := j.stdout.String(); got != tc.want || err != nil && tc.name != "no terminal" {
				t.Errorf("%v: %q, want %q; stderr %q", err, got, tc.want, j.stderr.String())
			}
		})
	}
}

// take gives numbers of root filesystems to a part of a test.
func (l *lab) take(n int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.n += n
	return l.n
}

func TestExitCodes(t *testing.T) {
	l := newLab(t)
	j := l.job("exit 7")
	if err := l.run(j); code(err) != 7 || err.Error() != "exit code: 7" {
		t.Errorf("%v", err)
	}
	j = l.job("exit 7")
	j.info.Meta.ValidExitCodes = []int{3, 7}
	if err := l.run(j); err != nil {
		t.Errorf("a valid exit code: %v", err)
	}
	j = l.job("true")
	j.info.Meta.ValidExitCodes = []int{3}
	if err := l.run(j); code(err) != 0 {
		t.Errorf("0 is not valid here: %v", err)
	}
	if err := l.run(l.job("kill -9 $$; sh -c 'kill -9 $$'; exit $?")); code(err) != 137 {
		t.Errorf("a killed process: %v", err)
	}
	if err := l.run(l.command("no-such-command")); code(err) != 127 || !strings.Contains(err.Error(), "executable file not found in $PATH") {
		t.Errorf("%v", err)
	}
	if err := l.run(l.command("/etc")); code(err) != 126 {
		t.Errorf("%v", err)
	}
	j = l.job("true")
	j.info.Meta.User = "nobody-knows"
	if err := l.run(j); err == nil || !strings.Contains(err.Error(), "unable to find user nobody-knows: no matching entries in passwd file") {
		t.Errorf("%v", err)
	}
}

func TestRefused(t *testing.T) {
	l := newLab(t)
	for name, tc := range map[string]struct {
		change func(m *executor.Meta)
		want   string
	}{
		"device":  {func(m *executor.Meta) { m.CDIDevices = []*pb.CDIDevice{{Name: "vendor.com/gpu=all"}} }, "vendor.com/gpu=all"},
		"slice":   {func(m *executor.Meta) { m.CgroupParent = "system.slice:" }, "system.slice:"},
		"group":   {func(m *executor.Meta) { m.CgroupParent = l.parent + "-refused/" + strings.Repeat("n", 4000) }, "3840 at most"},
		"proxy":   {func(m *executor.Meta) { m.Proxy = &network.ProxyConfig{} }, "proxy"},
		"network": {func(m *executor.Meta) { m.NetMode = 17 }, "17"},
		"limit":   {func(m *executor.Meta) { m.Ulimit = []*pb.Ulimit{{Name: "frobs"}} }, "frobs"},
		"command": {func(m *executor.Meta) { m.Args = nil }, "no command"},
	} {
		t.Run(name, func(t *testing.T) {
			j := &job{started: make(chan struct{}), info: executor.ProcessInfo{Meta: executor.Meta{Args: []string{"true"}, Cwd: "/"}}}
			s := &source{list: []mount.Mount{{Type: "bind", Source: l.image, Options: []string{"rbind", "ro"}}}}
			j.root = executor.Mount{Src: s}
			tc.change(&j.info.Meta)
			if err := l.run(j); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v", err)
			}
		})
	}
	notes, _ := os.ReadDir(filepath.Join(l.dir, "run/build/groups"))
	groups, _ := filepath.Glob("/sys/fs/cgroup/*" + l.parent + "-refused")
	if len(notes)+len(groups) > 0 {
		t.Errorf("left: %v %v", notes, groups)
	}
	j := l.job("true")
	j.info.Meta.CDIDevices = []*pb.CDIDevice{{Name: "vendor.com/gpu=all", Optional: true}}
	l.must(j)
}

func TestConfinement(t *testing.T) {
	l := newLab(t)
	const look = `grep -E '^(CapEff|Seccomp|NoNewPrivs):' /proc/self/status; cat /proc/keys | wc -c; ls /sys/firmware | wc -l
		echo 1 2>/dev/null > /proc/sys/kernel/panic || echo refused; mount -t tmpfs x /tmp 2>/dev/null || echo refused; ls /dev/kmsg 2>/dev/null; ls -A /proc/self/fd | wc -l`
	got := l.sh(look)
	for _, want := range []string{"CapEff:\t00000000a80425fb\n", "NoNewPrivs:\t0\n", "Seccomp:\t2\n", "\n0\n0\nrefused\nrefused\n4\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q lacks %q", got, want)
		}
	}
	j := l.job("grep -E '^(CapEff|Seccomp):' /proc/self/status; mount -t tmpfs x /tmp && echo mounted; ls /dev/kmsg; mount -o remount,rw,bind /etc/hosts; echo mine > /etc/hosts")
	j.info.Meta.SecurityMode = pb.SecurityMode_INSECURE
	got = l.must(j)
	for _, want := range []string{"Seccomp:\t0\n", "mounted\n", "/dev/kmsg\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("without confinement: %q lacks %q", got, want)
		}
	}
	if strings.Contains(l.sh("cat /etc/hosts"), "mine") {
		t.Error("a step without confinement has written to what others are given")
	}
}

func TestNetworks(t *testing.T) {
	l := newLab(t)
	if got := l.sh("ip -o addr show eth0; ip route | head -1"); !strings.Contains(got, "10.213.7.") || !strings.Contains(got, "default via 10.213.7.1") {
		t.Errorf("default: %q", got)
	}
	first := l.sh("readlink /proc/self/ns/net")
	if again := l.sh("readlink /proc/self/ns/net"); again != first {
		t.Error("the namespace of a step that has ended is not used again")
	}
	j := l.job("readlink /proc/self/ns/net; ip link")
	j.info.Meta.NetMode = pb.NetMode_NONE
	if got := l.must(j); strings.HasPrefix(got, first) || strings.Contains(got, "eth0") {
		t.Errorf("none: %q", got)
	}
	j = l.job("readlink /proc/self/ns/net")
	j.info.Meta.NetMode = pb.NetMode_HOST
	own, err := os.Readlink("/proc/self/ns/net")
	l.check(err)
	if got := l.must(j); got != own+"\n" {
		t.Errorf("host: %q", got)
	}
	// One that could have been configured is not given to others.
	j = l.job("readlink /proc/self/ns/net; ip link set eth0 down")
	j.info.Meta.SecurityMode = pb.SecurityMode_INSECURE
	before := l.must(j)
	if after := l.sh("readlink /proc/self/ns/net"); after == before {
		t.Error("a namespace that a step without confinement had is given to another")
	}
	list, err := l.networks.Inspect(context.Background(), "bridge")
	l.check(err)
	if len(list.Containers) != 0 {
		t.Errorf("the network lists what is no container: %v", list.Containers)
	}
}

// TestNetworkIsUnused: a port at which a step has listened is free for the next one at once, also to a server that does not
// set SO_REUSEADDR.
func TestNetworkIsUnused(t *testing.T) {
	l := newLab(t)
	for _, address := range []string{"127.0.0.1", "::1"} {
		before := l.job(fmt.Sprintf(`readlink /proc/self/ns/net; mkfifo /held; echo hi | nc -l -p 7777 &
until netstat -tln | grep -q :7777; do :; done
nc %s 7777 0<>/held; wait; netstat -tan | grep TIME_WAIT`, address))
		if err := l.run(before); err != nil || !strings.Contains(before.stdout.String(), ":7777") {
			t.Fatalf("%s: no connection was left: %v\n%s\n%s", address, err, before.stdout.String(), before.stderr.String())
		}
		after := l.job("readlink /proc/self/ns/net; netstat -tan | grep TIME_WAIT; true")
		if err := l.run(after); err != nil || strings.Contains(after.stdout.String(), "TIME_WAIT") {
			t.Errorf("%s: the next step: %v\n%s\n%s", address, err, after.stdout.String(), after.stderr.String())
		}
	}
}

func TestMounts(t *testing.T) {
	l := newLab(t)
	dir := filepath.Join(l.dir, "disk/shared")
	l.check(os.MkdirAll(dir+"/sub/deep", 0o755))
	l.check(os.WriteFile(dir+"/sub/file", []byte("content\n"), 0o644))
	l.check(os.Symlink("/etc", dir+"/out"))
	secret := filepath.Join(l.dir, "disk/secret")
	l.check(os.WriteFile(secret, []byte("hidden\n"), 0o400))
	socket := filepath.Join(l.dir, "disk/agent")
	ln, err := net.Listen("unix", socket)
	l.check(err)
	defer ln.Close()

	j := l.job(`cat /data/sub/file; echo new > /data/new; touch /ro/x 2>/dev/null || echo refused
		cat /part/file; ls /part; cat /run/secrets/key; stat -c %F /run/agent; grep -c ' /scratch tmpfs ' /proc/mounts; cp /bin/busybox /scratch/true; /scratch/true && echo ran; stat -c %a /scratch
		grep ' /dev/shm ' /proc/mounts | grep -c size=1024k; cat /data/over/inner 2>/dev/null; ls -d /data/over`)
	sub := l.bind(dir, "/part", false)
	sub.Selector = "/sub"
	j.mounts = []executor.Mount{
		l.bind(dir, "/data", false),
		{Src: l.source(mount.Mount{Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid"}}), Dest: "/data/over"},
		{Src: l.source(mount.Mount{Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "size=1048576"}}), Dest: "/dev/shm"},
		sub, l.bind(dir, "/ro", true),
		{Src: l.source(mount.Mount{Type: "bind", Source: secret, Options: []string{"ro", "rbind", "nodev", "nosuid", "noexec"}}), Dest: "/run/secrets/key"},
		{Src: l.source(mount.Mount{Type: "bind", Source: socket, Options: []string{"rbind"}}), Dest: "/run/agent"},
		{Src: l.source(mount.Mount{Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid"}}), Dest: "/scratch"},
	}
	want := "content\nrefused\ncontent\ndeep\nfile\nhidden\nsocket\n1\nran\n1777\n1\n/data/over\n"
	if got := l.must(j); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if b, _ := os.ReadFile(dir + "/new"); string(b) != "new\n" {
		t.Error("what was written to a mount is not there")
	}
	for _, selector := range []string{"/out", "/../../secret"} {
		j = l.job("cat /part/hostname /part 2>/dev/null; true")
		m := l.bind(dir, "/part", false)
		m.Selector = selector
		j.mounts = []executor.Mount{m}
		if err := l.run(j); err == nil || !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a path out of the mount: %v, %q", err, j.stdout.String())
		}
	}
	if out := l.hostMounts("scratch"); len(out) > 0 {
		t.Errorf("a mount has got out: %q", out)
	}
}

func TestOverlayMounts(t *testing.T) {
	l := newLab(t)
	lower := filepath.Join(l.dir, "disk/lower")
	l.check(os.MkdirAll(lower+"/pkg/lib", 0o755))
	l.check(os.WriteFile(lower+"/pkg/lib/a", []byte("a\n"), 0o644))
	view := executor.Mount{Dest: "/from", Selector: "/pkg", Readonly: true, Src: l.source(mount.Mount{
		Type: "overlay", Source: "overlay", Options: []string{"index=off", "lowerdir=" + lower + ":" + l.image, "redirect_dir=off"},
	})}
	j := l.job("cat /from/lib/a; touch /from/x 2>/dev/null || echo refused")
	j.mounts = []executor.Mount{view}
	if got := l.must(j); got != "a\nrefused\n" {
		t.Errorf("%q", got)
	}
	// A root of one layer alone is bound.
	j = l.command("cat", "/etc/x")
	l.check(os.WriteFile(l.image+"/etc/x", []byte("x\n"), 0o644))
	for _, f := range []string{"/etc/resolv.conf", "/etc/hosts", "/proc/x", "/sys/x", "/dev/x"} {
		l.check(os.MkdirAll(filepath.Dir(l.image+f), 0o755))
		l.check(os.WriteFile(l.image+f, nil, 0o644))
	}
	j.root.Src.(*source).released++
	j.root = executor.Mount{Readonly: true, Src: l.source(mount.Mount{Type: "bind", Source: l.image, Options: []string{"rbind", "ro"}})}
	if got := l.must(j); got != "x\n" {
		t.Errorf("%q", got)
	}
}

func TestOutput(t *testing.T) {
	l := newLab(t)
	const size = 100 << 20
	j := l.job("dd if=/dev/zero bs=1048576 count=100 2>/dev/null; echo end >&2")
	var n counter
	j.info.Stdout = &n
	l.must(j)
	if n.n != size || j.stderr.String() != "end\n" {
		t.Errorf("%d bytes, %q", n.n, j.stderr.String())
	}
	// One who does not take it holds nobody up.
	j = l.job("dd if=/dev/zero bs=1048576 count=8 2>/dev/null; echo end >&2")
	j.info.Stdout = broken{}
	l.must(j)
	j = l.job("echo a; echo b >&2")
	j.info.Stdout, j.info.Stderr = nil, nil
	l.must(j)
}

type counter struct{ n int64 }

func (c *counter) Write(b []byte) (int, error) { c.n += int64(len(b)); return len(b), nil }
func (c *counter) Close() error                { return nil }

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, syscall.EPIPE }
func (broken) Close() error              { return nil }

func TestInput(t *testing.T) {
	l := newLab(t)
	j := l.job("cat; echo end")
	j.info.Stdin = io.NopCloser(strings.NewReader("one\ntwo\n"))
	if got := l.must(j); got != "one\ntwo\nend\n" {
		t.Errorf("%q", got)
	}
	// Input that never ends does not keep a step.
	r, w := io.Pipe()
	j = l.job("read a; echo $a")
	j.info.Stdin = r
	go w.Write([]byte("x\n"))
	if got := l.must(j); got != "x\n" {
		t.Errorf("%q", got)
	}
	if _, err := w.Write([]byte("y")); err == nil {
		t.Error("the input is not closed")
	}
}

func TestCancel(t *testing.T) {
	l := newLab(t)
	ctx, cancel := context.WithCancelCause(l.ctx())
	one, two := nap(), nap()
	j := l.job("trap '' TERM INT; sleep " + one + " & (sleep " + two + "; true) & echo up; wait")
	gone := errors.New("the client has gone")
	go func() {
		expect.Eventually(t, "the step", func() bool { return strings.Contains(j.stdout.String(), "up") })
		cancel(gone)
	}()
	err := l.runIn(ctx, j)
	if !errors.Is(err, gone) || code(err) != 137 {
		t.Errorf("%v", err)
	}
	for _, argument := range []string{"sleep\x00" + one + "\x00", "sleep\x00" + two + "\x00"} {
		if commandRuns(argument) {
			t.Errorf("%q runs on", argument)
		}
	}
	j = l.job("true")
	if err := l.runIn(ctx, j); !errors.Is(err, gone) {
		t.Errorf("a step after the end: %v", err)
	}
}

var naps atomic.Int64

// nap is a time to sleep, in seconds, that no other process of the machine sleeps for.
func nap() string { return fmt.Sprint(100_000+os.Getpid()%100_000, ".", naps.Add(1)) }

func mkfifo(path string) error { return unix.Mkfifo(path, 0o644) }

func commandRuns(cmdline string) bool {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && string(b) == cmdline {
			return true
		}
	}
	return false
}

func TestSignals(t *testing.T) {
	l := newLab(t)
	signals := make(chan syscall.Signal)
	j := l.job("trap 'echo got; exit 3' USR1; echo up; while :; do sleep 0.01; done")
	j.info.Signal = signals
	go func() {
		expect.Eventually(t, "the step", func() bool { return strings.Contains(j.stdout.String(), "up") })
		signals <- unix.SIGUSR1
		close(signals)
	}()
	if err := l.run(j); code(err) != 3 || j.stdout.String() != "up\ngot\n" {
		t.Errorf("%v %q", err, j.stdout.String())
	}
}

func TestTerminal(t *testing.T) {
	l := newLab(t)
	sizes := make(chan executor.WinSize)
	r, w := io.Pipe()
	defer w.Close()
	j := l.job("tty; read a; stty size; echo $a; exit 5")
	j.info.Meta.Tty, j.info.Resize, j.info.Stdin = true, sizes, r
	go func() {
		expect.Eventually(t, "the step", func() bool { return strings.Contains(j.stdout.String(), "/dev/pts/0") })
		for range 2 { // the first has been set when the second is taken
			sizes <- executor.WinSize{Rows: 43, Cols: 132}
		}
		w.Write([]byte("hello\n"))
	}()
	err := l.run(j)
	if got := j.stdout.String(); code(err) != 5 || !strings.Contains(got, "/dev/pts/0") || !strings.Contains(got, "43 132") || !strings.HasSuffix(got, "hello\r\n") {
		t.Errorf("%v %q", err, got)
	}
}

func TestExec(t *testing.T) {
	l := newLab(t)
	l.check(os.WriteFile(l.image+"/etc/passwd", []byte("root:x:0:0::/root:/bin/sh\nweb:x:33:33::/srv/web:/bin/sh\n"), 0o644))
	j := l.job("echo 1 > /one; echo up; sleep 1000")
	j.id = "abc"
	j.info.Meta.Cwd, j.info.Meta.Env = "/tmp", append(j.info.Meta.Env, "A=b")
	ctx, cancel := context.WithCancel(l.ctx())
	ended := make(chan error)
	go func() { ended <- l.runIn(ctx, j) }()
	expect.Eventually(t, "the step", func() bool { return strings.Contains(j.stdout.String(), "up") })

	exec := func(change func(*executor.ProcessInfo), args ...string) (string, error) {
		var out expect.Output
		info := executor.ProcessInfo{Meta: executor.Meta{Args: args}, Stdout: &out, Stderr: &out}
		if change != nil {
			change(&info)
		}
		err := l.steps.Exec(l.ctx(), "abc", info)
		return out.String(), err
	}
	if got, err := exec(nil, "sh", "-c", "cat /one; pwd; echo $A $HOME; id -u"); err != nil || got != "1\n/tmp\nb /root\n0\n" {
		t.Errorf("%q %v", got, err)
	}
	got, err := exec(func(i *executor.ProcessInfo) {
		i.Meta.User, i.Meta.Cwd, i.Meta.Env = "web", "/bin", []string{"PATH=/bin", "C=d"}
	}, "sh", "-c", "pwd; echo $A$C $HOME; id -u; exit 4")
	if code(err) != 4 || got != "/bin\nd /srv/web\n33\n" {
		t.Errorf("%q %v", got, err)
	}
	if got, err := exec(func(i *executor.ProcessInfo) { i.Meta.Tty = true; i.Stdin = io.NopCloser(strings.NewReader("x\n")) }, "sh", "-c", "tty; read a; echo got $a"); err != nil || !strings.Contains(got, "/dev/pts/") || !strings.Contains(got, "got x") {
		t.Errorf("%q %v", got, err)
	}
	// What it leaves behind does not hold it up.
	if got, err := exec(nil, "sh", "-c", "sleep 1000 & echo left"); err != nil || got != "left\n" {
		t.Errorf("%q %v", got, err)
	}
	if _, err := exec(func(i *executor.ProcessInfo) { i.Meta.SecurityMode = pb.SecurityMode_INSECURE }, "true"); err == nil {
		t.Error("a step can be left by an exec")
	}
	if _, err := exec(nil, "no-such-command"); code(err) != 127 {
		t.Errorf("%v", err)
	}
	if j2 := l.job("true"); true {
		j2.id = "abc"
		if err := l.run(j2); err == nil {
			t.Error("two steps with one name run")
		}
		j2.root.Src.(*source).released++
	}
	third := nap()
	short, stop := context.WithCancel(l.ctx())
	var out expect.Output
	go func() {
		expect.Eventually(t, "the process", func() bool { return out.String() == "up\n" })
		stop()
	}()
	err = l.steps.Exec(short, "abc", executor.ProcessInfo{Meta: executor.Meta{Args: []string{"sh", "-c", "echo up; sleep " + third}}, Stdout: &out})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	expect.Eventually(t, "the end of the process", func() bool { return !commandRuns("sleep\x00" + third + "\x00") })
	cancel()
	<-ended
	if err := l.steps.Exec(l.ctx(), "abc", executor.ProcessInfo{Meta: executor.Meta{Args: []string{"true"}}}); err == nil || !strings.Contains(err.Error(), "abc") {
		t.Errorf("after the end: %v", err)
	}
	if err := l.steps.Exec(l.ctx(), "../x", executor.ProcessInfo{Meta: executor.Meta{Args: []string{"true"}}}); err == nil {
		t.Error("no such step")
	}
}

func TestManyAtOnce(t *testing.T) {
	l := newLab(t)
	var wg sync.WaitGroup
	for range 64 {
		j := l.job("echo $$; head -c 100000 /dev/zero")
		wg.Go(func() {
			if err := l.run(j); err != nil {
				t.Errorf("%v %q", err, j.stderr.String())
			}
			if n := len(j.stdout.String()); n != 100002 {
				t.Errorf("%d bytes", n)
			}
		})
	}
	wg.Wait()
}

func TestLimits(t *testing.T) {
	l := newLab(t)
	j := l.job("cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; cat /sys/fs/cgroup/cpu/cpu.shares /sys/fs/cgroup/cpu,cpuacct/cpu.shares /sys/fs/cgroup/cpu.weight 2>/dev/null; true")
	j.info.Meta.LinuxResources = &pb.LinuxResources{Memory: 64 << 20, CpuShares: 512}
	if got := l.must(j); got != "67108864\n512\n" && got != "67108864\n20\n" {
		t.Errorf("%q", got)
	}
	j = l.job("head -c 200000000 /dev/zero | tail -c 100000000 | wc -c; exit $?")
	j.info.Meta.LinuxResources = &pb.LinuxResources{Memory: 32 << 20, MemorySwap: 32 << 20}
	j.info.Meta.Args = []string{"sh", "-c", "exec tail -c 100000000 /dev/zero"}
	if err := l.run(j); !errors.Is(err, syscall.ENOMEM) || code(err) != 137 {
		t.Errorf("%v %q", err, j.stderr.String())
	}
}

func TestCgroupParent(t *testing.T) {
	l := newLab(t)
	parent := l.parent + "-other/deep"
	j := l.job("cat /proc/self/cgroup; ls -d /sys/fs/cgroup/*/cgroup.procs | head -1")
	j.info.Meta.CgroupParent = parent
	started := make(chan struct{})
	j.started = started
	l.must(j)
	for _, pattern := range []string{"/sys/fs/cgroup" + l.parent + "-other", "/sys/fs/cgroup/*" + l.parent + "-other"} {
		if left, _ := filepath.Glob(pattern); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}
	if left, _ := os.ReadDir(filepath.Join(l.dir, "run/build/groups")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestClose(t *testing.T) {
	l := newLab(t)
	j := l.job("echo up; sleep 1000")
	ended := make(chan error)
	go func() { ended <- l.run(j) }()
	expect.Eventually(t, "the step", func() bool { return strings.Contains(j.stdout.String(), "up") })
	begin := time.Now()
	l.check(l.steps.Close())
	if err := <-ended; code(err) != 137 {
		t.Errorf("%v after %v", err, time.Since(begin))
	}
	j = l.job("true")
	if err := l.run(j); err == nil || !strings.Contains(err.Error(), "shutting down") {
		t.Errorf("%v", err)
	}
	j.root.Src.(*source).released++
}

// TestSettle holds that a step is not synced, which would be to wait for a disk, that its directories can be mounted by
// others at once, and that Settle does what is left.
func TestSettle(t *testing.T) {
	l := newLab(t)
	j := l.job("grep ' / ' /proc/mounts; echo x > /x; sync; sync /x")
	if got := l.must(j); !strings.Contains(got, "volatile") {
		t.Errorf("%q", got)
	}
	work := ""
	for _, o := range j.root.Src.(*source).list[0].Options {
		work = strings.TrimPrefix(o, "workdir=")
		if work != o {
			break
		}
	}
	if left, _ := os.ReadDir(work + "/work/incompat"); len(left) > 0 {
		t.Errorf("the work directory is marked: %v", left)
	}
	// The same directories once more, as after a failed step that is looked into.
	again := l.command("cat", "/x")
	again.root.Src.(*source).released++
	again.root = executor.Mount{Src: l.source(j.root.Src.(*source).list...)}
	if got := l.must(again); got != "x\n" {
		t.Errorf("%q", got)
	}
	l.check(l.steps.Settle())
	l.check(l.steps.Settle())
}
