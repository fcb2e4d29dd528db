package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// onDisk says which files below a directory hold a text.
func onDisk(t *testing.T, dir, text string) []string {
	t.Helper()
	out, err := exec.Command("grep", "-rlFa", text, dir).Output()
	if err != nil && len(out) > 0 {
		t.Fatal(err)
	}
	return strings.Fields(string(out))
}

// Secrets and configs are read-only files with owner and mode. What does not come from a file is never on the disk, and
// is sent again when it was lost.
func TestComposeSecrets(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	a := compose(t, e, map[string]string{
		"compose.yaml": `
services:
  web:
    image: busybox
    command: sleep 1000
    stop_signal: SIGKILL
    read_only: true
    restart: unless-stopped
    secrets:
      - token
      - {source: token, target: owned, uid: "1000", gid: "2000", mode: 0440}
      - {source: plain, target: /etc/plain}
      - {source: plain, target: strict, uid: "33", mode: 0400}
    configs:
      - {source: page, target: /srv/index.html, mode: 0644}
      - {source: env, target: /etc/app.env}
secrets:
  token: {environment: TOKEN}
  plain: {file: ./plain.txt}
configs:
  page: {content: "page of ${COMPOSE_PROJECT_NAME}\n"}
  env: {environment: SETTING}
`,
		"plain.txt": "from a file\n",
	})
	const token, setting = "hush-4711-never-on-disk", "setting-0815-never-on-disk"
	a.env = []string{"TOKEN=" + token, "SETTING=" + setting}
	a.ok(t, "up", "-d")
	check := func(want string) {
		t.Helper()
		got := a.ok(t, "exec", "-T", "web", "sh", "-c", `cat /run/secrets/token /run/secrets/owned /etc/plain /run/secrets/strict /srv/index.html /etc/app.env
			echo; stat -c '%n %a %u:%g' /run/secrets/token /run/secrets/owned /run/secrets/strict /srv/index.html
			for f in /run/secrets/token /run/secrets/strict /srv/index.html /etc/app.env; do echo changed 2>/dev/null >$f && echo $f can be written; done; true`)
		if got != want {
			t.Errorf("%s\nwant\n%s", got, want)
		}
	}
	want := token + token + "from a file\nfrom a file\npage of " + a.name + "\n" + setting + `
/run/secrets/token 444 0:0
/run/secrets/owned 440 1000:2000
/run/secrets/strict 400 33:0
/srv/index.html 644 0:0`
	check(want)
	for _, text := range []string{token, setting} {
		if found := onDisk(t, e.DataRoot, text); len(found) > 0 {
			t.Errorf("%q is on the disk: %v", text, found)
		}
	}
	a.ok(t, "restart", "-t", "0")
	check(want)
	before := a.ids(t)

	// After a reboot the memory is empty, and nothing was said to the engine.
	a.ok(t, "stop", "-t", "0")
	if err := os.RemoveAll(filepath.Join(e.ExecRoot, "files")); err != nil {
		t.Fatal(err)
	}
	if r := e.Cleat(t, "start", a.name+"-web-1"); r.Code == 0 || !strings.Contains(r.Stderr, "the content of /") || !strings.Contains(r.Stderr, "compose up") {
		t.Errorf("a start without the secret: %s", r)
	}
	a.ok(t, "up", "-d")
	check(want)
	if now := a.ids(t); now[a.name+"-web-1"] != before[a.name+"-web-1"] {
		t.Errorf("the container was made anew: %v, %v", before, now)
	}

	// An engine that was killed sweeps what it no longer knows.
	stray := filepath.Join(e.ExecRoot, "files", strings.Repeat("ab", 32))
	if err := os.Mkdir(stray, 0o700); err != nil {
		t.Fatal(err)
	}
	e.Kill()
	e.Run(t)
	harness.Eventually(t, func() (bool, string) {
		_, err := os.Stat(stray)
		return os.IsNotExist(err), fmt.Sprintf("files of no container are left: %v", err)
	})
	check(want)
	a.ok(t, "down", "-t", "0")
	harness.Eventually(t, func() (bool, string) {
		left, err := os.ReadDir(filepath.Join(e.ExecRoot, "files"))
		return err == nil && len(left) == 0, fmt.Sprintf("left in memory: %v, %v", left, err)
	})

	a.env = nil
	if r := a.run(t, "up", "-d"); r.Code == 0 || !strings.Contains(r.Stderr, `environment variable "TOKEN" required by secret`) {
		t.Errorf("without the variable: %s", r)
	}
}

