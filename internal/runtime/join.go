package runtime

import (
	"fmt"

	"github.com/cleatlabs/cleat/internal/keeper"
	"github.com/cleatlabs/cleat/internal/launch"
	"golang.org/x/sys/unix"
)

// joinPIDNamespace is the keeper's: it takes effect for its child.
func (b *builder) joinPIDNamespace() error {
	if b.s.JoinPID == nil {
		return nil
	}
	target, err := b.target("pid", b.s.JoinPID)
	if err != nil {
		return err
	}
	b.p.Call(unix.SYS_SETNS, "pid namespace", target, launch.Named(unix.CLONE_NEWPID, "NEWPID"))
	return nil
}

// fetchShm is the keeper's: it takes a clone of the /dev/shm that goes with the IPC namespace to be joined. That can be
// had only from within the mounts that it is in, which the keeper visits before it leaves the host's.
func (b *builder) fetchShm() error {
	if b.s.JoinIPC == nil || b.s.NoShm || b.layout.replaced["/dev/shm"] {
		return nil
	}
	target, err := b.target("ipc", b.s.JoinIPC)
	if err != nil {
		return err
	}
	p := b.p
	own, there, low, tree := p.Slot(), p.Slot(), p.Slot(), p.Slot()
	if b.r.base < 0 {
		p.Call(unix.SYS_OPENAT, "own mounts", launch.CWD(), p.Str("/proc/self/ns/mnt"), launch.Named(unix.O_RDONLY|unix.O_CLOEXEC, "O_RDONLY|O_CLOEXEC"), launch.Int(0)).To(own)
	}
	p.Call(unix.SYS_SETNS, "mounts of the other container", target, launch.Named(unix.CLONE_NEWNS, "NEWNS"))
	how := b.strict(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, "O_PATH|O_DIRECTORY|O_CLOEXEC")
	p.Call(unix.SYS_OPENAT2, "its /dev/shm", launch.CWD(), p.Str("dev/shm"), how.arg, launch.Int(openHowSize)).To(there)
	p.Call(unix.SYS_OPEN_TREE, "its /dev/shm", there.Arg(), p.Str(""), argCloneEmpty).To(low)
	// To where the keeper closes everything: the first free number may be among those that it holds.
	p.Call(unix.SYS_FCNTL, "its /dev/shm", low.Arg(), launch.Named(unix.F_DUPFD_CLOEXEC, "F_DUPFD_CLOEXEC"), launch.Int(keeper.FirstTransientFD)).To(tree)
	p.Call(unix.SYS_CLOSE, "its /dev/shm", low.Arg())
	p.Call(unix.SYS_CLOSE, "its /dev/shm", there.Arg())
	if b.r.base < 0 {
		p.Call(unix.SYS_SETNS, "own mounts", own.Arg(), launch.Named(unix.CLONE_NEWNS, "NEWNS"))
		p.Call(unix.SYS_CLOSE, "own mounts", own.Arg())
	}
	b.joinedShm = tree.Arg()
	return nil
}

func (b *builder) joinIPCNamespace() error {
	if b.s.JoinIPC == nil {
		return nil
	}
	target, err := b.target("ipc", b.s.JoinIPC)
	if err != nil {
		return err
	}
	b.p.Call(unix.SYS_SETNS, "ipc namespace", target, launch.Named(unix.CLONE_NEWIPC, "NEWIPC"))
	return nil
}

// target hands over a process whose namespaces are to be joined. By its pidfd: one that ends meanwhile is an error,
// never another process.
func (b *builder) target(kind string, p *Process) (launch.Arg, error) {
	return b.open(kind+" namespace's container", func() (int, error) {
		fd, err := p.dupPidfd()
		if err != nil {
			return -1, fmt.Errorf("joining the %s namespace of container %s: %w", kind, p.ID(), err)
		}
		return fd, nil
	})
}
