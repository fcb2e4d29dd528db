package cli_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/cleatlabs/cleat/test/expect"
)

const patience = expect.Patience

// environ is the environment of a user without configuration.
func environ(host string, more ...string) []string {
	return append([]string{"HOME=/nonexistent", "PATH=/bin:/usr/bin", "TZ=UTC", "DOCKER_HOST=" + host}, more...)
}

func TestNoRoundTripBeforeTheCommand(t *testing.T) {
	for line, want := range map[string][]string{
		"ps":             {"GET /containers/json"},
		"exec web ls":    {"POST /containers/web/exec", "POST /exec/" + execID + "/start", "GET /exec/" + execID + "/json"},
		"run -d nginx":   {"POST /containers/create", "POST /containers/" + containerID + "/start"},
		"run --rm nginx": {"POST /containers/create", "POST /containers/" + containerID + "/attach?stderr=1&stdout=1&stream=1", "POST /containers/" + containerID + "/wait?condition=removed", "POST /containers/" + containerID + "/start"},
		"rm -f a":        {"DELETE /containers/a?force=1"},
	} {
		f := newFake(t)
		if r := call(t, program, f.host(), "", strings.Fields(line)...); r.code != 0 && !strings.HasPrefix(line, "exec") {
			t.Fatalf("%s: %+v", line, r)
		}
		got := f.asked()
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s asked %q, want %q", line, got, want)
		}
	}
}

func TestOlderEngine(t *testing.T) {
	for _, c := range []struct{ line, stdin, want string }{
		{"ps -q", "", containerID[:12] + "\n"}, {"run --rm nginx", "", "to stdout\n"}, {"run -i --rm nginx cat", "typed", "typed"},
		{"exec -i web cat", "typed", "exec out\ntyped"}, {"load", "archive", "Loaded image: hello-world:latest\n"}, {"wait x", "", "0\n"},
		{"attach web", "", ""}, {"start x", "", "x\n"}, {"version --format {{.Client.APIVersion}}/{{.Client.DefaultAPIVersion}}", "", "1.44/1.56\n"},
	} {
		f := newFakeOf(t, "1.44")
		if strings.HasPrefix(c.line, "wait") || strings.HasPrefix(c.line, "attach") {
			f.finish()
		}
		r := call(t, program, f.host(), c.stdin, strings.Fields(c.line)...)
		if !strings.HasPrefix(r.stdout, strings.TrimSuffix(c.want, "\n")) && !strings.Contains(r.stdout, c.want) || strings.Contains(r.stderr, "too new") {
			t.Errorf("%s: %+v, want stdout %q", c.line, r, c.want)
		}
	}
	f := newFakeOf(t, "1.44")
	r := call(t, program, f.host(), "archive", "load")
	f.mu.Lock()
	defer f.mu.Unlock()
	if got := string(f.bodies["POST /images/load"]); got != "archive" {
		t.Errorf("what was read from stdin was lost: %q (%+v)", got, r)
	}
}

func TestCIDFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cid")
	f := newFake(t)
	if r := call(t, program, f.host(), "", "run", "-d", "--cidfile", path, "nginx"); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	if b, _ := os.ReadFile(path); string(b) != containerID {
		t.Errorf("cidfile has %q", b)
	}
	if r := call(t, program, f.host(), "", "run", "-d", "--cidfile", path, "nginx"); r.code != 125 || !strings.Contains(r.stderr, "container ID file found") {
		t.Errorf("a second run: %+v", r)
	}
	other := path + "2"
	if r := call(t, program, f.host(), "", "run", "-d", "--cidfile", other, "conflict"); r.code != 125 {
		t.Errorf("%+v", r)
	}
	if _, err := os.Stat(other); !os.IsNotExist(err) {
		t.Errorf("a failed create leaves its cidfile: %v", err)
	}
}

// breaksOff is the socket of an engine that ends within each answer, and before that to events since a time.
func breaksOff(t *testing.T) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/_ping" {
			w.Header().Set("Api-Version", "1.56")
			return
		}
		if !r.URL.Query().Has("since") {
			_ = http.NewResponseController(w).Flush()
		}
		panic(http.ErrAbortHandler)
	})}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { srv.Close() })
	return socket
}

// An engine that ends within an answer says nothing: the client does.
func TestEngineThatEndsInTheMiddle(t *testing.T) {
	socket := breaksOff(t)
	for line, code := range map[string]int{"ps": 1, "logs -f a": 1, "run -d x": 125, "exec a b": 1, "wait a": 1, "events": 1, "volume create v": 1} {
		r := call(t, program, "unix://"+socket, "", strings.Fields(line)...)
		if want := "the connection to the engine at unix://" + socket + " has broken"; r.code != code || !strings.Contains(r.stderr, want) {
			t.Errorf("%s: %+v", line, r)
		}
	}
	if r := call(t, program, "unix://"+socket, "", "events", "--since", "1"); r.code != 1 || r.stderr == "" {
		t.Errorf("events of an engine that does not begin to answer: %+v", r)
	}
}

