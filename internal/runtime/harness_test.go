package runtime_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cleatlabs/cleat/internal/cgroup"
	"github.com/cleatlabs/cleat/internal/kernel"
	"github.com/cleatlabs/cleat/internal/mount"
	"github.com/cleatlabs/cleat/internal/rootpath"
	"github.com/cleatlabs/cleat/internal/runtime"
	"github.com/cleatlabs/cleat/test/expect"
	"golang.org/x/sys/unix"
)

// A lab is a Runtime with a busybox image, everything of which is gone at the test's end.
type lab struct {
	t     testing.TB
	r     *runtime.Runtime
	c     runtime.Config
	dir   string     // a tmpfs
	image string     // lower directory
	mu    sync.Mutex // of the output buffers
}

func newLab(t testing.TB) *lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	l := &lab{t: t, dir: t.TempDir()}
	l.check(unix.Mount("tmpfs", l.dir, "tmpfs", 0, "mode=755"))
	t.Cleanup(func() { l.check(unix.Unmount(l.dir, unix.MNT_DETACH)) })
	t.Cleanup(func() { removeEmptyGroups(fmt.Sprint("cleat-test-", os.Getpid())) })
	features, err := kernel.Probe()
	l.check(err)
	groups, err := cgroup.Detect()
	l.check(err)
	l.c = runtime.Config{Dir: filepath.Join(l.dir, "run"), FallbackDir: l.dir, Cgroups: groups, Features: features}
	l.r = l.newRuntime()
	l.image = filepath.Join(l.dir, "image")
	for _, d := range []string{"bin", "etc", "tmp", "root"} {
		l.check(os.MkdirAll(filepath.Join(l.image, d), 0o755))
	}
	b, err := os.ReadFile("/bin/busybox")
	l.check(err)
	l.check(os.WriteFile(filepath.Join(l.image, "bin/busybox"), b, 0o755))
	for _, a := range []string{"sh", "true", "cat", "ls", "id", "grep", "sleep", "env", "stat", "wc", "readlink", "hostname", "tty", "stty", "mount", "touch", "ps", "kill", "echo", "head", "seq", "dd", "od", "ip", "mkdir", "umount", "mknod", "printf"} {
		l.check(os.Symlink("busybox", filepath.Join(l.image, "bin", a)))
	}
	return l
}

// removeEmptyGroups removes the parent of the tests' control groups in each hierarchy. One that has groups below it
// stays, to be seen.
func removeEmptyGroups(name string) {
	dirs, _ := filepath.Glob("/sys/fs/cgroup/*/" + name)
	for _, d := range append(dirs, "/sys/fs/cgroup/"+name) {
		unix.Rmdir(d)
	}
}

// newRuntime is a second engine on the same directory.
func (l *lab) newRuntime() *runtime.Runtime {
	l.t.Helper()
	r, err := runtime.New(l.c)
	l.check(err)
	l.t.Cleanup(func() { l.check(r.Close()) })
	return r
}

func (l *lab) check(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// rootfs is a fresh writable root; image may be changed beforehand through l.image.
func (l *lab) rootfs(id string) int {
	l.t.Helper()
	upper, work := filepath.Join(l.dir, id+"-u"), filepath.Join(l.dir, id+"-w")
	l.check(os.Mkdir(upper, 0o755))
	l.check(os.Mkdir(work, 0o755))
	fd, err := mount.Overlay{Lower: []string{l.image}, Upper: upper, Work: work}.Mount(l.c.Features)
	l.check(err)
	return fd
}

func newID() string {
	b := make([]byte, 32)
	rand.Read(b)
	return hex.EncodeToString(b)
}

const defaultCaps = 0xa80425fb // Docker's

var maskedPaths = []string{"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"}
var readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}

// spec is a container as the engine would start it by default, with network none.
func (l *lab) spec(args ...string) *runtime.Spec {
	l.t.Helper()
	id := newID()
	return &runtime.Spec{
		ID: id, RootFD: l.rootfs(id), Args: args, Env: []string{"PATH=/bin", "HOME=/root"}, Hostname: id[:12], NetNS: runtime.NewNetwork,
		CgroupPath: "/cleat-test-" + fmt.Sprint(os.Getpid()) + "/" + id, Capabilities: defaultCaps, HostCgroupNS: false,
		Resources:   cgroup.Resources{Devices: cgroup.DefaultDeviceRules()},
		User:        rootpath.User{Home: "/root"},
		MaskedPaths: maskedPaths, ReadonlyPaths: readonlyPaths,
	}
}

