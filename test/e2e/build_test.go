package e2e

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cleatlabs/cleat/test/harness"
)

// buildPatience bounds a hang of a build, as harness.Patience does for other verbs: a
// build may compile a standard library on a busy machine.
const buildPatience = 10 * time.Minute

// builder returns the engine that tests share for builds. Its Docker Hub is made here,
// and its docker command has the stock buildx.
func builder(t *testing.T) *harness.Engine {
	t.Helper()
	h := dockerHub(t)
	shared.Lock()
	defer shared.Unlock()
	if shared.builder == nil {
		e := harness.New(t, harness.Options{Args: []string{"--registry-mirror", "http://" + h.Addr}})
		e.UseBuildx(t)
		e.Run(t)
		shared.builder = e
	}
	return shared.builder
}

// dockerHub returns the registry that tests share in the place of Docker Hub.
func dockerHub(t *testing.T) *harness.Registry {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.hub == nil {
		shared.hub = harness.StartHub(t)
	}
	return shared.hub
}

// ownBuilder is builder for tests that stop or kill the engine, or need flags.
func ownBuilder(t *testing.T, args ...string) *harness.Engine {
	t.Helper()
	h := dockerHub(t)
	e := harness.New(t, harness.Options{Args: append([]string{"--registry-mirror", "http://" + h.Addr}, args...)})
	e.UseBuildx(t)
	e.Run(t)
	t.Cleanup(func() { e.Destroy(t) })
	return e
}

// files of a build context by path. A path that ends in "*" is executable.
type files map[string]string

// project lays out a build context.
func project(t *testing.T, fs files) string {
	t.Helper()
	dir := t.TempDir()
	fs.write(t, dir)
	return dir
}

func (fs files) write(t *testing.T, dir string) {
	t.Helper()
	for _, p := range slices.Sorted(maps.Keys(fs)) {
		name, executable := strings.CutSuffix(p, "*")
		mode := os.FileMode(0o644)
		if executable {
			mode = 0o755
		}
		full := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(fs[p]), mode); err != nil {
			t.Fatal(err)
		}
	}
}

// A buildRun is one call of a client's build command.
type buildRun struct {
	dir   string   // the working directory; "." is the context unless args say otherwise
	args  []string // all that stands after "build"
	stdin []byte
	env   []string
}

// do runs it with the named program, with plain progress.
func (b buildRun) do(t *testing.T, e *harness.Engine, program string) harness.Result {
	t.Helper()
	return b.command(t, e, program, "build")
}

// command is do for another command than build, such as "buildx bake".
func (b buildRun) command(t *testing.T, e *harness.Engine, program string, verb ...string) harness.Result {
	t.Helper()
	args := slices.Concat(verb, b.args)
	cmd := e.Command(t, program, args...)
	cmd.Dir = b.dir
	cmd.Env = append(append(cmd.Env, "BUILDKIT_PROGRESS=plain"), b.env...)
	cmd.Stdin = bytes.NewReader(b.stdin)
	var out, errb bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errb
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop := time.AfterFunc(buildPatience, func() { cmd.Process.Kill() })
	defer stop.Stop()
	_ = cmd.Wait() // its exit code is in the result
	return harness.Result{Args: append([]string{program}, args...), Stdout: out.String(), Stderr: errb.String(), Code: cmd.ProcessState.ExitCode()}
}

// build builds dir with args and fails the test unless that works. It returns what the
// client printed.
func build(t *testing.T, e *harness.Engine, program, dir string, args ...string) buildLog {
	t.Helper()
	r := buildRun{dir: dir, args: append(args, ".")}.do(t, e, program)
	if r.Code != 0 {
		t.Fatal(r)
	}
	return buildLog(r.Stdout + r.Stderr)
}

// forget has a builder forget all that it has made. What a build has used it lets go of behind its end.
func forget(t *testing.T, e *harness.Engine) {
	t.Helper()
	harness.Eventually(t, func() (bool, string) {
		e.OK(t, "docker", "buildx", "prune", "-af")
		left := e.OK(t, "cleat", "builder", "du", "--format", "{{.ID}}")
		return left == "", "not pruned: " + left
	})
}

// buildFails builds dir and fails the test unless that is refused with all of want.
func buildFails(t *testing.T, e *harness.Engine, program, dir string, args []string, want ...string) {
	t.Helper()
	r := buildRun{dir: dir, args: append(args, ".")}.do(t, e, program)
	said := r.Stdout + r.Stderr
	for _, w := range want {
		if r.Code == 0 || !strings.Contains(said, w) {
			t.Errorf("not refused with %q: %s", w, r)
			return
		}
	}
}

// buildLog is what a build printed with plain progress.
type buildLog string

var stepLine = regexp.MustCompile(`(?m)^#(\d+) (.*)$`)

// cached tells whether the step whose name contains text was answered from the cache;
// it fails the test if there was no such step.
func (l buildLog) cached(t *testing.T, text string) bool {
	t.Helper()
	vertex, state := "", map[string]bool{}
	for _, m := range stepLine.FindAllStringSubmatch(string(l), -1) {
		if vertex == "" && strings.HasPrefix(m[2], "[") && strings.Contains(m[2], text) {
			vertex = m[1]
		}
		if m[2] == "CACHED" {
			state[m[1]] = true
		}
	}
	if vertex == "" {
		t.Fatalf("no step is called %q:\n%s", text, l)
	}
	return state[vertex]
}

// wantCached fails the test unless these steps, and only the first group, came from the cache.
func (l buildLog) wantCached(t *testing.T, cached []string, anew []string) {
	t.Helper()
	for _, s := range cached {
		if !l.cached(t, s) {
			t.Errorf("%q was done again:\n%s", s, l)
		}
	}
	for _, s := range anew {
		if l.cached(t, s) {
			t.Errorf("%q came from the cache:\n%s", s, l)
		}
	}
}

func (l buildLog) has(t *testing.T, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(string(l), w) {
			t.Errorf("%q is not in the log:\n%s", w, l)
		}
	}
}

// dropImages takes images away at the end of the test.
func dropImages(t *testing.T, e *harness.Engine, names ...string) {
	t.Cleanup(func() {
		for _, n := range names {
			if r := e.Cleat(t, "rmi", "-f", n); r.Code != 0 && !strings.Contains(r.Stderr, "No such image") {
				t.Errorf("cleanup: %s", r)
			}
		}
	})
}

// answers runs an image and waits until its program answers on port with want in it.
func answers(t *testing.T, e *harness.Engine, program, image, port, want string, args ...string) {
	t.Helper()
	n := name(t) + "-" + strings.NewReplacer(":", "-", "/", "-").Replace(image)
	remove(t, e, n)
	e.OK(t, program, append(append([]string{"run", "-d", "--name", n, "-p", "127.0.0.1::" + port}, args...), image)...)
	at := e.OK(t, program, "port", n, port)
	harness.Eventually(t, func() (bool, string) {
		got, err := body("http://" + at + "/")
		return strings.Contains(got, want), fmt.Sprint(got, err, e.Do(t, program, "", "logs", n))
	})
}

// listenLoopback is a listener on the host's loopback, which ends with the test.
func listenLoopback(t *testing.T) net.Listener {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}
