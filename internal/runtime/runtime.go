package runtime

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cleatlabs/cleat/internal/cgroup"
	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/keeper"
	"github.com/cleatlabs/cleat/internal/kernel"
	"github.com/cleatlabs/cleat/internal/launch"
	"github.com/cleatlabs/cleat/internal/supervise"
	"golang.org/x/sys/unix"
)

// Config says what a Runtime works with.
type Config struct {
	Dir         string            // for the keepers' status files; on tmpfs
	FallbackDir string            // for the stub where vm.memfd_noexec=2 forbids memfds; not mounted noexec
	Cgroups     *cgroup.Hierarchy // nil starts processes without control groups
	KeeperGroup string            // the control group that keepers are born into; "" for the engine's own
	Features    kernel.Features
	Usual       *unix.SchedAttr // how processes are scheduled that the engine starts; nil is as the engine itself
}

// A Runtime starts, executes in and adopts containers. Its methods may be called concurrently.
type Runtime struct {
	c           Config
	stub        *launch.Stub
	null        *os.File
	bootID      string
	anchor      string // where roots are attached in a child's mounts, before it enters them
	private     string // where a child keeps what the container does not see
	hierarchies []hierarchy
	reaper      *reaper
	networks    *supervise.Reserve[int]
	keepers     *supervise.Reserve[spareKeeper]
	devs        *supervise.Reserve[int] // nil where the engine may not make nodes
	held        uint64                  // capabilities of the engine
	base        int                     // see openBase
	programs    *launch.Pool
	modes       kernelModes
}

// programsKept is how many programs' memory, some 100 kB each, lies ready.
const programsKept = 4

// Directories of the Runtime's own, beside those of the keepers.
const (
	anchorName  = "root"
	privateName = "private"
)

// New prepares starts. It makes the calling process a child subreaper: processes whose keeper was killed become its
// children.
func New(c Config) (*Runtime, error) {
	boot, err := kernel.BootID()
	if err != nil {
		return nil, err
	}
	r := &Runtime{c: c, bootID: boot, base: -1, programs: launch.NewPool(programsKept), anchor: filepath.Join(c.Dir, anchorName), private: filepath.Join(c.Dir, privateName)}
	for _, dir := range []string{r.anchor, r.private} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("runtime directory: %w", err)
		}
	}
	if c.Cgroups == nil || c.Cgroups.Version() == 1 {
		table, err := kernel.MountTable()
		if err != nil {
			return nil, fmt.Errorf("finding the control groups: %w", err)
		}
		r.hierarchies = v1Hierarchies(table)
	}
	for i := range r.hierarchies {
		h := &r.hierarchies[i]
		h.used = c.Cgroups != nil && c.Cgroups.Uses(h.dir)
	}
	if r.held, err = heldCapabilities(); err != nil {
		return nil, err
	}
	if r.base, err = r.openBase(); err != nil {
		return nil, err
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("becoming a child subreaper: %w", err)
	}
	if r.null, err = os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil {
		return nil, err
	}
	if r.stub, err = launch.NewStub(c.FallbackDir); err != nil {
		r.null.Close()
		return nil, err
	}
	if err := r.placeKeepers(); err != nil {
		return nil, errors.Join(err, r.stub.Close(), r.null.Close())
	}
	r.reaper = startReaper(patience)
	r.networks, r.keepers = newNetworks(), newKeepers(r.stub)
	if r.held&(1<<unix.CAP_MKNOD) != 0 {
		r.devs = newDevs()
	}
	return r, nil
}

// heldCapabilities are those that the engine can give at all: in a container or a restricted service it may lack some.
// What a Spec asks for beyond them is left out.
func heldCapabilities() (uint64, error) {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var d [2]unix.CapUserData
	if err := unix.Capget(&h, &d[0]); err != nil {
		return 0, fmt.Errorf("capabilities of the engine: %w", err)
	}
	mask := uint64(d[0].Permitted) | uint64(d[1].Permitted)<<32
	for c := 0; c < 64; c++ {
		// Beyond the last capability the call fails.
		if in, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0); err != nil || in == 0 {
			mask &^= 1 << c
		}
	}
	return mask, nil
}

