package runtime

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/cleatlabs/cleat/internal/keeper"
	"golang.org/x/sys/unix"
)

// Reaction is what a process can do about a signal.
type Reaction int

const (
	// MayReact: the process may react to it, or that cannot be told.
	MayReact Reaction = iota
	// Unsettled: nothing says that it may, but a thread is running, perhaps on its way to wait for the signal. To be
	// asked again.
	Unsettled
	// Deaf: the signal will do nothing, whatever time passes.
	Deaf
)

// StopHint says whether the process may react to signal sig. Deaf is the first process of its PID namespace, which the
// kernel shields from signals that it has no handler for, if none of its threads catches or blocks the signal (to fetch
// it later, by signalfd or sigwait) or sits in sigtimedwait, which waits for signals under a mask that the kernel does
// not show. In doubt it may react.
func (p *Process) StopHint(sig int) Reaction {
	if sig < 1 || sig > 64 {
		return MayReact
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pidfd < 0 {
		return MayReact
	}
	r, err := reactionOf(p.rec.PID, sig)
	// By number: what was read counts only if the process is still there.
	if err != nil || keeper.Exited(p.pidfd) {
		return MayReact
	}
	return r
}

func reactionOf(pid, sig int) (Reaction, error) {
	dir := fmt.Sprintf("/proc/%d/task", pid)
	tasks, err := os.ReadDir(dir)
	if err != nil {
		return MayReact, err
	}
	r := Deaf
	for i, t := range tasks {
		status, err := os.ReadFile(dir + "/" + t.Name() + "/status")
		if err != nil {
			return MayReact, err
		}
		if i == 0 && !firstOfNamespace(string(status)) {
			return MayReact, nil
		}
		if maskHas(string(status), "SigCgt:", sig) || maskHas(string(status), "SigBlk:", sig) {
			return MayReact, nil
		}
		switch waits, err := waitsForSignals(dir + "/" + t.Name()); {
		case err != nil || waits == MayReact:
			return MayReact, err
		case waits == Unsettled:
			r = Unsettled
		}
	}
	return r, nil
}

// firstOfNamespace says whether the process is PID 1 of its innermost namespace, and that is not the only one.
func firstOfNamespace(status string) bool {
	for _, line := range strings.Split(status, "\n") {
		if v, ok := strings.CutPrefix(line, "NSpid:"); ok {
			f := strings.Fields(v)
			return len(f) > 1 && f[len(f)-1] == "1"
		}
	}
	return false
}

// maskHas looks a signal up in a mask of /proc/PID/status; a mask that cannot be read has it.
func maskHas(status, field string, sig int) bool {
	for _, line := range strings.Split(status, "\n") {
		if v, ok := strings.CutPrefix(line, field); ok {
			mask, err := strconv.ParseUint(strings.TrimSpace(v), 16, 64)
			return err != nil || mask>>(sig-1)&1 != 0
		}
	}
	return true
}

// waitsForSignals says whether a thread is in rt_sigtimedwait. While it waits there the signals it waits for are not in
// its masks.
func waitsForSignals(task string) (Reaction, error) {
	b, err := os.ReadFile(task + "/syscall")
	if err != nil {
		return MayReact, err
	}
	f := strings.Fields(string(b))
	if len(f) == 0 {
		return MayReact, nil
	}
	if f[0] == "running" {
		return Unsettled, nil
	}
	nr, err := strconv.ParseInt(f[0], 10, 64)
	if err != nil {
		return MayReact, err
	}
	if nr == unix.SYS_RT_SIGTIMEDWAIT || nr == compatSigtimedwait || nr == compatSigtimedwait64 {
		return MayReact, nil
	}
	return Deaf, nil
}

// Numbers of the call in 32-bit programs: a 64-bit program has other, harmless calls under them (personality-related
// and new ones), for which the cautious answer costs nothing but time.
const (
	compatSigtimedwait   = 177
	compatSigtimedwait64 = 421
)
