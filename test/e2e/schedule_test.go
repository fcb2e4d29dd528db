package e2e

import (
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/test/harness"
)

// TestTimeSlices: the engine works in short slices of processor time, where the kernel has them, and the processes of
// containers, whichever way they are made, in the same as all others.
func TestTimeSlices(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	slice := func(pid int) uint64 {
		a, err := unix.SchedGetAttr(pid, 0)
		if err != nil {
			t.Fatal(err)
		}
		return a.Runtime
	}
	own := slice(0)
	if own == 0 {
		t.Log("this kernel has one slice for all") // then they must be equal all the same
	} else if got := slice(e.PID()); got >= own {
		t.Errorf("the engine's slice is %d ns, others' %d ns", got, own)
	}
	pids := map[string]int{}
	x := &execs{t, e.Client(t)}
	for name, flags := range map[string][]string{"plain": nil, "init": {"--init"}, "terminal": {"-t"}, "privileged": {"--privileged"}} {
		e.OK(t, "docker", append(append([]string{"run", "-d", "--name", name}, flags...), "busybox", "sleep", "100000")...)
		pid, err := strconv.Atoi(e.OK(t, "docker", "inspect", "-f", "{{.State.Pid}}", name))
		if err != nil {
			t.Fatal(err)
		}
		pids[name], pids[name+"'s exec"] = pid, x.inspect(x.detached(name, false, "sleep", "100000")).PID
	}
	init := strconv.Itoa(pids["init"])
	harness.Eventually(t, func() (bool, string) { // it has begun, and starts its command
		children := readFile("/proc/" + init + "/task/" + init + "/children")
		var err error
		pids["init's command"], err = strconv.Atoi(children)
		return err == nil, "init's children: " + children
	})
	for name, pid := range pids {
		if got := slice(pid); got != own {
			t.Errorf("%s has a slice of %d ns, others %d ns", name, got, own)
		}
	}
}
