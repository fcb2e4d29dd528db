package runtime

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Orphans are collected that end one after the other, also those that end while the engine drops SIGCHLD.
func TestOrphansAreCollected(t *testing.T) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	r := startReaper(200 * time.Millisecond)
	defer r.stop()
	orphan := func(life string) (pid int) {
		t.Helper()
		out, err := exec.Command("sh", "-c", "sleep "+life+" >/dev/null & echo $!").Output()
		if err != nil {
			t.Fatal(err)
		}
		if pid, err = strconv.Atoi(strings.TrimSpace(string(out))); err != nil {
			t.Fatal(err)
		}
		return pid
	}
	gone := func(pid int) {
		t.Helper()
		for range 6000 {
			if _, err := os.Stat("/proc/" + strconv.Itoa(pid)); err != nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Fatalf("orphan %d was not collected", pid)
	}
	for _, pid := range []int{orphan("0"), orphan("0.1")} {
		gone(pid)
	}
	gone(orphan("0")) // SIGCHLD is told again
}
