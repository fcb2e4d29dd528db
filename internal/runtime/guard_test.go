package runtime_test

import (
	"fmt"
	"os"
	"path"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestGuard ends a guard as the end of the engine would, and holds that it waits for nothing else.
func TestGuard(t *testing.T) {
	l := newLab(t)
	parent := "/cleat-test-" + fmt.Sprint(os.Getpid()) + "/guarded"
	g, err := l.r.StartGuard(l.ctx(), parent)
	l.check(err)
	if g == nil {
		t.Skip("the kernel cannot kill a control group at once: cgroup v1 alone")
	}
	t.Cleanup(func() { l.check(l.c.Cgroups.RemoveMadeParent(parent)) }) // after that of what was started in it
	s := l.spec("sleep", "1000")
	s.CgroupPath = path.Join(parent, s.ID)
	inside := l.start(s)
	outside := l.start(l.spec("sleep", "1000"))
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP} {
		l.check(unix.Kill(g.PID(), sig))
	}
	select {
	case <-inside.Done():
		t.Fatal("the group was killed before the end")
	case <-time.After(20 * time.Millisecond):
	}
	l.check(g.Close())
	if st := inside.wait(); st.Signal != int(unix.SIGKILL) {
		t.Errorf("%+v", st)
	}
	select {
	case <-outside.Done():
		t.Error("a process outside of the group was killed")
	default:
	}
}
