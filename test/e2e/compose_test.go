package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cleatlabs/cleat/test/harness"
)

// application is a Compose project of a test.
type application struct {
	e    *harness.Engine
	dir  string
	name string
	env  []string
	// program is run with compose's arguments, "" is `cleat compose`.
	program string
}

// compose writes a project's files and takes it down when the test has ended, after which
// nothing of it may be left.
func compose(t *testing.T, e *harness.Engine, files map[string]string) *application {
	t.Helper()
	a := &application{e: e, dir: contextDir(t, files), name: name(t)}
	t.Cleanup(func() {
		a.ok(t, "down", "-v", "-t", "0", "--remove-orphans")
		filter := "label=com.docker.compose.project=" + a.name
		for _, list := range [][]string{{"ps", "-aq"}, {"network", "ls", "-q"}, {"volume", "ls", "-q"}} {
			if left := e.OK(t, "cleat", append(list, "--filter", filter)...); left != "" {
				t.Errorf("left of the project by %v: %s", list, left)
			}
		}
	})
	return a
}

func (a *application) command(t *testing.T, args ...string) *exec.Cmd {
	cmd := a.e.Command(t, "cleat", append([]string{"compose", "-p", a.name}, args...)...)
	if a.program != "" {
		cmd.Path, cmd.Args = a.program, append([]string{a.program, "-p", a.name}, args...)
	}
	cmd.Dir = a.dir
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, a.env...)
	return cmd
}

func (a *application) run(t *testing.T, args ...string) harness.Result {
	t.Helper()
	var stdout, stderr strings.Builder
	cmd := a.command(t, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	_ = cmd.Run() // the exit code says it
	return harness.Result{Args: args, Stdout: stdout.String(), Stderr: stderr.String(), Code: cmd.ProcessState.ExitCode()}
}

func (a *application) ok(t *testing.T, args ...string) string {
	t.Helper()
	r := a.run(t, args...)
	if r.Code != 0 {
		t.Fatalf("compose %v: %d\n%s\n%s", args, r.Code, r.Stdout, r.Stderr)
	}
	return strings.TrimSpace(r.Stdout)
}

// ids are the containers of the project, by their names.
func (a *application) ids(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	for line := range strings.Lines(a.e.OK(t, "cleat", "ps", "-a", "--no-trunc", "--filter", "label=com.docker.compose.project="+a.name, "--format", "{{.Names}} {{.ID}}") + "\n") {
		if n, id, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			found[n] = id
		}
	}
	return found
}

// fetched is a page. What does not answer is asked again, but a server may take long to answer once.
func fetched(url string) (string, error) { return bodyWithin(harness.Patience/2, url) }

// serves waits until a server, which may just be starting, answers with a page.
func serves(t *testing.T, url, want string) {
	t.Helper()
	harness.Eventually(t, func() (bool, string) {
		got, err := fetched(url)
		return err == nil && got == want, fmt.Sprint(got, err)
	})
}

