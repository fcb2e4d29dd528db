// Package harness brings up private engines for tests: each with its own data
// root, exec root, socket, bridge, address range, cgroup parent and nft table, so
// that several run side by side and none touches the machine's own.
//
// It promises that what it started it also ends, by PID, and that Snapshot and
// Snapshot.Left tell everything that a test left behind on the machine.
package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/test/expect"
)

// Patience is how long a condition may take before a test gives up on it.
const Patience = expect.Patience

var engines atomic.Int32

// Engine is one private cleatd.
type Engine struct {
	Dir          string // everything of this engine lies below it
	DataRoot     string
	ExecRoot     string // on tmpfs
	Socket       string
	Bridge       string
	Subnet       string // the bridge's address with its prefix length
	CgroupParent string

	args  []string
	env   []string
	files int // that it may have open, 0 without a limit
	cmd   *exec.Cmd
	done  chan struct{}
	log   *os.File
	slot  net.Listener // held as long as the subnet is this engine's
}

// Options change how an engine is started.
type Options struct {
	Args []string // more flags of cleatd
	Env  []string // more environment, such as CLEAT_FAILPOINTS=…
}

// Start brings up an engine and waits until it answers. At the end of the test
// every container is removed, the engine is stopped and its traces are torn down.
func Start(t testing.TB, o Options) *Engine {
	t.Helper()
	e := New(t, o)
	e.Run(t)
	t.Cleanup(func() { e.Destroy(t) })
	return e
}

// New prepares an engine without running it and without cleanup.
func New(t testing.TB, o Options) *Engine {
	t.Helper()
	dir, err := os.MkdirTemp("", "cleat-test-")
	if err != nil {
		t.Fatal(err)
	}
	exec, err := os.MkdirTemp("/dev/shm", "cleat-test-")
	if err != nil {
		t.Fatal(err)
	}
	n := int(engines.Add(1))
	id := fmt.Sprintf("%d-%d", os.Getpid(), n)
	slot, held := ownSlot(t, os.Getpid()*7+n)
	e := &Engine{
		Dir: dir, DataRoot: filepath.Join(dir, "data"), ExecRoot: exec, Socket: filepath.Join(dir, "cleat.sock"),
		Bridge:       fmt.Sprintf("ct%d", (os.Getpid()%100000)*100+n),
		Subnet:       fmt.Sprintf("10.%d.%d.1/24", 200+slot/256, slot%256),
		CgroupParent: "/cleat-test-" + id,
		env:          o.Env,
		slot:         held,
	}
	e.args = append([]string{"--config-file", "/dev/null", "--data-root", e.DataRoot, "--exec-root", e.ExecRoot, "--host", "unix://" + e.Socket,
		"--pidfile", filepath.Join(dir, "cleatd.pid"), "--bridge", e.Bridge, "--bip", e.Subnet, "--cgroup-parent", e.CgroupParent}, o.Args...)
	e.log, err = os.Create(filepath.Join(dir, "cleatd.log"))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// slots is how many subnets there are for engines and networks of tests.
const slots = 56 * 256

// ownSlot is a number that no other engine nor network of a test has, in whichever process.
func ownSlot(t testing.TB, from int) (int, net.Listener) {
	t.Helper()
	addresses, err := net.InterfaceAddrs() // of other engines, or of those that were left behind
	if err != nil {
		t.Fatal(err)
	}
	for i := range slots {
		slot := (from + i) % slots
		gateway := net.IPv4(10, byte(200+slot/256), byte(slot%256), 1)
		if slices.ContainsFunc(addresses, func(a net.Addr) bool { n, ok := a.(*net.IPNet); return ok && n.Contains(gateway) }) {
			continue
		}
		if l, err := net.Listen("unix", fmt.Sprintf("@cleat-test-subnet-%d", slot)); err == nil {
			return slot, l
		}
	}
	t.Fatal("all subnets of tests are in use")
	return 0, nil
}

// Subnet is a range of addresses that no other test has, in whichever process, until this one ends: the beginnings of an
// IPv4 /24, such as "10.201.7.", and of an IPv6 /64, such as "fd00:c1eb:108::".
func Subnet(t testing.TB) (four, six string) {
	t.Helper()
	slot, held := ownSlot(t, os.Getpid()*7+int(engines.Add(1)))
	t.Cleanup(func() { held.Close() })
	return fmt.Sprintf("10.%d.%d.", 200+slot/256, slot%256), fmt.Sprintf("fd00:c1eb:%x::", slot+1)
}

// Args are the flags that this engine is started with; programs such as
// `cleatd debug` take the same ones.
func (e *Engine) Args() []string { return e.args }

// SetEnv replaces the additional environment of the next Run.
func (e *Engine) SetEnv(env ...string) { e.env = env }

// LimitFiles has the next Run start an engine that may have so many files open; 0 is no limit.
func (e *Engine) LimitFiles(most int) { e.files = most }

// Run starts cleatd and waits until it answers pings; it fails the test otherwise. Of an
// engine that does not come up the first time nothing stays.
func (e *Engine) Run(t testing.TB) {
	t.Helper()
	first := e.done == nil
	if err := e.TryRun(t); err != nil {
		said := e.Log()
		if first {
			e.discard(t)
		}
		t.Fatalf("%v\nlog of the engine:\n%s", err, said)
	}
}

// TryRun is Run for engines that may die while they start.
func (e *Engine) TryRun(t testing.TB) error {
	t.Helper()
	e.cmd = exec.Command(Binary(t, "cleatd"), e.args...)
	if e.files > 0 {
		limited := fmt.Sprintf(`ulimit -n %d && exec "$0" "$@"`, e.files)
		e.cmd = exec.Command("sh", append([]string{"-c", limited, Binary(t, "cleatd")}, e.args...)...)
	}
	e.cmd.Env = append(os.Environ(), e.env...)
	e.cmd.Stdout, e.cmd.Stderr = e.log, e.log
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := e.cmd.Start(); err != nil {
		return err
	}
	cmd, done := e.cmd, make(chan struct{})
	e.done = done
	go func() { cmd.Wait(); close(done) }()
	hc := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", e.Socket)
	}}}
	for deadline := time.Now().Add(Patience); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		resp, err := hc.Get("http://engine/_ping")
		if err == nil {
			resp.Body.Close()
			return nil
		}
		select {
		case <-done:
			return errors.New("the engine ended while it was starting: " + cmd.ProcessState.String())
		default:
		}
	}
	return errors.New("the engine does not answer")
}

