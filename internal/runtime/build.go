package runtime

import (
	"fmt"
	"path"
	"slices"
	"syscall"

	"github.com/cleatlabs/cleat/internal/cgroup"
	"github.com/cleatlabs/cleat/internal/keeper"
	"github.com/cleatlabs/cleat/internal/launch"
	"golang.org/x/sys/unix"
)

// A builder compiles a Spec. The order of its steps is the order of the program.
type builder struct {
	*plan
	s   *Spec
	r   *Runtime
	p   *launch.Program
	tty *terminal // nil without a terminal

	making     *GroupInMaking // nil without a control group
	reserved   reservation
	groupTrees [][]launch.Arg // of each of the Runtime's hierarchies, none if it is not used

	// spareNet is the namespace of a start that asks for NewNetwork, -1 if its child makes it.
	spareNet int
	// laterNet is where the namespace of a start that asks for LaterNetwork belongs, an index of files; else 0.
	laterNet int
	late     func(keeper.Record) error // see Late.Meanwhile
	// gate is where the process waits before its command, and opener the other end of that pipe, -1 once it is used.
	gate     launch.Arg
	opener   int
	spareDev bool // dev was made ahead
	// profileFD says that ownProfileFD is what PID 1 enters its profile by.
	profileFD bool
	root      launch.Arg
	layout    mountLayout

	proc, dev, sys launch.Arg // detached mounts made by this program; zero where the spec replaces them
	null           launch.Arg // O_PATH of a null device that no one else can have touched
	emptyDir       launch.Arg // read-only, empty
	devpts         launch.Arg // where the terminal lives
	joinedShm      launch.Arg // /dev/shm of a container whose IPC namespace is joined
}

// cwdMark begins the object of operations that concern the working directory.
const cwdMark = "cwd "

func (b *builder) build() error {
	s := b.s
	k := keeper.Begin(b.p, "cleat-keeper", false)
	if err := b.joinPIDNamespace(); err != nil {
		return err
	}
	if err := b.fetchShm(); err != nil {
		return err
	}
	b.leaveHost()
	clone := keeper.Clone{Flags: b.namespaces(), Cgroup: -1}
	tasks := b.reserveGroup(&clone)
	if err := b.makeGate(); err != nil {
		return err
	}
	k.Clone(clone)

	b.p.Call(unix.SYS_UMASK, "", launch.Mode(0))
	for _, t := range tasks {
		b.p.Call(unix.SYS_WRITE, "cgroup tasks", t, b.p.Str("0"), launch.Int(1))
	}
	if !s.HostCgroupNS {
		b.p.Call(unix.SYS_UNSHARE, "cgroup namespace", launch.Named(unix.CLONE_NEWCGROUP, "NEWCGROUP"))
	}
	b.p.Call(unix.SYS_SETSID, "")
	if err := b.joinNamespaces(); err != nil {
		return err
	}
	b.loopback()
	if err := b.rootfs(); err != nil {
		return err
	}
	b.names()
	b.workdir()
	b.finishRootfs()
	b.terminal()
	b.ownStdio()
	if err := b.execute(); err != nil {
		return err
	}
	k.End()
	return nil
}

func (b *builder) namespaces() uint64 {
	s := b.s
	f := uint64(unix.CLONE_NEWNS)
	if !s.HostUTS {
		f |= unix.CLONE_NEWUTS
	}
	if !s.HostIPC && s.JoinIPC == nil {
		f |= unix.CLONE_NEWIPC
	}
	if !s.HostPID && s.JoinPID == nil {
		f |= unix.CLONE_NEWPID
	}
	if s.NetNS == NewNetwork && b.spareNet < 0 {
		f |= unix.CLONE_NEWNET
	}
	return f
}

func (b *builder) joinNamespaces() error {
	fd := max(b.s.NetNS, b.spareNet)
	if b.s.NetNS == LaterNetwork {
		b.laterNet = len(b.files)
	}
	if fd >= 0 || b.laterNet > 0 {
		ns := b.fd(fd, "netns")
		b.p.Call(unix.SYS_SETNS, "network namespace", ns, launch.Named(unix.CLONE_NEWNET, "NEWNET"))
	}
	return b.joinIPCNamespace()
}

// cgroupFiles hands over what puts the child into its group: the directory of the unified hierarchy, which it is cloned
// into, and the tasks files of v1 hierarchies, which it attaches itself by. A hybrid host has both, and the limits are
// in the latter.
func (pl *plan) cgroupFiles(group *cgroup.Group, c *keeper.Clone) ([]launch.Arg, error) {
	if group == nil {
		return nil, nil
	}
	dir, err := group.DirFD()
	if err != nil {
		return nil, err
	}
	if dir >= 0 {
		pl.fd(dir, "cgroup")
		c.Cgroup = launch.FirstFD + len(pl.files) - 1
	}
	fds, err := group.TaskFDs()
	if err != nil {
		return nil, err
	}
	args := make([]launch.Arg, len(fds))
	for i, fd := range fds {
		args[i] = pl.fd(fd, "tasks")
	}
	return args, nil
}

