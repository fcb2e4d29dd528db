package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cleatlabs/cleat/test/harness"
)

// startBuild starts a build that a test looks at or interrupts. Docker's command passes an interrupt on to its plugin only
// at a terminal; to its process group it comes as from the keyboard.
func startBuild(t *testing.T, e *harness.Engine, dir string, args ...string) *harness.Session {
	t.Helper()
	cmd := e.Command(t, "docker", append(append([]string{"build"}, args...), ".")...)
	cmd.Dir = dir
	cmd.Env = append(cmd.Env, "BUILDKIT_PROGRESS=plain")
	return harness.Begin(t, cmd)
}

// fails waits for the end of a build, which must be with a failure, and returns what it has said.
func fails(t *testing.T, b *harness.Session) string {
	t.Helper()
	if b.Exit(t) == 0 {
		t.Errorf("the client reports success: %s", b)
	}
	return b.String()
}

// running lists the processes whose command line holds text.
func running(text string) []string {
	var found []string
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		line, _ := os.ReadFile(d + "/cmdline")
		if l := string(bytes.ReplaceAll(line, []byte{0}, []byte{' '})); strings.Contains(l, text) && !strings.Contains(l, "docker") && !strings.Contains(l, "cleat") {
			found = append(found, filepath.Base(d)+" "+l)
		}
	}
	return found
}

// slowHub is Docker Hub with blobs that do not come before release is called. The
// channel tells each time that one is asked for.
func slowHub(t *testing.T) (addr string, asked <-chan struct{}, release func()) {
	t.Helper()
	to, err := url.Parse("http://" + dockerHub(t).Addr)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(to)
	open, seen := make(chan struct{}), make(chan struct{}, 1)
	once := sync.OnceFunc(func() { close(open) })
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/blobs/") && r.Method == http.MethodGet {
			select {
			case seen <- struct{}{}:
			default:
			}
			select {
			case <-open:
			case <-r.Context().Done():
				return
			}
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { once(); s.CloseClientConnections(); s.Close() })
	return s.Listener.Addr().String(), seen, once
}

// aPhase is a point in a build at which it is interrupted.
type aPhase struct {
	name  string
	files files
	args  []string
	at    string // what the log says then
	step  string // a step done before, which must come from the cache afterwards
	// beside says that the step is not certain to be done by then: it is built before.
	beside bool
	after  []string
}

func phases(mark string) []aPhase {
	return []aPhase{
		{name: "a step", files: dockerfile("FROM busybox AS base\nRUN echo first >/first\nFROM base\nARG SLEEP=" + mark + "\nRUN echo under way; sleep $SLEEP\n"), at: "under way", step: "RUN echo first", after: []string{"--build-arg", "SLEEP=0"}},
		{name: "two steps and a lock", files: dockerfile("FROM busybox AS base\nRUN echo first >/first\nFROM base AS a\nARG SLEEP=" + mark + "\nRUN --mount=type=cache,target=/c,sharing=locked echo under way; sleep $SLEEP; touch /x\nFROM busybox AS b\nARG SLEEP=" + mark +
			"\nRUN --mount=type=cache,target=/c,sharing=locked echo under way; sleep $SLEEP; touch /y\nFROM a\nCOPY --from=b /y /y\nCOPY --from=a /x /x\n"), at: "under way", step: "RUN echo first", beside: true, after: []string{"--build-arg", "SLEEP=0"}},
		{name: "a step that ignores signals", files: dockerfile("FROM busybox\nARG SLEEP=" + mark + "\nRUN trap '' INT TERM HUP; (trap '' INT TERM HUP; sleep $SLEEP) & echo under way; sleep $SLEEP\n"), at: "under way", after: []string{"--build-arg", "SLEEP=0"}},
		{name: "the transfer of the context", files: files{"Dockerfile": "FROM busybox AS base\nRUN echo first >/first\nFROM base\nCOPY . /c\n", "big": "SPARSE"}, at: "transferring context", step: "RUN echo first", beside: true},
		{name: "the export", files: files{"Dockerfile": "FROM busybox AS base\nRUN echo first >/first\nFROM base\nRUN dd if=/dev/urandom of=/big bs=1M count=150 2>/dev/null\nRUN dd if=/dev/urandom of=/big2 bs=1M count=50 2>/dev/null\n"}, at: "exporting", step: "RUN echo first"},
	}
}

