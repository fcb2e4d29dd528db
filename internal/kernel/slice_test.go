package kernel_test

import (
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/kernel"
)

// All threads have short slices then, and their children; what is returned takes them back. It is tried in a process of
// its own: it is for good.
func TestShortenSlices(t *testing.T) {
	const slice = 300 * time.Microsecond
	if os.Getenv("CLEAT_TEST_SLICES") == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestShortenSlices$", "-test.v")
		cmd.Env = append(os.Environ(), "CLEAT_TEST_SLICES=yes")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	before := sliceOf(t, 0)
	usual, err := kernel.ShortenSlices(slice)
	if err != nil {
		t.Fatal(err)
	}
	if usual == nil {
		if before != 0 {
			t.Errorf("this kernel tells a slice of %v, but has not taken another", before)
		}
		t.Log("this kernel has no slices of processes' own")
		return
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil || len(threads) < 2 {
		t.Fatalf("threads: %v, %v", threads, err)
	}
	for _, e := range threads {
		if tid, _ := strconv.Atoi(e.Name()); sliceOf(t, tid) != slice {
			t.Errorf("thread %s has %v", e.Name(), sliceOf(t, tid))
		}
	}
	child := exec.Command("sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer child.Wait()
	defer child.Process.Kill()
	if got := sliceOf(t, child.Process.Pid); got != slice {
		t.Errorf("a child has %v", got)
	}
	if err := unix.SchedSetAttr(child.Process.Pid, usual, 0); err != nil {
		t.Fatal(err)
	}
	if got := sliceOf(t, child.Process.Pid); got != before {
		t.Errorf("a child that is like others has %v, they have %v", got, before)
	}
}

func sliceOf(t *testing.T, pid int) time.Duration {
	a, err := unix.SchedGetAttr(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(a.Runtime)
}
