package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// besides are projects, and what is done with each: by stock docker compose first, and then by `cleat compose`. A step
// that begins with an exclamation mark removes a file.
var besides = map[string]struct {
	files map[string]string
	steps []string
}{
	"a service that others need the good end of": {map[string]string{"compose.yaml": `
services:
  web:
    image: busybox
    command: sleep 1000
    stop_signal: SIGKILL
    depends_on: {migrate: {condition: service_completed_successfully}}
  migrate: {image: busybox, command: "true"}
  fails: {image: busybox, command: sh -c 'exit 3', profiles: [more]}
  ends: {image: busybox, command: "true", profiles: [more]}
  stays: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, profiles: [more]}
`}, []string{"up -d --wait", "up -d --wait", "up -d --wait fails", "up -d --wait ends", "up -d --wait stays", "up -d --wait migrate"}},
	"an environment file that has gone": {map[string]string{"compose.yaml": `
services:
  web: {image: busybox, command: sh -c 'echo here; exec sleep 1000', stop_signal: SIGKILL, env_file: gone.env}
  built: {build: {context: ., dockerfile_inline: "FROM busybox\n"}, command: sleep 1000, env_file: gone.env, profiles: [more]}
`, "gone.env": "A=b\n"}, []string{
		"up -d", "!gone.env", "ps --format {{.Service}}", "logs web", "stop -t 0", "start", "restart -t 0", "pause", "unpause", "build -q built", "config --services",
		"config --images", "volumes", "kill", "rm -f", "up -d", "run --rm -T web true", "config -q", "down",
	}},
	"profiles that are not named": {map[string]string{"compose.yaml": `
services:
  base: {image: busybox, command: sleep 1000, stop_signal: SIGKILL}
  debug: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, profiles: [debug]}
`}, []string{
		"--profile debug up -d", "pause", "unpause", "restart -t 0", "stop -t 0", "start", "kill", "rm -f", "ps -a --orphans=false --format {{.Service}}", "up -d", "down",
		"up -d", "down debug", "--profile debug up -d", "down --remove-orphans", "--profile debug down",
	}},
	"a network of a profile that is not named": {map[string]string{"compose.yaml": `
services:
  base: {image: busybox, command: sleep 1000, stop_signal: SIGKILL}
  debug: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, profiles: [debug], networks: [own, default]}
networks: {own: }
`}, []string{
		"--profile debug up -d", "--profile debug stop -t 0 debug", "down", "--profile debug up -d", "down", "--profile debug down",
	}},
	"containers of run": {map[string]string{"compose.yaml": `
services:
  base: {image: busybox, command: sleep 1000, stop_signal: SIGKILL}
`}, []string{
		"up -d", "run -d --name NAME-job base sleep 1000", "run --name NAME-done -T base true", "ps --format {{.Name}}", "ps -a --format {{.Name}}", "stop -t 0", "rm -f", "logs", "kill",
		"down", "ps -a --format {{.Name}}", "down --remove-orphans",
		"run -d --name NAME-job base sleep 1000", "exec -T base echo in", "exec -T --index 1 base echo in", "run --name NAME-done -T base true", "up -d --remove-orphans",
		"run --name NAME-done -T base true", "run --rm -T --remove-orphans base true", "run --name NAME-done -T base true", "run --rm -T --no-deps --remove-orphans base true",
		"down --remove-orphans",
	}},
	"what was built": {map[string]string{"compose.yaml": `
services:
  named: {image: named, build: {context: ., dockerfile_inline: "FROM busybox\n"}, command: sleep 1000, stop_signal: SIGKILL}
  unnamed: {build: {context: ., dockerfile_inline: "FROM busybox\n"}, command: sleep 1000, stop_signal: SIGKILL}
  pulled: {image: busybox, command: sleep 1000, stop_signal: SIGKILL}
`}, []string{
		"build -q --push unnamed", "up -d --quiet-build", "down --rmi local", "up -d --no-build --pull never named", "up -d --no-build --pull never unnamed", "up -d --pull never pulled",
		"build -q", "-p NAME down --rmi local", "up -d --no-build --pull never named", "down",
	}},
	"a volume that has changed": {map[string]string{"compose.yaml": `
services:
  web: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, volumes: ["data:/data"]}
  other: {image: busybox, command: sleep 1000, stop_signal: SIGKILL}
volumes: {data: {labels: {some: label}}}
`, "more.yaml": "volumes: {data: {labels: {other: label}}}\n"}, []string{
		"up -d", "exec -T web touch /data/made", "up -d -y", "exec -T web ls /data", "-f more.yaml up -d -y", "exec -T web ls /data", "exec -T web touch /data/made",
		"-f more.yaml up -d -y", "exec -T web ls /data", "down -v",
	}},
	"the first end ends all": {map[string]string{"compose.yaml": `
services:
  test: {image: busybox, command: "true", depends_on: [db]}
  bad: {image: busybox, command: sh -c 'exit 3', depends_on: [db], profiles: [more]}
  db: {image: busybox, command: sleep 1000, stop_signal: SIGKILL}
`}, []string{
		"up --abort-on-container-exit test db", "up --exit-code-from test test db", "up --exit-code-from db test db", "up --abort-on-container-failure bad db", "down",
	}},
	"anonymous volumes": {map[string]string{"compose.yaml": `
services:
  web: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, volumes: [/anonymous]}
`}, []string{
		"up -d", "exec -T web touch /anonymous/made", "up -d --force-recreate", "exec -T web ls /anonymous", "up -d -V", "exec -T web ls /anonymous",
		"up -d -V --no-recreate", "down -v",
	}},
	"what cannot be": {map[string]string{"compose.yaml": `
services:
  web: {image: busybox, command: sh -c 'echo here; exec sleep 1000', stop_signal: SIGKILL}
  mute: {image: busybox, command: sh -c 'echo there; exec sleep 1000', stop_signal: SIGKILL, logging: {driver: none}}
  over: {image: busybox, command: "true"}
`}, []string{
		"up -d", "pause", "unpause", "top nosuch", "images nosuch", "logs mute", "logs", "logs --index 9 web", "exec -T --index 9 web true", "kill", "stats --no-stream", "down",
	}},
}

