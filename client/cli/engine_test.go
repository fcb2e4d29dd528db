package cli_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// fakeEngine is what this test binary does under the name cleatd.
func fakeEngine(args []string) int {
	value := map[string]string{}
	for i := 0; i+1 < len(args); i += 2 {
		value[strings.TrimLeft(args[i], "-")] = args[i+1]
	}
	fmt.Println("fake engine:", strings.Join(args, " "))
	if value["log-level"] == "bad" {
		fmt.Println("cleatd: --log-level: bad is no level")
		return 1
	}
	l, err := net.Listen("unix", strings.TrimPrefix(value["host"], "unix://"))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	if err := os.WriteFile(value["pidfile"], []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600); err != nil {
		fmt.Println(err)
		return 1
	}
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/info") {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"ServerVersion":"0.1.0","DockerRootDir":"/data","Containers":3,"ContainersRunning":1,"ContainersStopped":2,"Images":4}`)
		}
	}))
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, syscall.SIGTERM)
	<-ch
	l.Close()
	os.Remove(value["pidfile"])
	fmt.Println("stopped")
	return 0
}

// engines is a directory in which engine commands run, with fake engines.
type engines struct {
	t           *testing.T
	dir, cleatd string
}

func newEngines(t *testing.T) engines {
	t.Helper()
	dir, err := os.MkdirTemp("", "cleat-cli-engine-") // short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cleatd := filepath.Join(dir, "cleatd")
	if err := os.Symlink(self, cleatd); err != nil {
		t.Fatal(err)
	}
	return engines{t, dir, cleatd}
}

func (e engines) call(host string, args ...string) result {
	e.t.Helper()
	return call(e.t, program, host, "", append([]string{"--config", filepath.Join(e.dir, "config"), "engine"}, args...)...)
}

func (e engines) expect(r result, code int, patterns ...string) {
	e.t.Helper()
	if r.code != code {
		e.t.Errorf("exit code %d, want %d: %+v", r.code, code, r)
	}
	for _, p := range patterns {
		if !regexp.MustCompile(p).MatchString(r.stdout + r.stderr) {
			e.t.Errorf("%q is missing in %+v", p, r)
		}
	}
}

// start starts a fake engine and returns its process id.
func (e engines) start(args ...string) (result, int) {
	e.t.Helper()
	r := e.call("", append([]string{"start", "--cleatd", e.cleatd}, args...)...)
	e.expect(r, 0, `ready: pid \d+`)
	m := regexp.MustCompile(`pid (\d+)`).FindStringSubmatch(r.stdout)
	if m == nil {
		e.t.FailNow()
	}
	pid, _ := strconv.Atoi(m[1])
	e.t.Cleanup(func() { syscall.Kill(pid, syscall.SIGKILL) })
	return r, pid
}

