// Package e2e drives a real engine through its public doors: the real docker
// command, our own client, the official Go client, and real programs in images.
package e2e

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/test/harness"
)

// clients are the command lines that every behaviour is tried with.
var clients = []string{"docker", "cleat"}

var shared struct {
	sync.Mutex
	engine *harness.Engine
	loaded map[string]bool

	builder *harness.Engine // of the tests that build, with
	hub     *harness.Registry
}

// TestMain checks at the end that the machine is as it was: whatever the suite
// left behind is a failure of the engine or of the suite.
func TestMain(m *testing.M) {
	before, err := harness.Take()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	for _, e := range []*harness.Engine{shared.engine, shared.builder} {
		if e == nil {
			continue
		}
		if failures := harness.Final(e.Destroy); len(failures) > 0 {
			fmt.Fprintln(os.Stderr, strings.Join(failures, "\n"))
			code = 1
		}
	}
	if shared.hub != nil {
		shared.hub.Stop()
	}
	if !before["mount "+namedNetns] {
		forgetNamedNetns()
	}
	if left := before.Leftovers(); len(left) > 0 {
		fmt.Fprintf(os.Stderr, "FAIL: the suite left behind:\n  %s\n", strings.Join(left, "\n  "))
		code = 1
	}
	os.Exit(code)
}

// namedNetns is where ip keeps network namespaces with a name.
const namedNetns = "/run/netns"

// forgetNamedNetns takes off the mount that ip makes of its directory with the first namespace and never takes off. It
// stays while somebody has a namespace there.
func forgetNamedNetns() {
	if names, err := os.ReadDir(namedNetns); err != nil || len(names) > 0 {
		return
	}
	if err := unix.Unmount(namedNetns, unix.MNT_DETACH); err == nil {
		_ = os.Remove(namedNetns) // it is in the way of nobody
	}
}

// engine returns the engine that tests share when they do not stop or break it,
// with the named images loaded. Containers are the test's own to remove.
func engine(t *testing.T, images ...string) *harness.Engine {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.engine == nil {
		e := harness.New(t, harness.Options{})
		e.Run(t)
		shared.engine, shared.loaded = e, map[string]bool{}
	}
	for _, i := range images {
		if !shared.loaded[i] {
			shared.engine.Load(t, i)
			shared.loaded[i] = true
		}
	}
	return shared.engine
}

// each runs f once with every client, as subtests.
func each(t *testing.T, f func(t *testing.T, program string)) {
	for _, p := range clients {
		t.Run(p, func(t *testing.T) { f(t, p) })
	}
}

// remove takes the named containers away at the end of the test, if they are still there.
func remove(t *testing.T, e *harness.Engine, names ...string) {
	t.Cleanup(func() {
		for _, n := range names {
			r := e.Cleat(t, "rm", "-f", "-v", n)
			if r.Code != 0 && !strings.Contains(r.Stderr, "No such container") && !strings.Contains(r.Stderr, "is already in progress") { // --rm goes on
				t.Errorf("cleanup: %s", r)
			}
		}
	})
}

// name makes a container name that no other test uses.
func name(t *testing.T) string {
	return strings.ToLower(strings.NewReplacer("/", "-", "#", "-", ":", "-").Replace(t.Name()))
}

// now is this instant for --since and --until: the clients cut "0s" to whole
// seconds, which may lie before what has just happened.
func now() string {
	at := time.Now()
	return fmt.Sprintf("%d.%09d", at.Unix(), at.Nanosecond())
}
