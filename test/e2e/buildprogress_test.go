package e2e

import (
	"encoding/json"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	apibuild "github.com/moby/moby/api/types/build"
	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/test/harness"
)

// TestBuildProgress: what a build tells in each of the ways there are to tell it.
func TestBuildProgress(t *testing.T) {
	e := builder(t)
	dir := project(t, dockerfile("FROM busybox\nRUN echo sa''id\n"))
	dropImages(t, e, "out-progress")
	run := func(args ...string) harness.Result {
		t.Helper()
		r := buildRun{dir: dir, args: append(append([]string{"--no-cache", "-t", "out-progress"}, args...), ".")}.do(t, e, "cleat")
		if r.Code != 0 {
			t.Fatalf("%s", r)
		}
		return r
	}
	id := regexp.MustCompile(`^sha256:[0-9a-f]{64}\n?$`)
	for _, quiet := range []string{"--quiet", "--progress=quiet"} {
		if r := run(quiet); !id.MatchString(r.Stdout) || r.Stderr != "" {
			t.Errorf("%s: %s", quiet, r)
		}
	}
	if r := run("--progress=plain"); r.Stdout != "" || !strings.Contains(r.Stderr, " said\n") || strings.Contains(r.Stderr, "\x1b") {
		t.Errorf("%s", r)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(run("--progress=rawjson").Stderr) {
		var status struct {
			Vertexes []struct{ Name string }
			Logs     []struct{ Data []byte }
		}
		if err := json.Unmarshal([]byte(line), &status); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		for _, v := range status.Vertexes {
			seen[v.Name] = true
		}
		for _, l := range status.Logs {
			seen[string(l.Data)] = true
		}
	}
	if !seen["[2/2] RUN echo sa''id"] || !seen["said\n"] {
		t.Errorf("rawjson tells of %v", seen)
	}
	tm := onTerminal(t, e, 30, 100, "cleat", "build", "--no-cache", dir)
	tm.Shows(t, "[+] Building ")
	tm.Shows(t, "FINISHED")
	if code := tm.Exit(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestBuildIsCancelledByItsID: another connection than the build's own ends it.
func TestBuildIsCancelledByItsID(t *testing.T) {
	e := engine(t, "busybox")
	const seconds = "4244"
	c := e.Client(t)
	ended := make(chan string, 1)
	go func() {
		files := tarOf("Dockerfile", "FROM busybox\nRUN echo begun; sleep "+seconds+"\n")
		res, err := c.ImageBuild(t.Context(), strings.NewReader(files), client.ImageBuildOptions{Version: apibuild.BuilderBuildKit, NoCache: true, BuildID: "mine"})
		if err != nil {
			ended <- err.Error()
			return
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil {
			ended <- err.Error()
			return
		}
		ended <- string(text)
	}()
	harness.Eventually(t, func() (bool, string) { return processOf(t, e, "sleep\x00"+seconds) != 0, "the step does not begin" })
	if _, err := c.BuildCancel(t.Context(), "mine", client.BuildCancelOptions{}); err != nil {
		t.Fatal(err)
	}
	select {
	case text := <-ended:
		if !strings.Contains(text, `"error`) {
			t.Errorf("it does not say that it was cancelled: %s", text)
		}
	case <-time.After(harness.Patience):
		t.Error("the build goes on")
	}
	harness.Eventually(t, func() (bool, string) { return processOf(t, e, "sleep\x00"+seconds) == 0, "the step's process goes on" })
}