func TestUnreachableEngine(t *testing.T) {
	dir := t.TempDir()
	dead := filepath.Join(dir, "dead")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	for _, sock := range []string{filepath.Join(dir, "none"), dead} {
		for line, code := range map[string]int{"ps": 1, "run x": 125, "run -d x": 125, "exec a b": 1, "attach a": 1, "start -a a": 1, "start a": 1, "logs a": 1, "events": 1, "info": 1, "version": 1, "rm a b": 1, "inspect a": 1, "pull x": 1, "wait x": 1} {
			r := call(t, program, "unix://"+sock, "", strings.Fields(line)...)
			want := "Cannot connect to the Cleat engine at unix://" + sock + ". Is it running? Start it with 'cleat engine start'"
			if r.code != code || strings.Count(r.stderr, want) != 1 {
				t.Errorf("%s: %+v", line, r)
			}
		}
	}
	// Without permission the way out is another one.
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	f := newFake(t)
	if err := os.Chmod(filepath.Dir(f.socket), 0o711); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(f.socket, 0o600); err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(dir, "cleat")
	b, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(copied, b, 0o755); err != nil {
		t.Fatal(err)
	}
	for d := dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(copied, "ps")
	cmd.Env = environ(f.host())
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "Permission denied while connecting to the Cleat engine at "+f.host()) {
		t.Errorf("%v: %s", err, out)
	}
}

