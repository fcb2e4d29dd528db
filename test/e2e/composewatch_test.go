package e2e

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/creack/pty"

	"github.com/cleatlabs/cleat/test/harness"
)

// watchOutput collects what a program prints.
type watchOutput struct {
	mu   sync.Mutex
	text strings.Builder
	from int // what expect has seen
}

func (s *watchOutput) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

// said is all that was printed until now.
func (s *watchOutput) said() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// expect waits for a text after the last that was expected.
func (s *watchOutput) expect(t *testing.T, want string) {
	t.Helper()
	harness.Eventually(t, func() (bool, string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		text := s.text.String()
		i := strings.Index(text[s.from:], want)
		if i < 0 {
			return false, "no " + want + " in:\n" + text
		}
		s.from += i + len(want)
		return true, ""
	})
}

// begin starts a compose command whose output is collected. It is interrupted at the end of the test.
func (a *application) begin(t *testing.T, args ...string) (*exec.Cmd, *watchOutput) {
	t.Helper()
	cmd := a.command(t, args...)
	s := &watchOutput{}
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(s, bufio.NewReader(r)) }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGINT)
		_ = cmd.Wait()
	})
	return cmd, s
}

const watched = `
services:
  web:
    image: %s
    build: .
    command: sh -c "echo began; cat /app/main; exec httpd -f -p 80 -h /app"
    stop_signal: SIGKILL
    user: "1000"
    develop:
      watch:
        - {action: sync, path: ./app, target: /app, ignore: ["*.log", "private/"], initial_sync: true}
        - {action: sync+restart, path: ./app/main, target: /app/main}
        - {action: sync+exec, path: ./conf, target: /app/conf, include: ["*.conf"], exec: {command: [sh, -c, "echo reloaded $$(cat /app/conf/a.conf)"], user: root}}
        - {action: rebuild, path: ./Dockerfile}
        - {action: restart, path: ./restart}
`

