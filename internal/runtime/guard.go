package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/cleatlabs/cleat/internal/keeper"
	"github.com/cleatlabs/cleat/internal/launch"
	"golang.org/x/sys/unix"
)

// A Guard is a small process that kills a control group when this engine ends, in whatever way: for processes that are
// of no use without it.
//
// A parent-death signal would not do: it is bound to the thread that forked, it is lost with an execve of a set-uid
// program, and who gets it may refuse it. The guard only waits for the end of a pipe whose other end the engine alone
// has.
type Guard struct {
	pid   int
	pidfd int
	alive *os.File // the pipe's end whose closing the guard waits for
}

// StartGuard makes the control group at path, if it is missing, and has it guarded. Where the kernel cannot kill a
// group at once (cgroup v1 without the unified hierarchy beside it) it returns nil, and nothing is guarded: who needs
// it looks for leftovers at the next start.
func (r *Runtime) StartGuard(ctx context.Context, path string) (*Guard, error) {
	if r.c.Cgroups == nil {
		return nil, nil
	}
	kill, err := r.c.Cgroups.OpenKill(path)
	if err != nil || kill < 0 {
		return nil, err
	}
	defer unix.Close(kill)
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("guarding %s: %w", path, err)
	}
	defer unix.Close(ends[0])
	g := &Guard{pidfd: -1, alive: os.NewFile(uintptr(ends[1]), "guard")}
	if err := g.start(ctx, r, ends[0], kill); err != nil {
		return nil, errors.Join(fmt.Errorf("guarding %s: %w", path, err), g.Close())
	}
	return g, nil
}

func (g *Guard) start(ctx context.Context, r *Runtime, alive, kill int) error {
	pl := r.newPlan()
	defer pl.close()
	pl.guard(alive, kill)
	null := int(r.null.Fd())
	child, err := r.stub.Start(pl.p, guardName, [3]int{null, null, null}, pl.files)
	if err != nil {
		return err
	}
	g.pid, g.pidfd = child.PID, child.PIDFD
	report, err := child.Await(ctx)
	if err == nil && !report.Reached {
		err = errors.New("the guard ended before it was set up")
	}
	return err
}

const guardName = "cleat-guard"

// guard is the whole program. Nothing but a kill ends it early.
func (pl *plan) guard(alive, kill int) {
	p := pl.p
	pipe, file := pl.fd(alive, "engine"), pl.fd(kill, "cgroup.kill")
	p.Call(unix.SYS_PRCTL, "name", launch.Named(unix.PR_SET_NAME, "PR_SET_NAME"), p.Str(guardName))
	keeper.SetOOMScoreAdj(p, "-999", unix.EACCES, unix.EPERM)
	all := p.Struct("{all}", ^uint64(0))
	p.Call(unix.SYS_RT_SIGPROCMASK, "block all", launch.Named(2, "SIG_SETMASK"), all, launch.Int(0), launch.Int(8))
	p.ReportReached()
	p.Call(unix.SYS_CLOSE_RANGE, "stdio, program, report", launch.Int(0), launch.Int(launch.FirstFD-1), launch.Int(0))
	b := p.Struct("buffer", 0)
	p.Call(unix.SYS_READ, "until the engine has ended", pipe, b, launch.Int(1))
	// The group may be gone.
	p.Call(unix.SYS_WRITE, "kill", file, p.Str("1"), launch.Int(1)).IgnoreAll()
	p.Exit(0)
}

// Close ends the guard, which kills what is left in the group. nil has nothing to close.
func (g *Guard) Close() error {
	if g == nil {
		return nil
	}
	err := g.alive.Close()
	if g.pidfd >= 0 {
		awaitExit(g.pidfd, abandonPatience)
		keeper.Reap(g.pidfd)
		unix.Close(g.pidfd)
		g.pidfd = -1
	}
	return err
}