// lay writes the phase's context; "SPARSE" stands for a large file without content.
func (p aPhase) lay(t *testing.T) string {
	t.Helper()
	dir := project(t, p.files)
	for n, text := range p.files {
		if text == "SPARSE" {
			if err := os.Truncate(filepath.Join(dir, n), 4<<30); err != nil { // which nobody lets come to its end
				t.Fatal(err)
			}
		}
	}
	return dir
}

// before builds what the cache must still have when the build has been interrupted.
func (p aPhase) before(t *testing.T, e *harness.Engine, dir string) {
	t.Helper()
	if p.beside {
		build(t, e, "docker", dir, "--target", "base", "-o", "type=cacheonly")
	}
}

// again builds once more, to the end, on what the interrupted build has left.
func (p aPhase) again(t *testing.T, e *harness.Engine, dir, tag string) {
	t.Helper()
	if _, ok := p.files["big"]; ok {
		if err := os.Truncate(filepath.Join(dir, "big"), 1<<10); err != nil {
			t.Fatal(err)
		}
	}
	log := build(t, e, "docker", dir, append(append([]string{"-t", tag}, p.args...), p.after...)...)
	if p.step != "" && !log.cached(t, p.step) {
		t.Errorf("%q was lost:\n%s", p.step, log)
	}
	e.OK(t, "docker", "run", "--rm", tag, "true")
}

// TestBuildInterrupted: Ctrl-C ends the client and what it had the engine do, and
// leaves the cache as it was.
func TestBuildInterrupted(t *testing.T) {
	e := builder(t)
	mark := fmt.Sprint(80000 + os.Getpid())
	for _, p := range phases(mark) {
		t.Run(p.name, func(t *testing.T) {
			dir := p.lay(t)
			tag := "stopped-" + strings.ReplaceAll(p.name, " ", "-")
			dropImages(t, e, tag)
			p.before(t, e, dir)
			b := startBuild(t, e, dir, append([]string{"-t", tag}, p.args...)...)
			b.Shows(t, p.at)
			b.Signal(t, syscall.SIGINT)
			if p.at != "exporting" { // which may be over already
				if said := fails(t, b); !strings.Contains(said, "cancel") {
					t.Errorf("no word of the interruption: %s", said)
				}
			} else {
				<-b.Ended
			}
			harness.Eventually(t, func() (bool, string) {
				left := running("sleep " + mark)
				return len(left) == 0, fmt.Sprint("still running: ", left)
			})
			p.again(t, e, dir, tag)
		})
	}
}

// TestBuildInterruptedInAPull: the base image's layers never come.
func TestBuildInterruptedInAPull(t *testing.T) {
	addr, asked, release := slowHub(t)
	e := harness.New(t, harness.Options{Args: []string{"--registry-mirror", "http://" + addr}})
	e.UseBuildx(t)
	e.Run(t)
	t.Cleanup(func() { e.Destroy(t) })
	dir := project(t, dockerfile("FROM busybox\nRUN echo made >/made\n"))
	b := startBuild(t, e, dir)
	<-asked
	b.Signal(t, syscall.SIGINT)
	fails(t, b)
	b = startBuild(t, e, dir)
	<-asked
	e.Kill()
	fails(t, b)
	release()
	e.Run(t)
	build(t, e, "docker", dir, "-t", "pulled")
	agrees(t, e)
}

// TestBuildKilled: kill -9 of the engine in every phase. The client says so, no step
// runs on, nothing is left, and what was done before is still in the cache.
func TestBuildKilled(t *testing.T) {
	e := ownBuilder(t)
	build(t, e, "docker", project(t, dockerfile("FROM busybox\nRUN true\n")), "-o", "type=cacheonly") // what every engine that builds has
	mark := fmt.Sprint(180000 + os.Getpid())
	for _, p := range phases(mark) {
		t.Run(p.name, func(t *testing.T) {
			dir := p.lay(t)
			tag := "killed-" + strings.ReplaceAll(p.name, " ", "-")
			p.before(t, e, dir)
			before, err := harness.Take()
			if err != nil {
				t.Fatal(err)
			}
			b := startBuild(t, e, dir, append([]string{"-t", tag}, p.args...)...)
			b.Shows(t, p.at)
			e.Kill()
			// An export may be over already.
			if code := b.Exit(t); p.at != "exporting" && code == 0 || code != 0 && !strings.Contains(b.String(), "ERROR") {
				t.Errorf("the client ends with %d, and no error: %s", code, b)
			}
			harness.Eventually(t, func() (bool, string) {
				left := running("sleep " + mark)
				return len(left) == 0, fmt.Sprint("still running: ", left)
			})
			e.Run(t)
			p.again(t, e, dir, tag)
			e.OK(t, "docker", "rmi", tag)
			agrees(t, e)
			harness.Eventually(t, func() (bool, string) {
				now, err := harness.Take()
				if err != nil {
					return false, err.Error()
				}
				var left []string
				for _, l := range before.Left(now) { // other tests of this machine come and go
					if strings.Contains(l, e.Dir) || strings.Contains(l, e.ExecRoot) || strings.Contains(l, e.CgroupParent) {
						if !strings.Contains(l, "process ") { // the engine, which was started anew
							left = append(left, l)
						}
					}
				}
				return len(left) == 0, strings.Join(left, "\n")
			})
		})
	}
}

