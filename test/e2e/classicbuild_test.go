package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"

	apibuild "github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/test/harness"
)

// contextDir writes the files of a build.
func contextDir(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// classicBuild runs docker's client as it was before BuildKit.
func classicBuild(t *testing.T, e *harness.Engine, dir string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := exec.Command("docker", append([]string{"build"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+e.Socket, "DOCKER_BUILDKIT=0")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func removeImages(t *testing.T, e *harness.Engine, names ...string) {
	t.Cleanup(func() {
		for _, n := range names {
			e.Cleat(t, "rmi", "-f", n)
		}
	})
}

// DOCKER_BUILDKIT=0 docker build, as old scripts have it.
func TestClassicBuild(t *testing.T) {
	e := engine(t, "busybox")
	image := name(t)
	removeImages(t, e, image, image+":2", image+"-base")
	dir := contextDir(t, map[string]string{
		"Dockerfile": "ARG BASE=busybox\nFROM $BASE AS base\nENV A=b\nRUN echo step says hello >/hello && cat /hello\nFROM busybox AS unneeded\nRUN false\n" +
			"FROM base\nARG WHO=nobody\nWORKDIR /w\nCOPY . .\nRUN echo for $WHO >who\nCMD cat who\n",
		"file": "content", "secret.key": "hidden", ".dockerignore": "*.key\nDockerfile\n",
	})
	out, errs, code := classicBuild(t, e, dir, "-t", image, "-t", image+":2", "--build-arg", "WHO=me", "--label", "l=1", ".")
	if code != 0 {
		t.Fatalf("%s\n%s", out, errs)
	}
	id := e.OK(t, "cleat", "image", "inspect", "-f", "{{.Id}}", image)
	for _, want := range []string{
		"Step 1/10 : ARG BASE=busybox\n", "Step 2/10 : FROM $BASE AS base\n", "Step 4/10 : RUN echo step says hello >/hello && cat /hello\nstep says hello\n",
		"Step 10/10 : CMD cat who\n", "Successfully built " + strings.TrimPrefix(id, "sha256:")[:12] + "\n",
		"Successfully tagged " + image + ":latest\n", "Successfully tagged " + image + ":2\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if got := e.OK(t, "docker", "run", "--rm", image+":2"); got != "for me" {
		t.Errorf("the image says %q", got)
	}
	if got := e.OK(t, "docker", "run", "--rm", image, "ls", "-A"); got != ".dockerignore\nfile\nwho" {
		t.Errorf("the image has %q", got)
	}
	if got := e.OK(t, "docker", "image", "inspect", "-f", "{{.Config.Labels.l}} {{.Config.WorkingDir}}", image); got != "1 /w" {
		t.Errorf("%s", got)
	}

	out, _, _ = classicBuild(t, e, dir, "-t", image, "--build-arg", "WHO=me", ".")
	if n := strings.Count(out, " ---> Using cache\n"); n < 4 || strings.Contains(out, "\nstep says hello\n") {
		t.Errorf("the second time %d steps are from the cache:\n%s", n, out)
	}
	if out, _, _ = classicBuild(t, e, dir, "--no-cache", "--target", "base", "-t", image+"-base", "."); !strings.Contains(out, "\nstep says hello\n") || strings.Contains(out, "COPY") {
		t.Errorf("without cache:\n%s", out)
	}
	if out, _, _ = classicBuild(t, e, dir, "-q", "--build-arg", "WHO=me", "--label", "l=1", "."); strings.TrimSpace(out) != id {
		t.Errorf("quiet: %q, want %s", out, id)
	}
}

// Which stages are built, and so counted, may hang on arguments: development containers are
// built from Dockerfiles like these.
func TestClassicBuildOfStagesChosenByArgument(t *testing.T) {
	e := engine(t, "busybox")
	dir := contextDir(t, map[string]string{
		"Dockerfile": "ARG FROM=one\nARG BASE=${FROM}-${TARGETARCH}\nFROM busybox AS one-" + runtime.GOARCH + "\nRUN echo of one\n" +
			"FROM busybox AS two\nRUN echo of two\nFROM $BASE\nLABEL a=b\n",
	})
	for _, c := range []struct {
		args         []string
		want, absent string
	}{
		{nil, "Step 4/6 : RUN echo of one\nof one\n", "of two"},
		{[]string{"--build-arg", "BASE=two"}, "Step 4/6 : RUN echo of two\nof two\n", "of one"},
		{[]string{"--build-arg", "BASE=busybox"}, "Step 3/4 : FROM $BASE\n", "of "},
	} {
		out, errs, code := classicBuild(t, e, dir, append(c.args, "--no-cache", ".")...)
		if code != 0 || !strings.Contains(out, c.want) || strings.Contains(out, c.absent) {
			t.Errorf("%q: %d\n%s\n%s", c.args, code, out, errs)
		}
	}
}

// A .dockerignore is the client's to follow in a classic build: SDKs send archives that hold what it names.
func TestClassicBuildOfFilesThatAreIgnored(t *testing.T) {
	e := engine(t, "busybox")
	dir := contextDir(t, map[string]string{
		"Dockerfile": "FROM busybox\nCOPY a /\nCOPY . /c/\nRUN ls -A /c | tr '\\n' ' '\n", "Dockerfile.dockerignore": "b\n",
		".dockerignore": "a\nDockerfile\n", "a": "1", "b": "2",
	})
	archive := filepath.Join(t.TempDir(), "context.tar")
	if out, err := exec.Command("tar", "-C", dir, "-cf", archive, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	body, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	cmd := exec.Command("docker", "build", "--no-cache", "--rm", "-")
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+e.Socket, "DOCKER_BUILDKIT=0")
	cmd.Stdin = body
	out, err := cmd.CombinedOutput()
	built := regexp.MustCompile(`Successfully built (\w+)`).FindSubmatch(out)
	if err != nil || built == nil {
		t.Fatalf("%v\n%s", err, out)
	}
	removeImages(t, e, string(built[1]))
	if want := "\n.dockerignore Dockerfile.dockerignore a b "; !strings.Contains(string(out), want) {
		t.Errorf("want %q of\n%s", want, out)
	}
}

func TestClassicBuildFailures(t *testing.T) {
	e := engine(t, "busybox")
	before := e.Things(t)
	for _, c := range []struct {
		name, dockerfile string
		code             int
		stdout, stderr   string
	}{
		{"a step", "FROM busybox\nRUN echo before; exit 3\n", 3, "before\n", "The command '/bin/sh -c echo before; exit 3' returned a non-zero code: 3"},
		{"no such program", "FROM busybox\nRUN install x y z\n", 127, "Step 2/2 : RUN install x y z\n", "The command '/bin/sh -c install x y z' returned a non-zero code: 127"},
		{"a missing file", "FROM busybox\nCOPY nothing /\n", 1, "Step 1/2", "COPY failed: file not found in build context or excluded by .dockerignore: stat nothing: file does not exist"},
		{"an instruction", "FROM busybox\nRUNN x\n", 1, "", "dockerfile parse error on line 2: unknown instruction: RUNN"},
		{"an upper-case name", "FROM Busybox\n", 1, "Step 1/1 : FROM Busybox\n", "must be lowercase"},
		{"one argument", "FROM busybox\nCOPY one\n", 1, "", "COPY requires at least two arguments"},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, errs, code := classicBuild(t, e, contextDir(t, map[string]string{"Dockerfile": c.dockerfile}), ".")
			if code != c.code || !strings.Contains(out, c.stdout) || !strings.Contains(errs, c.stderr) || strings.Contains(out, "Successfully") {
				t.Errorf("%d\n%s\n%s", code, out, errs)
			}
		})
	}
	e.NothingNew(t, before)
}

// A client that goes away takes its build with it.
func TestClassicBuildIsCancelled(t *testing.T) {
	e := engine(t, "busybox")
	dir := contextDir(t, map[string]string{"Dockerfile": "FROM busybox\nRUN echo begun; sleep 4242\n"})
	cmd := exec.Command("docker", "build", "--no-cache", dir)
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+e.Socket, "DOCKER_BUILDKIT=0")
	b := harness.Begin(t, cmd)
	b.Shows(t, "\nbegun\n")
	b.Signal(t, syscall.SIGINT)
	b.Exit(t)
	harness.Eventually(t, func() (bool, string) { return processOf(t, e, "sleep\x004242") == 0, "the step's process goes on" })
}

// A client that goes away is noticed whatever comes after the archive in the body: tar
// pads it, some programs with far more than the two empty blocks that end it.
func TestBuildIsCancelledBehindAPaddedContext(t *testing.T) {
	e := engine(t, "busybox")
	const seconds = "4243"
	files := tarOf("Dockerfile", "FROM busybox\nRUN echo begun; sleep "+seconds+"\n")
	for _, version := range []apibuild.BuilderVersion{apibuild.BuilderV1, apibuild.BuilderBuildKit} {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		body := io.MultiReader(strings.NewReader(files), io.LimitReader(zeros{}, 4<<20))
		res, err := e.Client(t).ImageBuild(ctx, body, client.ImageBuildOptions{Version: version, NoCache: true})
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		harness.Eventually(t, func() (bool, string) { return processOf(t, e, "sleep\x00"+seconds) != 0, "the step does not begin" })
		cancel()
		harness.Eventually(t, func() (bool, string) {
			return processOf(t, e, "sleep\x00"+seconds) == 0, "the step's process goes on, builder " + string(version)
		})
	}
}

// zeros is an endless stream of them.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// Archives that programs make have no times often, and builds have no names: what a file has counts all the same.
func TestClassicBuildOfLikeContexts(t *testing.T) {
	e := engine(t, "busybox")
	for _, content := range []string{"one", "two", "one"} {
		text := "FROM busybox\nCOPY Dockerfile /f\n# " + content
		body := tarOf("Dockerfile", text)
		res, err := e.Client(t).ImageBuild(context.Background(), strings.NewReader(body), client.ImageBuildOptions{Remove: true})
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		out, err := io.ReadAll(res.Body)
		m := regexp.MustCompile(`"ID":"(sha256:[0-9a-f]+)"`).FindSubmatch(out)
		if err != nil || m == nil {
			t.Fatalf("%s, %v", out, err)
		}
		removeImages(t, e, string(m[1]))
		if got := e.OK(t, "cleat", "run", "--rm", string(m[1]), "cat", "/f"); got != text {
			t.Errorf("the file has %q, not %q", got, text)
		}
	}
}

// A program on the Go client, as testcontainers and Terraform are, reads the stream itself.
func TestClassicBuildByGoClient(t *testing.T) {
	e := engine(t, "busybox")
	image := name(t)
	removeImages(t, e, image)
	body := tarOf("Dockerfile", "FROM busybox\nRUN echo text\n")
	for _, broken := range []bool{false, true} {
		if broken {
			body = tarOf("other", "")
		}
		res, err := e.Client(t).ImageBuild(context.Background(), strings.NewReader(body), client.ImageBuildOptions{Tags: []string{image}, Remove: true})
		if broken {
			if err == nil || !strings.Contains(err.Error(), "Cannot locate specified Dockerfile: Dockerfile") {
				t.Errorf("without a Dockerfile: %v", err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		id := ""
		var text strings.Builder
		for dec := json.NewDecoder(res.Body); ; {
			var m jsonstream.Message
			if err := dec.Decode(&m); errors.Is(err, io.EOF) {
				break
			} else if err != nil || m.Error != nil {
				t.Fatal(err, m.Error)
			}
			if m.Aux != nil {
				var result struct{ ID string }
				if err := json.Unmarshal(*m.Aux, &result); err != nil {
					t.Fatal(err)
				}
				id = result.ID
			}
			text.WriteString(m.Stream)
		}
		if got := e.OK(t, "cleat", "image", "inspect", "-f", "{{.Id}}", image); got != id {
			t.Errorf("built %q, the image is %s", id, got)
		}
		if !regexp.MustCompile(`(?s)Step 1/2 .*\ntext\n.*Successfully built [0-9a-f]{12}\nSuccessfully tagged `).MatchString(text.String()) {
			t.Errorf("%s", text.String())
		}
	}
}
