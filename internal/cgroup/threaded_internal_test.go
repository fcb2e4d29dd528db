package cgroup

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/test/expect"
)

// TestGroupsOfThreads: what runs in a container may divide its threads among groups, as libvirt does. Their file of
// processes cannot be read.
func TestGroupsOfThreads(t *testing.T) {
	h, err := Detect()
	if err != nil || h.unified == "" {
		t.Skip("this host has no unified hierarchy", err)
	}
	dir := filepath.Join(h.unified, "cleat-threads-"+strconv.Itoa(os.Getpid()))
	threads := filepath.Join(dir, "threads")
	if err := errors.Join(os.Mkdir(dir, 0o755), os.Mkdir(threads, 0o755)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		for _, d := range []string{threads, dir} {
			expect.Eventually(t, d+" is removed", func() bool { return os.Remove(d) == nil })
		}
	})
	pid := strconv.Itoa(cmd.Process.Pid)
	if err := errors.Join(writeFile(threads, "cgroup.type", "threaded"), writeFile(dir, "cgroup.procs", pid), writeFile(threads, "cgroup.threads", pid)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.ReadFile(filepath.Join(threads, "cgroup.procs")); !errors.Is(err, unix.EOPNOTSUPP) {
		t.Fatalf("the kernel tells of a group's processes: %v", err)
	}
	if pids, err := procsBelow(dir); err != nil || !slices.Equal(pids, []int{cmd.Process.Pid}) {
		t.Errorf("the processes are %v, %v; wanted %s", pids, err, pid)
	}
}
