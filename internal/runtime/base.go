package runtime

import (
	"fmt"
	"os"
	"strconv"

	"github.com/cleatlabs/cleat/internal/kernel"
	"github.com/cleatlabs/cleat/internal/launch"
	"golang.org/x/sys/unix"
)

// privateDir is the base's only directory, where a child keeps what the container does not see.
const privateDir = "private"

// openBase makes the mount namespace that keepers clone containers' namespaces from. It holds nothing but an empty
// filesystem: a clone of the engine's own would copy every mount of the host, only to take them down again, which waits
// for all processors of the machine. Nobody needs a path of the host any more by then. The descriptor is its only name.
//
// It is -1 where a start has to go the long way, which works from any namespace: an engine in a user namespace may
// mount a procfs only where its own is in sight.
func (r *Runtime) openBase() (int, error) {
	own, err := ownsItsNamespaces()
	if err != nil || !own || r.held&(1<<unix.CAP_SYS_CHROOT) == 0 {
		return -1, err
	}
	ns, entered := -1, make(chan struct{})
	go kernel.OnThrowawayThread(func() {
		defer close(entered)
		ns, err = r.enterBase()
	})
	<-entered
	if err != nil {
		return -1, fmt.Errorf("making an empty mount namespace: %w", err)
	}
	return ns, nil
}

// ownsItsNamespaces reports whether the engine is in the machine's first user namespace, where all numbers stand for
// themselves.
func ownsItsNamespaces() (bool, error) {
	b, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return false, err
	}
	var inside, outside, count uint64
	if _, err := fmt.Sscan(string(b), &inside, &outside, &count); err != nil {
		return false, nil // not one range
	}
	const all = 1<<32 - 1
	return inside == 0 && outside == 0 && count == all, nil
}

// enterBase moves the calling thread into the new namespace and returns it.
func (r *Runtime) enterBase() (ns int, err error) {
	step := func(what string, f func() error) {
		if err == nil {
			if err = f(); err != nil {
				err = fmt.Errorf("%s: %w", what, err)
			}
		}
	}
	ns = -1
	step("unshare", func() error { return unix.Unshare(unix.CLONE_NEWNS) })
	step("open", func() error {
		var err error
		ns, err = unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return err
	})
	step("private", func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") })
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	step("tmpfs", func() error { return unix.Mount("cleat", r.c.Dir, "tmpfs", flags, "mode=755,size=4k,nr_inodes=2") })
	step("chdir", func() error { return unix.Chdir(r.c.Dir) })
	step("mkdir", func() error { return unix.Mkdir(privateDir, 0o700) })
	step("pivot_root", func() error { return unix.PivotRoot(".", ".") })
	step("umount", func() error { return unix.Unmount(".", unix.MNT_DETACH) })
	step("read-only", func() error { return unix.Mount("", "/", "", flags|unix.MS_REMOUNT|unix.MS_RDONLY, "") })
	if err != nil && ns >= 0 {
		unix.Close(ns)
		ns = -1
	}
	return ns, err
}

// leaveHost is the keeper's: the child that it clones gets a copy of the base for its mounts.
func (b *builder) leaveHost() {
	if b.r.base >= 0 {
		b.p.Call(unix.SYS_SETNS, "empty mounts", b.fd(b.r.base, "base"), launch.Named(unix.CLONE_NEWNS, "NEWNS"))
	}
}

// enterRoot attaches the root filesystem and makes it the working directory. In the base it covers all there is.
func (b *builder) enterRoot() {
	p := b.p
	at := "/"
	if b.r.base < 0 {
		p.Call(unix.SYS_MOUNT, "host mounts do not follow ours", launch.Int(0), p.Str("/"), launch.Int(0), launch.Named(unix.MS_REC|unix.MS_SLAVE, "REC|SLAVE"), launch.Int(0))
		at = b.r.anchor
	}
	p.Call(unix.SYS_MOVE_MOUNT, "root", b.root, p.Str(""), launch.CWD(), p.Str(at), launch.Named(unix.MOVE_MOUNT_F_EMPTY_PATH, "F_EMPTY_PATH"))
	p.Call(unix.SYS_FCHDIR, "root", b.root)
}

// settleInRoot makes the working directory the root of everything. The base below it stays, as the kernel's own first
// filesystem does below every other root; it is empty, and no path leads there.
func (b *builder) settleInRoot() {
	p := b.p
	if b.r.base >= 0 {
		p.Call(unix.SYS_CHROOT, "root", p.Str("."))
	} else {
		p.Call(unix.SYS_PIVOT_ROOT, "", p.Str("."), p.Str("."))
		p.Call(unix.SYS_UMOUNT2, "the host's mounts", p.Str("."), launch.Named(unix.MNT_DETACH, "DETACH"))
	}
	p.Call(unix.SYS_CHDIR, "/", p.Str("/"))
}

// hideAway attaches a mount where the container cannot see it: what is to be cloned needs a place.
func (b *builder) hideAway(what string, mount launch.Arg) {
	p := b.p
	at := "/" + privateDir
	if b.r.base < 0 {
		at = b.r.private
	}
	p.Call(unix.SYS_MOVE_MOUNT, what, mount, p.Str(""), launch.CWD(), p.Str(at), launch.Named(unix.MOVE_MOUNT_F_EMPTY_PATH, "F_EMPTY_PATH"))
}

// oomScoreAdj writes to the child's own through the procfs that it has just made, on which nobody can have mounted
// anything.
func (b *builder) oomScoreAdj() {
	p := b.p
	fd := p.Slot()
	p.Call(unix.SYS_OPENAT, "oom_score_adj", b.proc, p.Str("self/oom_score_adj"), launch.Named(unix.O_WRONLY|unix.O_CLOEXEC, "O_WRONLY|O_CLOEXEC")).To(fd)
	v := strconv.Itoa(b.s.OOMScoreAdj)
	p.Call(unix.SYS_WRITE, "oom_score_adj", fd.Arg(), p.Str(v), launch.Int(len(v)))
}
