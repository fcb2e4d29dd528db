package runtime

import (
	"fmt"

	"github.com/cleatlabs/cleat/internal/cgroup"
	"github.com/cleatlabs/cleat/internal/keeper"
	"github.com/cleatlabs/cleat/internal/launch"
	"golang.org/x/sys/unix"
)

// A plan is a launch program under construction, with the descriptors that its process will be given.
type plan struct {
	p     *launch.Program
	files []int         // from launch.FirstFD on; -1 leaves a number unused
	owned []int         // opened for this start only
	group *cgroup.Group // opened for this exec only; nil is none
	dry   bool          // for Dump: nothing is opened
	pool  *launch.Pool
}

// newPlan is for a program that is to run. Close it when that has been awaited.
func (r *Runtime) newPlan() *plan {
	pl := emptyPlan(r.programs.Program())
	pl.pool = r.programs
	return pl
}

func dryPlan() *plan {
	pl := emptyPlan(launch.NewProgram(true))
	pl.dry = true
	return pl
}

func emptyPlan(p *launch.Program) *plan {
	pl := &plan{p: p}
	pl.files = make([]int, keeper.FirstTransientFD-launch.FirstFD, 32)
	for i := range pl.files {
		pl.files[i] = -1
	}
	return pl
}

// hold gives the keeper one of its descriptors.
func (pl *plan) hold(number, fd int) { pl.files[number-launch.FirstFD] = fd }

// fd gives the child a descriptor and returns its number there. The caller keeps owning it.
func (pl *plan) fd(fd int, name string) launch.Arg {
	pl.files = append(pl.files, fd)
	return launch.Named(uint64(launch.FirstFD+len(pl.files)-1), name)
}

// open is fd for a descriptor that is opened now and closed by close.
func (pl *plan) open(name string, open func() (int, error)) (launch.Arg, error) {
	fd := -1
	if !pl.dry {
		var err error
		if fd, err = open(); err != nil {
			return launch.Arg{}, err
		}
		pl.owned = append(pl.owned, fd)
	}
	return pl.fd(fd, name), nil
}

func (pl *plan) close() {
	for _, fd := range pl.owned {
		unix.Close(fd)
	}
	pl.owned = nil
	pl.closeGroup()
	if pl.pool != nil {
		pl.pool.Put(pl.p)
		pl.pool, pl.p = nil, nil
	}
}

// closeGroup closes what puts the child into its group.
func (pl *plan) closeGroup() {
	if pl.group != nil {
		pl.group.CloseFDs()
		pl.group = nil
	}
}

// Named argument shorthands for the calls that recur in every program.
var (
	argEmptyPath     = launch.Named(unix.AT_EMPTY_PATH, "AT_EMPTY_PATH")
	argBothEmpty     = launch.Named(unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH, "F_EMPTY_PATH|T_EMPTY_PATH")
	argCloexec       = launch.Named(1, "CLOEXEC")
	argClone         = launch.Named(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW, "CLONE|CLOEXEC|NOFOLLOW")
	argCloneEmpty    = launch.Named(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH, "CLONE|CLOEXEC|EMPTY_PATH")
	argCloneEmptyRec = launch.Named(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, "CLONE|CLOEXEC|EMPTY_PATH|RECURSIVE")
)

const openHowSize = 24

// An opening is how openat2 resolves a path.
type opening struct {
	arg launch.Arg
}

// inRoot resolves symbolic links inside the directory, as chroot would; magic links never.
func (pl *plan) inRoot(flags uint64, name string) opening {
	return opening{pl.p.Struct("{"+name+", IN_ROOT|NO_MAGICLINKS}", flags, 0, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)}
}

// strict refuses any symbolic link and anything outside the directory.
func (pl *plan) strict(flags uint64, name string) opening {
	return opening{pl.p.Struct("{"+name+", BENEATH|NO_SYMLINKS}", flags, 0, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_MAGICLINKS|unix.RESOLVE_NO_SYMLINKS)}
}