// A web server that waits for its database, with a secret, a config and a volume: up,
// unchanged, changed, scaled, down.
func TestComposeLife(t *testing.T) {
	e := engine(t, "busybox")
	port := freePort(t)
	file := `
services:
  db:
    image: busybox
    command: sh -c "[ -e /data/once ] || echo first >/data/once; touch /ready; exec sleep 1000"
    healthcheck: {test: [CMD, test, -f, /ready], interval: 1s, start_period: 60s, start_interval: 100ms}
    volumes: [data:/data]
    stop_signal: SIGKILL
  web:
    image: busybox
    command: sh -c "echo serving; until nslookup db >/dev/null; do sleep 0.1; done; exec httpd -f -p 80 -h /srv"
    depends_on: {db: {condition: service_healthy}}
    environment: {VALUE: "${VALUE:-one}"}
    ports: ["127.0.0.1:%s:80"]
    secrets: [token]
    configs: [{source: page, target: /srv/index.html, mode: 0444}]
    stop_signal: SIGKILL
  later:
    image: busybox
    command: sleep 1000
    stop_signal: SIGKILL
    profiles: [extra]
secrets: {token: {environment: TOKEN}}
configs: {page: {content: "page of ${VALUE:-one}\n"}}
volumes: {data: }
`
	a := compose(t, e, map[string]string{"compose.yaml": fmt.Sprintf(file, port)})
	a.env = []string{"TOKEN=hush"}
	a.ok(t, "up", "-d")
	serves(t, "http://127.0.0.1:"+port, "page of one\n")
	if got := a.ok(t, "exec", "-T", "web", "sh", "-c", "cat /run/secrets/token"); got != "hush" {
		t.Errorf("the secret is %q", got)
	}
	if got := a.ok(t, "config", "--services"); got != "db\nweb" {
		t.Errorf("services %q", got)
	}
	before := a.ids(t)
	if len(before) != 2 || before[a.name+"-web-1"] == "" || before[a.name+"-db-1"] == "" {
		t.Fatalf("containers %v", before)
	}
	a.ok(t, "up", "-d")
	if now := a.ids(t); now[a.name+"-web-1"] != before[a.name+"-web-1"] || now[a.name+"-db-1"] != before[a.name+"-db-1"] {
		t.Errorf("an unchanged project was made anew: %v, %v", before, now)
	}

	a.env = append(a.env, "VALUE=two")
	a.ok(t, "up", "-d")
	changed := a.ids(t)
	if changed[a.name+"-web-1"] == before[a.name+"-web-1"] || changed[a.name+"-db-1"] != before[a.name+"-db-1"] || len(changed) != 2 {
		t.Errorf("after a change of web alone: %v, %v", before, changed)
	}
	serves(t, "http://127.0.0.1:"+port, "page of two\n")

	a.ok(t, "up", "-d", "--scale", "db=3", "db")
	if n := len(a.ids(t)); n != 4 {
		t.Errorf("%d containers with three databases", n)
	}
	a.ok(t, "up", "-d", "--scale", "db=1")
	if now := a.ids(t); len(now) != 2 || now[a.name+"-db-1"] == "" {
		t.Errorf("scaled down: %v", now)
	}
	if got := a.ok(t, "logs", "--no-color", "web"); !strings.Contains(got, "web-1  | serving") {
		t.Errorf("logs %q", got)
	}
	var row struct {
		Service, State, Health, Name string
		Publishers                   []struct{ TargetPort, PublishedPort int }
	}
	if err := json.Unmarshal([]byte(a.ok(t, "ps", "--format", "json", "web")), &row); err != nil || row.Service != "web" || row.State != "running" || len(row.Publishers) != 1 || fmt.Sprint(row.Publishers[0].PublishedPort) != port {
		t.Errorf("%v: %+v", err, row)
	}
	if got := a.ok(t, "port", "web", "80"); got != "127.0.0.1:"+port {
		t.Errorf("port %q", got)
	}
	a.ok(t, "stop")
	if got := a.ok(t, "ps", "-q"); got != "" {
		t.Errorf("running after a stop: %s", got)
	}
	a.ok(t, "start")
	a.ok(t, "--profile", "extra", "up", "-d")
	if a.ids(t)[a.name+"-later-1"] == "" {
		t.Error("the profile's service was not started")
	}
	if got := a.ok(t, "run", "--rm", "web", "sh", "-c", "echo one-off $VALUE"); got != "one-off two" {
		t.Errorf("run: %q", got)
	}
	// The volume outlives the containers.
	a.ok(t, "--profile", "extra", "down")
	if got := a.ok(t, "run", "--rm", "db", "cat", "/data/once"); got != "first" {
		t.Errorf("the volume has %q", got)
	}
}

