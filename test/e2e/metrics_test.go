package e2e

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// TestMetrics: Prometheus finds dockerd's metrics where --metrics-addr says, and the API is as it was.
func TestMetrics(t *testing.T) {
	e := harness.Start(t, harness.Options{Args: []string{"--metrics-addr", "127.0.0.1:0"}})
	e.Load(t, "busybox")
	e.OK(t, "docker", "run", "-d", "--name", "it", "busybox", "sleep", "1000")
	e.OK(t, "docker", "create", "busybox", "true")
	if got := e.OK(t, "docker", "exec", "it", "echo", "streams go on"); got != "streams go on" {
		t.Errorf("%q", got)
	}
	at := regexp.MustCompile(`http://127\.0\.0\.1:\d+/metrics`).FindString(e.Log())
	if at == "" {
		t.Fatalf("no address in the log: %s", e.Log())
	}
	answer, err := http.Get(at)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`engine_daemon_container_states_containers{state="running"} 1`, `engine_daemon_container_states_containers{state="stopped"} 1`,
		`engine_daemon_container_actions_seconds_count{action="start"} 1`, `engine_daemon_container_actions_seconds_count{action="create"} 2`,
	} {
		if !strings.Contains(string(body), want+"\n") {
			t.Errorf("%s is not told in\n%s", want, body)
		}
	}
	if !regexp.MustCompile(`(?m)^engine_daemon_events_total [1-9]`).Match(body) {
		t.Errorf("no events are counted in\n%s", body)
	}
	dir := t.TempDir()
	second := exec.Command(harness.Binary(t, "cleatd"), "--config-file", "/dev/null", "--data-root", dir+"/data", "--exec-root", dir+"/exec",
		"--host", "unix://"+dir+"/sock", "--pidfile", dir+"/pid", "--metrics-addr", strings.TrimSuffix(strings.TrimPrefix(at, "http://"), "/metrics"))
	if out, err := second.CombinedOutput(); err == nil || !strings.Contains(string(out), "--metrics-addr: listen tcp") {
		t.Errorf("an address that is taken: %v, %s", err, out)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("an engine that does not start leaves %v (%v)", left, err)
	}
}
