package kernel

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
)

// The oldest kernel that has every system call the engine uses (mount_setattr with recursive changes, close_range with
// CLOEXEC, overlay on idmapped layers came with 5.15's long-term series).
const minMajor, minMinor = 5, 15

// Features is what the running kernel offers. It is a plain value: probe once, then hand it to whoever needs it.
type Features struct {
	Release      string // as uname -r prints it
	Major, Minor int

	OverlayAppendLower bool // overlay takes one "lowerdir+" option per layer (Linux 6.7 and later)
	FsconfigSetFD      bool // overlay takes its layers as file descriptors (Linux 6.13 and later)
	Seccomp            bool // seccomp filters can be loaded
	AppArmor           bool // AppArmor is enabled, and its profiles can be listed
	LastCap            int  // the highest capability number

	Warnings []string // what is missing but not needed, each a sentence for the user
}

// Probe finds out what the kernel can do. An error means that the engine cannot work on it, and says what to change.
func Probe() (Features, error) {
	var f Features
	if err := f.probeVersion(); err != nil {
		return f, err
	}
	if err := checkSyscalls(); err != nil {
		return f, err
	}
	if err := checkFilesystems(); err != nil {
		return f, err
	}
	if err := f.probeOverlay(); err != nil {
		return f, err
	}
	last, err := readInt("/proc/sys/kernel/cap_last_cap")
	if err != nil {
		return f, fmt.Errorf("cannot read the kernel's highest capability: %w; is /proc mounted?", err)
	}
	f.LastCap = last
	f.probeOptional()
	return f, nil
}

func (f *Features) probeVersion() error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return fmt.Errorf("uname: %w", err)
	}
	f.Release = unix.ByteSliceToString(u.Release[:])
	var err error
	f.Major, f.Minor, err = parseRelease(f.Release)
	if err != nil {
		return err
	}
	if !f.atLeast(minMajor, minMinor) {
		return failure.Unavailable("Linux %s is too old: the engine needs %d.%d or later; boot a newer kernel", f.Release, minMajor, minMinor)
	}
	return nil
}

// atLeast reports whether the kernel's version is major.minor or later.
func (f *Features) atLeast(major, minor int) bool {
	return f.Major > major || f.Major == major && f.Minor >= minor
}

// parseRelease reads the two leading numbers of a kernel release such as "6.18.44-fc" or "6.1-rc2".
func parseRelease(r string) (major, minor int, err error) {
	a, rest, ok := strings.Cut(r, ".")
	end := strings.IndexFunc(rest, func(c rune) bool { return c < '0' || c > '9' })
	if end >= 0 {
		rest = rest[:end]
	}
	major, err1 := strconv.Atoi(a)
	minor, err2 := strconv.Atoi(rest)
	if !ok || err1 != nil || err2 != nil {
		return 0, 0, fmt.Errorf("kernel release %q does not begin with two numbers", r)
	}
	return major, minor, nil
}

// checkSyscalls calls what the engine cannot do without, with arguments that do nothing. A kernel of the right age may
// still lack one: an outer container's seccomp filter or a kernel built without it.
func checkSyscalls() error {
	invalid := ^uintptr(0)
	for _, c := range []struct {
		name string
		nr   uintptr
		args [4]uintptr
	}{
		{"openat2", unix.SYS_OPENAT2, [4]uintptr{invalid, 0, 0, 0}},
		{"clone3", unix.SYS_CLONE3, [4]uintptr{0, 0, 0, 0}},
		{"close_range", unix.SYS_CLOSE_RANGE, [4]uintptr{2, 1, 0, 0}},
		{"pidfd_open", unix.SYS_PIDFD_OPEN, [4]uintptr{0, 0, 0, 0}},
		{"pidfd_send_signal", unix.SYS_PIDFD_SEND_SIGNAL, [4]uintptr{invalid, 0, 0, 0}},
		{"pidfd_getfd", unix.SYS_PIDFD_GETFD, [4]uintptr{invalid, 0, 0, 0}},
		{"open_tree", unix.SYS_OPEN_TREE, [4]uintptr{invalid, 0, invalid, 0}},
		{"move_mount", unix.SYS_MOVE_MOUNT, [4]uintptr{invalid, 0, invalid, 0}},
		{"mount_setattr", unix.SYS_MOUNT_SETATTR, [4]uintptr{invalid, 0, 0, 0}},
		{"fsopen", unix.SYS_FSOPEN, [4]uintptr{0, invalid, 0, 0}},
	} {
		_, _, e := unix.Syscall6(c.nr, c.args[0], c.args[1], c.args[2], c.args[3], 0, 0)
		switch e {
		case unix.ENOSYS:
			return failure.Unavailable("the kernel refuses the system call %s: run the engine on the host itself, or in a container that is --privileged", c.name)
		case unix.EPERM:
			return failure.Unavailable("the engine may not call %s: run it as root with CAP_SYS_ADMIN (a container needs --privileged)", c.name)
		}
	}
	return nil
}

// checkFilesystems makes sure that the filesystems of every container's root can be mounted. fsopen loads the module.
func checkFilesystems() error {
	for _, fs := range []string{"proc", "sysfs", "tmpfs", "devpts", "mqueue"} {
		fd, err := unix.Fsopen(fs, unix.FSOPEN_CLOEXEC)
		if errors.Is(err, unix.ENODEV) {
			return failure.Unavailable("the kernel has no %s filesystem: boot a kernel that is built with it", fs)
		}
		if err != nil {
			return fmt.Errorf("fsopen %s: %w", fs, err)
		}
		unix.Close(fd)
	}
	return nil
}

func (f *Features) probeOverlay() error {
	fd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if errors.Is(err, unix.ENODEV) {
		return failure.Unavailable("the kernel has no overlay filesystem: load it with `modprobe overlay`, or boot a kernel that is built with CONFIG_OVERLAY_FS")
	}
	if err != nil {
		return fmt.Errorf("fsopen overlay: %w", err)
	}
	defer unix.Close(fd)
	// Before Linux 6.5, overlay took any option here and looked at them all later: one that does not exist tells.
	checked := unix.FsconfigSetString(fd, "no-such-option", "x") != nil
	f.OverlayAppendLower = checked && unix.FsconfigSetString(fd, "lowerdir+", "/") == nil
	dir, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /: %w", err)
	}
	defer unix.Close(dir)
	f.FsconfigSetFD = f.OverlayAppendLower && unix.FsconfigSetFd(fd, "lowerdir+", dir) == nil
	return nil
}

func (f *Features) probeOptional() {
	f.Seccomp = seccompFilters()
	if !f.Seccomp {
		f.warn("The kernel has no seccomp filters: containers run without a seccomp profile.")
	}
	b, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	_, serr := os.Stat("/sys/kernel/security/apparmor/profiles")
	f.AppArmor = err == nil && serr == nil && strings.HasPrefix(string(b), "Y")
}

func (f *Features) warn(s string) { f.Warnings = append(f.Warnings, s) }

func seccompFilters() bool {
	const getActionAvail = 2 // SECCOMP_GET_ACTION_AVAIL
	action := uint32(unix.SECCOMP_RET_ERRNO)
	_, _, e := unix.Syscall(unix.SYS_SECCOMP, getActionAvail, 0, uintptr(unsafe.Pointer(&action)))
	return e == 0
}

func readInt(path string) (int, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return n, nil
}