// What docker compose made by the same labels is taken over, here shown by their form.
func TestComposeLabels(t *testing.T) {
	e := engine(t, "busybox")
	a := compose(t, e, map[string]string{"docker-compose.yml": "services: {a: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, volumes: ['vol:/v']}}\nvolumes: {vol: }\n"})
	a.ok(t, "up", "-d")
	got := e.OK(t, "docker", "inspect", "-f", `{{index .Config.Labels "com.docker.compose.service"}} {{index .Config.Labels "com.docker.compose.container-number"}} {{index .Config.Labels "com.docker.compose.oneoff"}} {{index .Config.Labels "com.docker.compose.project.working_dir"}} {{index .Config.Labels "com.docker.compose.project.config_files"}}`, a.name+"-a-1")
	if want := fmt.Sprintf("a 1 False %s %s", a.dir, filepath.Join(a.dir, "docker-compose.yml")); got != want {
		t.Errorf("labels %q, want %q", got, want)
	}
	if got := e.OK(t, "docker", "network", "inspect", "-f", `{{index .Labels "com.docker.compose.network"}}`, a.name+"_default"); got != "default" {
		t.Errorf("network %q", got)
	}
	if got := e.OK(t, "docker", "volume", "inspect", "-f", `{{index .Labels "com.docker.compose.volume"}}`, a.name+"_vol"); got != "vol" {
		t.Errorf("volume %q", got)
	}
	if r := a.run(t, "ls", "--format", "bogus"); r.Code != 1 || !strings.Contains(r.Stderr, `format value "bogus" could not be parsed`) {
		t.Errorf("%s", r)
	}
	if got := a.ok(t, "ls", "--format", "json", "--filter", "name="+a.name); !strings.Contains(got, `"Status":"running(1)"`) {
		t.Errorf("ls %s", got)
	}
}

// An attached up shows the output, and an interrupt stops what it has started.
func TestComposeAttached(t *testing.T) {
	e := engine(t, "busybox")
	a := compose(t, e, map[string]string{"compose.yaml": `
services:
  one: {image: busybox, command: sh -c "trap 'echo bye; exit 0' TERM; echo hello; while :; do sleep 0.05; done", stop_grace_period: 20s}
  two: {image: busybox, command: sh -c "echo other; exec sleep 1000", stop_signal: SIGKILL}
`})
	cmd := a.command(t, "up", "--no-color")
	up := harness.Begin(t, cmd)
	harness.Eventually(t, func() (bool, string) { // in whichever order
		said := up.String()
		return strings.Contains(said, "one-1  | hello\n") && strings.Contains(said, "two-1  | other\n"), said
	})
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil { // for it alone: it passes it on
		t.Fatal(err)
	}
	up.Shows(t, "one-1  | bye\n")
	up.Shows(t, "one-1 exited with code 0")
	if code := up.Exit(t); code != 130 {
		t.Errorf("exit code %d", code)
	}
	if got := a.ok(t, "ps", "-q"); got != "" {
		t.Errorf("still running: %s", got)
	}
}

func TestComposeExitCodes(t *testing.T) {
	e := engine(t, "busybox")
	a := compose(t, e, map[string]string{"compose.yaml": `
services:
  server: {image: busybox, command: sleep 1000, stop_signal: SIGKILL}
  migrate: {image: busybox, command: "true", depends_on: [server]}
  test: {image: busybox, command: sh -c "exit 7", depends_on: {migrate: {condition: service_completed_successfully}}}
`})
	if r := a.run(t, "up", "--exit-code-from", "none"); r.Code != 1 || !strings.Contains(r.Stderr, "no such service: none") || strings.Contains(r.Stderr, "Creating") {
		t.Errorf("a service that there is not is waited for: %+v", r)
	}
	if r := a.run(t, "up", "--exit-code-from", "test"); r.Code != 7 {
		t.Errorf("%+v", r)
	}
	if r := a.run(t, "up", "-d", "--wait"); r.Code == 0 {
		t.Errorf("waiting for services that end: %+v", r)
	}
	if r := a.run(t, "run", "--rm", "--no-deps", "test"); r.Code != 7 {
		t.Errorf("%+v", r)
	}
}

