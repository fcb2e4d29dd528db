package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// endings are the ways in which an engine goes away under running containers.
var endings = map[string]func(t *testing.T, e *harness.Engine){
	"killed":  func(t *testing.T, e *harness.Engine) { e.Kill() },
	"stopped": func(t *testing.T, e *harness.Engine) { e.Stop(t) },
}

func TestAdoptionOfRunningContainers(t *testing.T) {
	for how, end := range endings {
		t.Run(how, func(t *testing.T) {
			e := harness.Start(t, harness.Options{})
			e.Load(t, "busybox")
			e.OK(t, "docker", "run", "-d", "--name", "web", "-p", "0:80", "busybox", "sh", "-c", web)
			e.OK(t, "docker", "run", "-d", "--name", "counter", "busybox", "sh", "-c",
				`i=0; while [ $i -lt 4000 ]; do echo line $i; i=$((i+1)); [ $((i % 40)) -ne 0 ] || sleep 0.02; done; exit 17`)
			e.OK(t, "docker", "run", "-d", "--name", "sleeper", "busybox", "sleep", "600")
			e.OK(t, "docker", "run", "-d", "-i", "--name", "reader", "busybox", "sh", "-c", `while read l; do echo "got $l"; done`)
			port := e.OK(t, "docker", "inspect", "-f", `{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}`, "web")
			pid := e.OK(t, "docker", "inspect", "-f", "{{.State.Pid}}", "web")
			end(t, e)
			page(t, "http://127.0.0.1:"+port+"/", "without an engine the published port")
			sleeper := pidOf(t, e, "sleep\x00600")
			if err := syscall.Kill(sleeper, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			e.Run(t)
			if got := e.OK(t, "docker", "inspect", "-f", "{{.State.Pid}} {{.State.Status}}", "web"); got != pid+" running" {
				t.Errorf("adopted: %s, before %s", got, pid)
			}
			page(t, "http://127.0.0.1:"+port+"/", "after adoption the published port")
			if got := e.OK(t, "docker", "wait", "sleeper"); got != "137" {
				t.Errorf("the exit code of what ended meanwhile: %s", got)
			}
			attached := e.Command(t, "docker", "attach", "--sig-proxy=false", "reader")
			attached.Stdin = strings.NewReader("hello\n")
			if err := attached.Start(); err != nil {
				t.Fatal(err)
			}
			harness.Eventually(t, func() (bool, string) {
				s := e.OK(t, "docker", "logs", "reader")
				return s == "got hello", "stdin after adoption: " + s
			})
			attached.Process.Kill() // it would stay until the container ends
			attached.Wait()
			if got := e.OK(t, "docker", "exec", "web", "echo", "exec works"); got != "exec works" {
				t.Errorf("%q", got)
			}
			if got := e.OK(t, "docker", "wait", "counter"); got != "17" {
				t.Errorf("counter's exit code: %s", got)
			}
			wholeCount(t, e.OK(t, "docker", "logs", "counter"), 4000)
			// the port is still reserved, and free again after rm
			if r := e.Docker(t, "run", "--rm", "-p", port+":80", "busybox", "true"); r.Code != 125 || !strings.Contains(r.Stderr, "already allocated") {
				t.Errorf("%s", r)
			}
			e.OK(t, "docker", "rm", "-f", "web")
			if r := e.Docker(t, "run", "--rm", "-p", port+":80", "busybox", "true"); r.Code != 0 {
				t.Errorf("%s", r)
			}
		})
	}
}

// page waits until the server that web is answers, which may just be starting.
func page(t *testing.T, url, what string) {
	t.Helper()
	harness.Eventually(t, func() (bool, string) {
		got, err := body(url)
		return strings.HasPrefix(got, "page of"), fmt.Sprintf("%s says %q %v", what, got, err)
	})
}

// wholeCount fails unless out is "line 0" to "line n-1", each once and in order.
func wholeCount(t *testing.T, out string, n int) {
	t.Helper()
	lines := strings.Split(out, "\n")
	for i, l := range lines {
		if l != "line "+strconv.Itoa(i) {
			t.Fatalf("line %d of the log is %q (%d lines in all)", i, l, len(lines))
		}
	}
	if len(lines) != n {
		t.Fatalf("%d of %d lines", len(lines), n)
	}
}

// pidOf finds the one process with that command line in a container of e, once it is there: what has been
// forked may not have executed its program yet.
func pidOf(t *testing.T, e *harness.Engine, cmdline string) (pid int) {
	t.Helper()
	harness.Eventually(t, func() (bool, string) {
		pid = processOf(t, e, cmdline)
		return pid > 0, fmt.Sprintf("no process %q", cmdline)
	})
	return pid
}

func processOf(t *testing.T, e *harness.Engine, cmdline string) int {
	t.Helper()
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		b, _ := os.ReadFile("/proc/" + d.Name() + "/cmdline")
		if strings.TrimRight(string(b), "\x00") != cmdline {
			continue
		}
		cg, _ := os.ReadFile("/proc/" + d.Name() + "/cgroup")
		if strings.Contains(string(cg), e.CgroupParent+"/") {
			return pid
		}
	}
	return 0
}

