package runtime

import (
	"fmt"
	"strings"
	"syscall"

	"github.com/cleatlabs/cleat/internal/apparmor"
	"github.com/cleatlabs/cleat/internal/launch"
	"golang.org/x/sys/unix"
)

// profileMark begins the object of operations that concern an AppArmor profile.
const profileMark = "apparmor profile "

// Files of a task's AppArmor attributes, below a procfs.
const (
	attrOnExec  = "thread-self/attr/apparmor/exec"
	attrCurrent = "thread-self/attr/apparmor/current"
)

// profileOf is the profile to enter, "" for none.
func profileOf(name string) string {
	if name == apparmor.Unconfined {
		return ""
	}
	return name
}

// ownProfileFD is where PID 1 of a container with --init has the attribute by which it enters its profile.
const ownProfileFD = launch.FirstFD

// hostProc is the engine's /proc, which a child has for its own attributes: by descriptor, as nothing of a container's
// may be trusted to be a procfs.
func (pl *plan) hostProc() (launch.Arg, error) {
	return pl.open("host's proc", func() (int, error) {
		fd, err := unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return -1, fmt.Errorf("/proc: %w", err)
		}
		return fd, nil
	})
}

// profile has the command enter the container's profile. PID 1 of a container with --init executes nothing: it enters the
// profile by what is returned, so that those it reaps may signal it as each other.
func (b *builder) profile() (own func(), err error) {
	name := profileOf(b.s.AppArmorProfile)
	if name == "" {
		return func() {}, nil
	}
	proc, err := b.hostProc()
	if err != nil {
		return nil, err
	}
	b.profileOnExec(proc, name)
	if !b.s.Init {
		return func() {}, nil
	}
	current, kept := b.attribute(proc, attrCurrent, name), launch.Named(ownProfileFD, "attribute")
	b.p.Call(unix.SYS_DUP3, profileMark+name, current.Arg(), kept, launch.Named(unix.O_CLOEXEC, "O_CLOEXEC"))
	b.profileFD = true
	return func() { b.writeAttribute(kept, "changeprofile ", name) }, nil
}

// profileOnExec has the next execve enter the profile, the process's own one or that of a process it clones.
func (pl *plan) profileOnExec(proc launch.Arg, profile string) {
	fd := pl.attribute(proc, attrOnExec, profile)
	pl.writeAttribute(fd.Arg(), "exec ", profile)
	pl.p.Call(unix.SYS_CLOSE, "", fd.Arg())
}

// attribute opens an attribute of the process's own: the kernel lets no other one write it.
func (pl *plan) attribute(proc launch.Arg, file, profile string) launch.Slot {
	fd := pl.p.Slot()
	pl.p.Call(unix.SYS_OPENAT, profileMark+profile, proc, pl.p.Str(file), launch.Named(unix.O_WRONLY|unix.O_CLOEXEC, "O_WRONLY|O_CLOEXEC")).To(fd)
	return fd
}

func (pl *plan) writeAttribute(fd launch.Arg, verb, profile string) {
	pl.p.Call(unix.SYS_WRITE, profileMark+profile, fd, pl.p.Str(verb+profile), launch.Int(len(verb)+len(profile)))
}

// profileError is worded as in Docker, with the way out.
func profileError(profile string, errno syscall.Errno) string {
	s := "unable to apply apparmor profile: apparmor failed to apply profile " + profile + ": "
	if errno == syscall.ENOENT {
		return s + "the kernel holds no profile of that name: load it with `apparmor_parser -r FILE`, or choose another with --security-opt apparmor=NAME"
	}
	return s + errno.Error()
}

func isProfile(f *launch.Failure) bool {
	return strings.HasPrefix(f.What, profileMark)
}
