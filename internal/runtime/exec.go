package runtime

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/cleatlabs/cleat/internal/apparmor"
	"github.com/cleatlabs/cleat/internal/cgroup"
	"github.com/cleatlabs/cleat/internal/keeper"
	"github.com/cleatlabs/cleat/internal/kernel"
	"github.com/cleatlabs/cleat/internal/launch"
	"golang.org/x/sys/unix"
)

// joined are the namespaces of a container; those that it shares with the host are joined without effect.
const joined = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP

// Exec starts a process in a running container. It is ErrNotRunning if the container's process has ended; errors are
// otherwise as Start's. The control group must not be frozen: the process would not start before it is thawed.
func (r *Runtime) Exec(ctx context.Context, s *ExecSpec) (*Process, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	target, err := s.Target.dupPidfd()
	if err != nil {
		return nil, err
	}
	defer unix.Close(target)
	p, err := r.exec(ctx, s, target, false)
	if errors.Is(err, unix.EBUSY) {
		// What runs in the container has divided its control group: nothing is let into the group itself any more.
		p, err = r.exec(ctx, s, target, true)
	}
	if err != nil && ending(s.Target.PID(), target, err) {
		return nil, fmt.Errorf("%w: %v", ErrNotRunning, err)
	}
	return p, err
}

// ending says whether err comes of the container's end. All its processes are killed, and its namespaces cannot be
// joined any more, before its first process has quite ended.
func ending(pid, pidfd int, err error) bool {
	if keeper.Exited(pidfd) {
		return true
	}
	if !errors.Is(err, unix.ESRCH) && !errors.Is(err, errKilled) && !kernel.Exiting(pid) {
		return false
	}
	return awaitExit(pidfd, abandonPatience)
}

// exec starts the process in the container's control group, or (inner) in the one that the container's first process is
// in.
func (r *Runtime) exec(ctx context.Context, s *ExecSpec, target int, inner bool) (*Process, error) {
	l, err := r.arrangeExec(s, target, -1, inner)
	if err != nil {
		return nil, err
	}
	defer l.plan.close()
	return l.run(ctx)
}

// arrangeExec makes everything ready for a keeper. The process waits at gate, the read end of a pipe, unless that is
// -1. The caller closes the plan.
func (r *Runtime) arrangeExec(s *ExecSpec, target, gate int, inner bool) (l *starting, err error) {
	pl := r.newPlan()
	defer func() {
		if err != nil {
			pl.close()
		}
	}()
	root, err := r.RootFD(s.Target)
	if err != nil {
		return nil, err
	}
	pl.owned = append(pl.owned, root)

	var tty *terminal
	if s.TTY {
		if tty, err = terminalOf(root, s.Rows, s.Cols); err != nil {
			return nil, err
		}
	}
	std, err := openStreams(tty, s.OpenStdin, int(r.null.Fd()))
	if err != nil {
		return nil, err
	}
	if pl.group, err = r.openGroup(s.CgroupPath); err == nil && inner && pl.group != nil {
		_, err = pl.group.EnterWith(s.Target.PID())
	}
	if err == nil {
		err = r.buildExec(pl, s, target, gate)
	}
	if err != nil {
		std.closeAll()
		return nil, err
	}
	return &starting{r: r, plan: pl, std: std, rec: keeper.Record{ID: s.ID, TTY: s.TTY}, command: s.Args[0], root: root, about: s.About, gated: gate >= 0}, nil
}

func (s *ExecSpec) check() error {
	if err := checkID(s.ID); err != nil {
		return err
	}
	if s.Target == nil {
		return invalid("exec %s has no container", s.ID)
	}
	if s.OOMScoreAdj < -1000 || s.OOMScoreAdj > 1000 {
		return invalid("invalid value %d, range for oom score adj is [-1000, 1000]", s.OOMScoreAdj)
	}
	if err := apparmor.CheckName(s.AppArmorProfile); err != nil {
		return err
	}
	return checkCommand(s.Args)
}

