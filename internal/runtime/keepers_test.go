package runtime_test

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/runtime"
	"github.com/cleatlabs/cleat/test/expect"
	"github.com/cleatlabs/cleat/test/harness"
)

// spares are the keepers of this process that wait for a program.
func spares(t *testing.T) []int { return harness.Children(t, "cleat-keeper", "spare") }

// A start takes a keeper that waits already. Those that somebody has killed are passed over and made anew, and none
// stays when the runtime ends.
func TestSpareKeepers(t *testing.T) {
	l := newLab(t)
	full := func() bool { return len(spares(t)) == 4 }
	expect.Eventually(t, "keepers are made ahead", full)
	// They are there a moment before the engine is told of them: one of the first starts may still come too early.
	expect.Eventually(t, "a start takes one that waits", func() bool {
		ready := spares(t)
		c := l.start(l.spec("true"))
		defer c.remove()
		c.wait()
		return slices.Contains(ready, c.Record().KeeperPID)
	})
	expect.Eventually(t, "what was taken is replaced", full)
	for _, pid := range spares(t) {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Error(err)
		}
	}
	expect.Eventually(t, "the killed ones have ended", func() bool { return len(spares(t)) == 0 }) // a zombie has no arguments
	for range 5 {
		c := l.start(l.spec("true"))
		if st := c.wait(); st.Code != 0 {
			t.Errorf("%+v", st)
		}
		c.remove()
	}
	expect.Eventually(t, "killed ones are replaced", full)
	second, err := runtime.New(l.c)
	l.check(err)
	expect.Eventually(t, "another engine's", func() bool { return len(spares(t)) == 8 })
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	expect.Eventually(t, "the end of one engine leaves the other's", full) // the kernel's list of children may miss some that are there
}
