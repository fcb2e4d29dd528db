package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/test/harness"
)

// slowRegistry has an image whose manifest never comes: it has begun to send it, so that nobody gives up waiting for
// the answer. asked is closed when somebody asks for it, and gone when a client that has asked has gone away.
func slowRegistry(t *testing.T) (addr string, asked, gone chan struct{}) {
	t.Helper()
	asked, gone = make(chan struct{}), make(chan struct{})
	var comes, goes sync.Once
	end := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			return
		}
		w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
		w.Header().Set("Content-Length", "1000")
		w.Header().Set("Docker-Content-Digest", "sha256:"+strings.Repeat("a", 64))
		w.WriteHeader(http.StatusOK)
		if r.Method == http.MethodHead {
			return
		}
		_ = http.NewResponseController(w).Flush()
		comes.Do(func() { close(asked) })
		select {
		case <-r.Context().Done():
			goes.Do(func() { close(gone) })
		case <-end:
		}
	}))
	t.Cleanup(func() { close(end); s.Close() })
	return strings.TrimPrefix(s.URL, "http://"), asked, gone
}

// A running application ends in good time at an interrupt, at two, and when its client is
// killed, whatever it is about; nothing is left that `down` does not find, which compose
// checks at the end of each.
func TestComposeInterrupted(t *testing.T) {
	e := engine(t, "busybox")
	addr, _, _ := slowRegistry(t)
	const sleeper = "image: busybox, command: sleep 1000, stop_signal: SIGKILL"
	var many strings.Builder
	many.WriteString("services:\n")
	for i := range 12 {
		fmt.Fprintf(&many, "  s%d: {%s, volumes: ['v%d:/v']}\n", i, sleeper, i)
	}
	many.WriteString("volumes:\n")
	for i := range 12 {
		fmt.Fprintf(&many, "  v%d: {}\n", i)
	}
	sick := "services:\n  db: {" + sleeper + ", healthcheck: {test: [CMD, 'false'], interval: 1s, retries: 100000}}\n  web: {" + sleeper + ", depends_on: {db: {condition: service_healthy}}}\n"
	deaf := "services:\n  deaf: {image: busybox, command: [sh, -c, \"trap '' TERM; echo deaf; while :; do sleep 1; done\"], stop_grace_period: 1000s}\n"
	for _, c := range []struct {
		name, file   string
		before, args []string
		until        string // what is said at that stage
	}{
		{"pull", "services: {a: {image: '" + addr + "/slow:1'}}", nil, []string{"up", "-d"}, "Pulling"},
		{"create", many.String(), nil, []string{"up", "-d"}, "Creating"},
		{"start", many.String(), []string{"create"}, []string{"up", "-d"}, "Starting"},
		{"dependency", sick, nil, []string{"up", "-d"}, "Waiting"},
		{"wait", sick, nil, []string{"up", "-d", "--wait", "db"}, "Waiting"},
		{"stop", deaf, []string{"up", "-d"}, []string{"down"}, "Stopping"},
		{"logs", deaf, []string{"up", "-d"}, []string{"logs", "-f"}, "deaf"},
	} {
		for how, signals := range map[string][]syscall.Signal{
			"once": {syscall.SIGINT}, "term": {syscall.SIGTERM}, "twice": {syscall.SIGINT, syscall.SIGINT}, "killed": {syscall.SIGKILL},
		} {
			t.Run(c.name+"/"+how, func(t *testing.T) {
				a := compose(t, e, map[string]string{"compose.yaml": c.file})
				if c.before != nil {
					a.ok(t, c.before...)
				}
				said, code := a.interrupt(t, c.until, c.args, signals...)
				for again := 0; code == 0 && again < 10; again++ { // it had done all before the signal came to it
					a.ok(t, "down", "-v", "-t", "0")
					if c.before != nil {
						a.ok(t, c.before...)
					}
					said, code = a.interrupt(t, c.until, c.args, signals...)
				}
				// The second may come when the first has done its work.
				byOne, bySignal := code == 130, code == -1
				if len(signals) == 1 && signals[0] != syscall.SIGKILL && !byOne || !byOne && !bySignal {
					t.Errorf("exit code %d\n%s", code, said)
				}
				if strings.Contains(said, "signal received") {
					t.Errorf("what was given up is told as an error of the engine: %s", said)
				}
				if !byOne {
					// Nobody has waited for what the killed client had asked for: the engine
					// may still be about it.
					harness.Eventually(t, func() (bool, string) {
						a.ok(t, "down", "-v", "-t", "0")
						left := e.OK(t, "cleat", "volume", "ls", "-q", "--filter", "label=com.docker.compose.project="+a.name)
						return len(a.ids(t)) == 0 && left == "", left
					})
				}
				if strings.Contains(said, "context canceled") || strings.Contains(said, "error during connect") {
					t.Errorf("an interrupt is no error: %s", said)
				}
			})
		}
	}
}