// A service with use_api_socket reaches the engine that made it, with the user's credentials, and so does what runs before
// it is started, and what is run in its place.
func TestComposeServicesReachTheEngine(t *testing.T) {
	e := engine(t, "busybox")
	bin := filepath.Join(harness.Top(t), "bin", "cleat")
	a := compose(t, e, map[string]string{"compose.yaml": fmt.Sprintf(`
services:
  manager:
    image: busybox
    command: sh -c 'cleat ps -aq --no-trunc --filter id=$$HOSTNAME; exec sleep 1000'
    stop_signal: SIGKILL
    use_api_socket: true
    volumes: ["%[1]s:/bin/cleat:ro", "seen:/seen"]
    environment: {DOCKER_HOST: "unix:///var/run/docker.sock"}
    pre_start:
      - {image: busybox, use_api_socket: true, command: cp /run/secrets/docker/config.json /seen/before}
  own: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, use_api_socket: true, environment: {DOCKER_CONFIG: /own}}
  plain: {image: busybox, command: sleep 1000, stop_signal: SIGKILL}
volumes: {seen: }
`, bin)})
	config := t.TempDir()
	a.env = []string{"DOCKER_CONFIG=" + config}
	const stored = `{"auths":{"registry.example":{"auth":"dXNlcjpwYXNz"}},"currentContext":"default","proxies":{}}`
	if err := os.WriteFile(filepath.Join(config, "config.json"), []byte(stored), 0o600); err != nil {
		t.Fatal(err)
	}
	a.ok(t, "up", "-d")
	id := a.ids(t)[a.name+"-manager-1"]
	harness.Eventually(t, func() (bool, string) {
		said := a.ok(t, "logs", "--no-log-prefix", "manager")
		return said == id, fmt.Sprintf("the service said %q of the engine, want its own id %s", said, id)
	})
	const credentials = `"dXNlcjpwYXNz"`
	for _, file := range []string{"/seen/before", "/run/secrets/docker/config.json"} {
		if got := a.ok(t, "exec", "-T", "manager", "cat", file); !strings.Contains(got, credentials) || strings.Contains(got, "currentContext") {
			t.Errorf("%s is %s", file, got)
		}
	}
	if got := a.ok(t, "exec", "-T", "own", "sh", "-c", "echo $DOCKER_CONFIG; ls /var/run/docker.sock"); got != "/own\n/var/run/docker.sock" {
		t.Errorf("with a DOCKER_CONFIG of its own: %q", got)
	}
	if r := a.run(t, "exec", "-T", "plain", "ls", "/var/run/docker.sock"); r.Code == 0 {
		t.Errorf("a service that did not ask has the socket: %s", r)
	}
	if got := a.ok(t, "run", "--rm", "-T", "manager", "sh", "-c", "cleat info --format {{.ID}}; echo $DOCKER_CONFIG"); got != e.OK(t, "cleat", "info", "--format", "{{.ID}}")+"\n/run/secrets/docker" {
		t.Errorf("run: %q", got)
	}
	a.ok(t, "up", "-d")
	a.ok(t, "restart", "-t", "0", "manager")
	if got := a.ids(t)[a.name+"-manager-1"]; got != id {
		t.Errorf("made anew though nothing has changed: %s, was %s", got, id)
	}
	a.ok(t, "exec", "-T", "manager", "grep", "-q", credentials, "/run/secrets/docker/config.json")
}

func TestComposeExternalSecret(t *testing.T) {
	e := engine(t, "busybox")
	a := compose(t, e, map[string]string{"compose.yaml": "services: {a: {image: busybox, secrets: [s]}}\nsecrets: {s: {external: true, name: theirs}}\n"})
	if r := a.run(t, "up", "-d"); r.Code == 0 || !strings.Contains(r.Stderr, `external secret "theirs"`) || !strings.Contains(r.Stderr, "declare it with file or environment") {
		t.Errorf("%s", r)
	}
}