// TestBuildKilledAmongSteps: the engine is killed as soon as the process of a step shows
// that the steps before it are done. None of those is done again.
func TestBuildKilledAmongSteps(t *testing.T) {
	e := ownBuilder(t)
	for done := 1; done <= 4; done++ {
		mark := fmt.Sprintf("%d%d", 400000+os.Getpid(), done)
		text := "FROM busybox\n"
		for i := range done {
			text += fmt.Sprintf("RUN echo %s >/step%d\n", mark, i)
		}
		dir := project(t, dockerfile(text+"ARG SLEEP="+mark+"\nRUN sleep $SLEEP\n"))
		b := startBuild(t, e, dir)
		harness.Eventually(t, func() (bool, string) { return processOf(t, e, "sleep\x00"+mark) != 0, b.String() })
		e.Kill()
		fails(t, b)
		e.Run(t)
		log := build(t, e, "docker", dir, "--build-arg", "SLEEP=0", "-o", "type=cacheonly")
		for i := range done {
			if step := fmt.Sprintf(">/step%d", i); !log.cached(t, step) {
				t.Errorf("%q was done when the engine was killed, and was lost:\n%s", step, log)
			}
		}
	}
	agrees(t, e)
}

// TestBuildKilledAmongFiles: the engine is killed when some of the files that have changed
// since the last build have come. The next build does not take them for what they were.
func TestBuildKilledAmongFiles(t *testing.T) {
	e := ownBuilder(t)
	dropImages(t, e, "files")
	dir := project(t, files{"Dockerfile": "FROM busybox\nCOPY a /a\nCOPY . /all\n", "a": "one\n"})
	build(t, e, "docker", dir, "-t", "files")
	files{"a": "two\n", "big": ""}.write(t, dir)
	if err := os.Truncate(filepath.Join(dir, "big"), 2<<30); err != nil {
		t.Fatal(err)
	}
	b := startBuild(t, e, dir, "-t", "files")
	harness.Eventually(t, func() (bool, string) {
		return regexp.MustCompile(`transferring context: [0-9.]+[MG]B`).MatchString(b.String()), b.String()
	})
	e.Kill()
	fails(t, b)
	e.Run(t)
	if err := os.Remove(filepath.Join(dir, "big")); err != nil {
		t.Fatal(err)
	}
	build(t, e, "docker", dir, "-t", "files")
	if got := e.OK(t, "docker", "run", "--rm", "files", "cat", "/a", "/all/a"); got != "two\ntwo" {
		t.Errorf("the image holds %q", got)
	}
	agrees(t, e)
}