// PID of the running engine.
func (e *Engine) PID() int { return e.cmd.Process.Pid }

// Exited is closed when the engine's process has ended.
func (e *Engine) Exited() <-chan struct{} { return e.done }

// Kill ends the engine with SIGKILL and waits until it is gone; containers stay.
func (e *Engine) Kill() {
	e.cmd.Process.Kill()
	<-e.done
}

// Stop asks the engine to end (SIGTERM) and waits; containers stay.
func (e *Engine) Stop(t testing.TB) {
	t.Helper()
	e.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-e.done:
	case <-time.After(Patience):
		e.cmd.Process.Signal(syscall.SIGQUIT)
		<-e.done
		t.Fatalf("the engine did not stop\n%s", e.Log())
	}
}

// Debug runs `cleatd debug what` with this engine's flags and returns what it printed.
func (e *Engine) Debug(t testing.TB, what string) (string, error) {
	t.Helper()
	out, err := exec.Command(Binary(t, "cleatd"), append([]string{"debug", what}, e.args...)...).CombinedOutput()
	return string(out), err
}

// Teardown runs `cleatd debug teardown` until it finds nothing that runs, and returns what it then printed: processes
// that nobody needs, such as spare ones, end behind their engine and their container.
func (e *Engine) Teardown(t testing.TB) (out string) {
	t.Helper()
	Eventually(t, func() (bool, string) {
		var err error
		out, err = e.Debug(t, "teardown")
		return err == nil, fmt.Sprintf("cleatd debug teardown: %v\n%s", err, out)
	})
	return out
}

