package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// Commands that no other test is about: each does what it says, and refuses what there is not.
func TestComposeOtherCommands(t *testing.T) {
	e := engine(t, "busybox")
	reg := harness.StartRegistry(t)
	image, tag := reg.Addr+"/apps/made:v1", reg.Addr+"/apps/made:tag"
	a := compose(t, e, map[string]string{"compose.yaml": `
services:
  web:
    image: ` + image + `
    build: {context: ., dockerfile_inline: "FROM busybox\nRUN echo made >/made\n", tags: [` + tag + `]}
    command: sleep 1000
    stop_signal: SIGKILL
  ends:
    image: busybox
    command: sh -c "read line; echo heard $$line; exit 3"
    stdin_open: true
`})
	t.Cleanup(func() { e.Cleat(t, "rmi", "-f", image, tag, a.name+":committed") })
	state := func(want string) {
		t.Helper()
		if got := a.ok(t, "ps", "-a", "--format", "{{.State}}", "web"); got != want {
			t.Errorf("web is %s, not %s", got, want)
		}
	}
	told := a.begin(t, "events", "--json", "--since", now()) // which may not listen yet when the first comes
	a.ok(t, "up", "-d", "--build")
	told.Shows(t, `"action":"start"`)

	a.ok(t, "pause", "web")
	state("paused")
	a.ok(t, "unpause", "web")
	state("running")
	told.Shows(t, `"action":"pause"`)
	told.Shows(t, `"action":"unpause"`)
	var event struct{ Time, Type, Action, Service string }
	line, _, _ := strings.Cut(told.String(), "\n")
	if err := json.Unmarshal([]byte(line), &event); err != nil || event.Type != "container" || event.Service == "" || event.Time == "" {
		t.Errorf("%v: %s", err, line)
	}

	if got := a.ok(t, "stats", "--no-stream", "--format", "{{.Name}} {{len .Container}}", "web"); got != a.name+"-web-1 64" { // its id, as docker compose has it
		t.Errorf("stats: %q", got)
	}
	if got := a.ok(t, "top", "web"); !strings.Contains(got, "sleep 1000") {
		t.Errorf("top: %s", got)
	}
	file := filepath.Join(t.TempDir(), "web.tar")
	a.ok(t, "export", "-o", file, "web")
	if out, err := exec.Command("tar", "-xOf", file, "made").CombinedOutput(); err != nil || string(out) != "made\n" {
		t.Errorf("export: %v: %s", err, out)
	}
	a.ok(t, "exec", "-T", "web", "sh", "-c", "echo new >/new")
	a.ok(t, "commit", "-m", "a message", "-c", "LABEL some=label", "web", a.name+":committed")
	if got := e.OK(t, "cleat", "run", "--rm", a.name+":committed", "cat", "/new"); got != "new" {
		t.Errorf("commit: %q", got)
	}
	a.ok(t, "push", "web")
	e.OK(t, "cleat", "rmi", "-f", a.name+":committed")
	a.ok(t, "down")
	e.OK(t, "cleat", "rmi", "-f", image, tag)
	e.OK(t, "cleat", "pull", tag) // it was pushed, too
	a.ok(t, "pull", "--ignore-buildable", "--ignore-pull-failures")
	a.ok(t, "pull", "web") // what was pushed
	a.ok(t, "up", "-d", "--no-build")

	a.ok(t, "scale", "web=2")
	if got := strings.Fields(a.ok(t, "ps", "-q", "web")); len(got) != 2 {
		t.Errorf("scale: %q", got)
	}
	waited := a.command(t, "wait", "ends")
	if err := waited.Start(); err != nil {
		t.Fatal(err)
	}
	attached := a.command(t, "attach", "ends")
	stdin, err := attached.StdinPipe() // whose end would be a detach, as Docker has it
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	attached.Stdout = &out
	if err := attached.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stdin.Write([]byte("this\n")); err != nil {
		t.Fatal(err)
	}
	if _ = attached.Wait(); out.String() != "heard this\n" || attached.ProcessState.ExitCode() != 3 {
		t.Errorf("attach: exit %d, %q", attached.ProcessState.ExitCode(), out.String())
	}
	if _ = waited.Wait(); waited.ProcessState.ExitCode() != 3 {
		t.Errorf("wait: exit %d", waited.ProcessState.ExitCode())
	}

	for _, args := range [][]string{{"pause"}, {"unpause"}, {"attach"}, {"stats"}, {"export", "-o", file}, {"commit"}, {"push"}, {"wait"}, {"port"}, {"restart"}, {"kill"}, {"logs"}} {
		args = append(args, "none")
		if args[0] == "port" {
			args = append(args, "80")
		}
		if r := a.run(t, args...); r.Code == 0 || !strings.Contains(r.Stderr, "none") {
			t.Errorf("of no service: %s", r)
		}
	}
	if err := os.WriteFile(filepath.Join(a.dir, "compose.yaml"), []byte(`
services: {a: {image: busybox, models: [m]}}
models: {m: {model: x}}
`), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := a.run(t, "up", "-d", "--remove-orphans"); r.Code == 0 || !strings.Contains(r.Stderr, "models") {
		t.Errorf("models: %s", r)
	}
	a.ok(t, "down", "--remove-orphans", "-t", "0")
}

// What a service is built as goes with all its names, and not those that others have given to it.
// What programs read is in the order of docker compose's, and goes by the flags that it had, too.
func TestComposeOrderAndFormerFlags(t *testing.T) {
	e := engine(t, "busybox")
	a := compose(t, e, nil)
	file := fmt.Sprintf("services:\n  a: {image: busybox, container_name: %[1]s-z, volumes: [data:/data]}\n  b: {image: busybox, container_name: %[1]s-y}\nvolumes: {data: }\n", a.name)
	if err := os.WriteFile(filepath.Join(a.dir, "compose.yaml"), []byte(file), 0o644); err != nil {
		t.Fatal(err)
	}
	a.ok(t, "create", "--y")
	if got := a.ok(t, "ps", "-a", "--format", "{{.Name}}"); got != a.name+"-y\n"+a.name+"-z" {
		t.Errorf("by their names: %q", got)
	}
	a.ok(t, "down", "--volume")
	if left := e.OK(t, "docker", "volume", "ls", "-q", "--filter", "label=com.docker.compose.project="+a.name); left != "" {
		t.Errorf("left by down --volume: %s", left)
	}
}

// The form of progress that is asked for is that of builds, too.
func TestComposeBuildProgress(t *testing.T) {
	e := engine(t, "busybox")
	a := compose(t, e, map[string]string{"compose.yaml": "services:\n  a: {build: {context: ., dockerfile_inline: \"FROM busybox\\nLABEL of=progress\\n\"}}\n"})
	t.Cleanup(func() { e.Docker(t, "rmi", a.name+"-a") })
	for _, args := range [][]string{{"--progress", "quiet", "build"}, {"build", "--progress", "quiet"}, {"--progress", "quiet", "create", "--build"}} {
		if r := a.run(t, args...); r.Code != 0 || r.Stdout+r.Stderr != "" {
			t.Errorf("%v: %+v", args, r)
		}
	}
	r := a.run(t, "--progress", "json", "build")
	for line := range strings.Lines(r.Stderr) {
		if !json.Valid([]byte(line)) {
			t.Errorf("--progress json: %q", line)
		}
	}
	if r.Code != 0 || strings.Count(r.Stderr, "\n") < 5 {
		t.Errorf("--progress json: %+v", r)
	}
}

func TestComposeDownRemovesAllTags(t *testing.T) {
	e := engine(t, "busybox")
	own := name(t)
	a := compose(t, e, map[string]string{"compose.yaml": fmt.Sprintf(
		"services: {web: {image: %[1]s, build: {context: ., dockerfile_inline: \"FROM busybox\\n\", tags: [%[1]s-more, \"%[1]s:2\"]}}}\n", own)})
	for _, which := range []string{"local", "all"} {
		a.ok(t, "build", "-q")
		e.OK(t, "cleat", "tag", own, own+"-mine")
		a.ok(t, "down", "--rmi", which)
		if got := e.OK(t, "cleat", "images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", "reference="+own+"*"); got != own+"-mine:latest" {
			t.Errorf("down --rmi %s has left %q", which, got)
		}
	}
}
