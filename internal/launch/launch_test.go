package launch_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/cleatlabs/cleat/internal/launch"
	"github.com/cleatlabs/cleat/test/expect"
	"golang.org/x/sys/unix"
)

func newStub(t testing.TB) *launch.Stub {
	t.Helper()
	s, err := launch.NewStub(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

type outcome struct {
	report launch.Report
	err    error
	status unix.WaitStatus
	stdout string
	pid    int
}

// run starts p with the given descriptors and collects everything about it.
func run(t testing.TB, s *launch.Stub, p *launch.Program, files ...int) outcome {
	t.Helper()
	return runIn(t, s, nil, p, "launch-test", files...)
}

// runIn is run in a parked process.
func runIn(t testing.TB, s *launch.Stub, k *launch.Parked, p *launch.Program, name string, files ...int) outcome {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	c, err := s.StartIn(k, p, name, [3]int{int(null.Fd()), int(w.Fd()), int(w.Fd())}, files)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(c.PIDFD)
	ctx, cancel := context.WithTimeout(context.Background(), expect.Patience)
	defer cancel()
	o := outcome{pid: c.PID}
	o.report, o.err = c.Await(ctx)
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	o.stdout = string(b)
	if _, err := unix.Wait4(c.PID, &o.status, 0, nil); err != nil {
		t.Fatal(err)
	}
	return o
}

func busybox(p *launch.Program, args ...string) {
	p.Exec([]string{"/bin/busybox"}, append([]string{"busybox"}, args...), []string{"A=b"})
}

func TestExec(t *testing.T) {
	p := launch.NewProgram(false)
	p.ReportReached()
	busybox(p, "sh", "-c", "echo $A; exit 5")
	o := run(t, newStub(t), p)
	if o.err != nil || !o.report.Reached || o.stdout != "b\n" || o.status.ExitStatus() != 5 {
		t.Fatalf("%+v", o)
	}
}

// Signals start blocked with default dispositions, descriptors are exactly those given (what a program leaves open is
// close-on-exec only if it says so), and the process is not dumpable before its execve.
func TestInheritedState(t *testing.T) {
	p := launch.NewProgram(false)
	p.Call(unix.SYS_CLOSE, "program", launch.Int(launch.ProgramFD))
	p.Call(unix.SYS_CLOSE_RANGE, "report", launch.Int(launch.ReportFD), launch.Int(launch.ReportFD), launch.Int(unix.CLOSE_RANGE_CLOEXEC))
	busybox(p, "sh", "-c", "ls /proc/self/fd | tr '\\n' ' '; exec busybox grep -E 'Sig(Blk|Ign|Cgt)' /proc/self/status")
	o := run(t, newStub(t), p)
	// 3 is ls's own, 10 the shell's.
	if fds, _, _ := strings.Cut(o.stdout, "Sig"); fds != "0 1 10 2 3 " && fds != "0 1 2 3 " {
		t.Errorf("descriptors: %s", o.stdout)
	}
	if !strings.Contains(o.stdout, "SigBlk:\tfffffffffffbfeff") {
		t.Errorf("not all signals are blocked: %s", o.stdout)
	}
	if !strings.Contains(o.stdout, "SigIgn:\t0000000000000000") {
		t.Errorf("ignored signals: %s", o.stdout)
	}
}

func TestFailures(t *testing.T) {
	s := newStub(t)
	tests := []struct {
		name  string
		build func(p *launch.Program)
		want  syscall.Errno
		text  string
	}{
		{"errno and object", func(p *launch.Program) {
			p.Call(unix.SYS_CHDIR, "/nowhere", p.Str("/nowhere"))
		}, syscall.ENOENT, "chdir /nowhere: no such file or directory"},
		{"ignored errors pass", func(p *launch.Program) {
			p.Call(unix.SYS_CHDIR, "a", p.Str("/nowhere")).Ignore(syscall.EPERM, syscall.ENOENT)
			p.Call(unix.SYS_CHDIR, "b", p.Str("/nowhere")).IgnoreAll()
			p.Call(unix.SYS_CLOSE, "99", launch.Int(99)).Ignore(syscall.ENOENT)
		}, syscall.EBADF, "close 99: bad file descriptor"},
		{"falling off the end", func(p *launch.Program) {}, syscall.ENOEXEC, "launch program: exec format error"},
		{"EACCES over a later ENOENT", func(p *launch.Program) {
			p.Exec([]string{"/nowhere/x", "/etc/passwd", "/nowhere/y"}, []string{"x"}, nil)
		}, syscall.EACCES, "fail execve: permission denied"},
		{"nothing found", func(p *launch.Program) {
			p.Exec([]string{"/nowhere/x", "/etc/passwd/x"}, []string{"x"}, nil)
		}, syscall.ENOENT, "fail execve: no such file or directory"},
		{"expectation", func(p *launch.Program) {
			x := p.Slot()
			p.Call(unix.SYS_GETPID, "").To(x)
			p.Expect("pid", x, ^uint64(0), 1, syscall.EXDEV)
		}, syscall.EXDEV, "expect pid: invalid cross-device link"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := launch.NewProgram(false)
			tt.build(p)
			o := run(t, s, p)
			var f *launch.Failure
			if !errors.As(o.err, &f) || f.Errno != tt.want || f.Error() != tt.text {
				t.Fatalf("got %v", o.err)
			}
			if o.status.ExitStatus() != 127 {
				t.Errorf("status %v", o.status)
			}
		})
	}
}

// TestRenamesMeanwhile: the kernel gives a lookup up, with EAGAIN, that comes to a ".." while anything is renamed or mounted
// anywhere. That is nothing which a program may end of.
func TestRenamesMeanwhile(t *testing.T) {
	dir, s := t.TempDir(), newStub(t)
	at := filepath.Join(dir, "root")
	if err := os.MkdirAll(at+"/a", 0o755); err != nil {
		t.Fatal(err)
	}
	root, err := unix.Open(at, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	done := make(chan struct{})
	var renaming sync.WaitGroup
	defer renaming.Wait()
	defer close(done)
	renaming.Go(func() { renames(t, dir, done) })

	p := launch.NewProgram(false)
	how := p.Words(unix.O_PATH|unix.O_CLOEXEC, 0, unix.RESOLVE_IN_ROOT)
	path := p.Str(strings.Repeat("a/../", 8))
	for range 2000 {
		fd := p.Slot()
		p.Call(unix.SYS_OPENAT2, "a/..", launch.Int(launch.FirstFD), path, how, launch.Int(24)).To(fd)
		p.Call(unix.SYS_CLOSE, "", fd.Arg())
	}
	p.Exit(3)
	for range 5 {
		if o := run(t, s, p, root); o.err != nil || o.status.ExitStatus() != 3 {
			t.Fatalf("%+v", o)
		}
	}
}

// renames moves a directory back and forth until it is done.
func renames(t *testing.T, dir string, done <-chan struct{}) {
	if err := os.Mkdir(dir+"/0", 0o755); err != nil {
		t.Error(err)
		return
	}
	for i := 0; ; i++ {
		select {
		case <-done:
			return
		default:
		}
		if err := unix.Rename(fmt.Sprint(dir, "/", i%2), fmt.Sprint(dir, "/", 1-i%2)); err != nil {
			t.Error(err)
			return
		}
	}
}

func TestNULBytesAreRefused(t *testing.T) {
	p := launch.NewProgram(false)
	busybox(p, "echo", "a\x00b")
	if _, err := p.Encode(); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Fatalf("a NUL byte in an argument: %v", err)
	}
}

func TestSlotsReachEveryArgument(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := launch.NewProgram(false)
	// More slots than the header page holds.
	var last launch.Slot
	for range 600 {
		last = p.Slot()
		p.Call(unix.SYS_GETPID, "").To(last)
	}
	fd, buf, n, off := p.Slot(), p.Slot(), p.Slot(), p.Slot()
	w := p.Words(uint64(launch.FirstFD), p.Str("hello").Address(), 5, 3)
	for i, s := range []launch.Slot{fd, buf, n, off} {
		p.Call(unix.SYS_PREAD64, "copy", launch.Int(launch.ProgramFD), launch.Hex(uint64(s)), launch.Int(8), launch.Hex(uint64(launch.WordOf(w, i))-launch.Base))
	}
	p.Call(unix.SYS_PWRITE64, "", fd.Arg(), buf.Arg(), n.Arg(), off.Arg())
	p.Expect("pid", last, 0, 0, syscall.EINVAL)
	p.Exit(3)
	if o := run(t, newStub(t), p, int(f.Fd())); o.err != nil || o.status.ExitStatus() != 3 {
		t.Fatalf("%+v", o)
	}
	if b, _ := os.ReadFile(f.Name()); string(b) != "\x00\x00\x00hello" {
		t.Fatalf("%q", b)
	}
}

func TestLargeEnvironment(t *testing.T) {
	env := make([]string, 10000)
	for i := range env {
		env[i] = "VARIABLE_" + strings.Repeat("x", i%40) + "=" + strings.Repeat("y", 60)
	}
	env[9999] = "LAST=1"
	p := launch.NewProgram(false)
	p.Exec([]string{"/bin/busybox"}, []string{"busybox", "sh", "-c", "echo $LAST; busybox env | busybox wc -l"}, env)
	o := run(t, newStub(t), p)
	if o.err != nil || !strings.HasPrefix(o.stdout, "1\n") {
		t.Fatalf("%v %q", o.err, o.stdout)
	}
}

func TestSync(t *testing.T) {
	for _, lives := range []bool{true, false} {
		in, out, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		p := launch.NewProgram(false)
		p.Sync("wait for the engine", launch.Int(launch.FirstFD))
		p.Exit(0)
		if lives {
			if _, err := out.Write([]byte{1}); err != nil {
				t.Fatal(err)
			}
		}
		out.Close()
		o := run(t, newStub(t), p, int(in.Fd()))
		if lives && (o.err != nil || o.status.ExitStatus() != 0) || !lives && !errors.Is(o.err, unix.EPIPE) {
			t.Errorf("engine there: %v, %+v", lives, o)
		}
	}
}

// The executable can neither be written to nor replaced through /proc/PID/exe.
func TestStubIsSealed(t *testing.T) {
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer out.Close()
	p := launch.NewProgram(false)
	p.Sync("hold", launch.Int(launch.FirstFD))
	p.Exit(0)
	s := newStub(t)
	null, _ := os.OpenFile("/dev/null", os.O_RDWR, 0)
	defer null.Close()
	c, err := s.Start(p, "sealed", [3]int{int(null.Fd()), int(null.Fd()), int(null.Fd())}, []int{int(in.Fd())})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(c.PIDFD)
	exe := "/proc/" + strconv.Itoa(c.PID) + "/exe"
	if f, err := os.OpenFile(exe, os.O_WRONLY, 0); err == nil {
		if _, err = f.Write([]byte("x")); err == nil {
			t.Error("the executable of a running stub was overwritten")
		}
		f.Close()
	}
	held, err := unix.Open(exe, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(held)
	out.Write([]byte{1})
	unix.Wait4(c.PID, nil, 0, nil)
	if f, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(held), os.O_WRONLY, 0); err == nil {
		if _, err = f.Write([]byte("x")); err == nil {
			t.Error("the executable was overwritten after its process had ended")
		}
		f.Close()
	}
}

// What a stream holds is saved where nobody will read it, be it that FIONREAD does not tell of it: a terminal's master
// has only what the kernel has passed on to it meanwhile. An eventfd never tells.
func TestKeepSavesWhatIsNotCounted(t *testing.T) {
	status, err := os.Create(filepath.Join(t.TempDir(), "status"))
	if err != nil {
		t.Fatal(err)
	}
	defer status.Close()
	stream := func(value uint) int {
		fd, err := unix.Eventfd(value, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	p := launch.NewProgram(false)
	p.ReportReached()
	p.Call(unix.SYS_CLOSE, "report", launch.Int(launch.ReportFD))
	p.Keep(launch.Int(0), launch.Int(launch.FirstFD), 0, launch.Int(launch.FirstFD+1))
	if o := run(t, newStub(t), p, int(status.Fd()), stream(7), stream(0)); o.err != nil || o.status.ExitStatus() != 0 {
		t.Fatalf("%+v", o)
	}
	got, err := os.ReadFile(status.Name())
	if err != nil {
		t.Fatal(err)
	}
	if want := string(make([]byte, 24)) + "\x08" + string(make([]byte, 15)) + "\x07" + string(make([]byte, 7)); string(got) != want {
		t.Errorf("status file:\n%q, want\n%q", got, want)
	}
}

// What others go on writing to a stream, faster than it is saved, is not saved without end: there is as much of it as a
// pipe holds.
func TestKeepSavesNoMoreThanAPipeHolds(t *testing.T) {
	const most, room = 1 << 20, 8 << 20
	fd, err := unix.MemfdCreate("status", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	status := os.NewFile(uintptr(fd), "status")
	defer status.Close()
	if err := status.Truncate(room); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_GROW); err != nil {
		t.Fatal(err)
	}
	zero, err := os.Open("/dev/zero")
	if err != nil {
		t.Fatal(err)
	}
	defer zero.Close()
	p := launch.NewProgram(false)
	p.ReportReached()
	p.Call(unix.SYS_CLOSE, "report", launch.Int(launch.ReportFD))
	p.Keep(launch.Int(0), launch.Int(launch.FirstFD), 0, launch.Int(launch.FirstFD+1))
	if o := run(t, newStub(t), p, fd, int(zero.Fd()), int(zero.Fd())); o.err != nil || o.status.ExitStatus() != 0 {
		t.Fatalf("%+v", o)
	}
	var lengths [16]byte
	if _, err := status.ReadAt(lengths[:], 24); err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	if out, errs := le.Uint64(lengths[:]), le.Uint64(lengths[8:]); out != most || errs != most {
		t.Errorf("of two streams without end %d and %d bytes are saved, want %d", out, errs, most)
	}
}

// An engine with many open files starts processes too: the executable's descriptor is not overwritten on the way.
func TestManyOpenFiles(t *testing.T) {
	s := newStub(t)
	var fds []int
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	for len(fds) < 700 {
		fd, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		fds = append(fds, fd)
		if len(fds) < 400 || len(fds)%3 != 0 {
			continue
		}
		p := launch.NewProgram(false)
		p.Exit(9)
		if o := run(t, s, p, fds[0], fd, fds[1], fds[2]); o.err != nil || o.status.ExitStatus() != 9 {
			t.Fatalf("with %d open files: %+v", len(fds), o)
		}
	}
}
