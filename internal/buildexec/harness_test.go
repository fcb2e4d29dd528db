package buildexec_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/buildkit/executor"
	gatewayapi "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/buildexec"
	"github.com/cleatlabs/cleat/internal/cgroup"
	"github.com/cleatlabs/cleat/internal/kernel"
	"github.com/cleatlabs/cleat/internal/network"
	"github.com/cleatlabs/cleat/internal/runtime"
	"github.com/cleatlabs/cleat/test/expect"
)

const (
	inWorld  = "CLEAT_BUILDEXEC_TEST_WORLD"
	patience = expect.Patience
)

// TestMain moves the test process into a network namespace of its own, which plays the host.
func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		fmt.Println("needs root")
		os.Exit(0)
	}
	if os.Getenv(inWorld) == "" {
		goruntime.LockOSThread()
		must(unix.Unshare(unix.CLONE_NEWNET))
		must(syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), inWorld+"=1")))
	}
	if dir := os.Getenv(asEngine); dir != "" {
		runEngine(dir)
	}
	must(exec.Command("ip", "link", "set", "lo", "up").Run())
	os.Exit(m.Run())
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// engine is what an Executor stands on.
type engine struct {
	dir      string
	parent   string // control group
	runtime  *runtime.Runtime
	networks *network.Service
	features kernel.Features
	steps    *buildexec.Executor
	closed   bool
}

// openEngine opens one on dir. An earlier one's leftovers are swept, as by the engine's start.
func openEngine(dir string) (*engine, error) {
	e := &engine{dir: dir, parent: "/" + filepath.Base(dir)}
	var err error
	if e.features, err = kernel.Probe(); err != nil {
		return nil, err
	}
	groups, err := cgroup.Detect()
	if err != nil {
		return nil, err
	}
	e.runtime, err = runtime.New(runtime.Config{
		Dir: filepath.Join(dir, "run/runtime"), FallbackDir: filepath.Join(dir, "disk"), Cgroups: groups, Features: e.features,
	})
	if err != nil {
		return nil, err
	}
	e.runtime.Sweep(nil)
	e.networks, err = network.Open(context.Background(), network.Config{
		StateFile: filepath.Join(dir, "disk/network.json"), Bridge: "cb" + dir[max(0, len(dir)-8):], BIP: netip.MustParsePrefix("10.213.7.1/24"),
		ResolvConf: filepath.Join(dir, "disk/resolv.conf"),
	})
	if err != nil {
		return nil, err
	}
	if err := e.networks.Reconcile(context.Background(), nil); err != nil {
		return nil, err
	}
	e.steps, err = buildexec.New(buildexec.Config{
		Runtime: e.runtime, Networks: e.networks, Features: e.features, CgroupParent: e.parent, Dir: filepath.Join(dir, "run/build"),
	})
	return e, err
}

// lab is an engine with a busybox image, all of which is gone at the test's end.
type lab struct {
	*engine
	t     testing.TB
	image string
	n     int
	mu    sync.Mutex
}

func newLab(t testing.TB) *lab {
	t.Helper()
	dir, err := os.MkdirTemp("", "cleat-steps-")
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{t: t, image: filepath.Join(dir, "disk/image"), engine: &engine{dir: dir, parent: "/" + filepath.Base(dir), closed: true}}
	t.Cleanup(l.destroy)
	for _, d := range []string{"run", "disk"} {
		l.check(os.Mkdir(filepath.Join(dir, d), 0o755))
	}
	l.check(unix.Mount("tmpfs", filepath.Join(dir, "run"), "tmpfs", 0, "mode=755"))
	l.check(unix.Mount("tmpfs", filepath.Join(dir, "disk"), "tmpfs", 0, "mode=755"))
	l.check(os.WriteFile(filepath.Join(dir, "disk/resolv.conf"), []byte("nameserver 192.0.2.53\nsearch example.org\n"), 0o644))
	l.busybox()
	e, err := openEngine(dir)
	l.check(err)
	l.engine = e
	return l
}

func (l *lab) check(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) busybox() {
	for _, d := range []string{"bin", "etc", "tmp", "root"} {
		l.check(os.MkdirAll(filepath.Join(l.image, d), 0o755))
	}
	b, err := os.ReadFile("/bin/busybox")
	l.check(err)
	l.check(os.WriteFile(filepath.Join(l.image, "bin/busybox"), b, 0o755))
	out, err := exec.Command("/bin/busybox", "--list").Output()
	l.check(err)
	for _, name := range strings.Fields(string(out)) {
		if name != "busybox" {
			l.check(os.Symlink("busybox", filepath.Join(l.image, "bin", name)))
		}
	}
}

// close ends the engine in order.
func (e *engine) close() error {
	if e.closed {
		return nil
	}
	e.closed = true
	return errors.Join(e.steps.Close(), e.runtime.Close(), e.networks.Teardown())
}

