package e2e

import (
	"slices"
	"strings"
	"testing"
)

// What is restarted with a dependency is so once that is healthy again, also if the file is not at hand.
func TestComposeRestartWaitsForTheDependency(t *testing.T) {
	e := engine(t, "busybox")
	a := compose(t, e, map[string]string{"compose.yaml": `services:
  db:
    image: busybox
    command: sh -c "rm -f /ready; sleep 0.7; touch /ready; exec sleep 1000"
    stop_signal: SIGKILL
    healthcheck: {test: test -e /ready, start_period: 60s, start_interval: 100ms, interval: 1s, retries: 60}
  web: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, depends_on: {db: {condition: service_healthy, restart: true}}}
`})
	a.ok(t, "up", "-d")
	elsewhere := &application{e: e, dir: t.TempDir(), name: a.name}
	for how, restart := range map[string]func(args ...string){
		"by the file": func(args ...string) { a.ok(t, args...) },
		"by name":     func(args ...string) { elsewhere.ok(t, args...) },
	} {
		for _, args := range [][]string{{"restart", "db"}, {"restart"}} {
			begin := now()
			restart(args...)
			said := strings.Split(e.OK(t, "docker", "events", "--since", begin, "--until", now(), "--filter", "label=com.docker.compose.project="+a.name,
				"--format", `{{index .Actor.Attributes "com.docker.compose.service"}} {{.Action}}`), "\n")
			healthy, ended := slices.Index(said, "db health_status: healthy"), slices.Index(said, "web die")
			if healthy < 0 || ended < healthy {
				t.Errorf("%s, %q: %q", how, args, said)
			}
		}
	}
	a.ok(t, "down", "-t", "0")
}
