package runtime_test

import (
	"errors"
	"fmt"
	"os"
	goruntime "runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/runtime"
	"github.com/cleatlabs/cleat/test/expect"
)

// A process that has left its namespaces and waits for its children to go is none whose files can be opened.
func TestRootOfAProcessThatIsEnding(t *testing.T) {
	l := newLab(t)
	c := l.start(l.spec("sh", "-c", "sleep 1000 & echo ready; wait"))
	pid := c.Record().PID
	expect.Eventually(t, "ready", func() bool { return strings.Contains(c.stdoutSoFar(), "ready") })
	list, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	l.check(err)
	var child int
	_, err = fmt.Sscan(string(list), &child)
	l.check(err)
	goruntime.LockOSThread() // a traced process is its tracer's, a thread, to wait for
	defer goruntime.UnlockOSThread()
	l.check(unix.PtraceSeize(child))
	l.check(c.Signal(9))
	expect.Eventually(t, "no namespaces", func() bool { _, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", pid)); return err != nil })
	for what, open := range map[string]func() (int, error){"root": c.Root, "bare root": c.BareRoot} {
		if _, err := open(); !errors.Is(err, runtime.ErrNotRunning) {
			t.Errorf("%s: %v", what, err)
		}
	}
	select {
	case <-c.Done():
		t.Error("the process has ended before its child: the test shows nothing")
	default:
	}
	_, err = syscall.Wait4(child, nil, unix.WALL, nil)
	l.check(err)
	c.wait()
}
