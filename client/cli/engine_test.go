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

func TestEngineCommands(t *testing.T) {
	dir, err := os.MkdirTemp("", "cleat-cli-engine-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cleatd := filepath.Join(dir, "cleatd")
	if err := os.Symlink(self, cleatd); err != nil {
		t.Fatal(err)
	}
	exec1 := filepath.Join(dir, "exec")
	engine := func(args ...string) result {
		t.Helper()
		return call(t, program, "", "", append([]string{"engine", args[0], "--exec-root", exec1}, args[1:]...)...)
	}
	expect := func(r result, code int, patterns ...string) {
		t.Helper()
		if r.code != code {
			t.Errorf("exit code %d, want %d: %+v", r.code, code, r)
		}
		for _, p := range patterns {
			if !regexp.MustCompile(p).MatchString(r.stdout + r.stderr) {
				t.Errorf("%q is missing in %+v", p, r)
			}
		}
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

	follow := exec.Command(program, "engine", "logs", "-f", "--exec-root", exec1)
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