// fillNetwork puts the namespace that was promised where it was promised to be.
func (b *builder) fillNetwork(fd int) {
	if b.laterNet > 0 {
		b.files[b.laterNet] = fd
	}
}

// takeNetwork gives the child a namespace that is at hand, to be closed with the plan.
func (b *builder) takeNetwork() {
	if fd, ok := b.r.networks.Take(); ok {
		b.spareNet = fd
		b.owned = append(b.owned, fd)
	}
}

// leaveNetwork has the namespace stay until p lets its mounts go: the kernel takes several down at once for little more
// than one.
func (b *builder) leaveNetwork(p *Process) {
	if b.spareNet >= 0 {
		p.network = b.spareNet
		b.owned = slices.DeleteFunc(b.owned, func(fd int) bool { return fd == b.spareNet })
	}
}

// letGo closes what the keeper has got: all but the namespace that is kept for its process.
func (b *builder) letGo() {
	for _, fd := range b.owned {
		if fd != b.spareNet {
			unix.Close(fd)
		}
	}
	b.owned = nil
	if b.spareNet >= 0 {
		b.owned = append(b.owned, b.spareNet)
	}
	if b.making != nil {
		b.making.closeFDs()
	}
}

// makeGate has the process wait for one byte before its command. It ends if there comes none, as the engine has died: the
// next one does not know of it.
func (b *builder) makeGate() (err error) {
	b.gate, err = b.open("gate", func() (in int, err error) {
		in, b.opener, err = pipe()
		return in, err
	})
	if err != nil {
		return fmt.Errorf("making the gate: %w", err)
	}
	return nil
}

// closeGate closes the engine's end, which ends a process that still waits.
func (b *builder) closeGate() {
	if b.opener >= 0 {
		unix.Close(b.opener)
		b.opener = -1
	}
}

func (b *builder) close() {
	b.closeGate()
	b.plan.close()
}

// loopback sets lo up in a network namespace of our own making.
func (b *builder) loopback() {
	if b.s.NetNS != NewNetwork || b.spareNet >= 0 {
		return
	}
	const flagsOfLo = unix.IFF_UP | unix.IFF_RUNNING | unix.IFF_LOOPBACK
	sock := b.p.Slot()
	b.p.Call(unix.SYS_SOCKET, "", launch.Named(unix.AF_INET, "AF_INET"), launch.Named(unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, "SOCK_DGRAM|SOCK_CLOEXEC"), launch.Int(0)).To(sock)
	ifreq := b.p.Struct("{lo, UP}", uint64('l')|uint64('o')<<8, 0, flagsOfLo, 0, 0)
	b.p.Call(unix.SYS_IOCTL, "lo up", sock.Arg(), launch.Named(unix.SIOCSIFFLAGS, "SIOCSIFFLAGS"), ifreq)
}

func (b *builder) names() {
	if b.s.HostUTS {
		return
	}
	if h := b.s.Hostname; h != "" {
		b.p.Call(unix.SYS_SETHOSTNAME, h, b.p.Str(h), launch.Int(len(h)))
	}
	if d := b.s.Domainname; d != "" {
		b.p.Call(unix.SYS_SETDOMAINNAME, d, b.p.Str(d), launch.Int(len(d)))
	}
}

// workdir makes what is missing of the working directory, then enters it. openat2 refuses magic links, so that no image
// can name /proc/self/fd/N here; getcwd answers a path that does not begin with / for a directory outside the root.
func (b *builder) workdir() {
	b.enter(b.s.Cwd, !b.layout.cwdExists)
}

func (pl *plan) enter(cwd string, create bool) {
	p := pl.p
	if cwd == "" {
		cwd = "/"
	}
	cwd = path.Clean("/" + cwd)
	if create {
		pl.mkdirs(launch.CWD(), cwd, cwdMark+cwd)
	}
	fd := p.Slot()
	p.Call(unix.SYS_OPENAT2, cwdMark+cwd, launch.CWD(), p.Str(cwd), pl.inRoot(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, "O_PATH|O_DIRECTORY|O_CLOEXEC").arg, launch.Int(openHowSize)).To(fd)
	p.Call(unix.SYS_FCHDIR, cwdMark+cwd, fd.Arg())
	const size = 4096
	buf := p.Bytes(make([]byte, size), "buffer")
	p.Call(unix.SYS_GETCWD, cwdMark+cwd, buf, launch.Int(size))
	p.Expect(cwdMark+cwd, launch.WordOf(buf, 0), 0xff, '/', syscall.EXDEV)
}

// terminal makes stdin, which is the terminal's other end, the controlling terminal of the session.
func (b *builder) terminal() {
	if b.tty != nil {
		b.controllingTerminal()
	}
}