func TestComposeWatch(t *testing.T) {
	e := engine(t, "busybox")
	a := compose(t, e, map[string]string{
		"compose.yaml": strings.ReplaceAll(watched, "%s", name(t)+":watched"),
		"Dockerfile":   "FROM busybox\nCOPY --chown=1000 app /app\nRUN echo first >/made && mkdir /app/conf && chown 1000 /app/conf\n",
		"app/main":     "first main\n", "app/page": "first page\n", "app/old": "old\n", "conf/a.conf": "none\n", ".dockerignore": "app/ignored\n",
	})
	t.Cleanup(func() { e.Cleat(t, "rmi", "-f", name(t)+":watched") })
	write := func(file, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(a.dir, file)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(a.dir, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	inside := func(line, want string) {
		t.Helper()
		harness.Eventually(t, func() (bool, string) {
			r := a.run(t, "exec", "-T", "web", "sh", "-c", line)
			return strings.TrimSpace(r.Stdout) == want, r.String()
		})
	}
	cmd, out := a.begin(t, "up", "--watch", "--no-color")
	out.expect(t, "Watch enabled")
	harness.Eventually(t, func() (bool, string) { // in whichever order
		return strings.Contains(out.said(), "web-1  | first main"), out.said()
	})

	write("app/page", "second page\n")
	out.expect(t, `Syncing service "web" after 1 changes were detected`)
	inside("cat /app/page; stat -c %u /app/page", "second page\n1000")

	// What is ignored comes with nothing; what comes after it shows that it would have been seen.
	write("app/debug.log", "x")
	write("app/private/key", "x")
	write("app/ignored", "x")
	write("app/new/deep/file", "deep\n")
	inside("cat /app/new/deep/file", "deep")
	inside("ls -d /app/debug.log /app/private /app/ignored 2>/dev/null; true", "")

	if err := os.Remove(filepath.Join(a.dir, "app/old")); err != nil {
		t.Fatal(err)
	}
	inside("ls /app/old 2>/dev/null; true", "")

	// The container is started again, and its output goes on.
	write("app/main", "second main\n")
	out.expect(t, "web-1  | began")
	out.expect(t, "web-1  | second main")

	write("conf/a.conf", "setting\n")
	out.expect(t, "web-1 -> | reloaded setting")

	before := a.ids(t)[a.name+"-web-1"]
	write("Dockerfile", "FROM busybox\nCOPY --chown=1000 app /app\nRUN echo second >/made && mkdir /app/conf\n")
	out.expect(t, `Rebuilding service(s) ["web"] after changes were detected...`)
	out.expect(t, `service(s) ["web"] successfully built`)
	out.expect(t, "web-1  | began")
	inside("cat /made", "second")
	if after := a.ids(t)[a.name+"-web-1"]; after == before {
		t.Error("the container was not made anew")
	}

	// A build that fails leaves what runs; the next may work.
	write("Dockerfile", "FROM busybox\nRUN false\n")
	out.expect(t, "Build failed.")
	inside("cat /made", "second")

	write("restart/now", "")
	out.expect(t, `service(s) ["web"] restarted`)

	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 130 {
		t.Errorf("exit code %d", code)
	}
	if got := a.ok(t, "ps", "-q"); got != "" {
		t.Errorf("still running: %s", got)
	}

	// watch alone leaves the project running; what was changed before it is synced first.
	write("Dockerfile", "FROM busybox\nCOPY --chown=1000 app /app\n")
	a.ok(t, "up", "-d", "--build")
	write("app/page", "third page\n")
	cmd, out = a.begin(t, "watch", "--no-up")
	out.expect(t, "Watch enabled")
	inside("cat /app/page", "third page")
	write("app/page", "fourth page\n")
	inside("cat /app/page", "fourth page")
	_ = cmd.Process.Signal(syscall.SIGINT)
	_ = cmd.Wait()
	if a.ok(t, "ps", "-q") == "" {
		t.Error("the end of the watch stopped the project")
	}
}

// On a terminal there are shortcuts: w watches, d leaves the project to itself.
func TestComposeMenu(t *testing.T) {
	e := engine(t, "busybox")
	a := compose(t, e, map[string]string{
		"compose.yaml": `
services:
  web:
    image: busybox
    command: sh -c "echo began; exec sleep 1000"
    stop_signal: SIGKILL
    develop: {watch: [{action: sync, path: ./app, target: /app}]}
`,
		"app/page": "page\n",
	})
	begin := func(args ...string) (*exec.Cmd, *os.File, *watchOutput) {
		t.Helper()
		cmd := a.command(t, args...)
		cmd.Env = append(cmd.Env, "TERM=xterm")
		terminal, err := pty.Start(cmd)
		if err != nil {
			t.Fatal(err)
		}
		s := &watchOutput{}
		go func() { _, _ = io.Copy(s, terminal) }()
		t.Cleanup(func() { terminal.Close() })
		return cmd, terminal, s
	}
	cmd, terminal, out := begin("up")
	out.expect(t, "began")
	out.expect(t, "Enable Watch") // below all that is said
	if _, err := terminal.WriteString("w"); err != nil {
		t.Fatal(err)
	}
	out.expect(t, "Watch enabled")
	out.expect(t, "Disable Watch")
	if err := os.WriteFile(filepath.Join(a.dir, "app/page"), []byte("other\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	out.expect(t, "Syncing service")
	if _, err := terminal.WriteString("w"); err != nil {
		t.Fatal(err)
	}
	out.expect(t, "Watch disabled")
	if _, err := terminal.WriteString("d"); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("detached: %v", err)
	}
	if a.ok(t, "ps", "-q") == "" {
		t.Error("the project was stopped by a detach")
	}

	cmd, terminal, out = begin("up", "--menu=false")
	out.expect(t, "Attaching to")
	if _, err := terminal.WriteString("\x03"); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 130 {
		t.Errorf("Ctrl-C: %d", code)
	}
	if a.ok(t, "ps", "-q") != "" {
		t.Error("Ctrl-C has stopped nothing")
	}
	if strings.Contains(out.said(), "Enable Watch") {
		t.Error("a menu that was not wanted")
	}
}
