package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cleatlabs/cleat/test/harness"
)

// endAll ends an engine, and with it what runs; after a reboot nothing tells the next engine of it.
func endAll(t *testing.T, e *harness.Engine, running map[string]startedService, reboot bool) {
	t.Helper()
	e.Kill()
	for _, s := range running {
		if reboot {
			kill(t, keeperOf(t, s.PID))
		}
		kill(t, s.PID)
	}
	if !reboot {
		return
	}
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
	for how, reboot := range map[string]bool{"the containers ended while there was no engine": false, "nothing of the run is left": true} {
		t.Run(how, func(t *testing.T) {
			before := a.started(t)
			endAll(t, e, before, reboot)
			// That of the run before would tell db's check what is not so.
			if err := os.Remove(filepath.Join(state, "ready")); err != nil {
				t.Fatal(err)
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
	flags := "RUNTIME_DIRECTORY=" + t.TempDir() // where the engine leaves them for `cleatd shutdown`
	e := harness.Start(t, harness.Options{Env: []string{flags}})
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
	makeReady := func() {
		if err := os.WriteFile(ready, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for how, end := range map[string]func(map[string]startedService){
		"the containers ended with the engine": func(before map[string]startedService) { endAll(t, e, before, false) },
		"the machine went down": func(map[string]startedService) {
			e.Stop(t)
			shutdown := exec.Command(harness.Binary(t, "cleatd"), "shutdown")
			shutdown.Env = append(os.Environ(), flags)
			if out, err := shutdown.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		},
	} {
		t.Run(how, func(t *testing.T) {
			makeReady()
			a.ok(t, "up", "-d")
			before := a.started(t)
			end(before)
			if err := os.Remove(ready); err != nil {
				t.Fatal(err)
			}
			e.Run(t)
			harness.Eventually(t, func() (bool, string) { return a.started(t)["db"].At.After(before["db"].At), "db does not run again" })
			if now := a.started(t); len(now) != 1 {
				t.Fatalf("only db is to run yet: %v", now)
			}
			e.OK(t, "docker", "stop", a.ids(t)[a.name+"-api-1"])
			makeReady()
			harness.Eventually(t, func() (bool, string) { return a.started(t)["after"].PID > 0, "after has not been started\n" + e.Log() })
			if _, runs := a.started(t)["api"]; runs {
				t.Error("api was started though it had been stopped")
			}
			e.OK(t, "docker", "start", a.ids(t)[a.name+"-api-1"])
		})
	}
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