// dupPidfd is a pidfd for the time of one call.
func (p *Process) dupPidfd() (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pidfd < 0 || keeper.Exited(p.pidfd) {
		return -1, ErrNotRunning
	}
	fd, err := unix.FcntlInt(uintptr(p.pidfd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("pidfd: %w", err)
	}
	return fd, nil
}

// buildExec compiles the program. The keeper clones a helper, which attaches itself to the container's control group,
// joins its namespaces, becomes the user and closes everything but stdio and the report pipe; only then does it make
// the process, with the keeper as its parent: what appears in the container's PID namespace holds nothing of the
// host's.
//
// With a gate the process then waits for a byte from there, all but its execve done, and ends if the other end is
// closed instead.
func (r *Runtime) buildExec(pl *plan, s *ExecSpec, target, gate int) error {
	p := pl.p
	k := keeper.Begin(p, "cleat-keeper", true)
	clone := keeper.Clone{Cgroup: -1}
	tasks, err := pl.cgroupFiles(pl.group, &clone)
	if err != nil {
		return err
	}
	ns := pl.fd(target, "container")
	var entry launch.Arg
	if gate >= 0 {
		entry = pl.fd(gate, "gate")
	}
	k.Clone(clone)

	for _, t := range tasks {
		p.Call(unix.SYS_WRITE, "cgroup tasks", t, p.Str("0"), launch.Int(1))
	}
	keeper.SetOOMScoreAdj(p, strconv.Itoa(s.OOMScoreAdj))
	if profile := profileOf(s.AppArmorProfile); profile != "" {
		proc, err := pl.hostProc()
		if err != nil {
			return err
		}
		pl.profileOnExec(proc, profile) // which the process has from its helper
	}
	p.Call(unix.SYS_SETNS, "the container's namespaces", ns, launch.Named(joined, "NEWNS|NEWPID|NEWUTS|NEWIPC|NEWNET|NEWCGROUP"))
	pl.enter(s.Cwd, false)
	pl.chownStdio(s.User.UID, s.TTY, s.OpenStdin)
	id := &identity{
		user: s.User, umask: s.Umask, caps: s.Capabilities & r.held, lastCap: r.c.Features.LastCap, nnp: s.NoNewPrivs, seccomp: s.Seccomp,
		rlimits: s.Rlimits, keyring: "_ses." + s.ContainerID, usual: r.c.Usual,
	}
	if err := id.settle(pl); err != nil {
		return err
	}
	p.Call(unix.SYS_CLOSE, "program", launch.Named(launch.ProgramFD, "program"))
	first := launch.FirstFD // of those that the process must not have
	if gate >= 0 {
		kept := launch.Named(launch.FirstFD, "gate")
		p.Call(unix.SYS_DUP3, "gate", entry, kept, launch.Named(unix.O_CLOEXEC, "O_CLOEXEC"))
		entry, first = kept, first+1
	}
	p.Call(unix.SYS_CLOSE_RANGE, "all but stdio and report", launch.Int(first), launch.Hex(^uint64(0)>>32), launch.Int(0))

	word, send := p.ReportPID()
	p.Call(unix.SYS_CLONE3, "process", keeper.CloneArgs(p, unix.CLONE_PARENT|unix.CLONE_CLEAR_SIGHAND, 0, 0), launch.Int(keeper.CloneArgsSize)).To(word)
	helper := p.Branch("helper", word)
	pl.becomeCommand(s, id, gate >= 0, entry)
	p.Land(helper)
	send()
	p.Exit(0)
	k.End()
	return nil
}

// becomeCommand is what the process that the helper has made does itself; gated, it waits at the gate before its execve.
func (pl *plan) becomeCommand(s *ExecSpec, id *identity, gated bool, gate launch.Arg) {
	p := pl.p
	p.Call(unix.SYS_SETSID, "")
	if s.TTY {
		pl.controllingTerminal()
	}
	pl.closeOnExec()
	if gated {
		// The filter may forbid what waiting takes: then the process does not come to report that it got here.
		id.confine(pl)
		p.Sync("gate", gate)
		p.ReportReached()
	} else {
		p.ReportReached()
		id.confine(pl)
	}
	p.Exec(candidates(s.Args[0], s.Env), s.Args, s.Env)
}

// openGroup opens the container's control group; nil where there is none.
func (r *Runtime) openGroup(path string) (*cgroup.Group, error) {
	if path == "" || r.c.Cgroups == nil {
		return nil, nil
	}
	return r.c.Cgroups.Open(path)
}
