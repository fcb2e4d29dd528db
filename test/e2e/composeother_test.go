package e2e

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cleatlabs/cleat/test/harness"
)

// otherProject uses what `cleat compose` has to do in another way where the engine is not Cleat's: a secret of the
// environment, which has to be copied in, and the wait for health, which has to come from events.
const otherProject = `
services:
  db:
    image: busybox
    command: sh -c 'echo ready; touch /up; exec sleep 1000'
    healthcheck: {test: [CMD, test, -f, /up], interval: 1s, retries: 60}
    volumes: [data:/data]
    networks: [back]
    stop_signal: SIGKILL
  web:
    image: busybox
    command: sh -c 'mkdir /w; cp /run/secrets/word /w; exec httpd -f -h /w'
    depends_on: {db: {condition: service_healthy}}
    networks: [back, front]
    secrets: [word]
    stop_signal: SIGKILL
  asker:
    image: busybox
    command: sh -c 'until wget -qO- http://web/word; do sleep 0.1; done'
    depends_on: [web]
    networks: [front]
networks: {back: , front: }
volumes: {data: }
secrets: {word: {environment: WORD}}
`

// TestComposeOfAnotherEngine brings up an application on dockerd, by the API alone.
func TestComposeOfAnotherEngine(t *testing.T) {
	t.Parallel()
	socket := dockerd(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "compose.yaml"), []byte(otherProject), 0o644); err != nil {
		t.Fatal(err)
	}
	run := func(program string, args ...string) string {
		t.Helper()
		cmd := exec.Command(program, args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+socket, "WORD=swordfish", "COMPOSE_PROJECT_NAME=other")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %q: %v\n%s", program, args, err, out)
		}
		return string(out)
	}
	cleat := harness.Binary(t, "cleat")
	compose := func(args ...string) string {
		t.Helper()
		return run(cleat, append([]string{"compose"}, args...)...)
	}
	run("docker", "load", "-i", harness.Images(t, "busybox")[0])
	up := compose("up", "-d", "--wait", "db", "web")
	if healthy, started := strings.Index(up, "other-db-1  Healthy"), strings.Index(up, "other-web-1  Starting"); healthy < 0 || started < healthy {
		t.Errorf("web did not wait for db:\n%s", up)
	}
	if said := compose("run", "--rm", "-T", "asker"); !strings.HasSuffix(said, "swordfish") {
		t.Errorf("run: %s", said)
	}
	if again := compose("up", "-d", "web"); !strings.Contains(again, "other-web-1  Running") || strings.Contains(again, "Recreate") {
		t.Errorf("up of what is up: %s", again)
	}
	if list := compose("ps", "--format", "{{.Service}} {{.State}} {{.Health}}"); !strings.Contains(list, "db running healthy") {
		t.Errorf("ps: %s", list)
	}
	if said := compose("logs", "--no-color", "db"); !strings.Contains(said, "db-1  | ready") {
		t.Errorf("logs: %s", said)
	}
	if said := compose("exec", "-T", "web", "cat", "/run/secrets/word"); said != "swordfish" {
		t.Errorf("exec: %q", said)
	}
	// Attached: the output is shown, and its end ends the others.
	if said := compose("up", "--no-color", "--exit-code-from", "asker"); !strings.Contains(said, "asker-1  | swordfish") || !strings.Contains(said, "asker-1 exited with code 0") {
		t.Errorf("attached: %s", said)
	}
	compose("down", "-v")
	left := run("docker", "ps", "-aq") + run("docker", "volume", "ls", "-q") + run("docker", "network", "ls", "-q", "--filter", "type=custom")
	if left != "" {
		t.Errorf("down has left %q", left)
	}
}

// dockerd starts one in namespaces of its own, which end with the test and everything in them, and is its socket.
func dockerd(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "cleat-dockerd-")
	if err != nil {
		t.Fatal(err)
	}
	group := "/" + filepath.Base(dir)
	socket, log := filepath.Join(dir, "s"), filepath.Join(dir, "log")
	config := filepath.Join(dir, "daemon.json")
	if err := os.WriteFile(config, []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	said, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	cmd := exec.Command("unshare", "--net", "--mount", "--pid", "--ipc", "--fork", "--kill-child", "--mount-proc", "sh", "-c",
		`mount -t tmpfs tmpfs /run && ip link set lo up && exec dockerd --config-file "$1" --data-root "$2" --exec-root /run/docker --pidfile /run/docker.pid -H "unix://$3" --cgroup-parent "$4"`,
		"sh", config, filepath.Join(dir, "root"), socket, group)
	cmd.Stdout, cmd.Stderr = said, said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		harness.Eventually(t, func() (bool, string) { return emptied(dir, group) })
	})
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	for deadline := time.Now().Add(harness.Patience); ; time.Sleep(10 * time.Millisecond) {
		if r, err := client.Get("http://engine/_ping"); err == nil {
			_, _ = io.Copy(io.Discard, r.Body)
			_ = r.Body.Close()
			if r.StatusCode == http.StatusOK {
				return socket
			}
		}
		select {
		case <-ended:
		default:
			if time.Now().Before(deadline) {
				continue
			}
		}
		text, _ := os.ReadFile(log)
		t.Fatalf("dockerd does not answer:\n%s", text)
	}
}

// emptied removes the files and control groups of an engine that has ended, as far as the kernel lets go of them.
func emptied(dir, group string) (bool, string) {
	if err := os.RemoveAll(dir); err != nil {
		return false, err.Error()
	}
	groups, _ := filepath.Glob("/sys/fs/cgroup/*" + group) // the pattern is a good one
	for _, g := range append(groups, "/sys/fs/cgroup"+group) {
		below, _ := filepath.Glob(g + "/*/")
		for _, dir := range append(below, g) {
			if err := os.Remove(dir); err != nil && !os.IsNotExist(err) {
				return false, err.Error()
			}
		}
	}
	return true, ""
}

// Services of one image on several platforms have each its own, also where the image is there for one of them alone.
func TestComposePlatformsOfOneImage(t *testing.T) {
	e := builder(t)
	image := harness.StartRegistry(t).Addr + "/team/both"
	dir := project(t, dockerfile("FROM scratch\nARG TARGETARCH\nLABEL of=$TARGETARCH\nCMD [\"/none\"]\n"))
	build(t, e, "docker", dir, "--platform", "linux/amd64,linux/arm64", "-t", image, "--push")
	dropImages(t, e, image)
	a := compose(t, e, map[string]string{"compose.yaml": `
services:
  amd: {image: ` + image + `, platform: linux/amd64}
  arm: {image: ` + image + `, platform: linux/arm64, profiles: [more]}
`})
	a.ok(t, "create")
	for _, pull := range [][]string{nil, {"pull"}, {"pull", "--policy", "missing"}} {
		if pull != nil {
			a.ok(t, append([]string{"--profile", "more"}, pull...)...)
		}
		a.ok(t, "--profile", "more", "create", "--force-recreate")
		for service, want := range map[string]string{"amd": "amd64", "arm": "arm64"} {
			if got := e.OK(t, "docker", "inspect", "-f", "{{.Config.Labels.of}}", a.name+"-"+service+"-1"); strings.TrimSpace(got) != want {
				t.Errorf("the container of %s is of an image for %s", service, got)
			}
		}
	}
	a.ok(t, "--profile", "more", "down")
}
