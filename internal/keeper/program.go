package keeper

import (
	"syscall"

	"github.com/cleatlabs/cleat/internal/launch"
	"golang.org/x/sys/unix"
)

// oomScoreAdj keeps the kernel from killing keepers for want of memory: −1000 would make the child unkillable until it
// has written its own.
const oomScoreAdj = "-999"

// A Program is the keeper's part of a launch program.
type Program struct {
	p      *launch.Program
	pids   launch.Arg
	child  launch.Slot
	branch launch.Op
	helper bool
}

// Clone says how the keeper makes its child.
type Clone struct {
	Flags  uint64 // CLONE_NEW…
	Cgroup int    // number of a cgroup v2 directory's descriptor in the keeper; -1 is none
}

// Begin appends what the keeper does until its child exists; what is appended from then on is the child's program,
// until End. With helper the child is not the process itself but one that makes it with CLONE_PARENT.
func Begin(p *launch.Program, name string, helper bool) *Program {
	k := &Program{p: p, helper: helper}
	p.Call(unix.SYS_PRCTL, "name", launch.Named(unix.PR_SET_NAME, "PR_SET_NAME"), p.Str(name))
	if !helper { // which must be done while it has the host's /proc
		k.protect()
	}
	k.pids = p.Struct("pids", 0, 0)
	k.child = launch.WordOf(k.pids, 1)
	p.Call(unix.SYS_GETPID, "").To(launch.WordOf(k.pids, 0))
	return k
}

func (k *Program) protect() { SetOOMScoreAdj(k.p, oomScoreAdj, syscall.EACCES, syscall.EPERM) }

// Clone appends the creation of the child.
func (k *Program) Clone(c Clone) {
	p := k.p
	flags, cgroup := c.Flags|unix.CLONE_CLEAR_SIGHAND, uint64(0)
	if c.Cgroup >= 0 {
		flags, cgroup = flags|unix.CLONE_INTO_CGROUP, uint64(c.Cgroup)
	}
	p.Call(unix.SYS_CLONE3, "child", CloneArgs(p, flags, uint64(unix.SIGCHLD), cgroup), launch.Int(CloneArgsSize)).To(k.child)
	k.branch = p.Branch("keeper", k.child)
}

// End appends the keeper's side: it records the PIDs, closes what it must not hold, and waits.
func (k *Program) End() {
	p := k.p
	p.Land(k.branch)
	helper := launch.Int(0)
	if k.helper {
		k.protect() // nobody waits for it any more
		// The process's PID is not known here: the status file keeps 0 for it.
		helper = k.child.Arg()
		p.Call(unix.SYS_PWRITE64, "keeper's pid", launch.Named(StatusFD, "status"), k.pids, launch.Int(8), launch.Int(offsetPIDs))
	} else {
		p.Call(unix.SYS_PWRITE64, "pids", launch.Named(StatusFD, "status"), k.pids, launch.Int(16), launch.Int(offsetPIDs))
	}
	p.Call(unix.SYS_CLOSE_RANGE, "stdio, program, report", launch.Int(0), launch.Int(StatusFD-1), launch.Int(0))
	p.Call(unix.SYS_CLOSE_RANGE, "what only the child needs", launch.Int(FirstTransientFD), launch.Hex(^uint64(0)>>32), launch.Int(0))
	p.Keep(helper, launch.Named(StatusFD, "status"), offsetExited, launch.Named(StdoutFD, "stdout"))
}

// CloneArgsSize is the size of struct clone_args.
const CloneArgsSize = 88

// CloneArgs puts a struct clone_args of CloneArgsSize bytes into the arena and gives its address.
func CloneArgs(p *launch.Program, flags, exitSignal, cgroup uint64) launch.Arg {
	a := p.Words(flags, 0, 0, 0, exitSignal, 0, 0, 0, 0, 0, cgroup)
	return launch.Named(a.Address(), "{"+cloneFlagNames.Of(flags)+"}")
}

// SetOOMScoreAdj appends a write to the calling process's oom_score_adj through the host's /proc; it must come before
// the process gives up the host's mounts.
func SetOOMScoreAdj(p *launch.Program, value string, ignored ...syscall.Errno) {
	fd := p.Slot()
	p.Call(unix.SYS_OPENAT, "oom_score_adj", launch.CWD(), p.Str("/proc/self/oom_score_adj"), launch.Named(unix.O_WRONLY|unix.O_CLOEXEC, "O_WRONLY|O_CLOEXEC")).To(fd)
	p.Call(unix.SYS_WRITE, "oom_score_adj", fd.Arg(), p.Str(value), launch.Int(len(value))).Ignore(ignored...)
	p.Call(unix.SYS_CLOSE, "oom_score_adj", fd.Arg())
}

var cloneFlagNames = launch.FlagNames{
	{unix.CLONE_PARENT, "PARENT"}, {unix.CLONE_NEWNS, "NEWNS"}, {unix.CLONE_NEWCGROUP, "NEWCGROUP"}, {unix.CLONE_NEWUTS, "NEWUTS"},
	{unix.CLONE_NEWIPC, "NEWIPC"}, {unix.CLONE_NEWUSER, "NEWUSER"}, {unix.CLONE_NEWPID, "NEWPID"}, {unix.CLONE_NEWNET, "NEWNET"},
	{unix.CLONE_CLEAR_SIGHAND, "CLEAR_SIGHAND"}, {unix.CLONE_INTO_CGROUP, "INTO_CGROUP"},
}