// RemoveAll removes every container. One may go by itself meanwhile, as --rm has it.
func (e *Engine) RemoveAll(t testing.TB) {
	t.Helper()
	Eventually(t, func() (bool, string) {
		ids := strings.Fields(e.Cleat(t, "ps", "-aq").Stdout)
		if len(ids) == 0 {
			return true, ""
		}
		return false, e.Cleat(t, append([]string{"rm", "-f", "-v"}, ids...)...).String()
	})
}

// Things are the containers, volumes and networks that an engine has.
func (e *Engine) Things(t testing.TB) map[string]bool {
	t.Helper()
	things := map[string]bool{}
	for _, list := range [][]string{{"ps", "-aq", "--no-trunc"}, {"volume", "ls", "-q"}, {"network", "ls", "-q", "--no-trunc"}} {
		for _, id := range strings.Fields(e.OK(t, "cleat", list...)) {
			things[list[0]+" "+id] = true
		}
	}
	return things
}

// NothingNew waits until the engine has none of these that it had not before: what others have left goes meanwhile.
func (e *Engine) NothingNew(t testing.TB, before map[string]bool) {
	t.Helper()
	Eventually(t, func() (bool, string) {
		var left []string
		for thing := range e.Things(t) {
			if !before[thing] {
				left = append(left, thing)
			}
		}
		return len(left) == 0, fmt.Sprintf("left behind: %v", left)
	})
}

// Log returns the last part of what the engine printed.
func (e *Engine) Log() string {
	b, _ := os.ReadFile(e.log.Name())
	if len(b) > 16<<10 {
		b = b[len(b)-16<<10:]
	}
	return string(b)
}

// Client returns the official Go client, connected to this engine.
func (e *Engine) Client(t testing.TB) *client.Client {
	t.Helper()
	c, err := client.New(client.WithHost("unix://" + e.Socket))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// Destroy removes every container, stops the engine and tears down its traces.
func (e *Engine) Destroy(t testing.TB) {
	t.Helper()
	if t.Failed() {
		t.Logf("log of the engine:\n%s", e.Log())
	}
	select {
	case <-e.done:
		e.SetEnv()
		if err := e.TryRun(t); err != nil {
			t.Errorf("cleanup: %v\n%s", err, e.Log())
			return
		}
	default:
	}
	e.RemoveAll(t)
	e.Stop(t)
	e.Teardown(t)
	e.removeFiles(t)
}

// discard takes down what an engine that never answered has left: it had no containers.
func (e *Engine) discard(t testing.TB) {
	t.Helper()
	if e.done != nil { // it began to run
		e.Kill()
		e.Teardown(t)
	}
	e.removeFiles(t)
}

func (e *Engine) removeFiles(t testing.TB) {
	t.Helper()
	e.log.Close()
	e.slot.Close()
	for _, d := range []string{e.ExecRoot, e.Dir} {
		if err := os.RemoveAll(d); err != nil {
			t.Errorf("cleanup: %v", err)
		}
	}
}

// Result is what a command line program answered.
type Result struct {
	Args           []string
	Stdout, Stderr string
	Code           int
}

func (r Result) String() string {
	return fmt.Sprintf("%q: exit %d\nstdout: %s\nstderr: %s", r.Args, r.Code, r.Stdout, r.Stderr)
}

// Line is the trimmed standard output.
func (r Result) Line() string { return strings.TrimSpace(r.Stdout) }

// Command returns a command line of program ("cleat" or "docker") on this engine.
func (e *Engine) Command(t testing.TB, program string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(Program(t, program), args...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+e.Socket, "DOCKER_CONFIG="+filepath.Join(e.Dir, "config"), "DOCKER_CLI_HINTS=false")
	return cmd
}

// Do runs program with args and stdin and returns what it answered.
func (e *Engine) Do(t testing.TB, program, stdin string, args ...string) Result {
	t.Helper()
	cmd := e.Command(t, program, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errb bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errb
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// An image of hundreds of megabytes, that is loaded on a busy machine, takes minutes.
	stop := time.AfterFunc(5*Patience, func() { cmd.Process.Kill() })
	defer stop.Stop()
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return Result{append([]string{program}, args...), out.String(), errb.String(), cmd.ProcessState.ExitCode()}
}

// Cleat runs our own client.
func (e *Engine) Cleat(t testing.TB, args ...string) Result {
	t.Helper()
	return e.Do(t, "cleat", "", args...)
}

// Docker runs the real docker CLI.
func (e *Engine) Docker(t testing.TB, args ...string) Result {
	t.Helper()
	return e.Do(t, "docker", "", args...)
}

// OK runs program and fails the test unless it exits with 0; it returns the
// trimmed standard output.
func (e *Engine) OK(t testing.TB, program string, args ...string) string {
	t.Helper()
	r := e.Do(t, program, "", args...)
	if r.Code != 0 {
		t.Fatalf("%s", r)
	}
	return r.Line()
}

// Load puts images made by images/make into the engine's store.
func (e *Engine) Load(t testing.TB, names ...string) {
	t.Helper()
	for _, f := range Images(t, names...) {
		e.OK(t, "cleat", "load", "-q", "-i", f)
	}
}

// Eventually waits until cond holds, and fails the test with what it last said.
func Eventually(t testing.TB, cond func() (bool, string)) {
	t.Helper()
	var why string
	for deadline := time.Now().Add(Patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		ok, w := cond()
		if ok {
			return
		}
		why = w
	}
	t.Fatalf("waited %v in vain: %s", Patience, why)
}

// Program finds a command line client: our own in bin/, any other in PATH. A
// missing one fails the test: an untested client is not a skipped detail.
func Program(t testing.TB, name string) string {
	t.Helper()
	if name == "cleat" {
		return Binary(t, name)
	}
	p, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is needed by the end-to-end suite: %v", name, err)
	}
	return p
}

// Binary is one of the programs that `make build` puts into bin/.
func Binary(t testing.TB, name string) string {
	t.Helper()
	p := filepath.Join(Top(t), "bin", name)
	if _, err := os.Stat(p); err != nil {
		t.Fatalf("%s is missing: run `make build` first (%v)", p, err)
	}
	return p
}

// Top is the root of the repository.
func Top(t testing.TB) string {
	t.Helper()
	d, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; d != "/"; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, "go.mod")); err == nil {
			return d
		} else if !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	t.Fatal("no go.mod above the working directory")
	return ""
}

