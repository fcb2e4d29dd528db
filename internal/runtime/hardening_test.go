package runtime_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/rootpath"
	"github.com/cleatlabs/cleat/internal/runtime"
	"github.com/cleatlabs/cleat/test/expect"
)

// CVE-2019-19921, CVE-2025-52881 and their kin: an image cannot choose where /proc, /sys and /dev are mounted.
func TestLinkedSystemDirectories(t *testing.T) {
	for _, dir := range []string{"proc", "sys", "dev"} {
		l := newLab(t)
		l.check(os.Mkdir(filepath.Join(l.image, "elsewhere"), 0o755))
		for _, target := range []string{"/elsewhere", "../../../../tmp", "/proc/self/cwd"} {
			link := filepath.Join(l.image, dir)
			os.Remove(link)
			l.check(os.Symlink(target, link))
			if err := l.startFails(l.spec("true")); !strings.Contains(err.Error(), "/"+dir+": it is a symbolic link in the image") {
				t.Errorf("%s -> %s: %v", dir, target, err)
			}
		}
		// A file in its place is no better.
		os.Remove(filepath.Join(l.image, dir))
		l.check(os.WriteFile(filepath.Join(l.image, dir), nil, 0o644))
		l.startFails(l.spec("true"))
	}
}

// CVE-2025-31133 and CVE-2025-52565: masks come from our own null device, and /dev/console from our own devpts,
// whatever the image has there.
func TestImageCannotReplaceMasks(t *testing.T) {
	l := newLab(t)
	l.check(os.MkdirAll(filepath.Join(l.image, "dev/pts"), 0o755))
	l.check(os.Symlink("/proc/sys/kernel/core_pattern", filepath.Join(l.image, "dev/null")))
	l.check(os.Symlink("/proc/sysrq-trigger", filepath.Join(l.image, "dev/console")))
	l.check(os.Symlink("/proc/sysrq-trigger", filepath.Join(l.image, "dev/pts/0")))
	s := l.spec("sh", "-c", "stat -c '%t:%T' /dev/null; cat /proc/keys | wc -c; stat -c %t:%T /dev/console; grep -E 'keys' /proc/self/mountinfo | cut -d' ' -f4")
	s.TTY = true
	p := l.start(s)
	consoleOf(p.Process).expect(t, "1:3\r\n0\r\n88:0\r\n/null\r\n")
	p.wait()
	// Also where the whole of /dev is somebody else's.
	other := filepath.Join(l.dir, "otherdev")
	l.check(os.Mkdir(other, 0o755))
	l.check(os.Symlink("/proc/sys/kernel/core_pattern", filepath.Join(other, "null")))
	s = l.spec("sh", "-c", "cat /proc/keys | wc -c; echo x 2>&- > /proc/keys; cat /proc/keys | wc -c")
	s.Mounts = []runtime.Mount{{Target: "/dev", Type: "bind", Source: other}}
	if out := l.run(s); out != "0\n0\n" {
		t.Errorf("masked path: %q", out)
	}
}

// What may not be mounted below /proc may not be so by a link of the image either: it would choose where a volume that it
// asks for, or another one's directory, hides what the kernel says.
func TestLinksDoNotLeadMountsIntoProc(t *testing.T) {
	l := newLab(t)
	l.check(os.Symlink("/proc", filepath.Join(l.image, "all")))
	l.check(os.Symlink("../proc/sys/", filepath.Join(l.image, "etc/some")))
	for target, leads := range map[string]string{"/all": "/proc", "/all/sys": "/proc/sys", "/etc/some": "/proc/sys", "/etc/some/kernel": "/proc/sys/kernel"} {
		for _, m := range []runtime.Mount{{Target: target, Type: "bind", Source: l.dir}, {Target: target, Type: "tmpfs"}} {
			s := l.spec("true")
			s.Mounts = []runtime.Mount{m}
			err := l.startFails(s)
			if want := target + " cannot be mounted because it is inside /proc: a symbolic link in the image leads to " + leads; !strings.Contains(err.Error(), want) || !errdefs.IsInvalidArgument(err) {
				t.Errorf("%s on %s: %v", m.Type, target, err)
			}
		}
	}
	l.check(os.WriteFile(filepath.Join(l.dir, "uptime"), []byte("1 1\n"), 0o644))
	s := l.spec("cat", "/proc/uptime")
	s.Mounts = []runtime.Mount{{Target: "/all/uptime", Type: "bind", Source: filepath.Join(l.dir, "uptime"), IsFile: true}}
	if out := l.run(s); out != "1 1\n" {
		t.Errorf("a file that lxcfs brings: %q", out)
	}
}

