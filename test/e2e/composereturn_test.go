package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// counted checks that a service's lines "line 1", "line 2" and so on were shown, each once and in order, and gives how
// many there are.
func counted(t *testing.T, said, service string) int {
	t.Helper()
	n := 0
	for line := range strings.Lines(said) {
		name, text, _ := strings.Cut(line, " | ")
		if number, ok := strings.CutPrefix(text, "line "); ok && strings.HasPrefix(name, service+"-1") {
			if n++; strings.TrimSpace(number) != fmt.Sprint(n) {
				t.Errorf("%s: line %q where %d is due", service, strings.TrimSpace(number), n)
				return n
			}
		}
	}
	return n
}

// Whoever looks at a project stays with it when the engine is killed, or ends, and returns: no line is lost or comes
// twice, ends in between are told, and what is started later is shown.
func TestComposeStaysWithAnEngineThatReturns(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	const counts = `command: "sh -c 'i=0; while :; do i=$$((i+1)); echo line $$i; usleep 5000; done'", stop_signal: SIGKILL`
	for how, end := range map[string]func(){"killed": e.Kill, "stopped": func() { e.Stop(t) }} {
		t.Run(how, func(t *testing.T) {
			a := compose(t, e, map[string]string{"compose.yaml": `
services:
  plain: {image: busybox, ` + counts + `}
  terminal: {image: busybox, tty: true, ` + counts + `}
  short: {image: busybox, command: "sh -c 'echo began; until test -e /shared/end; do usleep 10000; done; echo over; exit 3'", volumes: [./shared:/shared]}
  silent: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, logging: {driver: none}}
`})
			if err := os.Mkdir(filepath.Join(a.dir, "shared"), 0o755); err != nil {
				t.Fatal(err)
			}
			up := a.begin(t, "up", "--no-color", "--no-attach", "silent")
			up.Shows(t, "short-1     | began")
			up.Shows(t, "line 20")
			logs, told := a.begin(t, "logs", "--no-color", "-f", "plain", "terminal"), a.begin(t, "events", "--since", now())
			logs.Shows(t, "line 20")
			a.ok(t, "exec", "short", "true")
			told.Shows(t, "exec_start")
			end()
			for _, c := range []*harness.Session{up, logs} {
				c.Shows(t, "The engine is away")
			}
			told.Shows(t, "lost the connection to the engine")
			if code := told.Exit(t); code != 1 {
				t.Errorf("events: exit code %d", code)
			}
			if err := os.WriteFile(filepath.Join(a.dir, "shared", "end"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			e.Run(t)
			up.Shows(t, "short-1     | over")
			up.Shows(t, "short-1 exited with code 3")
			a.ok(t, "start", "short")
			harness.Eventually(t, func() (bool, string) {
				said := up.String()
				return strings.Count(said, "short-1     | over") == 2 && strings.Count(said, "short-1 exited with code 3") == 2, said
			})
			for _, c := range []*harness.Session{logs, up} { // up stops what it has started
				harness.Eventually(t, func() (bool, string) { return strings.Count(c.String(), "The engine is back") == 1, c.String() })
				for _, service := range []string{"plain", "terminal"} { // each in its own time
					before := max(40, counted(t, c.String(), service))
					harness.Eventually(t, func() (bool, string) {
						return counted(t, c.String(), service) > before, "the output of " + service + " has ended"
					})
				}
				c.Signal(t, syscall.SIGINT)
				if code := c.Exit(t); code != 130 {
					t.Errorf("exit code %d", code)
				}
			}
			if left := a.ok(t, "ps", "-q", "--status", "running"); left != "" {
				t.Errorf("an interrupted up leaves running: %s", left)
			}
		})
	}
}

// So does who looks from another machine, over ssh or TLS.
func TestComposeStaysWithAnEngineElsewhere(t *testing.T) {
	sshTo(t, map[string]string{"there/cleat": harness.Binary(t, "cleat")})
	certificates, port := t.TempDir(), freePort(t)
	makeCertificates(t, certificates)
	file := func(name string) string { return filepath.Join(certificates, name) }
	for client, known := range map[string]string{"client.pem": "cert.pem", "client.key": "key.pem"} {
		if err := os.Symlink(client, file(known)); err != nil {
			t.Fatal(err)
		}
	}
	e := harness.Start(t, harness.Options{Args: []string{"-H", "tcp://127.0.0.1:" + port,
		"--tlsverify", "--tlscacert", file("ca.pem"), "--tlscert", file("server.pem"), "--tlskey", file("server.key")}})
	e.Load(t, "busybox")
	for door, env := range map[string][]string{
		"ssh": {"DOCKER_HOST=ssh://there" + e.Socket},
		"TLS": {"DOCKER_HOST=tcp://127.0.0.1:" + port, "DOCKER_TLS_VERIFY=1", "DOCKER_CERT_PATH=" + certificates},
	} {
		t.Run(door, func(t *testing.T) {
			a := compose(t, e, map[string]string{"compose.yaml": "services: {web: {image: busybox, stop_signal: SIGKILL, " +
				`command: "sh -c 'i=0; while :; do i=$$((i+1)); echo line $$i; usleep 5000; done'"}}`})
			a.env = env
			up := a.begin(t, "up", "--no-color")
			up.Shows(t, "line 20")
			e.Kill()
			up.Shows(t, "The engine is away")
			e.Run(t)
			up.Shows(t, "The engine is back")
			before := max(20, counted(t, up.String(), "web"))
			harness.Eventually(t, func() (bool, string) { return counted(t, up.String(), "web") > before, "the output has ended" })
			up.Signal(t, syscall.SIGINT)
			if code := up.Exit(t); code != 130 {
				t.Errorf("exit code %d", code)
			}
			if left := a.ok(t, "ps", "-q", "--status", "running"); left != "" {
				t.Errorf("an interrupted up leaves running: %s", left)
			}
		})
	}
}

// What is kept nowhere is shown from its first line on all the same, at a first start and at later ones.
func TestComposeShowsLogsThatAreNotKept(t *testing.T) {
	e := harness.Start(t, harness.Options{Args: []string{"--log-driver", "none"}})
	e.Load(t, "busybox")
	a := compose(t, e, map[string]string{"compose.yaml": `
services:
  named: {image: busybox, command: echo first, logging: {driver: none}}
  default: {image: busybox, command: echo first}
  sent: {image: busybox, command: echo first, logging: {driver: syslog, options: {syslog-address: "udp://127.0.0.1:9", cache-disabled: "true"}}}
  fails: {image: busybox, command: sh -c "echo first; exit 1", restart: "on-failure:2"} # ends before it can be attached to
`})
	for range 2 {
		said := a.ok(t, "up", "--no-color")
		for _, service := range []string{"named", "default", "sent", "fails"} {
			if !strings.Contains(said, fmt.Sprintf("%-10s | first\n", service+"-1")) {
				t.Errorf("%s is not shown:\n%s", service, said)
			}
		}
	}
}

// Who does not want to wait for the engine interrupts; what runs goes on, and the next up shows it.
// The log's last lines come after the time of a quick program's end: the next run's begin behind them.
func TestComposeUpAgainShowsItsOwnRun(t *testing.T) {
	e := engine(t, "busybox")
	a := compose(t, e, map[string]string{"compose.yaml": `
services:
  over: {image: busybox, command: sh -c 'for i in 1 2 3 4 5; do echo line $$i; done'}
`})
	for run := range 3 {
		if out := a.ok(t, "up", "--no-log-prefix"); strings.Count(out, "line ") != 5 {
			t.Errorf("run %d:\n%s", run, out)
		}
	}
}

func TestComposeUpIsInterruptedWithoutTheEngine(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	a := compose(t, e, map[string]string{"compose.yaml": `
services: {web: {image: busybox, command: sh -c "echo began; exec sleep 1000", stop_signal: SIGKILL}}
`})
	up := harness.Begin(t, a.command(t, "up", "--no-color"))
	up.Shows(t, "web-1  | began")
	e.Kill()
	up.Shows(t, "The engine is away")
	up.Signal(t, syscall.SIGINT)
	if code := up.Exit(t); code != 130 || !strings.Contains(up.String(), "what runs goes on, and `cleat compose stop` stops it") {
		t.Errorf("exit code %d: %s", code, up)
	}
	e.Run(t)
	if r := a.ok(t, "ps", "--status", "running", "-q"); r == "" {
		t.Error("the container has not gone on")
	}
	a.begin(t, "up", "--no-color").Shows(t, "Attaching to web-1")
}

// What is changed while the engine is away comes into the container when it is back.
func TestComposeWatchWaitsForTheEngine(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	a := compose(t, e, map[string]string{"app/page": "first\n", "compose.yaml": `
services:
  web: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, build: ., develop: {watch: [{action: sync, path: ./app, target: /app}]}}
`})
	a.ok(t, "up", "-d", "--no-build")
	watch := a.begin(t, "watch", "--no-up")
	watch.Shows(t, "Watch enabled")
	e.Kill()
	if err := os.WriteFile(filepath.Join(a.dir, "app", "page"), []byte("second\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	watch.Shows(t, "The engine is away")
	e.Run(t)
	harness.Eventually(t, func() (bool, string) {
		r := a.run(t, "exec", "-T", "web", "cat", "/app/page")
		return r.Stdout == "second\n", r.String() + watch.String()
	})
	if strings.Contains(watch.String(), "Error") {
		t.Error(watch)
	}
}

// Clients that look at a container by itself end when the engine does, and say so.
func TestClientsOfAnEngineThatIsKilled(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	e.OK(t, "cleat", "run", "-d", "--name", "web", "--stop-signal", "SIGKILL", "busybox", "sh", "-c", "echo began; exec sleep 1000")
	clients := map[string]*harness.Session{}
	for _, c := range []struct {
		shows string
		args  []string
	}{{"began", []string{"logs", "-f", "web"}}, {"web", []string{"stats", "web"}}, {"exec_start", []string{"events", "--since", now()}}} {
		clients[c.args[0]] = harness.Begin(t, e.Command(t, "cleat", c.args...))
		if c.args[0] == "events" {
			e.OK(t, "cleat", "exec", "web", "true")
		}
		clients[c.args[0]].Shows(t, c.shows)
	}
	e.Kill()
	for name, c := range clients {
		if code := c.Exit(t); code != 1 || !strings.Contains(c.String(), "unexpected EOF") {
			t.Errorf("%s: exit code %d: %s", name, code, c)
		}
	}
	e.Run(t)
}

// A line without an end is shown in parts as it comes, of a terminal as well, without what else the engine says of it,
// and does not stay in the memory of who looks at it.
func TestComposeShowsLinesWithoutEnd(t *testing.T) {
	e := engine(t, "busybox")
	const size, most, piped = 60_000_000, 200 << 20, 1 << 20 // piped is more than lies in pipes
	command := fmt.Sprintf(`command: "sh -c 'head -c %d /dev/zero | tr \\\\0 ='"`, size)
	for service, more := range map[string]string{"plain": "", "terminal": ", tty: true"} {
		a := compose(t, e, map[string]string{"compose.yaml": "services: {" + service + ": {image: busybox, " + command + more + "}}"})
		cmd := a.command(t, "up", "--no-color", "--no-log-prefix")
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		var shown, used int
		var rest []byte
		for b := make([]byte, 64<<10); ; {
			n, err := out.Read(b)
			shown += bytes.Count(b[:n], []byte("="))
			rest = append(rest, bytes.ReplaceAll(b[:n], []byte("="), nil)...)
			// While it still has something to show: what is told of the peak of a process that has ended is no less than
			// what the process of the tests, which started it, has ever had.
			if used == 0 && shown > size-piped {
				used = peakMemory(t, cmd.Process.Pid)
			}
			if err != nil {
				break
			}
		}
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%s: %v", service, err)
		}
		if shown != size {
			t.Errorf("%s: %d bytes were shown of %d", service, shown, size)
		}
		if rest := strings.Trim(string(rest), "\r\n"); len(rest) > 1000 || strings.Contains(rest, "Z") {
			t.Errorf("%s: shown besides: %.1000s", service, rest)
		}
		if used > most || used == 0 {
			t.Errorf("%s: %d KiB of memory were used", service, used>>10)
		}
	}
}