func (pl *plan) openat2(dir launch.Arg, path string, how opening) (launch.Slot, launch.Op) {
	s := pl.p.Slot()
	return s, pl.p.Call(unix.SYS_OPENAT2, path, dir, pl.p.Str(path), how.arg, launch.Int(openHowSize)).To(s)
}

// attach moves the mount onto the opened target.
func (pl *plan) attach(mount, target launch.Arg, what string) launch.Op {
	empty := pl.p.Str("")
	return pl.p.Call(unix.SYS_MOVE_MOUNT, what, mount, empty, target, empty, argBothEmpty)
}

// option is a filesystem option; no value makes it a flag.
type option struct{ key, value string }

// filesystem makes a detached mount of a new instance.
func (pl *plan) filesystem(fstype string, attr uint64, opts ...option) launch.Arg {
	p := pl.p
	fs, mnt := p.Slot(), p.Slot()
	p.Call(unix.SYS_FSOPEN, fstype, p.Str(fstype), argCloexec).To(fs)
	opts = append([]option{{"source", fstype}}, opts...) // what /proc/mounts shows
	for _, o := range opts {
		cmd, value, what := launch.Named(unix.FSCONFIG_SET_FLAG, "SET_FLAG"), launch.Int(0), fstype+" option "+o.key
		if o.value != "" {
			what += "=" + o.value
			cmd, value = launch.Named(unix.FSCONFIG_SET_STRING, "SET_STRING"), p.Str(o.value)
		}
		p.Call(unix.SYS_FSCONFIG, what, fs.Arg(), cmd, p.Str(o.key), value, launch.Int(0))
	}
	p.Call(unix.SYS_FSCONFIG, fstype, fs.Arg(), launch.Named(unix.FSCONFIG_CMD_CREATE, "CREATE"), launch.Int(0), launch.Int(0), launch.Int(0))
	p.Call(unix.SYS_FSMOUNT, fstype, fs.Arg(), argCloexec, mountAttr(attr)).To(mnt)
	return mnt.Arg()
}

// setAttr changes a mount's attributes by descriptor.
func (pl *plan) setAttr(mount launch.Arg, what string, recursive bool, set, clear, propagation uint64) launch.Op {
	flags := argEmptyPath
	if recursive {
		flags = launch.Named(unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, "AT_EMPTY_PATH|AT_RECURSIVE")
	}
	attr := pl.p.Struct(fmt.Sprintf("{set %s, clear %s, propagation %s}", attrNames.Of(set), attrNames.Of(clear), propagationName(propagation)), set, clear, propagation, 0)
	return pl.p.Call(unix.SYS_MOUNT_SETATTR, what, mount, pl.p.Str(""), flags, attr, launch.Int(32))
}

func mountAttr(attr uint64) launch.Arg { return launch.Named(attr, attrNames.Of(attr)) }

var attrNames = launch.FlagNames{
	{unix.MOUNT_ATTR_RDONLY, "RDONLY"}, {unix.MOUNT_ATTR_NOSUID, "NOSUID"}, {unix.MOUNT_ATTR_NODEV, "NODEV"},
	{unix.MOUNT_ATTR_NOEXEC, "NOEXEC"}, {unix.MOUNT_ATTR_NOATIME, "NOATIME"}, {unix.MOUNT_ATTR_STRICTATIME, "STRICTATIME"},
	{unix.MOUNT_ATTR_NODIRATIME, "NODIRATIME"}, {unix.MOUNT_ATTR_NOSYMFOLLOW, "NOSYMFOLLOW"},
}

func propagationName(p uint64) string {
	switch p {
	case unix.MS_PRIVATE:
		return "PRIVATE"
	case unix.MS_SHARED:
		return "SHARED"
	case unix.MS_SLAVE:
		return "SLAVE"
	}
	return "as is"
}