// What containers have said is shown to its end, also to a slow reader, when something that others need has failed; who
// has not been started is not waited for.
func TestComposeAttachedToAFailure(t *testing.T) {
	e := engine(t, "busybox")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, c := range map[string]struct {
		file, failure string
		lines         int
	}{
		"a dependency": {"services: {a: {image: busybox, command: \"sh -c 'seq 1 50000; exit 2'\"}, b: {image: busybox, depends_on: {a: {condition: service_completed_successfully}}}}",
			"Error service \"a\" didn't complete", 50000},
		"a start": {"services: {a: {image: busybox, command: seq 1 3}, b: {image: busybox, command: /none, depends_on: {a: {condition: service_completed_successfully}}}}",
			"b-1  Error", 3},
		"a start without a log": {"services: {a: {image: busybox, command: seq 1 3}, b: {image: busybox, ports: ['" + taken.Addr().String() + ":80'], logging: {driver: none}, depends_on: {a: {condition: service_completed_successfully}}}}",
			"b-1  Error", 3},
	} {
		t.Run(name, func(t *testing.T) {
			a := compose(t, e, map[string]string{"compose.yaml": c.file})
			cmd := a.command(t, "up", "--no-color")
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			stderr, err := cmd.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			limit := time.AfterFunc(harness.Patience, func() { _ = cmd.Process.Kill() })
			defer limit.Stop()
			var said strings.Builder
			for errs := bufio.NewScanner(stderr); !strings.Contains(said.String(), c.failure) && errs.Scan(); {
				said.WriteString(errs.Text() + "\n")
			}
			shown, err := io.ReadAll(stdout)
			if err != nil {
				t.Fatal(err)
			}
			rest, err := io.ReadAll(stderr)
			if err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // the exit code says it
			if code := cmd.ProcessState.ExitCode(); code != 1 || strings.Count(string(shown), "a-1  | ") != c.lines {
				t.Errorf("exit %d, %d lines shown\n%s%s", code, strings.Count(string(shown), "a-1  | "), said.String(), rest)
			}
		})
	}
}