func TestContexts(t *testing.T) {
	a, b := newFake(t), newFake(t)
	config := t.TempDir()
	sum := sha256.Sum256([]byte("other"))
	meta := filepath.Join(config, "contexts", "meta", hex.EncodeToString(sum[:]))
	if err := os.MkdirAll(meta, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(meta, "meta.json"), []byte(`{"Name":"other","Metadata":{},"Endpoints":{"docker":{"Host":"`+b.host()+`","SkipTLSVerify":false}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(config, "config.json"), []byte(`{"currentContext":"other","psFormat":"{{.Names}}!","HttpHeaders":{"X-Test":"1"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(env []string, args ...string) {
		t.Helper()
		cmd := exec.Command(program, args...)
		cmd.Env = append([]string{"PATH=/bin", "DOCKER_CONFIG=" + config}, env...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
		if !strings.HasPrefix(string(out), "web1!\n") {
			t.Errorf("psFormat of the configuration is not used: %s", out)
		}
	}
	reached := func(want *fake, n int) {
		t.Helper()
		if len(want.asked()) != n {
			t.Errorf("engine a was asked %d times, b %d", len(a.asked()), len(b.asked()))
		}
	}
	run(nil, "ps")
	reached(b, 1)
	run([]string{"DOCKER_HOST=" + a.host()}, "ps")
	reached(a, 1)
	run([]string{"DOCKER_HOST=" + a.host(), "DOCKER_CONTEXT=other"}, "ps") // DOCKER_HOST wins
	reached(a, 2)
	run([]string{"DOCKER_HOST=" + a.host()}, "--context", "other", "ps")
	reached(b, 2)
	run([]string{"DOCKER_CONTEXT=other"}, "-H", a.host(), "ps")
	reached(a, 3)
}

// tty runs our client on a terminal.
type tty struct {
	t    *testing.T
	cmd  *exec.Cmd
	file *os.File
	out  bytes.Buffer
	read chan []byte
}

func startTTY(t *testing.T, f *fake, rows, cols uint16, args ...string) *tty {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = environ(f.host(), "TERM=xterm")
	file, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: rows, Cols: cols})
	if err != nil {
		t.Fatal(err)
	}
	x := &tty{t: t, cmd: cmd, file: file, read: make(chan []byte, 100)}
	go func() {
		defer close(x.read)
		for {
			b := make([]byte, 4096)
			n, err := file.Read(b)
			if n > 0 {
				x.read <- b[:n]
			}
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait(); file.Close() })
	return x
}

// expect reads until want has been shown.
func (x *tty) expect(want string) {
	x.t.Helper()
	timeout := time.After(patience)
	for !strings.Contains(x.out.String(), want) {
		select {
		case b, ok := <-x.read:
			if !ok {
				x.t.Fatalf("the terminal is closed; %q is missing in %q", want, x.out.String())
			}
			x.out.Write(b)
		case <-timeout:
			x.t.Fatalf("waited in vain for %q in %q", want, x.out.String())
		}
	}
}

func (x *tty) typed(s string) { fmt.Fprint(x.file, s) }

func (x *tty) exit() int {
	x.t.Helper()
	done := make(chan struct{})
	go func() { x.cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(patience):
		x.t.Fatalf("the client does not end; shown: %q", x.out.String())
	}
	return x.cmd.ProcessState.ExitCode()
}

func TestTerminal(t *testing.T) {
	f := newFake(t)
	x := startTTY(t, f, 33, 101, "run", "-it", "--rm", "nginx", "shell")
	x.expect("$ ")
	x.typed("hello\r")
	x.expect("hello\r\n$ ") // echoed once, by the container's terminal: ours is raw
	resized := func(rows, cols int) func() bool {
		want := fmt.Sprintf("POST /containers/%s/resize?h=%d&w=%d", containerID, rows, cols)
		return func() bool { return slices.Contains(f.asked(), want) }
	}
	expect.Eventually(t, "the first size is told", resized(33, 101))
	pty.Setsize(x.file, &pty.Winsize{Rows: 40, Cols: 90})
	expect.Eventually(t, "the new size is told", resized(40, 90))
	if got := f.body(t, "POST /containers/create")["HostConfig"].(map[string]any)["ConsoleSize"]; fmt.Sprint(got) != "[33 101]" {
		t.Errorf("the container is created with console size %v", got)
	}
	x.typed("\x03") // goes to the container as it is
	x.expect("\x03")
	x.typed("\r")
	x.expect("\x03\r\n$ ")
	x.typed("exit\r")
	if code := x.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestDetach(t *testing.T) {
	for keys, typed := range map[string]string{"": "\x10\x11", "ctrl-a,x": "\x01x"} {
		f := newFake(t)
		args := []string{"run", "-it"}
		if keys != "" {
			args = append(args, "--detach-keys", keys)
		}
		x := startTTY(t, f, 24, 80, append(args, "nginx", "shell")...)
		x.expect("$ ")
		x.typed("ab")
		x.expect("ab")
		x.typed(typed)
		if code := x.exit(); code != 0 {
			t.Errorf("detached with %q: exit code %d", keys, code)
		}
		select {
		case <-f.exited:
			t.Error("the container has ended")
		default:
		}
		if len(f.wasKilled()) > 0 {
			t.Errorf("the container was sent %v", f.wasKilled())
		}
	}
}

// running is the client of a container that has been started and waits.
func running(t *testing.T) (*fake, *exec.Cmd) {
	t.Helper()
	f := newFake(t)
	cmd := exec.Command(program, "run", "nginx", "wait")
	cmd.Env = environ(f.host())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	expect.Eventually(t, "it has started", func() bool { return slices.Contains(f.asked(), "POST /containers/"+containerID+"/start") })
	return f, cmd
}

func TestSignalsAreForwarded(t *testing.T) {
	f, cmd := running(t)
	for i, s := range []struct {
		sig  syscall.Signal
		name string
	}{{syscall.SIGHUP, "HUP"}, {syscall.SIGINT, "INT"}, {syscall.SIGUSR1, "USR1"}, {syscall.SIGCHLD, ""}, {syscall.SIGURG, ""}, {syscall.SIGTERM, "TERM"}} {
		cmd.Process.Signal(s.sig)
		if s.name != "" {
			expect.Eventually(t, s.name+" arrives", func() bool { k := f.wasKilled(); return slices.Contains(k, s.name) })
		}
		if k := f.wasKilled(); len(k) > i+1 {
			t.Fatalf("signals that arrived: %v", k)
		}
	}
	cmd.Wait()
	if k := f.wasKilled(); slices.Contains(k, "CHLD") || slices.Contains(k, "URG") || len(k) != 4 {
		t.Errorf("signals that arrived: %v", k)
	}
	if code := cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("the container exited with 0, the client with %d", code)
	}
}

// TestRareSignalsAreForwarded: nobody sends them in a container's first moments, in
// which the client does not yet listen to them.
func TestRareSignalsAreForwarded(t *testing.T) {
	f, cmd := running(t)
	for _, s := range []struct {
		sig  syscall.Signal
		name string
	}{{34 + 3, "RTMIN+3"}, {syscall.SIGALRM, "ALRM"}, {syscall.SIGCONT, "CONT"}} {
		expect.Eventually(t, s.name+" arrives", func() bool {
			cmd.Process.Signal(s.sig)
			return slices.Contains(f.wasKilled(), s.name)
		})
	}
	cmd.Process.Signal(syscall.SIGTERM)
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("the container exited with 0, the client with %d", code)
	}
}

func TestInterruptedWait(t *testing.T) {
	f := newFake(t)
	cmd := exec.Command(program, "wait", "x")
	cmd.Env = environ(f.host())
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	expect.Eventually(t, "it waits", func() bool { return len(f.asked()) == 1 })
	cmd.Process.Signal(syscall.SIGINT)
	cmd.Wait()
	if cmd.ProcessState.ExitCode() != 130 || errOut.Len() > 0 {
		t.Errorf("exit code %d, stderr %q", cmd.ProcessState.ExitCode(), errOut.String())
	}
}

func TestPullOnATerminal(t *testing.T) {
	f := newFake(t)
	x := startTTY(t, f, 24, 60, "pull", "missing")
	x.expect("docker.io/library/missing:latest\r\n")
	shown := x.out.String()
	for _, want := range []string{"Using default tag: latest\r\n", "latest: Pulling from library/missing\r\n", "\x1b[1A\r\x1b[2K8a1e25ce7c4f: Downloading     100B/1kB", "\x1b[1A\r\x1b[2K8a1e25ce7c4f: Pull complete\r\x1b[1B", "Status: Downloaded newer image"} {
		if !strings.Contains(shown, want) {
			t.Errorf("%q is missing in %q", want, shown)
		}
	}
	if x.exit() != 0 {
		t.Error("not 0")
	}
}

func TestInterruptedPull(t *testing.T) {
	for _, line := range []string{"pull slow", "run --rm slow", "create slow"} {
		f := newFake(t)
		cmd := exec.Command(program, strings.Fields(line)...)
		cmd.Env = environ(f.host())
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill() })
		expect.Eventually(t, "it pulls", func() bool {
			return slices.ContainsFunc(f.asked(), func(r string) bool { return strings.HasPrefix(r, "POST /images/create") })
		})
		cmd.Process.Signal(syscall.SIGINT)
		cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 130 {
			t.Errorf("%s: exit code %d: %s", line, code, out.String())
		}
		select {
		case <-f.abandoned:
		case <-time.After(patience):
			t.Errorf("%s: the engine goes on pulling", line)
		}
	}
}