// Hooks run in the container after it was started and before it is stopped, whoever does that.
func TestComposeHooks(t *testing.T) {
	e := engine(t, "busybox")
	a := compose(t, e, map[string]string{"compose.yaml": `
services:
  web:
    image: busybox
    command: sleep 1000
    stop_signal: SIGKILL
    environment: {VALUE: "${VALUE:-one}"}
    volumes: ["log:/log"]
    post_start:
      - {command: [sh, -c, "echo start $$(id -u) $$PWD $$MORE >>/log/lines"], user: "65534", working_dir: /tmp, environment: {MORE: more}}
      - {command: [sh, -c, "mkdir /t && mount -t tmpfs none /t && echo privileged >>/log/lines && umount /t && rmdir /t"], privileged: true}
    pre_stop:
      - {command: [sh, -c, "echo stop >>/log/lines"]}
volumes: {log: }
`})
	lines := func(want ...string) {
		t.Helper()
		got := a.ok(t, "run", "--rm", "--no-deps", "-T", "web", "sh", "-c", "cat /log/lines; : >/log/lines")
		if got != strings.Join(want, "\n") {
			t.Errorf("%s\nwant\n%s", got, strings.Join(want, "\n"))
		}
	}
	a.ok(t, "run", "--rm", "-T", "web", "sh", "-c", "touch /log/lines; chmod 666 /log/lines")
	started := []string{"start 65534 /tmp more", "privileged"}
	a.ok(t, "up", "-d")
	lines(started...)
	a.ok(t, "stop")
	lines("stop")
	a.ok(t, "start")
	lines(started...)
	a.ok(t, "restart", "-t", "0")
	lines(append([]string{"stop"}, started...)...)
	a.env = []string{"VALUE=two"}
	a.ok(t, "up", "-d")
	lines(append([]string{"stop"}, started...)...)
	a.ok(t, "down", "-t", "0")
	lines("stop")
}

func TestComposeHookThatFails(t *testing.T) {
	e := engine(t, "busybox")
	a := compose(t, e, map[string]string{"compose.yaml": `
services:
  web:
    image: busybox
    command: sleep 1000
    stop_signal: SIGKILL
    post_start: [{command: [sh, -c, "echo out of order; exit 3"]}]
`})
	if r := a.run(t, "up", "-d"); r.Code != 1 || !strings.Contains(r.Stderr, "web hook exited with status 3") || !strings.Contains(r.Stderr, "out of order") {
		t.Errorf("%s", r)
	}
}

// What has to be done before a service starts is done by containers of their own, which share its mounts and come to a
// good end, or the service does not start.
func TestComposePreStart(t *testing.T) {
	e := engine(t, "busybox")
	a := compose(t, e, map[string]string{"compose.yaml": `
services:
  web:
    image: busybox
    command: sh -c "cat /data/*; exec sleep 1000"
    stop_signal: SIGKILL
    scale: 2
    environment: {BOTH: inherited, OWN: service}
    volumes: [/data, "shared:/shared"]
    pre_start:
      - {command: [sh, -c, "[ ! -e /shared/once ] && echo $$BOTH $$OWN $$(id -u) >/shared/once"], environment: {OWN: hook}}
      - {command: [sh, -c, "cat /shared/once >/data/text; exit $${FAIL:-0}"], per_replica: true, environment: {FAIL: "${FAIL:-0}"}}
volumes: {shared: }
`})
	a.ok(t, "up", "-d")
	for _, n := range []string{"1", "2"} {
		if got := a.ok(t, "exec", "-T", "--index", n, "web", "cat", "/data/text"); got != "inherited hook 0" {
			t.Errorf("replica %s: %q", n, got)
		}
	}
	if n := len(a.ids(t)); n != 2 {
		t.Errorf("%d containers: the hooks' are to be gone", n)
	}
	a.ok(t, "up", "-d") // nothing is started, so nothing runs before it
	a.ok(t, "down", "-v", "-t", "0")
	a.env = []string{"FAIL=7"}
	if r := a.run(t, "up", "-d"); r.Code == 0 || !strings.Contains(r.Stderr, "web pre_start hook exited with status 7") {
		t.Errorf("%s", r)
	}
	if got := a.ok(t, "ps", "-q"); got != "" {
		t.Errorf("started all the same: %s", got)
	}
}
