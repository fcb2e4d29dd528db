package runtime_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cleatlabs/cleat/internal/runtime"
	"golang.org/x/sys/unix"
)

// spares are the keepers of this process that wait for a program.
func spares(t *testing.T) (pids []int) {
	t.Helper()
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range lists {
		b, _ := os.ReadFile(list) // of a thread that has just ended
		for _, f := range strings.Fields(string(b)) {
			line, err := os.ReadFile("/proc/" + f + "/cmdline")
			if err != nil || !bytes.HasPrefix(line, []byte("cleat-keeper\x00spare\x00")) {
				continue
			}
			pid, err := strconv.Atoi(f)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}

// A start takes a keeper that waits already. Those that somebody has killed are passed over and made anew, and none
// stays when the runtime ends.
func TestSpareKeepers(t *testing.T) {
	l := newLab(t)
	wait := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("in vain: %s", what)
			}
		}
	}
	full := func() bool { return len(spares(t)) == 4 }
	wait("keepers are made ahead", full)
	// They are there a moment before the engine is told of them: one of the first starts may still come too early.
	wait("a start takes one that waits", func() bool {
		ready := spares(t)
		c := l.start(l.spec("true"))
		defer c.remove()
		c.wait()
		return slices.Contains(ready, c.Record().KeeperPID)
	})
	wait("what was taken is replaced", full)
	for _, pid := range spares(t) {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Error(err)
		}
	}
	wait("the killed ones have ended", func() bool { return len(spares(t)) == 0 }) // a zombie has no arguments
	for range 5 {
		c := l.start(l.spec("true"))
		if st := c.wait(); st.Code != 0 {
			t.Errorf("%+v", st)
		}
		c.remove()
	}
	wait("killed ones are replaced", full)
	second, err := runtime.New(l.c)
	l.check(err)
	wait("another engine's", func() bool { return len(spares(t)) == 8 })
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	wait("the end of one engine leaves the other's", full) // the kernel's list of children may miss some that are there
}