// A target at which there can be nothing is the fault of who asked for it, with Docker's exit codes.
func TestUnfitTargets(t *testing.T) {
	l := newLab(t)
	l.check(os.WriteFile(filepath.Join(l.image, "etc/file"), nil, 0o644))
	l.check(os.Symlink("circle", filepath.Join(l.image, "etc/circle")))
	for target, want := range map[string]struct {
		code int
		text string
	}{
		"/etc/file/x":                  {126, "not a directory: Are you trying to mount a directory onto a file (or vice-versa)?"},
		"/etc/circle":                  {128, "too many levels of symbolic links"},
		"/etc/circle/x":                {128, "too many levels of symbolic links"},
		"/" + strings.Repeat("n", 256): {128, "file name too long"},
	} {
		for _, m := range []runtime.Mount{{Target: target, Type: "bind", Source: l.dir}, {Target: target, Type: "tmpfs"}} {
			s := l.spec("true")
			s.Mounts = []runtime.Mount{m}
			err := l.startFails(s)
			var failed *runtime.StartError
			if !errors.As(err, &failed) || failed.Code != want.code || !strings.Contains(err.Error(), want.text) {
				t.Errorf("%s on %.20s: %v", m.Type, target, err)
			}
		}
	}
}

// Mount targets and the working directory are resolved inside the root, by the image's links as chroot would see them.
func TestLinksStayInside(t *testing.T) {
	l := newLab(t)
	host := filepath.Join(l.dir, "host")
	l.check(os.Mkdir(host, 0o755))
	depth := strings.Repeat("../", 20)
	l.check(os.Symlink(depth+host, filepath.Join(l.image, "out")))
	l.check(os.Symlink(host, filepath.Join(l.image, "abs")))
	src := filepath.Join(l.dir, "src")
	l.check(os.Mkdir(src, 0o755))
	l.check(os.WriteFile(filepath.Join(src, "f"), nil, 0o644))
	for _, target := range []string{"/out/new", "/abs/new", "/../../../.." + host + "/new"} {
		s := l.spec("ls", target)
		s.Mounts = []runtime.Mount{{Target: target, Type: "bind", Source: src}}
		p, err := l.r.Start(l.ctx(), s)
		unix.Close(s.RootFD)
		if err == nil {
			c := l.collect(p, s)
			if c.wait(); c.stdout.String() != "f\n" {
				t.Errorf("%s: %q", target, c.stdout.String())
			}
			c.remove()
		}
		if entries, _ := os.ReadDir(host); len(entries) > 0 {
			t.Fatalf("%s: %v was made on the host", target, entries)
		}
	}
	s := l.spec("pwd")
	s.Cwd = "/abs/dir"
	if p, err := l.r.Start(l.ctx(), s); err == nil {
		l.collect(p, s).remove()
	}
	unix.Close(s.RootFD)
	if entries, _ := os.ReadDir(host); len(entries) > 0 {
		t.Fatalf("workdir: %v was made on the host", entries)
	}
}

// CVE-2024-21626: no working directory outside the root.
func TestWorkdirThroughDescriptors(t *testing.T) {
	l := newLab(t)
	for i := range 16 {
		dir := "/proc/self/fd/" + string(rune('0'+i%10))
		if i >= 10 {
			dir = "/proc/self/fd/1" + string(rune('0'+i-10))
		}
		s := l.spec("pwd")
		s.Cwd = dir
		if err := l.startFails(s); !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", dir, err)
		}
	}
	l.check(os.Symlink("/proc/self/fd/7/", filepath.Join(l.image, "link")))
	s := l.spec("pwd")
	s.Cwd = "/link"
	l.startFails(s)
}

// CVE-2019-5736: the executable that a container can reach through /proc/PID/exe cannot be written to.
func TestExecutableCannotBeOverwritten(t *testing.T) {
	l := newLab(t)
	// The command is the program that sets it up: with --init it stays as PID 1.
	s := l.spec("sh", "-c", "readlink /proc/1/exe; echo x > /proc/1/exe; (dd if=/dev/zero of=/proc/1/exe bs=1 count=1 conv=notrunc) 2>/dev/null; head -c 4 /proc/1/exe | grep -c ELF")
	s.Init, s.Capabilities = true, l.r.HeldCapabilities()
	c := l.start(s)
	c.wait()
	if out := c.stdout.String(); !strings.HasSuffix(out, "\n1\n") {
		t.Errorf("%q %q", out, c.stderr.String())
	}
	x := l.start(l.spec("true"))
	if x.wait().Code != 0 {
		t.Error("later containers do not start:", x.Status())
	}
	if b, _ := os.ReadFile("/proc/" + strconv.Itoa(c.Record().KeeperPID) + "/exe"); len(b) > 0 && string(b[:4]) != "\x7fELF" {
		t.Error("the keeper's executable has changed")
	}
}

