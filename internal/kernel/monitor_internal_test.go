package kernel

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestTheMonitorIsRelaxed(t *testing.T) {
	slack := func(tid string) string {
		b, err := os.ReadFile(timerSlack(tid))
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(b))
	}
	monitor, err := monitorThread()
	if err != nil {
		t.Fatal(err)
	}
	before := slack(monitor)
	if err := RelaxMonitor(3 * time.Millisecond); err != nil {
		t.Fatal(err)
	}
	defer os.WriteFile(timerSlack(monitor), []byte(before), 0)
	if got := slack(monitor); got != "3000000" {
		t.Errorf("the monitor's timer slack is %s ns", got)
	}
	if got := slack(strconv.Itoa(os.Getpid())); got != before {
		t.Errorf("the first thread's timer slack is %s ns, not %s", got, before)
	}
}

// The monitor is told by its place among the threads. It is the only one that sleeps by itself while nothing goes on:
// whoever is in nanosleep while this test keeps a processor busy is it.
func TestTheMonitorIsTheSecondThread(t *testing.T) {
	monitor, err := monitorThread()
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		b, err := os.ReadFile("/proc/self/task/" + monitor + "/syscall")
		if err != nil {
			t.Fatal(err)
		}
		nr, _, _ := strings.Cut(string(b), " ")
		if nr == strconv.Itoa(unix.SYS_NANOSLEEP) {
			return
		}
	}
	t.Error("the thread taken for the runtime's monitor never slept")
}
