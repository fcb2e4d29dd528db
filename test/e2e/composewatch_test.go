package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// begin starts a compose command. It is interrupted at the end of the test.
func (a *application) begin(t *testing.T, args ...string) *harness.Session {
	t.Helper()
	s := harness.Begin(t, a.command(t, args...))
	t.Cleanup(func() {
		s.Signal(t, syscall.SIGINT)
		s.Exit(t)
	})
	return s
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

// writer writes files of the project, and makes their directories.
func (a *application) writer(t *testing.T) func(file, text string) {
	return func(file, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(a.dir, file)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(a.dir, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestComposeWatch(t *testing.T) {
	e := engine(t, "busybox")
	a := compose(t, e, map[string]string{
		"compose.yaml": strings.ReplaceAll(watched, "%s", name(t)+":watched"),
		"Dockerfile":   "FROM busybox\nCOPY --chown=1000 app /app\nRUN echo first >/made && mkdir /app/conf && chown 1000 /app/conf\n",
		"app/main":     "first main\n", "app/page": "first page\n", "app/old": "old\n", "conf/a.conf": "none\n", ".dockerignore": "app/ignored\n",
	})
	t.Cleanup(func() { e.Cleat(t, "rmi", "-f", name(t)+":watched") })
	write := a.writer(t)
	inside := func(line, want string) {
		t.Helper()
		harness.Eventually(t, func() (bool, string) {
			r := a.run(t, "exec", "-T", "web", "sh", "-c", line)
			return strings.TrimSpace(r.Stdout) == want, r.String()
		})
	}
	up := a.begin(t, "up", "--watch", "--no-color")
	up.Shows(t, "Watch enabled")
	harness.Eventually(t, func() (bool, string) { // in whichever order
		return strings.Contains(up.String(), "web-1  | first main"), up.String()
	})

	write("app/page", "second page\n")
	up.Shows(t, `Syncing service "web" after 1 changes were detected`)
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

	// A file takes the place of a directory.
	if err := os.RemoveAll(filepath.Join(a.dir, "app/new/deep")); err != nil {
		t.Fatal(err)
	}
	write("app/new/deep", "a file\n")
	inside("cat /app/new/deep", "a file")

	// The container is started again, and its output goes on.
	write("app/main", "second main\n")
	up.Shows(t, "web-1  | began")
	up.Shows(t, "web-1  | second main")

	write("conf/a.conf", "setting\n")
	up.Shows(t, "web-1 -> | reloaded setting")

	before := a.ids(t)[a.name+"-web-1"]
	write("Dockerfile", "FROM busybox\nCOPY --chown=1000 app /app\nRUN echo second >/made && mkdir /app/conf\n")
	up.Shows(t, `Rebuilding service(s) ["web"] after changes were detected...`)
	up.Shows(t, `service(s) ["web"] successfully built`)
	up.Shows(t, "web-1  | began")
	inside("cat /made", "second")
	if after := a.ids(t)[a.name+"-web-1"]; after == before {
		t.Error("the container was not made anew")
	}

	// A build that fails leaves what runs; the next may work.
	write("Dockerfile", "FROM busybox\nRUN false\n")
	up.Shows(t, "Build failed.")
	inside("cat /made", "second")

	write("restart/now", "")
	up.Shows(t, `service(s) ["web"] restarted`)

	up.Signal(t, syscall.SIGINT)
	if code := up.Exit(t); code != 130 {
		t.Errorf("exit code %d", code)
	}
	if got := a.ok(t, "ps", "-q"); got != "" {
		t.Errorf("still running: %s", got)
	}

	// watch alone leaves the project running; what was changed before it is synced first.
	write("Dockerfile", "FROM busybox\nCOPY --chown=1000 app /app\n")
	a.ok(t, "up", "-d", "--build")
	write("app/page", "third page\n")
	watch := a.begin(t, "watch", "--no-up")
	watch.Shows(t, "Watch enabled")
	inside("cat /app/page", "third page")
	write("app/page", "fourth page\n")
	inside("cat /app/page", "fourth page")
	watch.Signal(t, syscall.SIGINT)
	watch.Exit(t)
	if a.ok(t, "ps", "-q") == "" {
		t.Error("the end of the watch stopped the project")
	}
}

// What is watched may go and come again, what cannot be removed in a container keeps nothing from coming into it, and with
// a service that is built anew those are started anew that asked for it, or use its network.
func TestComposeWatchGoesOn(t *testing.T) {
	e := engine(t, "busybox")
	a := compose(t, e, map[string]string{
		"compose.yaml": `
services:
  api:
    build: .
    command: sh -c "rm /bin/rm; exec sleep 1000"
    stop_signal: SIGKILL
    develop: {watch: [{action: rebuild, path: ./made}, {action: sync, path: ./src, target: /src}]}
  web:
    image: busybox
    command: sleep 1000
    stop_signal: SIGKILL
    depends_on: {api: {condition: service_started, restart: true}}
    develop: {watch: [{action: sync, path: ./src, target: /src}]}
  beside: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, network_mode: "service:api"}
`,
		"Dockerfile": "FROM busybox\nCOPY made /made\n", "made": "first\n", "src/old": "old\n",
	})
	write := a.writer(t)
	inside := func(service, line, want string) {
		t.Helper()
		harness.Eventually(t, func() (bool, string) {
			r := a.run(t, "exec", "-T", service, "sh", "-c", line)
			return strings.TrimSpace(r.Stdout) == want, r.String()
		})
	}
	up := a.begin(t, "up", "--watch", "--no-color")
	up.Shows(t, "Watch enabled")
	if err := os.RemoveAll(filepath.Join(a.dir, "src")); err != nil {
		t.Fatal(err)
	}
	write("src/new", "first\n")
	inside("api", "cat /src/new", "first")
	write("src/new", "second\n")
	inside("api", "cat /src/new", "second")

	if err := os.Remove(filepath.Join(a.dir, "src/new")); err != nil {
		t.Fatal(err)
	}
	write("src/other", "third\n")
	inside("api", "cat /src/other", "third")
	inside("web", "cat /src/other; ls /src", "third\nother")

	a.ok(t, "exec", "-T", "web", "touch", "/dev/shm/before")
	write("made", "second\n")
	inside("api", "cat /made", "second")
	inside("web", "ls /dev/shm; echo up", "up")
	harness.Eventually(t, func() (bool, string) {
		r := e.Docker(t, "inspect", "-f", "{{.HostConfig.NetworkMode}} {{.State.Running}}", a.name+"-beside-1")
		return strings.TrimSpace(r.Stdout) == "container:"+a.ids(t)[a.name+"-api-1"]+" true", r.String()
	})
}

// On a terminal it is asked whether a volume whose configuration has changed is to be made anew.
func TestComposeAsksForVolumes(t *testing.T) {
	e := engine(t, "busybox")
	a := compose(t, e, map[string]string{
		"compose.yaml": "services: {web: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, volumes: [\"data:/data\"]}}\nvolumes: {data: }\n",
		"more.yaml":    "volumes: {data: {labels: {more: label}}}\n",
	})
	a.ok(t, "up", "-d")
	a.ok(t, "exec", "-T", "web", "touch", "/data/made")
	again := func(answer string) string {
		t.Helper()
		cmd := a.command(t, "-f", "compose.yaml", "-f", "more.yaml", "up", "-d")
		cmd.Env = append(cmd.Env, "TERM=xterm")
		up := harness.BeginOnTerminal(t, cmd, 24, 80)
		up.Shows(t, "exists but doesn't match configuration in compose file. Recreate (data will be lost)?")
		up.Type(t, answer)
		if code := up.Exit(t); code != 0 && answer != "\x03" || code != 130 && answer == "\x03" {
			t.Errorf("%q: exit code %d", answer, code)
		}
		return a.ok(t, "exec", "-T", "web", "ls", "/data")
	}
	for _, answer := range []string{"\x03", "\r", "n\r"} {
		if got := again(answer); got != "made" {
			t.Errorf("%q: the volume has %q", answer, got)
		}
	}
	if got := again("y\r"); got != "" {
		t.Errorf("yes: the volume has %q", got)
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
	begin := func(args ...string) *harness.Session {
		t.Helper()
		cmd := a.command(t, args...)
		cmd.Env = append(cmd.Env, "TERM=xterm")
		return harness.BeginOnTerminal(t, cmd, 24, 80)
	}
	up := begin("up")
	up.Shows(t, "began")
	up.Shows(t, "Enable Watch") // below all that is said
	up.Type(t, "w")
	up.Shows(t, "Watch enabled")
	up.Shows(t, "Disable Watch")
	if err := os.WriteFile(filepath.Join(a.dir, "app/page"), []byte("other\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	up.Shows(t, "Syncing service")
	up.Type(t, "w")
	up.Shows(t, "Watch disabled")
	up.Type(t, "d")
	if code := up.Exit(t); code != 0 {
		t.Errorf("detached: %d", code)
	}
	if a.ok(t, "ps", "-q") == "" {
		t.Error("the project was stopped by a detach")
	}

	without := func(how string, args ...string) {
		t.Helper()
		up := begin(append([]string{"up", "--watch"}, args...)...)
		up.Shows(t, "Watch enabled")
		up.Type(t, "\x03")
		up.Shows(t, "Gracefully stopping") // the shortcuts would have been there before
		if code := up.Exit(t); code != 130 {
			t.Errorf("Ctrl-C: %d", code)
		}
		if a.ok(t, "ps", "-q") != "" {
			t.Error("Ctrl-C has stopped nothing")
		}
		if strings.Contains(up.String(), "Detach") {
			t.Errorf("a menu in spite of %s", how)
		}
	}
	without("the flag", "--menu=false")
	dotenv(t, a, "COMPOSE_MENU=0\n")
	without("the project's .env")
	dotenv(t, a, "COMPOSE_MENU=1\n")
	a.env = []string{"COMPOSE_MENU=0"}
	without("the environment")
}