// TestCredentials compares what is sent to the engine for a registry with docker's.
func TestCredentials(t *testing.T) {
	config := t.TempDir()
	if err := os.WriteFile(filepath.Join(config, "config.json"), []byte(`{"auths":{
		"https://index.docker.io/v1/":{"auth":"aHViOnNlY3JldA=="},
		"registry.example.com:5000":{"auth":"bWU6cGFzcw=="}},
		"proxies":{"default":{"httpProxy":"http://proxy:1","noProxy":"localhost"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(bin string, args ...string) *fake {
		f := newFake(t)
		cmd := exec.Command(bin, args...)
		cmd.Env = []string{"PATH=/bin", "DOCKER_CONFIG=" + config, "DOCKER_HOST=" + f.host()}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v: %s", bin, args, err, out)
		}
		return f
	}
	for _, ref := range []string{"nginx", "docker.io/team/app:1", "registry.example.com:5000/x", "registry.example.com/x", "127.0.0.1:5000/x"} {
		decode := func(f *fake) map[string]string {
			out := map[string]string{}
			b, err := base64.URLEncoding.DecodeString(f.auth)
			if err == nil {
				err = json.Unmarshal(b, &out)
			}
			if err != nil && f.auth != "" {
				t.Errorf("%s: %q: %v", ref, f.auth, err)
			}
			return out
		}
		if ours, theirs := decode(run(program, "pull", ref)), decode(run(docker(t), "pull", ref)); ours["username"] != theirs["username"] || ours["password"] != theirs["password"] {
			t.Errorf("%s: ours %v, docker's %v", ref, ours, theirs)
		} else if strings.HasPrefix(ref, "nginx") && ours["username"] != "hub" {
			t.Errorf("%s: %v", ref, ours)
		}
	}
	env := func(f *fake) []string {
		var out []string
		for _, e := range f.body(t, "POST /containers/create")["Env"].([]any) {
			out = append(out, e.(string))
		}
		slices.Sort(out)
		return out
	}
	args := []string{"create", "-e", "http_proxy=mine", "-e", "A=1", "nginx"}
	if ours, theirs := env(run(program, args...)), env(run(docker(t), args...)); !slices.Equal(ours, theirs) {
		t.Errorf("ours %q, docker's %q", ours, theirs)
	}
}

func TestWithoutSignalProxy(t *testing.T) {
	f := newFake(t)
	cmd := exec.Command(program, "run", "--sig-proxy=false", "nginx", "wait")
	cmd.Env = environ(f.host())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	expect.Eventually(t, "it has started", func() bool { return slices.Contains(f.asked(), "POST /containers/"+containerID+"/start") })
	cmd.Process.Signal(syscall.SIGINT)
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 130 || len(f.wasKilled()) > 0 {
		t.Errorf("exit code %d, the container was sent %v", code, f.wasKilled())
	}
}
