package e2e

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// TestBuildHints: cleat says what to write, beside what is wrong.
func TestBuildHints(t *testing.T) {
	e := builder(t)
	for _, c := range []struct {
		files files
		args  []string
		want  string
	}{
		{files{"Dockerfile": "FROM BusyBox\n"}, nil, `Hint: line 1 of Dockerfile: names of images are in lower case: write "FROM busybox"`},
		{files{"Dockerfile": "FROM busybox\nCOPY app.py\n"}, nil, "Hint: line 2 of Dockerfile: COPY wants what to copy and where to: write 'COPY app.py .'"},
		{files{"Dockerfile": "FROM debian:bookworm-slim\nRUN install curl\n"}, nil, "Hint: line 2 of Dockerfile: packages are installed by the distribution's tool: write 'RUN apt-get update && apt-get install -y curl'"},
		{files{"Dockerfile": "FROM busybox\nRUN nonsuch-program\n"}, nil, `Hint: line 2 of Dockerfile: the image has no command "nonsuch-program"`},
		{files{"Dockerfile": "FROM busybox\nCOPY app.env /\n", "app.env": "x", ".dockerignore": "# no secrets\n*.env\n"}, nil, "app.env is there, but line 2 of .dockerignore (*.env) shuts it out"},
		{files{"Dockerfile": "FROM busybox\nCOPY Main.py /\n", "main.py": "x"}, nil, "there is main.py, and case matters"},
		{files{"Dockerfile": "FROM busybox AS base\nFROM base AS test\n"}, []string{"--target", "tset"}, "the stages are base, test"},
		{files{"Dockerfile": "FROM busybox\nRUN --mount=type=secret,id=token,required true\n"}, nil, "add --secret id=token,src=FILE"},
		{files{"Dockerfile": "FROM busybox\nRUN --network=host true\n"}, nil, "add --allow network.host"},
		{files{"Dockerfile.dev": "FROM busybox\n"}, nil, "there is Dockerfile.dev, write '-f Dockerfile.dev'"},
	} {
		buildFails(t, e, "cleat", project(t, c.files), c.args, c.want)
	}
}

// TestBuildInvoke: a shell sees what the failed step has left, and the result.
func TestBuildInvoke(t *testing.T) {
	e := builder(t)
	image := "invoke-" + name(t)
	dropImages(t, e, image)
	dir := project(t, dockerfile("FROM busybox\nWORKDIR /w\nENV COLOUR=red\nRUN echo half > done && exit 3\n"))
	r := buildRun{dir: dir, args: []string{"--invoke", "on-error", "."}, stdin: []byte("cat done; pwd; echo $COLOUR; exit 9\n")}.do(t, e, "cleat")
	if r.Code != 1 || r.Stdout != "half\n/w\nred\n" || !strings.Contains(r.Stderr, "exit code: 3") {
		t.Errorf("%s", r)
	}
	dir = project(t, dockerfile("FROM busybox\nWORKDIR /w\nRUN echo whole > done\n"))
	r = buildRun{dir: dir, args: []string{"-t", image, "--invoke", "cat done", "."}}.do(t, e, "cleat")
	if r.Code != 0 || r.Stdout != "whole\n" {
		t.Errorf("%s", r)
	}
	e.OK(t, "cleat", "image", "inspect", image)
	if r := (buildRun{dir: dir, args: []string{"--invoke", "on-error", "-"}}.do(t, e, "cleat")); r.Code != 1 || !strings.Contains(r.Stderr, "needs the standard input") {
		t.Errorf("%s", r)
	}
}

