package kernel

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// ShortenSlices has the scheduler give processor time in slices of d, 0.1 ms to 100 ms, to the threads of the calling
// process and to the threads and processes that these make from now on: not more of it, but sooner, as what is awake
// and has a shorter slice need not wait until another has used its own up. It is meant to be called once, early.
//
// It returns how others are scheduled (see unix.SchedSetAttr), for processes that are to be like them; nil if nothing
// has changed: the kernel is older than 6.12, or somebody has given the process a scheduling policy of its own.
func ShortenSlices(d time.Duration) (usual *unix.SchedAttr, err error) {
	own, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		return nil, fmt.Errorf("reading the own scheduling attributes: %w", err)
	}
	if own.Policy != unix.SCHED_NORMAL {
		return nil, nil
	}
	short := *own
	short.Runtime = uint64(d)
	// A thread that is made meanwhile has the slice of the one that makes it.
	for changed := true; changed; {
		if changed, err = shortenThreads(&short); err != nil {
			return nil, err
		}
	}
	if now, err := unix.SchedGetAttr(0, 0); err != nil || now.Runtime != short.Runtime {
		return nil, err // an older kernel, which has ignored it
	}
	return &unix.SchedAttr{Size: unix.SizeofSchedAttr, Nice: own.Nice}, nil
}

// shortenThreads reports whether there was a thread that did not have the slice and has it now.
func shortenThreads(short *unix.SchedAttr) (changed bool, err error) {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return false, fmt.Errorf("reading the own threads: %w", err)
	}
	for _, t := range threads {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
		if a, err := unix.SchedGetAttr(tid, 0); err != nil || a.Runtime == short.Runtime {
			continue // it has ended, or is done
		}
		err = unix.SchedSetAttr(tid, short, 0)
		if err != nil && err != unix.ESRCH {
			return false, fmt.Errorf("setting the scheduling slice: %w", err)
		}
		if a, gerr := unix.SchedGetAttr(tid, 0); err == nil && gerr == nil && a.Runtime == short.Runtime {
			changed = true
		}
	}
	return changed, nil
}