// A running is a started process whose output is collected.
type running struct {
	*runtime.Process
	l              *lab
	s              *runtime.Spec
	stdout, stderr bytes.Buffer
	readers        sync.WaitGroup
}

func (l *lab) collect(p *runtime.Process, s *runtime.Spec) *running {
	c := &running{Process: p, l: l, s: s}
	for f, b := range map[*os.File]*bytes.Buffer{p.Stdout(): &c.stdout, p.Stderr(): &c.stderr} {
		if f == nil {
			continue
		}
		c.readers.Add(1)
		go func() {
			defer c.readers.Done()
			io.Copy(writerFunc(func(p []byte) (int, error) {
				l.mu.Lock()
				defer l.mu.Unlock()
				return b.Write(p)
			}), f)
		}()
	}
	return c
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func (l *lab) start(s *runtime.Spec) *running {
	l.t.Helper()
	p, err := l.r.Start(l.ctx(), s)
	unix.Close(s.RootFD)
	if err != nil {
		l.t.Fatalf("start: %v", err)
	}
	c := l.collect(p, s)
	l.t.Cleanup(func() { c.remove() })
	return c
}

func (l *lab) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), expect.Patience)
	l.t.Cleanup(cancel)
	return ctx
}

// startFails returns the error of a start that must fail, and sees that nothing is left of it.
func (l *lab) startFails(s *runtime.Spec) error {
	l.t.Helper()
	p, err := l.r.Start(l.ctx(), s)
	unix.Close(s.RootFD)
	if err == nil {
		l.collect(p, s).remove()
		l.t.Fatal("the start did not fail")
	}
	if _, serr := os.Stat(filepath.Join(l.c.Dir, s.ID)); !os.IsNotExist(serr) {
		l.t.Errorf("the directory of a failed start is left")
	}
	if dirs, _ := filepath.Glob("/sys/fs/cgroup/*" + s.CgroupPath); len(dirs) > 0 {
		l.t.Errorf("left: %v", dirs)
	}
	return err
}

// terminate sends SIGTERM until the process has ended: busybox's shell can miss one that comes while it forks.
func (c *running) terminate() {
	c.l.t.Helper()
	for end := time.Now().Add(expect.Patience); time.Now().Before(end); {
		if err := c.Signal(15); err != nil && !errors.Is(err, runtime.ErrNotRunning) {
			c.l.t.Fatal(err)
		}
		select {
		case <-c.Done():
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
	c.l.t.Fatal("the process does not end")
}

func (c *running) wait() runtime.Status {
	c.l.t.Helper()
	select {
	case <-c.Done():
	case <-time.After(expect.Patience):
		c.l.t.Fatal("the process does not end")
	}
	c.readers.Wait()
	return c.Status()
}

func (c *running) remove() {
	select {
	case <-c.Done():
	default:
		c.Signal(9)
		c.wait()
	}
	c.readers.Wait()
	c.LetMountsGo()
	if err := c.Release(); err != nil {
		c.l.t.Error(err)
	}
	if c.s != nil {
		if err := c.l.r.RemoveCgroup(c.s.CgroupPath); err != nil {
			c.l.t.Error(err)
		}
		for _, d := range []string{"-u", "-w"} {
			os.RemoveAll(filepath.Join(c.l.dir, c.s.ID+d))
		}
	}
}

// run starts s and returns its stdout; it must end with code 0.
func (l *lab) run(s *runtime.Spec) string {
	l.t.Helper()
	c := l.start(s)
	if st := c.wait(); st.Code != 0 {
		l.t.Errorf("exit %+v, stderr %q", st, c.stderr.String())
	}
	return c.stdout.String()
}

// sh runs a script in a default container.
func (l *lab) sh(script string) string {
	l.t.Helper()
	return l.run(l.spec("sh", "-c", script))
}

func lines(s string) []string { return strings.Split(strings.TrimRight(s, "\n"), "\n") }