// Close releases what New opened. Started processes are not affected.
func (r *Runtime) Close() error {
	r.reaper.stop()
	r.networks.Close()
	r.keepers.Close()
	if r.devs != nil {
		r.devs.Close()
	}
	if r.base >= 0 {
		unix.Close(r.base)
	}
	return errors.Join(r.stub.Close(), r.null.Close(), r.leaveKeepers())
}

// Group opens the control group at path; ErrUnavailable in an engine without control groups.
func (r *Runtime) Group(path string) (*cgroup.Group, error) {
	if r.c.Cgroups == nil {
		return nil, failure.Unavailable("this engine runs without control groups")
	}
	return r.c.Cgroups.Open(path)
}

// Frozen reports whether the control group at path was frozen; false where there are no control groups.
func (r *Runtime) Frozen(path string) (bool, error) {
	if r.c.Cgroups == nil {
		return false, nil
	}
	return r.c.Cgroups.Frozen(path)
}

// OOMKills counts the processes of the control group at path that were killed for want of memory.
func (r *Runtime) OOMKills(path string) (uint64, error) {
	if r.c.Cgroups == nil {
		return 0, nil
	}
	return r.c.Cgroups.OOMKills(path)
}

// RemoveCgroup removes the control group at path; one that does not exist is removed already.
func (r *Runtime) RemoveCgroup(path string) error {
	if r.c.Cgroups == nil {
		return nil
	}
	return r.c.Cgroups.Remove(path)
}

// RemoveMadeParent removes the parent of control groups at path if an engine has made it and nothing is left in it.
func (r *Runtime) RemoveMadeParent(path string) error {
	if r.c.Cgroups == nil {
		return nil
	}
	return r.c.Cgroups.RemoveMadeParent(path)
}

// RootFD opens the root of a running process (O_PATH): the container's, for looking up users before an Exec.
func (r *Runtime) RootFD(p *Process) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pidfd < 0 {
		return -1, ErrNotRunning
	}
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/root", p.rec.PID), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil || keeper.Exited(p.pidfd) {
		// By number: what was opened is right only if the process has not ended since.
		if err == nil {
			unix.Close(fd)
		}
		return -1, ErrNotRunning
	}
	return fd, nil
}

// Dump returns the text of the program that Start would run. Descriptors are named, not opened.
func (r *Runtime) Dump(s *Spec) (string, error) {
	if err := s.check(); err != nil {
		return "", err
	}
	b := &builder{plan: dryPlan(), s: s, r: r, spareNet: -1, opener: -1}
	b.p = b.plan.p
	if s.TTY {
		b.tty = &terminal{devpts: -1, slave: -1, name: "0"}
	}
	if err := b.arrange(); err != nil {
		return "", err
	}
	if err := b.build(); err != nil {
		return "", err
	}
	return b.p.Dump(), nil
}

// Links is the table of the links in a running process's network namespace, as /proc/PID/net/dev has it; nil if that is
// the host's, also where it is by way of another container. ErrNotRunning if the process has ended.
func (r *Runtime) Links(p *Process) ([]byte, error) {
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return nil, err
	}
	its, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", p.rec.PID))
	if err != nil {
		return nil, ErrNotRunning
	}
	if its == own {
		return nil, nil
	}
	return r.ReadProc(p, "net/dev")
}

// ReadProc reads a file of a running process's directory in /proc, ErrNotRunning if that has ended: what is read is
// never another's.
func (r *Runtime) ReadProc(p *Process, name string) ([]byte, error) {
	pidfd, err := p.dupPidfd()
	if err != nil {
		return nil, err
	}
	defer unix.Close(pidfd)
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.rec.PID, name))
	if err != nil || keeper.Exited(pidfd) {
		return nil, ErrNotRunning
	}
	return b, nil
}