func (l *lab) destroy() {
	if err := l.close(); err != nil {
		l.t.Error(err)
	}
	if left := l.leftGroups(); len(left) > 0 {
		l.t.Errorf("control groups are left: %v", left)
	}
	if files, _ := filepath.Glob(filepath.Join(l.dir, "run/runtime/build-*")); len(files) > 0 {
		l.t.Errorf("left: %v", files)
	}
	if n := openMountNamespaces(); n > 0 {
		l.t.Errorf("%d mount namespaces of steps are still open, with all of their mounts", n)
	}
	for _, d := range []string{"run", "disk"} {
		l.check(unix.Unmount(filepath.Join(l.dir, d), unix.MNT_DETACH))
	}
	l.check(os.RemoveAll(l.dir))
}

// hostMounts are the lines about mounts that others see, of those of this engine alone, that have a word: other
// packages' tests mount beside this one.
func (l *lab) hostMounts(word string) (lines []string) {
	all, err := os.ReadFile("/proc/self/mountinfo")
	l.check(err)
	for m := range strings.Lines(string(all)) {
		if strings.Contains(m, l.dir) && strings.Contains(m, word) {
			lines = append(lines, m)
		}
	}
	return lines
}

func openMountNamespaces() (n int) {
	files, _ := filepath.Glob("/proc/self/fd/*")
	for _, f := range files {
		if of, err := os.Readlink(f); err == nil && strings.HasPrefix(of, "mnt:") {
			n++
		}
	}
	return n
}

func (l *lab) leftGroups() []string {
	groups, _ := filepath.Glob("/sys/fs/cgroup/*" + l.parent)
	own, _ := filepath.Glob("/sys/fs/cgroup" + l.parent)
	return append(groups, own...)
}

// source is a mount as BuildKit hands it over.
type source struct {
	list            []mount.Mount
	taken, released int
}

func (s *source) Mount(context.Context, bool) (executor.MountableRef, error) { return handed{s}, nil }

type handed struct{ *source }

func (h handed) Mount() ([]mount.Mount, func() error, error) {
	h.taken++
	return h.list, func() error { h.released++; return nil }, nil
}

func (h handed) IdentityMapping() *user.IdentityMapping { return nil }

func (l *lab) source(list ...mount.Mount) *source {
	s := &source{list: list}
	l.t.Cleanup(func() {
		if s.released == 0 && s.taken > 0 {
			l.t.Error("a mount was not released")
		}
	})
	return s
}

// bind is a directory or file of the host's.
func (l *lab) bind(path, target string, readonly bool) executor.Mount {
	return executor.Mount{Src: l.source(mount.Mount{Type: "bind", Source: path, Options: []string{"rbind", "rw"}}), Dest: target, Readonly: readonly}
}

// root is a fresh root filesystem over the image, and its writable layer.
func (l *lab) root() (executor.Mount, string) {
	l.t.Helper()
	l.mu.Lock()
	l.n++
	n := l.n
	l.mu.Unlock()
	upper, work := filepath.Join(l.dir, "disk", fmt.Sprint("u", n)), filepath.Join(l.dir, "disk", fmt.Sprint("w", n))
	l.check(os.Mkdir(upper, 0o755))
	l.check(os.Mkdir(work, 0o755))
	return executor.Mount{Src: l.source(mount.Mount{Type: "overlay", Source: "overlay", Options: []string{
		"index=off", "workdir=" + work, "upperdir=" + upper, "lowerdir=" + l.image, "redirect_dir=off",
	}})}, upper
}

// job is a step to run.
type job struct {
	id      string
	root    executor.Mount
	upper   string
	mounts  []executor.Mount
	info    executor.ProcessInfo
	stdout  expect.Output
	stderr  expect.Output
	started chan struct{}
}

// job makes a step that runs a script.
func (l *lab) job(script string) *job { return l.command("sh", "-c", script) }

func (l *lab) command(args ...string) *job {
	l.t.Helper()
	j := &job{started: make(chan struct{})}
	j.root, j.upper = l.root()
	j.info.Meta = executor.Meta{Args: args, Env: []string{"PATH=/bin"}, Cwd: "/"}
	j.info.Stdout, j.info.Stderr = &j.stdout, &j.stderr
	return j
}

func (l *lab) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	l.t.Cleanup(cancel)
	return ctx
}

func (l *lab) run(j *job) error { return l.runIn(l.ctx(), j) }

func (l *lab) runIn(ctx context.Context, j *job) error {
	_, err := l.steps.Run(ctx, j.id, j.root, j.mounts, j.info, j.started)
	select {
	case <-j.started:
	default:
		l.t.Error("started is not closed")
	}
	return err
}

// sh runs a script, which must succeed, and returns its output.
func (l *lab) sh(script string) string {
	l.t.Helper()
	return l.must(l.job(script))
}

func (l *lab) must(j *job) string {
	l.t.Helper()
	if err := l.run(j); err != nil {
		l.t.Fatalf("%v: %v; stderr %q", j.info.Meta.Args, err, j.stderr.String())
	}
	return j.stdout.String()
}

// code is the exit code that an error tells.
func code(err error) int {
	var exit *gatewayapi.ExitError
	if errors.As(err, &exit) {
		return int(exit.ExitCode)
	}
	return -1
}