// CVE-2016-9962: what joins a container is not dumpable and has nothing open until its command runs: a loop in the
// container that looks at every process sees no descriptor beyond the streams.
func TestJoiningProcessHoldsNothing(t *testing.T) {
	l := newLab(t)
	s := l.spec("sh", "-c", `echo ready; while :; do for p in /proc/[0-9]*; do case $p in /proc/1|/proc/$$) continue;; esac
		for f in $p/fd/*; do l=$(readlink $f 2>/dev/null); case "$l" in /tasks|*cgroup*|*launch*|/|*status*) echo LEAK $f $l;; esac; done; done; done`)
	s.Capabilities |= 1 << unix.CAP_SYS_PTRACE
	c := l.start(s)
	expect.Eventually(t, "ready", func() bool { return strings.Contains(c.stdoutSoFar(), "ready") })
	for range 100 {
		x, err := l.r.Exec(l.ctx(), l.exec(c, "true"))
		l.check(err)
		<-x.Done()
		l.check(x.Release())
	}
	c.Signal(9)
	if c.wait(); strings.Contains(c.stdout.String(), "LEAK") {
		t.Error(c.stdout.String())
	}
}

// CVE-2022-24769, CVE-2022-29162: the inheritable set is empty, in containers and in execs, also with added
// capabilities and other users.
func TestInheritableCapabilities(t *testing.T) {
	l := newLab(t)
	s := l.spec("sh", "-c", "grep CapInh /proc/self/status; sleep 1000")
	s.Capabilities, s.User = l.r.HeldCapabilities(), rootpath.User{UID: 3, GID: 3}
	c := l.start(s)
	e := l.exec(c, "grep", "CapInh", "/proc/self/status")
	e.Capabilities = l.r.HeldCapabilities()
	x := l.runExec(e)
	x.wait()
	expect.Eventually(t, "status", func() bool { return strings.Contains(c.stdoutSoFar(), "CapInh") })
	for _, out := range []string{c.stdoutSoFar(), x.stdout.String()} {
		if out != "CapInh:\t0000000000000000\n" {
			t.Error(out)
		}
	}
}

// A volume that another container changes cannot redirect a mount: the target is opened once and mounted by descriptor.
func TestRacingVolume(t *testing.T) {
	l := newLab(t)
	vol := filepath.Join(l.dir, "vol")
	l.check(os.MkdirAll(filepath.Join(vol, "a/target"), 0o755))
	l.check(os.Symlink("/proc", filepath.Join(vol, "b")))
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				unix.Renameat2(unix.AT_FDCWD, filepath.Join(vol, "a"), unix.AT_FDCWD, filepath.Join(vol, "b"), unix.RENAME_EXCHANGE)
			}
		}
	}()
	src := filepath.Join(l.dir, "evil")
	l.check(os.MkdirAll(filepath.Join(src, "self"), 0o755))
	for range 40 {
		s := l.spec("sh", "-c", "[ -e /proc/self/attr ] || [ -e /proc/self/stat ] && cat /proc/keys | wc -c")
		s.Mounts = []runtime.Mount{{Target: "/vol", Type: "bind", Source: vol}, {Target: "/vol/a/target", Type: "bind", Source: src}}
		p, err := l.r.Start(l.ctx(), s)
		unix.Close(s.RootFD)
		if err != nil {
			continue
		}
		c := l.collect(p, s)
		if c.wait(); c.stdout.String() != "0\n" {
			t.Errorf("/proc was redirected: %q %q", c.stdout.String(), c.stderr.String())
		}
		c.remove()
	}
	close(stop)
	<-done
}

// The filter comes before the command and after everything of ours: one that allows only what a command needs is enough.
func TestStrictFilter(t *testing.T) {
	l := newLab(t)
	// if nr == write(1): errno EPERM would hide failures; deny mount(165) with EPERM, allow the rest.
	deny := func(nr uint32) []byte {
		return []byte{
			0x20, 0, 0, 0, 0, 0, 0, 0, // ld [0] (nr)
			0x15, 0, 0, 1, byte(nr), byte(nr >> 8), byte(nr >> 16), byte(nr >> 24), // jeq nr, next, skip 1
			0x06, 0, 0, 0, 1, 0, 5, 0, // ret ERRNO(1)
			0x06, 0, 0, 0, 0, 0, 0xff, 0x7f, // ret ALLOW
		}
	}
	for _, nr := range []uint32{unix.SYS_CLONE3, unix.SYS_SETRESUID, unix.SYS_PRCTL, unix.SYS_CLOSE_RANGE, unix.SYS_SETSID, unix.SYS_OPENAT2, unix.SYS_FCHDIR, unix.SYS_SECCOMP} {
		s := l.spec("sh", "-c", "echo ok; sleep 1000")
		s.Seccomp, s.User = deny(nr), rootpath.User{UID: 9, GID: 9}
		c := l.start(s)
		e := l.exec(c, "true")
		e.Seccomp = s.Seccomp
		if x := l.runExec(e); x.wait().Code != 0 {
			t.Error(x.Status())
		}
	}
}