// ImageDir is where image archives are kept between test runs.
func ImageDir() string {
	if d := os.Getenv("CLEAT_TEST_IMAGES"); d != "" {
		return d
	}
	return "/var/cache/cleat-test-images"
}

// Images makes the named image archives if they are not there yet and returns
// their paths.
func Images(t testing.TB, names ...string) []string {
	t.Helper()
	if len(names) == 0 {
		return nil
	}
	cmd := exec.Command(filepath.Join(Top(t), "images", "make"), append([]string{ImageDir()}, names...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("images/make %v: %v\n%s", names, err, out)
	}
	var files []string
	for _, n := range names {
		files = append(files, filepath.Join(ImageDir(), n+".tar"))
	}
	return files
}

// MakeImage makes an image archive with cleat-registry mkimage.
func MakeImage(t testing.TB, ref, file string, args ...string) {
	t.Helper()
	cmd := exec.Command(Binary(t, "cleat-registry"), append([]string{"mkimage", "--ref", ref + ":latest", "-o", file,
		"--env", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
}

// Final runs a cleanup that wants a test after all tests have ended, and returns
// what it complained about.
func Final(cleanup func(testing.TB)) []string {
	f := &finalTB{}
	done := make(chan struct{})
	go func() { // Fatal ends the goroutine that it is called on
		defer close(done)
		cleanup(f)
	}()
	<-done
	return f.said
}

// finalTB is the part of testing.TB that cleanups use.
type finalTB struct {
	testing.TB
	said []string
}

func (f *finalTB) Helper()                   {}
func (f *finalTB) Failed() bool              { return false }
func (f *finalTB) Logf(string, ...any)       {}
func (f *finalTB) Errorf(s string, a ...any) { f.said = append(f.said, fmt.Sprintf(s, a...)) }
func (f *finalTB) Fatalf(s string, a ...any) { f.Errorf(s, a...); runtime.Goexit() }
func (f *finalTB) Fatal(a ...any)            { f.said = append(f.said, fmt.Sprint(a...)); runtime.Goexit() }