// TestBuildInvokeOnATerminal: the shell has the terminal, and gives it back.
func TestBuildInvokeOnATerminal(t *testing.T) {
	e := builder(t)
	// To pull and unpack the image is longer than a terminal is waited for.
	ready := project(t, dockerfile("FROM debian:bookworm-slim\nWORKDIR /w\n"))
	if r := (buildRun{dir: ready, args: []string{"-o", "type=cacheonly", "."}}).do(t, e, "cleat"); r.Code != 0 {
		t.Fatal(r)
	}
	dir := project(t, dockerfile("FROM debian:bookworm-slim\nWORKDIR /w\nRUN echo half > done && exit 3\n"))
	tm := onTerminal(t, e, 30, 100, "cleat", "build", "--invoke", "bash --norc", dir)
	tm.Shows(t, "Running bash --norc")
	// The size comes behind the shell's start.
	tm.Type(t, "until [ \"$(stty size)\" = '30 100' ]; do sleep 0.1; done; echo size $(stty size) $(cat done) $((20 + 22))\r")
	tm.Shows(t, "size 30 100 half 42")
	tm.Type(t, "exit 5\r")
	tm.Shows(t, "exit code: 3")
	if code := tm.Exit(t); code != 1 {
		t.Errorf("exit code %d", code)
	}
}

// TestBuildTwiceIsOneImage: an image that stays here is the same if nothing has changed.
func TestBuildTwiceIsOneImage(t *testing.T) {
	e := builder(t)
	image := "same-" + name(t)
	dropImages(t, e, image)
	dir := project(t, files{"Dockerfile": "FROM busybox\nCOPY . /src\nRUN cat /src/a > /b\n", "a": name(t)})
	first := buildRun{dir: dir, args: []string{"-q", "-t", image, "."}}.do(t, e, "cleat")
	again := buildRun{dir: dir, args: []string{"-q", "-t", image, "."}}.do(t, e, "cleat")
	if first.Code != 0 || first.Stdout != again.Stdout || !strings.HasPrefix(first.Stdout, "sha256:") || first.Stderr != "" {
		t.Errorf("%s\n%s", first, again)
	}
	if id := e.OK(t, "cleat", "image", "inspect", "-f", "{{.Id}}", image); id != strings.TrimSpace(first.Stdout) {
		t.Errorf("the image is %s, not %s", id, first.Stdout)
	}
}