// A volume that is taken out of the file is not mounted any more, but what the image asks for goes on as long as it does.
func TestComposeWithoutItsVolumes(t *testing.T) {
	e := engine(t, "busybox")
	image := strings.ToLower(t.Name())
	build := func(dockerfile string) {
		t.Helper()
		cmd := e.Command(t, "cleat", "build", "-q", "-t", image, "-")
		cmd.Stdin = strings.NewReader(dockerfile)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	build("FROM busybox\nVOLUME /image\n")
	t.Cleanup(func() { e.OK(t, "cleat", "rmi", "-f", image) })
	const service = "services: {web: {image: %s, command: sleep 1000, stop_signal: SIGKILL, volumes: [%s]}}\nvolumes: {named: {}, other: {}}\n"
	a := compose(t, e, map[string]string{"compose.yaml": fmt.Sprintf(service, image, "named:/named, /anonymous")})
	mounted := func(want string) {
		t.Helper()
		a.ok(t, "up", "-d")
		targets := strings.Fields(e.OK(t, "cleat", "inspect", "-f", "{{range .Mounts}}{{.Destination}} {{end}}", a.name+"-web-1"))
		slices.Sort(targets)
		if got := strings.Join(targets, " "); got != want {
			t.Errorf("mounted are %s, not %s", got, want)
		}
	}
	mounted("/anonymous /image /named")
	names := strings.Fields(e.OK(t, "cleat", "inspect", "-f", "{{range .Mounts}}{{.Name}} {{end}}", a.name+"-web-1"))
	a.ok(t, "exec", "-T", "web", "touch", "/image/made")
	if err := os.WriteFile(filepath.Join(a.dir, "compose.yaml"), []byte(fmt.Sprintf(service, image, "other:/other")), 0o644); err != nil {
		t.Fatal(err)
	}
	mounted("/image /other")
	a.ok(t, "exec", "-T", "web", "ls", "/image/made")
	build("FROM busybox\nCMD other\n") // asks for none
	mounted("/other")
	a.ok(t, "down", "-v", "-t", "0")
	e.OK(t, "cleat", append([]string{"volume", "rm", "-f"}, names...)...) // those without a name in the file, too
}

// A service that is to have no containers keeps nobody waiting who depends on it; the words of --entrypoint are a shell's.
func TestComposeNoneOfADependency(t *testing.T) {
	e := engine(t, "busybox")
	a := compose(t, e, map[string]string{"compose.yaml": `
services:
  db: {image: busybox, command: sleep 1000, scale: 0, healthcheck: {test: "true"}}
  web: {image: busybox, command: echo served, depends_on: {db: {condition: service_healthy}}}
`})
	a.ok(t, "up", "-d")
	if got := a.ok(t, "run", "--rm", "--entrypoint", "sh -c 'echo one  two'", "web"); got != "one two" {
		t.Errorf("run: %q", got)
	}
}

// Everything that is wrong is said, and nothing is left: the cleanup checks that.
func TestComposeMistakes(t *testing.T) {
	e := engine(t, "busybox")
	for name, c := range map[string]struct {
		file, want string
		args       []string
	}{
		"a circle":                {"services: {a: {image: busybox, depends_on: [b]}, b: {image: busybox, depends_on: [a]}}", "dependency cycle detected", nil},
		"an unknown key":          {"services: {a: {image: busybox, comand: x}}", "comand", nil},
		"an undefined network":    {"services: {a: {image: busybox, networks: [n]}}", "undefined network n", nil},
		"an undefined volume":     {"services: {a: {image: busybox, volumes: ['vol:/v']}}", "undefined volume vol", nil},
		"a volume of one letter":  {"services: {a: {image: busybox, volumes: ['v:/data']}}\nvolumes: {v: {}}", "v:/data is read as a path of Windows", nil},
		"no image":                {"services: {a: {}}", "has neither an image nor a build context", nil},
		"a missing env file":      {"services: {a: {image: busybox, env_file: [none.env]}}", "none.env", nil},
		"a required variable":     {"services: {a: {image: 'busybox:${TAG?say which}'}}", "say which", nil},
		"an external network":     {"services: {a: {image: busybox, networks: [n]}}\nnetworks: {n: {external: true}}", "cleat network create", nil},
		"an external volume":      {"services: {a: {image: busybox, volumes: ['vol:/v']}}\nvolumes: {vol: {external: true}}", "cleat volume create", nil},
		"an unknown image":        {"services: {a: {image: 'localhost:1/none'}}", "localhost:1/none", nil},
		"an unknown service":      {"services: {a: {image: busybox}}", "no such service: b", []string{"up", "-d", "b"}},
		"one name for two":        {"services: {a: {image: busybox, container_name: own, scale: 2}}", "container_name", nil},
		"nothing to watch":        {"services: {a: {image: busybox}}", "none of the selected services is configured for watch", []string{"up", "--watch"}},
		"never healthy":           {"services: {a: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, healthcheck: {test: 'echo no >&2; echo database >&2; exit 3', interval: 50ms, retries: 1}}, b: {image: busybox, depends_on: {a: {condition: service_healthy}}}}", "is unhealthy; its last check ended with status 3 and said:\n    no\n    database\n", nil},
		"waited for in vain":      {"services: {a: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, healthcheck: {test: 'false', interval: 50ms, retries: 1}}}", "is unhealthy; its last check ended with status 1 and said nothing\n", []string{"up", "--wait"}},
		"a dependency that fails": {"services: {a: {image: busybox, command: \"sh -c 'seq 1 12; exit 2'\"}, b: {image: busybox, depends_on: {a: {condition: service_completed_successfully}}}}", "\"a\" didn't complete successfully: exit 2 (container ", nil},
		"what it said":            {"services: {a: {image: busybox, command: \"sh -c 'seq 1 12; exit 2'\"}, b: {image: busybox, depends_on: {a: {condition: service_completed_successfully}}}}", "; it said:\n    3\n    4\n    5\n", nil},
		"attached to nothing":     {"services: {a: {image: busybox}}", "cannot attach to services not included in up: b", []string{"up", "--attach", "b"}},
		"a label without a value": {"services: {a: {image: busybox}}", "label must be set as KEY=VALUE", []string{"run", "-l", "x", "a"}},
		"ends unhealthily":        {"services: {a: {image: busybox, command: 'false', healthcheck: {test: 'true'}}, b: {image: busybox, depends_on: {a: {condition: service_healthy}}}}", "exited (1); it said nothing", nil},
	} {
		t.Run(name, func(t *testing.T) {
			a := compose(t, e, map[string]string{"compose.yaml": c.file})
			args := c.args
			if args == nil {
				args = []string{"up", "-d"}
			}
			r := a.run(t, args...)
			if r.Code == 0 || !strings.Contains(r.Stderr, c.want) {
				t.Errorf("%d\n%s\n%s\nwant %q", r.Code, r.Stdout, r.Stderr, c.want)
			}
			// What is wrong in the file must not keep it from being taken down.
			if err := os.WriteFile(filepath.Join(a.dir, "compose.yaml"), []byte("services: {a: {image: busybox}}\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		})
	}
	empty := &application{e: e, dir: t.TempDir(), name: "none"}
	if r := empty.run(t, "up", "-d"); r.Code != 14 || !strings.Contains(r.Stderr, "no configuration file provided: not found") {
		t.Errorf("without a file: %+v", r)
	}
}

// Who names a project and has no files of it can start what its containers tell of, in its order, as with docker compose.
func TestComposeStartsByName(t *testing.T) {
	e := engine(t, "busybox")
	a := compose(t, e, map[string]string{"compose.yaml": `services:
  db: {image: busybox, command: sh -c "sleep 0.3; touch /ready; sleep 1000", stop_signal: SIGKILL, healthcheck: {test: test -e /ready, interval: 50ms, retries: 100}}
  web: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, depends_on: {db: {condition: service_healthy}}}
  other: {image: busybox, command: sleep 1000, stop_signal: SIGKILL}
`})
	a.ok(t, "create")
	elsewhere := &application{e: e, dir: t.TempDir(), name: a.name}
	begin := now()
	elsewhere.ok(t, "start", "web")
	elsewhere.ok(t, "start", "db", "web")
	if got := e.OK(t, "docker", "events", "--since", begin, "--until", now(), "--filter", "label=com.docker.compose.project="+a.name,
		"--filter", "event=start", "--format", `{{index .Actor.Attributes "com.docker.compose.service"}}`); got != "db\nweb" {
		t.Errorf("started %q", got)
	}
	elsewhere.ok(t, "start")
	if got := a.ok(t, "ps", "--services"); !strings.Contains(got, "other") {
		t.Errorf("running: %q", got)
	}
	if r := elsewhere.run(t, "start", "none"); r.Code == 0 || !strings.Contains(r.Stderr, "no such service: none") {
		t.Errorf("a service that is none: %d, %q", r.Code, r.Stderr)
	}
	a.ok(t, "down", "-t", "0")
	if r := elsewhere.run(t, "start"); r.Code == 0 || !strings.Contains(r.Stderr, "no container found for project") {
		t.Errorf("without containers: %d, %q", r.Code, r.Stderr)
	}
}

// Output that cannot be written is no fault of the connection to the engine.
func TestComposeLogsToAFullDisk(t *testing.T) {
	e := engine(t, "busybox")
	a := compose(t, e, map[string]string{"compose.yaml": `services:
  one: {image: busybox, command: echo one}
  two: {image: busybox, command: echo two}
`})
	a.ok(t, "up")
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	var stderr strings.Builder
	cmd := a.command(t, "logs")
	cmd.Stdout, cmd.Stderr = full, &stderr
	if cmd.Run() == nil || strings.TrimSpace(stderr.String()) != "write /dev/stdout: no space left on device" {
		t.Errorf("%v, %q", cmd.ProcessState, stderr.String())
	}
}

// Who follows what cannot be written is told, and who runs the containers besides has them run to their ends.
func TestComposeFollowsToAFullDisk(t *testing.T) {
	e := engine(t, "busybox")
	a := compose(t, e, map[string]string{"compose.yaml": `services:
  one: {image: busybox, command: sh -c "while :; do echo one; sleep 0.1; done", stop_signal: SIGKILL}
  quiet: {image: busybox, command: sleep 1000, stop_signal: SIGKILL}
  short: {image: busybox, command: sh -c "echo short; exit 3", profiles: [short]}
`})
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--progress", "quiet", "up", "-d"}, 0, ""},
		{[]string{"logs", "-f"}, 1, "write /dev/stdout: no space left on device\n"},
		{[]string{"--progress", "quiet", "up", "--abort-on-container-exit", "short"}, 3, "WARNING: what containers say cannot be written, and is left out (write /dev/stdout: " +
			"no space left on device): they go on, and `cleat compose logs` shows it\n"},
	} {
		var stderr strings.Builder
		cmd := a.command(t, c.args...)
		cmd.Stdout, cmd.Stderr = full, &stderr
		if _ = cmd.Run(); cmd.ProcessState.ExitCode() != c.code || stderr.String() != c.want {
			t.Errorf("%v: %v, %q", c.args, cmd.ProcessState, stderr.String())
		}
	}
}

// A volume that somebody keeps snapshots of stays, with the way out.
func TestComposeDownKeepsSnapshots(t *testing.T) {
	e := engine(t, "busybox")
	a := compose(t, e, map[string]string{"compose.yaml": `services:
  web: {image: busybox, volumes: ["data:/data"]}
volumes: {data: }
`})
	a.ok(t, "create")
	v := a.name + "_data"
	e.OK(t, "cleat", "volume", "snapshot", v, "before")
	r := a.run(t, "--progress", "plain", "down", "-v", "-t", "0")
	if r.Code != 0 || !strings.Contains(r.Stderr, "it has snapshots: 'cleat volume rm -f "+v+"' removes it with them") {
		t.Errorf("%d, %q", r.Code, r.Stderr)
	}
	e.OK(t, "cleat", "volume", "rm", "-f", v)
}

// Neither the exit code nor the output of a program need show that the kernel has killed a part of it.
func TestComposeTellsWantOfMemory(t *testing.T) {
	e := engine(t, "busybox")
	a := compose(t, e, map[string]string{"compose.yaml": `services:
  big: {image: busybox, mem_limit: 16m, memswap_limit: 16m, command: sh -c "tail /dev/zero; exit 3"}
  after: {image: busybox, depends_on: {big: {condition: service_completed_successfully}}}
`})
	const why = ", a process of it was killed for want of memory: raise its limit of 16MiB (mem_limit, or deploy.resources.limits.memory)"
	if r := a.run(t, "up", "big"); !strings.Contains(r.Stdout, "big-1 exited with code 3"+why+"\n") {
		t.Errorf("attached: %+v", r)
	}
	if r := a.run(t, "up", "-d"); r.Code == 0 || !strings.Contains(r.Stderr, "exit 3 (container "+a.name+"-big-1)"+why+"; it said:\n    Killed\n") {
		t.Errorf("waited for: %+v", r)
	}
}

// A client that is killed in the middle leaves nothing that `down` does not find.
func TestComposeKilledClient(t *testing.T) {
	e := engine(t, "busybox")
	var services strings.Builder
	for i := range 12 {
		fmt.Fprintf(&services, "  s%d: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, volumes: ['v%d:/v']}\n", i, i)
	}
	volumes := ""
	for i := range 12 {
		volumes += fmt.Sprintf("  v%d: {}\n", i)
	}
	a := compose(t, e, map[string]string{"compose.yaml": "services:\n" + services.String() + "volumes:\n" + volumes})
	for round := range 4 {
		cmd := a.command(t, "--progress", "plain", "up", "-d")
		out, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for lines, buf := 0, make([]byte, 512); lines < 10*(round+1); {
			n, err := out.Read(buf)
			lines += strings.Count(string(buf[:n]), "\n")
			if err != nil {
				break
			}
		}
		_ = cmd.Process.Kill()
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait()
	}
	// What the killed client had asked for the engine may still be about: its names are taken, though no list has them yet.
	harness.Eventually(t, func() (bool, string) {
		r := a.run(t, "up", "-d")
		if r.Code != 0 && !strings.Contains(r.Stderr, "already") {
			t.Fatalf("%s", r)
		}
		return r.Code == 0, r.String()
	})
	if n := len(a.ids(t)); n != 12 {
		t.Errorf("%d containers after the kills", n)
	}
}

// docker's own client runs the plugin from its plugin directory, and old scripts call it
// docker-compose.
func TestComposeAsDockersPlugin(t *testing.T) {
	e := engine(t, "busybox")
	a := compose(t, e, map[string]string{"compose.yaml": "services: {a: {image: busybox, command: sleep 1000, stop_signal: SIGKILL}}\n"})
	plugin := filepath.Join(filepath.Dir(a.command(t).Path), "cleat-compose")
	config := t.TempDir()
	if err := os.MkdirAll(filepath.Join(config, "cli-plugins"), 0o755); err != nil {
		t.Fatal(err)
	}
	standalone := filepath.Join(config, "cli-plugins", "docker-compose")
	if err := os.Symlink(plugin, standalone); err != nil {
		t.Fatal(err)
	}
	for _, line := range [][]string{{"docker", "--config", config, "compose", "-p", a.name, "up", "-d"}, {standalone, "-p", a.name, "ps", "-q"}} {
		cmd := exec.Command(line[0], line[1:]...)
		cmd.Dir, cmd.Env = a.dir, append(os.Environ(), "DOCKER_HOST=unix://"+e.Socket)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", line, err, out)
		}
		if line[0] == standalone && strings.TrimSpace(string(out)) != a.ids(t)[a.name+"-a-1"] {
			t.Errorf("%s", out)
		}
	}
}