func (pl *plan) controllingTerminal() {
	pl.p.Call(unix.SYS_IOCTL, "controlling terminal", launch.Int(0), launch.Named(unix.TIOCSCTTY, "TIOCSCTTY"), launch.Int(0))
}

// ownStdio lets a user other than root reopen /dev/stdout and the like.
func (b *builder) ownStdio() { b.chownStdio(b.s.User.UID, b.s.TTY, b.s.OpenStdin) }

func (pl *plan) chownStdio(uid int, tty, stdin bool) {
	if uid == 0 {
		return
	}
	first, last := 1, 2
	if stdin || tty {
		first = 0
	}
	if tty {
		first, last = 0, 0
	}
	for fd := first; fd <= last; fd++ {
		pl.p.Call(unix.SYS_FCHOWN, "stdio", launch.Int(fd), launch.Int(uid), launch.Int(-1))
	}
}

// closeOnExec leaves nothing but stdio to the program that is executed.
func (pl *plan) closeOnExec() {
	pl.p.Call(unix.SYS_CLOSE_RANGE, "all but stdio", launch.Int(3), launch.Hex(^uint64(0)>>32), launch.Named(unix.CLOSE_RANGE_CLOEXEC, "CLOEXEC"))
}

// execute is the end of the child's program.
func (b *builder) execute() error {
	id := &identity{
		user: b.s.User, umask: b.s.Umask, caps: b.s.Capabilities & b.r.held, lastCap: b.r.c.Features.LastCap, nnp: b.s.NoNewPrivs, seccomp: b.s.Seccomp,
		rlimits: b.s.Rlimits, keyring: "_ses." + b.s.ID, usual: b.r.c.Usual,
	}
	own, err := b.profile()
	if err != nil {
		return err
	}
	if err := id.settle(b.plan); err != nil {
		return err
	}
	b.await(b.gate)
	b.p.ReportReached()
	if b.s.Init {
		b.initProcess(id, own)
		return nil
	}
	id.confine(b.plan)
	b.p.Exec(candidates(b.s.Args[0], b.s.Env), b.s.Args, b.s.Env)
	return nil
}

// await has the process wait at the gate. Meanwhile it has nothing but stdio and the report pipe, as who may trace
// processes in the container (CAP_SYS_PTRACE) can take what one has that comes to it; and what PID 1 enters its profile by.
func (b *builder) await(gate launch.Arg) {
	waits := launch.Named(launch.ProgramFD, "gate") // the program is mapped
	b.p.Call(unix.SYS_DUP3, "gate", gate, waits, launch.Named(unix.O_CLOEXEC, "O_CLOEXEC"))
	first := launch.ReportFD + 1
	if b.profileFD {
		first = ownProfileFD + 1
	}
	b.p.Call(unix.SYS_CLOSE_RANGE, "all but stdio, gate and report", launch.Int(first), launch.Hex(^uint64(0)>>32), launch.Int(0))
	b.closeOnExec()
	b.p.Sync("gate", waits)
}

// initName is what lists of processes show for PID 1 of a container with --init.
const initName = "cleat-init"

// initProcess clones once more: the child executes the command in a process group of its own (in the foreground, so
// that signals of the terminal's keys reach it once), the parent stays as PID 1.
func (b *builder) initProcess(id *identity, enterProfile func()) {
	p := b.p
	p.Call(unix.SYS_PRCTL, "reap", launch.Named(unix.PR_SET_CHILD_SUBREAPER, "PR_SET_CHILD_SUBREAPER"), launch.Int(1), launch.Int(0), launch.Int(0), launch.Int(0))
	p.Call(unix.SYS_PRCTL, "name", launch.Named(unix.PR_SET_NAME, "PR_SET_NAME"), p.Str(initName))
	child := p.Slot()
	p.Call(unix.SYS_CLONE3, "command", keeper.CloneArgs(p, unix.CLONE_CLEAR_SIGHAND, uint64(unix.SIGCHLD), 0), launch.Int(keeper.CloneArgsSize)).To(child)
	branch := p.Branch("init", child)
	p.Call(unix.SYS_SETPGID, "", launch.Int(0), launch.Int(0))
	if b.s.TTY {
		pid := p.Struct("its pid", 0)
		p.Call(unix.SYS_GETPID, "").To(launch.WordOf(pid, 0))
		p.Call(unix.SYS_IOCTL, "foreground", launch.Int(0), launch.Named(unix.TIOCSPGRP, "TIOCSPGRP"), pid)
	}
	id.confine(b.plan)
	p.Exec(candidates(b.s.Args[0], b.s.Env), b.s.Args, b.s.Env)
	p.Land(branch)
	enterProfile()
	p.Title(append([]string{initName, "--"}, b.s.Args...)...)
	p.Call(unix.SYS_CLOSE_RANGE, "all but stdio", launch.Int(3), launch.Hex(^uint64(0)>>32), launch.Int(0))
	id.filter(b.plan)
	p.Init(child)
}
