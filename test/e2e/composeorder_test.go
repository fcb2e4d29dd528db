package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cleatlabs/cleat/test/harness"
)

// TestComposeOrderAfterAReboot: the engine remembers what depends on what. After it has ended
// together with all containers, the policies start them in the order of the file: each once
// what it needs is healthy, has started, or has done its work.
func TestComposeOrderAfterAReboot(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	a := compose(t, e, map[string]string{"compose.yaml": `
x-own: &own {image: busybox, restart: always, stop_signal: SIGKILL, volumes: [state:/state]}
services:
  web:
    <<: *own
    command: sh -c "[ -e /state/ready ] && exec sleep 1000; echo too early >>/state/early; exit 3"
    depends_on: {api: {condition: service_started}}
  api:
    <<: *own
    command: sh -c "[ -e /state/ready ] && exec sleep 1000; echo too early >>/state/early; exit 3"
    depends_on: {db: {condition: service_healthy}, ill: {condition: service_healthy, required: false}, migrate: {condition: service_completed_successfully}}
  db:
    <<: *own
    command: sh -c "sleep 0.5; touch /state/ready; exec sleep 1000"
    healthcheck: {test: [CMD, test, -e, /state/ready], interval: 1s, start_period: 60s, start_interval: 100ms, retries: 60}
  migrate: {image: busybox, command: "true"}
  # What never gets well keeps nobody waiting for ever.
  ill:
    <<: *own
    command: sleep 1000
    healthcheck: {test: [CMD, "false"], interval: 100ms, retries: 1}
volumes: {state: }
`})
	a.ok(t, "up", "-d")
	state := e.OK(t, "cleat", "volume", "inspect", "-f", "{{.Mountpoint}}", a.name+"_state")
	for _, end := range []struct {
		name   string
		reboot bool
	}{
		{"the containers ended while there was no engine", false},
		{"nothing of the run is left", true},
	} {
		t.Run(end.name, func(t *testing.T) {
			before := a.started(t)
			e.Kill()
			for _, s := range before {
				if end.reboot {
					kill(t, keeperOf(t, s.PID))
				}
				kill(t, s.PID)
			}
			// That of the run before would tell db's check what is not so.
			if err := os.Remove(filepath.Join(state, "ready")); err != nil {
				t.Fatal(err)
			}
			if end.reboot {
				left, err := filepath.Glob(filepath.Join(e.ExecRoot, "*"))
				if err != nil {
					t.Fatal(err)
				}
				for _, dir := range left {
					if err := os.RemoveAll(dir); err != nil {
						t.Fatal(err)
					}
				}
			}
			e.Run(t)
			var now map[string]startedService
			harness.Eventually(t, func() (bool, string) {
				now = a.started(t)
				for name, s := range before {
					if !now[name].At.After(s.At) {
						return false, name + " does not run again\n" + e.Log()
					}
				}
				return true, ""
			})
			for _, order := range [][2]string{{"db", "api"}, {"ill", "api"}, {"api", "web"}} {
				if now[order[1]].At.Before(now[order[0]].At) {
					t.Errorf("%s was started before %s: %v", order[1], order[0], now)
				}
			}
			if r := a.run(t, "exec", "-T", "db", "cat", "/state/early"); r.Code == 0 {
				t.Errorf("api or web was started before db was healthy: %s\n%s", r.Stdout, e.Log())
			}
		})
	}
}

// TestStopOfWhatWaitsForItsTurn: who stops a container before its turn to be started has come means that it stays
// stopped; what waits for it goes on as if it had been started.
func TestStopOfWhatWaitsForItsTurn(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	a := compose(t, e, map[string]string{"compose.yaml": `
x-own: &own {image: busybox, command: sleep 1000, restart: unless-stopped, stop_signal: SIGKILL}
services:
  after: {<<: *own, depends_on: [api]}
  api: {<<: *own, restart: always, depends_on: {db: {condition: service_healthy}}}
  db:
    <<: *own
    volumes: [state:/state]
    healthcheck: {test: [CMD, test, -e, /state/ready], interval: 100ms, start_period: 1h, start_interval: 100ms}
volumes: {state: }
`})
	a.ok(t, "create")
	state := e.OK(t, "cleat", "volume", "inspect", "-f", "{{.Mountpoint}}", a.name+"_state")
	ready := filepath.Join(state, "ready")
	if err := os.WriteFile(ready, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	a.ok(t, "up", "-d")
	before := a.started(t)
	e.Kill()
	for _, s := range before {
		kill(t, s.PID)
	}
	if err := os.Remove(ready); err != nil {
		t.Fatal(err)
	}
	e.Run(t)
	harness.Eventually(t, func() (bool, string) { return a.started(t)["db"].At.After(before["db"].At), "db does not run again" })
	if now := a.started(t); len(now) != 1 {
		t.Fatalf("only db is to run yet: %v", now)
	}
	api := a.ids(t)[a.name+"-api-1"]
	e.OK(t, "docker", "stop", api)
	if err := os.WriteFile(ready, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, func() (bool, string) { return a.started(t)["after"].PID > 0, "after has not been started\n" + e.Log() })
	if _, runs := a.started(t)["api"]; runs {
		t.Error("api was started though it had been stopped")
	}
	e.OK(t, "docker", "start", api)
}

type startedService struct {
	At  time.Time
	PID int
}

// started says of the project's running containers when they were started.
func (a *application) started(t *testing.T) map[string]startedService {
	t.Helper()
	found := map[string]startedService{}
	for name, id := range a.ids(t) {
		var s struct {
			State struct {
				Running   bool
				StartedAt time.Time
				Pid       int
			}
		}
		if err := json.Unmarshal([]byte(a.e.OK(t, "cleat", "inspect", "-f", "{{json .}}", id)), &s); err != nil {
			t.Fatal(err)
		}
		if s.State.Running && s.State.Pid > 0 {
			service := strings.TrimSuffix(strings.TrimPrefix(name, a.name+"-"), "-1")
			found[service] = startedService{s.State.StartedAt, s.State.Pid}
		}
	}
	return found
}