// TestBuildIsCancelled: the first Ctrl-C cancels the build, also in the engine.
func TestBuildIsCancelled(t *testing.T) {
	e := builder(t)
	dir := project(t, dockerfile("FROM busybox\nRUN echo started; sleep 987 # cancel-"+name(t)+"\n"))
	cmd := e.Command(t, "cleat", "build", "--progress", "plain", ".")
	cmd.Dir = dir
	b := harness.Begin(t, cmd)
	harness.Eventually(t, func() (bool, string) {
		return regexp.MustCompile(`(?m)^#\d+ \d\S* started`).MatchString(b.String()), b.String()
	})
	running := func() string {
		return e.OK(t, "cleat", "buildx", "history", "ls", "--format", "{{.Status}}", "--filter", "status=running")
	}
	if got := running(); got != "Running" {
		t.Errorf("of a build under way the history says %q", got)
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil { // for it alone: it passes it on
		t.Fatal(err)
	}
	if code := b.Exit(t); code != 130 {
		t.Errorf("exit code %d:\n%s", code, b)
	}
	harness.Eventually(t, func() (bool, string) { got := running(); return got == "", got })
}

// TestBakeLikeBuildx: stock buildx and cleat make the same of bake files, and build it.
func TestBakeLikeBuildx(t *testing.T) {
	e := builder(t)
	n := "bake-" + name(t)
	dropImages(t, e, n+":1", n+"-web:1", n+"-tool:a", n+"-tool:b")
	dir := project(t, files{
		"docker-bake.hcl": `variable "NAME" {}
variable "TAG" { default = "0" }
group "default" { targets = ["app", "tool", "web"] }
target "_common" { args = { WHO = upper("me") } }
target "base" { dockerfile-inline = "FROM busybox\nRUN echo base > /base\n" }
target "app" {
  inherits = ["_common"]
  context = "app"
  contexts = { base = "target:base" }
  tags = ["${NAME}:${TAG}"]
  output = [{ type = "docker" }]
}
target "tool" {
  name = "tool-${item}"
  matrix = { item = ["a"] }
  dockerfile-inline = "FROM busybox\nRUN echo ${item} > /tool\n"
  tags = ["${NAME}-tool:${item}"]
}
`,
		"compose.yaml":   "services:\n  web:\n    image: ${NAME}-web:1\n    build:\n      context: web\n      args: {FROM: compose}\n",
		"app/Dockerfile": "FROM base\nARG WHO\nRUN cat /base > /app && echo $WHO >> /app\n",
		"web/Dockerfile": "FROM busybox\nARG FROM\nRUN echo $FROM > /web\n",
	})
	env := []string{"NAME=" + n, "TAG=1"}
	var printed [2]map[string]any
	for i, c := range [][]string{{"docker", "buildx"}, {"cleat", "buildx"}} {
		r := buildRun{dir: dir, args: []string{"--print", "--set", "*.labels.x=y"}, env: env}.command(t, e, c[0], c[1], "bake")
		if err := json.Unmarshal([]byte(r.Stdout), &printed[i]); err != nil || r.Code != 0 {
			t.Fatal(err, r)
		}
	}
	ours, _ := json.Marshal(printed[1])
	theirs, _ := json.Marshal(printed[0])
	if !bytes.Equal(ours, theirs) {
		t.Errorf("buildx:\n%s\ncleat:\n%s", theirs, ours)
	}
	meta := filepath.Join(dir, "meta.json")
	if r := (buildRun{dir: dir, args: []string{"--metadata-file", meta}, env: env}).command(t, e, "cleat", "bake"); r.Code != 0 {
		t.Fatal(r)
	}
	for image, want := range map[string]string{n + ":1": "base\nME", n + "-web:1": "compose", n + "-tool:a": "a"} {
		if got := e.OK(t, "cleat", "run", "--rm", image, "sh", "-c", "cat /app /web /tool 2>/dev/null; true"); got != want {
			t.Errorf("%s has %q, not %q", image, got, want)
		}
	}
	var m map[string]map[string]any
	if data, err := os.ReadFile(meta); err != nil || json.Unmarshal(data, &m) != nil || m["app"]["containerimage.digest"] == nil || m["base"]["buildx.build.ref"] == nil {
		t.Errorf("%s, %v", data, err)
	}
	// What a path is for decides whether the user's --set allows it.
	out := t.TempDir()
	for _, program := range []string{"docker", "cleat"} {
		if err := os.Mkdir(filepath.Join(out, program), 0o755); err != nil { // stock buildx asks for the parent of what is not there
			t.Fatal(err)
		}
		for _, c := range []struct {
			set  string
			code int
		}{{"app.context=/etc", 1}, {"app.network=host", 1}, {"app.entitlements=network.host", 0}, {"app.output=type=local,dest=" + filepath.Join(out, program), 0}} {
			r := buildRun{dir: dir, args: []string{"--set", c.set, "app"}, env: env}.command(t, e, program, "buildx", "bake")
			if r.Code != c.code || c.code != 0 && !strings.Contains(r.Stderr, "allow") {
				t.Errorf("%s %s: %s", program, c.set, r)
			}
		}
		if got, err := os.ReadFile(filepath.Join(out, program, "app")); err != nil || string(got) != "base\nME\n" {
			t.Errorf("%s has put out %q, %v", program, got, err)
		}
	}
}

// TestBuildFlagsLikeBuildx: what stock buildx can be told, cleat can, but for what belongs
// to other builders.
func TestBuildFlagsLikeBuildx(t *testing.T) {
	e := builder(t)
	flag := regexp.MustCompile(`(?m)^\s+(?:-\w, )?--([a-z-]+)`)
	for command, without := range map[string][]string{
		"build": {"policy"}, "bake": {"policy"}, "du": nil, "prune": nil, "ls": nil, "inspect": nil, "use": nil, "history ls": {"local"}, "history inspect": nil, "history logs": nil, "history rm": nil,
		"imagetools create": nil, "imagetools inspect": nil, "history inspect attachment": nil,
	} {
		args := append([]string{"buildx"}, append(strings.Fields(command), "--help")...)
		ours := flag.FindAllStringSubmatch(e.OK(t, "cleat", args...), -1)
		for _, f := range flag.FindAllStringSubmatch(e.OK(t, "docker", args...), -1) {
			if !slices.ContainsFunc(ours, func(o []string) bool { return o[1] == f[1] }) && !slices.Contains(without, f[1]) {
				t.Errorf("%s: no --%s", command, f[1])
			}
		}
	}
}

// TestBuildCommandsLikeBuildx: every command that buildx has is here, or refused by its name.
func TestBuildCommandsLikeBuildx(t *testing.T) {
	e := builder(t)
	refused := []string{
		"create", "rm", "stop", // there is one builder
		"dap", "policy", "replay", // see their messages
		"history export", "history import", "history open", "history trace", // for Docker Desktop
	}
	list := regexp.MustCompile(`(?m)^  ([a-z-]+)\*? +\S`)
	commands := func(program, below string) (names []string) {
		_, help, _ := strings.Cut(e.OK(t, program, append(append([]string{"buildx"}, strings.Fields(below)...), "--help")...), "Commands:\n")
		for _, m := range list.FindAllStringSubmatch(help, -1) {
			names = append(names, m[1])
		}
		return names
	}
	for _, below := range []string{"", "history", "imagetools"} {
		ours, theirs := commands("cleat", below), commands("docker", below)
		if len(theirs) < 2 {
			t.Fatalf("buildx lists the commands %v", theirs)
		}
		for _, name := range theirs {
			full := strings.TrimSpace(below + " " + name)
			switch {
			case slices.Contains(refused, full):
				r := e.Cleat(t, append([]string{"buildx"}, strings.Fields(full+" x")...)...)
				if r.Code == 0 || !strings.Contains(r.Stderr, full+" is not supported") {
					t.Errorf("%s", r)
				}
			case name != "help" && name != "dial-stdio" && !slices.Contains(ours, name):
				t.Errorf("no command %s", full)
			}
		}
	}
}

// TestBuilderCommands: the cache and the history of builds.
func TestBuilderCommands(t *testing.T) {
	e := ownBuilder(t)
	dir := project(t, dockerfile("FROM busybox\nRUN --mount=type=cache,target=/c echo "+name(t)+" > /c/x && echo y > /y\n"))
	build(t, e, "cleat", dir, "-t", "builder-commands")
	if out := e.OK(t, "cleat", "builder", "du"); !strings.Contains(out, "RECLAIMABLE") || !strings.Contains(out, "Total:") {
		t.Errorf("%s", out)
	}
	ref := e.OK(t, "cleat", "buildx", "history", "ls", "--format", "{{.Ref}}")
	if got := e.OK(t, "cleat", "buildx", "history", "inspect", "--format", "{{.Name}} {{.Status}}", ref); got != "builder-commands completed" {
		t.Errorf("%q", got)
	}
	if r := e.Cleat(t, "buildx", "history", "logs"); r.Code != 0 || !strings.Contains(r.Stderr, "RUN --mount=type=cache") {
		t.Errorf("%s", r)
	}
	e.OK(t, "cleat", "buildx", "history", "rm", "--all")
	if got := e.OK(t, "cleat", "buildx", "history", "ls", "--format", "{{.Ref}}"); got != "" {
		t.Errorf("%q is left", got)
	}
	if out := e.OK(t, "cleat", "buildx", "ls"); !strings.Contains(out, "default*") || !strings.Contains(out, "linux/amd64") {
		t.Errorf("%s", out)
	}
	forget(t, e)
	if out := e.OK(t, "cleat", "builder", "du", "--filter", "type=exec.cachemount", "--format", "{{.ID}}"); out != "" {
		t.Errorf("left after prune: %s", out)
	}
}