// The engine gives up a pull whose client was interrupted. That it has asked the registry is waited for: what compose
// says of a pull comes before.
func TestComposePullInterrupted(t *testing.T) {
	addr, asked, gone := slowRegistry(t)
	a := compose(t, engine(t, "busybox"), map[string]string{"compose.yaml": "services: {a: {image: '" + addr + "/slow:1'}}"})
	up := harness.Begin(t, a.command(t, "up", "-d"))
	awaits := func(what chan struct{}, failure string) {
		select {
		case <-what:
		case <-time.After(harness.Patience):
			t.Fatalf("%s\n%s", failure, up)
		}
	}
	awaits(asked, "the registry is not asked")
	up.Signal(t, syscall.SIGINT)
	awaits(gone, "an interrupted pull goes on")
	if code := up.Exit(t); code != 130 {
		t.Errorf("exit code %d\n%s", code, up)
	}
}

// The second interrupt of an attached up kills what the first does not end.
func TestComposeAttachedInterruptedTwice(t *testing.T) {
	e := engine(t, "busybox")
	a := compose(t, e, map[string]string{"compose.yaml": "services:\n  deaf: {image: busybox, command: [sh, -c, \"trap '' TERM; echo deaf; while :; do sleep 1; done\"], stop_grace_period: 1000s}\n"})
	up := harness.Begin(t, a.command(t, "up"))
	up.Shows(t, "| deaf")
	up.Signal(t, syscall.SIGINT)
	up.Shows(t, "Stopping")
	up.Signal(t, syscall.SIGINT)
	if code := up.Exit(t); code != 130 {
		t.Errorf("exit code %d\n%s", code, up)
	}
	if got := a.ok(t, "ps", "-q"); got != "" {
		t.Errorf("still running: %s", got)
	}
}

// A build ends with who asked for it.
func TestComposeBuildInterrupted(t *testing.T) {
	long := strconv.Itoa(1000000 + os.Getpid()) // nobody else on this machine sleeps as long
	a := article(t, map[string]string{
		"compose.yaml": "services: {a: {build: .}}\n",
		"Dockerfile":   "FROM busybox\nRUN echo begun $((40+2)); sleep " + long + "\n",
	})
	for _, signals := range [][]syscall.Signal{{syscall.SIGINT}, {syscall.SIGINT, syscall.SIGINT}, {syscall.SIGKILL}} {
		said, code := a.interrupt(t, "begun 42", []string{"up", "-d", "--build"}, signals...)
		if code != 130 && code != -1 {
			t.Errorf("%v: exit code %d\n%s", signals, code, said)
		}
		harness.Eventually(t, func() (bool, string) {
			lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
			for _, l := range lines {
				if b, rerr := os.ReadFile(l); rerr == nil && string(b) == "sleep\x00"+long+"\x00" {
					return false, "the step goes on: " + l
				}
			}
			return err == nil, fmt.Sprint(err)
		})
	}
	if left := a.ids(t); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// interrupt runs a command of compose, signals it once it has said something, and waits for
// its end. The code is -1 of one that a signal has ended.
func (a *application) interrupt(t *testing.T, until string, args []string, signals ...syscall.Signal) (said string, code int) {
	t.Helper()
	s := harness.Begin(t, a.command(t, append([]string{"--progress", "plain"}, args...)...))
	s.Shows(t, until)
	for _, sig := range signals {
		s.Signal(t, sig)
	}
	code = s.Exit(t)
	return s.String(), code
}
