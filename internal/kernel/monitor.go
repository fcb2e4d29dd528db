package kernel

import (
	"fmt"
	"os"
	"strconv"
	"time"
)

// RelaxMonitor lets the kernel put off each wake-up of the Go runtime's monitor by up to slack. While goroutines run,
// that thread looks after them every 20 µs, which the kernel makes 70: two switches of context each time, a tenth of
// the processor time that a container's short life or an exec takes. What it does there can wait for a millisecond: it
// gives the processor of a goroutine that is held up in a system call to another, and interrupts one that runs for 10
// ms. Threads that the monitor itself begins later have the same setting: they sleep for moments only, to leave each
// other work.
//
// It needs CAP_SYS_NICE; without that, or where the kernel lacks the setting, the error says so and all is as before.
func RelaxMonitor(slack time.Duration) error {
	tid, err := monitorThread()
	if err == nil {
		err = os.WriteFile(timerSlack(tid), []byte(strconv.FormatInt(slack.Nanoseconds(), 10)), 0)
	}
	if err != nil {
		return fmt.Errorf("timers of the runtime's monitor: %w", err)
	}
	return nil
}

// monitorThread finds the thread by its age: the runtime starts it before any other, and the kernel lists a process's
// threads in the order in which they began.
func monitorThread() (string, error) {
	dir, err := os.Open("/proc/self/task")
	if err != nil {
		return "", err
	}
	defer dir.Close()
	const first = 2 // the process's own, and the one it began first
	tids, err := dir.Readdirnames(first)
	if err != nil {
		return "", err
	}
	if len(tids) < first {
		return "", fmt.Errorf("the process has %d thread", len(tids))
	}
	return tids[1], nil
}

// timerSlack is below the thread's own directory, which is in no list of /proc: a process's has the setting of its
// first thread.
func timerSlack(tid string) string { return "/proc/" + tid + "/timerslack_ns" }