// TestBuildAfterACrashOfTheMachine: what was not on the disk is done again, what was is
// not, and a container that was made meanwhile starts. The crash is a kill after which the
// engine is made to believe in another boot, and to find a file empty.
func TestBuildAfterACrashOfTheMachine(t *testing.T) {
	e := ownBuilder(t)
	mark := fmt.Sprint(500000 + os.Getpid())
	early := project(t, dockerfile("FROM busybox\nRUN echo early "+mark+" >/early\n"))
	build(t, e, "docker", early, "-o", "type=cacheonly")
	note := filepath.Join(e.DataRoot, "build", "aftermath.json")
	var last struct {
		Boot    string
		Settled time.Time
		Open    bool
	}
	built := time.Now()
	harness.Eventually(t, func() (bool, string) {
		text, err := os.ReadFile(note)
		if err == nil {
			err = json.Unmarshal(text, &last)
		}
		return err == nil && last.Settled.After(built), fmt.Sprintf("%s, %v", text, err)
	})
	var late, content string
	for attempt := 1; ; attempt++ {
		content = fmt.Sprintf("late %s-%d", mark, attempt)
		late = project(t, dockerfile("FROM busybox\nRUN echo "+content+" >/late\nRUN sleep 0\n"))
		began := time.Now()
		build(t, e, "docker", late, "-o", "type=cacheonly")
		e.OK(t, "docker", "create", "--name", "survivor", "busybox", "true")
		e.Kill()
		if text, err := os.ReadFile(note); err != nil || json.Unmarshal(text, &last) != nil || !last.Open {
			t.Fatalf("%s, %v", text, err)
		}
		if last.Settled.Before(began) {
			break
		}
		if attempt == 20 {
			t.Fatal("what is built is on the disk before the engine can be killed")
		}
		e.Run(t) // the clients were so slow that the engine had the time to sync
		e.OK(t, "docker", "rm", "survivor")
	}
	boot := last.Boot
	last.Boot = "another"
	text, err := json.Marshal(last)
	if err == nil {
		err = os.WriteFile(note, text, 0o600)
	}
	copies, _ := filepath.Glob(filepath.Join(e.DataRoot, "*", "*.before-"+boot))
	for _, c := range copies {
		err = errors.Join(err, os.Rename(c, strings.TrimSuffix(c, boot)+"another"))
	}
	written, _ := filepath.Glob(filepath.Join(e.DataRoot, "*/snapshots/snapshots/*/fs/late"))
	written = slices.DeleteFunc(written, func(file string) bool { return readFile(file) != content })
	if err != nil || len(written) != 1 {
		t.Fatal(written, copies, err)
	}
	if err := os.Truncate(written[0], 0); err != nil {
		t.Fatal(err)
	}
	e.Run(t)
	e.OK(t, "docker", "start", "-a", "survivor")
	e.OK(t, "docker", "rm", "survivor")
	dropImages(t, e, "after-crash")
	build(t, e, "docker", late, "-t", "after-crash")
	if got := e.OK(t, "docker", "run", "--rm", "after-crash", "cat", "/late"); got != content {
		t.Errorf("the image holds %q", got)
	}
	if log := build(t, e, "docker", early, "-o", "type=cacheonly"); !log.cached(t, "echo early") {
		t.Errorf("what was on the disk was done again:\n%s", log)
	}
	agrees(t, e)
}

// TestBuildSurvivesItsClient: a client that is killed takes its build with it.
func TestBuildSurvivesItsClient(t *testing.T) {
	e := builder(t)
	mark := fmt.Sprint(280000 + os.Getpid())
	b := startBuild(t, e, project(t, dockerfile("FROM busybox\nRUN echo under way; sleep "+mark+"\n")))
	b.Shows(t, "under way")
	b.Signal(t, syscall.SIGKILL)
	fails(t, b)
	harness.Eventually(t, func() (bool, string) {
		left := running("sleep " + mark)
		return len(left) == 0, fmt.Sprint("still running: ", left)
	})
}

// TestEngineStopsWhileItBuilds: SIGTERM ends builds; it does not wait for them.
func TestEngineStopsWhileItBuilds(t *testing.T) {
	e := ownBuilder(t)
	mark := fmt.Sprint(380000 + os.Getpid())
	b := startBuild(t, e, project(t, dockerfile("FROM busybox\nRUN echo under way; sleep "+mark+"\n")))
	b.Shows(t, "under way")
	e.Stop(t)
	fails(t, b)
	harness.Eventually(t, func() (bool, string) { // what is killed has no command line left a moment later
		left := running("sleep " + mark)
		return len(left) == 0, fmt.Sprint("still running: ", left)
	})
}

// agrees waits until fsck finds nothing: some things go away in the background.
func agrees(t *testing.T, e *harness.Engine) {
	t.Helper()
	harness.Eventually(t, func() (bool, string) {
		out, err := e.Debug(t, "fsck")
		return err == nil, out
	})
}

// TestBuildInterruptedTwice: the second Ctrl-C ends the client at once, also if the engine answers nothing any more.
func TestBuildInterruptedTwice(t *testing.T) {
	e := ownBuilder(t)
	dir := project(t, dockerfile("FROM busybox\nRUN echo wai''ting; sleep 1000\n"))
	b := harness.Begin(t, e.Command(t, "cleat", "build", "--progress", "plain", dir))
	b.Shows(t, "waiting")
	if err := syscall.Kill(e.PID(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Kill(e.PID(), syscall.SIGCONT); err != nil {
			t.Error(err)
		}
	}()
	harness.Eventually(t, func() (bool, string) {
		b.Signal(t, syscall.SIGINT) // signals that come close together are one
		select {
		case <-b.Ended:
			return true, ""
		default:
			return false, b.String()
		}
	})
	if code := b.Exit(t); code != 130 {
		t.Errorf("it ends with %d: %s", code, b)
	}
}