// What both do with a project, step by step, is the same: exit codes, what is printed, and which containers there are.
func TestComposeBesideStock(t *testing.T) {
	for name, c := range besides {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := engine(t, "busybox")
			ours := compose(t, e, c.files)
			want, got := ours.theirs(t).course(t, c.files, c.steps), ours.course(t, c.files, c.steps)
			for i, step := range c.steps {
				if want[i] != got[i] {
					t.Errorf("%s:\nstock %s\ncleat %s", step, want[i], got[i])
				}
			}
		})
	}
}

// course does the steps, and tells of each what came of it.
func (a *application) course(t *testing.T, files map[string]string, steps []string) (told []string) {
	t.Helper()
	a.ok(t, "--profile", "*", "down", "-v", "-t", "0", "--remove-orphans")
	for name, text := range files { // those that the one before has removed
		if err := os.WriteFile(filepath.Join(a.dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range steps {
		if name, ok := strings.CutPrefix(step, "!"); ok {
			if err := os.Remove(filepath.Join(a.dir, name)); err != nil {
				t.Fatal(err)
			}
			told = append(told, "")
			continue
		}
		r := a.run(t, append([]string{"-f", "compose.yaml"}, strings.Fields(strings.ReplaceAll(step, "NAME", a.name))...)...)
		var states []string
		harness.Eventually(t, func() (bool, string) { // what ends by itself does so when it likes
			states = strings.Split(a.e.OK(t, "docker", "ps", "-a", "--filter", "label=com.docker.compose.project="+a.name, "--format", "{{.Names}} {{.State}}"), "\n")
			slices.Sort(states)
			return !slices.ContainsFunc(states, func(s string) bool {
				name, state, _ := strings.Cut(s, " ")
				return state == "running" && slices.ContainsFunc([]string{"-migrate-1", "-ends-1", "-fails-1", "-test-1", "-bad-1", "-over-1", "-done"}, func(end string) bool { return strings.HasSuffix(name, end) })
			}), strings.Join(states, "\n")
		})
		out := alike(changing.ReplaceAllString(strings.ReplaceAll(r.Stdout, "\x1b[K", ""), "ID"), false)
		if strings.HasPrefix(step, "stats") {
			out = nil // stock prints the titles of a table
		}
		told = append(told, fmt.Sprintf("exits with %d: %q, leaves %q", r.Code, out, states))
	}
	return told
}