// TestEngineIsFoundAgain: what `start` was used with need not be said again.
func TestEngineIsFoundAgain(t *testing.T) {
	if own, err := os.ReadFile("/run/cleat/cleatd.pid"); err == nil {
		t.Skipf("the machine's own engine (pid %s) is what is meant without options", own)
	}
	e := newEngines(t)
	exec1, exec2, log2 := filepath.Join(e.dir, "exec1"), filepath.Join(e.dir, "exec2"), filepath.Join(e.dir, "second.log")
	e.expect(e.call("", "status"), 3, "not running at unix:///run/cleat.sock")
	_, pid1 := e.start("--exec-root", exec1)
	e.expect(e.call("", "status"), 0, fmt.Sprintf(`PID: +%d\n`, pid1), `Socket: +unix://`+exec1, `Log: +`+exec1+`/cleatd.log`)
	e.expect(e.call("", "logs"), 0, `fake engine: `)
	_, pid2 := e.start("--exec-root", exec2, "--log-file", log2)
	for _, verb := range []string{"status", "stop", "logs"} {
		e.expect(e.call("", verb), 1, `several engines are running, name one of them: --socket `+exec2+`/cleat.sock, --socket `+exec1+`/cleat.sock`)
	}
	e.expect(e.call("unix://"+exec1+"/cleat.sock", "status"), 0, fmt.Sprintf(`PID: +%d\n`, pid1))
	e.expect(e.call("", "status", "--socket", exec2+"/cleat.sock"), 0, fmt.Sprintf(`PID: +%d\n`, pid2), `Log: +`+log2)
	// That it runs already changes nothing of what is known.
	e.expect(e.call("", "start", "--cleatd", e.cleatd, "--exec-root", exec2), 0, "running already")
	e.expect(e.call("", "stop", "--socket", "unix://"+exec2+"/cleat.sock"), 0, fmt.Sprintf(`has stopped \(pid %d\)`, pid2))
	e.expect(e.call("", "status"), 0, fmt.Sprintf(`PID: +%d\n`, pid1))
	e.expect(e.call("", "logs", "--exec-root", exec2), 0, `stopped`)
	e.expect(e.call("", "stop"), 0, fmt.Sprintf(`has stopped \(pid %d\)`, pid1))
	e.expect(e.call("", "status"), 3, "not running at unix://"+exec2) // the one that was started last
	e.expect(e.call("", "logs"), 0, `stopped`)
	if err := os.WriteFile(filepath.Join(e.dir, "config", "cleat-engines.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	e.expect(e.call("", "status"), 1, "cleat-engines.json.*can be deleted")
	e.start("--exec-root", exec1)
	e.expect(e.call("", "stop"), 0, "has stopped")
}

func TestEngineCommands(t *testing.T) {
	e := newEngines(t)
	dir, cleatd, expect, exec1 := e.dir, e.cleatd, e.expect, filepath.Join(e.dir, "exec")
	engine := func(args ...string) result {
		t.Helper()
		return e.call("", append([]string{args[0], "--exec-root", exec1}, args[1:]...)...)
	}
	expect(engine("status"), 3, "not running")
	expect(engine("stop"), 0, "not running")
	expect(engine("logs"), 1, "there is no log at")
	expect(engine("start", "--cleatd", filepath.Join(dir, "nope")), 1, "nope")
	expect(engine("start", "--cleatd", cleatd, "--", "--host", "x"), 1, "--socket before the '--'")
	expect(engine("start", "--cleatd", cleatd, "--", "--log-level", "bad"), 1, "has ended while starting", "--log-level: bad is no level", "its log is "+exec1)

	r := engine("start", "--cleatd", cleatd, "--data-root", filepath.Join(dir, "data"), "--", "--log-level", "debug")
	expect(r, 0, `^The engine is ready: pid \d+, unix://`+exec1+`/cleat.sock, log `+exec1+`/cleatd.log\n$`)
	pid, _ := strconv.Atoi(regexp.MustCompile(`pid (\d+)`).FindStringSubmatch(r.stdout)[1])
	defer syscall.Kill(pid, syscall.SIGKILL)
	expect(engine("start", "--cleatd", cleatd), 0, fmt.Sprintf("running already: pid %d", pid))
	expect(engine("status"), 0, fmt.Sprintf(`PID: +%d\n`, pid), `Version: +0.1.0\n`, `Containers: 3 \(1 running, 0 paused, 2 stopped\)\n`, `Socket: +unix://`+exec1)
	expect(engine("logs", "--tail", "1"), 0, `^fake engine: --pidfile `+exec1+`/cleatd.pid --data-root \S+ --exec-root `+exec1+` --host unix://\S+ --log-level debug\n$`)
	expect(engine("logs", "-n", "x"), 1, "invalid --tail")
	expect(engine("start", "--cleatd", cleatd, "--pidfile", filepath.Join(dir, "other.pid")), 1, "another engine answers at")

	follow := exec.Command(program, "--config", filepath.Join(dir, "config"), "engine", "logs", "-f", "--exec-root", exec1)
	out, err := follow.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	defer follow.Process.Kill()
	expect(engine("stop"), 0, fmt.Sprintf(`^The engine has stopped \(pid %d\)\n$`, pid))
	var seen strings.Builder
	b := make([]byte, 1024)
	for !strings.Contains(seen.String(), "\nstopped\n") {
		n, err := out.Read(b)
		if err != nil {
			t.Fatalf("following the log: %v after %q", err, seen.String())
		}
		seen.Write(b[:n])
	}
	expect(engine("status"), 3, "not running")
	// A pidfile that was left behind names a process that is something else.
	if err := os.WriteFile(filepath.Join(exec1, "cleatd.pid"), []byte("1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	expect(engine("stop"), 0, "not running")
}