// TestPoliciesAreCarriedOutAfterAnEngineRestart: what ended while there was no
// engine is restarted or removed by the next one, as its policy says.
func TestPoliciesAreCarriedOutAfterAnEngineRestart(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	run := func(n string, seconds int, args ...string) {
		e.OK(t, "docker", append(append([]string{"run", "-d", "--name", n}, args...), "busybox", "sleep", strconv.Itoa(seconds))...)
	}
	run("always", 6001, "--restart", "always")
	run("unless", 6002, "--restart", "unless-stopped")
	run("failure", 6003, "--restart", "on-failure")
	run("no", 6004)
	run("auto-removed", 6005, "--rm")
	run("by-hand", 6006, "--restart", "unless-stopped")
	e.OK(t, "docker", "stop", "-t", "0", "by-hand")
	var pids []int
	for i := 6001; i <= 6005; i++ {
		pids = append(pids, pidOf(t, e, fmt.Sprintf("sleep\x00%d", i)))
	}
	e.Kill()
	for _, p := range pids {
		if err := syscall.Kill(p, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	e.Run(t)
	for n, want := range map[string]string{"always": "running", "unless": "running", "failure": "running", "no": "exited", "by-hand": "exited"} {
		harness.Eventually(t, func() (bool, string) {
			s := e.OK(t, "docker", "inspect", "-f", "{{.State.Status}}", n)
			return s == want, n + " is " + s
		})
	}
	harness.Eventually(t, func() (bool, string) {
		s := e.OK(t, "docker", "ps", "-aq", "-f", "name=auto-removed")
		return s == "", s
	})
}

// TestLossOfTheExecRoot: what lies there is found in the keepers, too; of whom not even a keeper is left nothing goes on
// beside the next run, be it frozen.
func TestLossOfTheExecRoot(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	e.OK(t, "docker", "run", "-d", "-i", "--name", "reader", "busybox", "sh", "-c", `read l; echo "got $l"; exit 7`)
	e.OK(t, "docker", "run", "-d", "--name", "kept", "busybox", "sleep", "6000")
	e.OK(t, "docker", "run", "-d", "--name", "lost", "--restart", "always", "busybox", "sleep", "6001")
	e.OK(t, "docker", "run", "-d", "--name", "frozen", "busybox", "sleep", "6002")
	for _, c := range []string{"kept", "frozen"} {
		e.OK(t, "docker", "pause", c)
	}
	state := func(name string) string {
		return e.OK(t, "docker", "inspect", "-f", "{{.State.Status}} {{.State.Pid}}", name)
	}
	before := map[string]string{"reader": state("reader"), "kept": state("kept")}
	lost, frozen := pidOf(t, e, "sleep\x006001"), pidOf(t, e, "sleep\x006002")
	keepers := []int{keeperOf(t, lost), keeperOf(t, frozen)}
	e.Kill()
	for _, k := range keepers {
		kill(t, k)
	}
	if err := os.RemoveAll(e.ExecRoot); err != nil {
		t.Fatal(err)
	}
	e.Run(t)
	for name, want := range before {
		if got := state(name); got != want {
			t.Errorf("%s is %s, before %s", name, got, want)
		}
	}
	e.OK(t, "docker", "unpause", "kept")
	attached := e.Command(t, "docker", "attach", "--sig-proxy=false", "reader")
	attached.Stdin = strings.NewReader("hello\n")
	if err := attached.Run(); attached.ProcessState.ExitCode() != 7 {
		t.Errorf("attached: %v", err)
	}
	if got := e.OK(t, "docker", "logs", "reader"); got != "got hello" {
		t.Errorf("log: %q", got)
	}
	awaitDeath(t, lost)
	awaitDeath(t, frozen)
	pidOf(t, e, "sleep\x006001")
	e.OK(t, "docker", "start", "frozen")
	pidOf(t, e, "sleep\x006002")
}

func TestStaleSocketAndPidfileAreTakenOver(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Kill()
	e.Run(t) // the socket and the pidfile of the killed engine are in the way
	e.Load(t, "busybox")
	out, err := exec.Command(harness.Binary(t, "cleatd"), e.Args()...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), strconv.Itoa(e.PID())) {
		t.Errorf("a second engine on the same roots must be refused, naming the first: %v\n%s", err, out)
	}
	if got := e.OK(t, "docker", "run", "--rm", "busybox", "echo", "unharmed"); got != "unharmed" {
		t.Errorf("%q", got)
	}
}

func TestTwoEnginesDoNotMeet(t *testing.T) {
	a, b := harness.Start(t, harness.Options{}), harness.Start(t, harness.Options{})
	for _, e := range []*harness.Engine{a, b} {
		e.Load(t, "busybox")
		e.OK(t, "docker", "run", "-d", "--name", "same", "-p", "0:80", "busybox", "sh", "-c", web)
	}
	if got := a.OK(t, "docker", "ps", "-q"); len(got) != 12 {
		t.Errorf("%q", got)
	}
	b.Kill()
	b.Run(t)
	b.OK(t, "docker", "rm", "-f", "same")
	port := a.OK(t, "docker", "inspect", "-f", `{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}`, "same")
	page(t, "http://127.0.0.1:"+port+"/", "the port of the other engine")
}
