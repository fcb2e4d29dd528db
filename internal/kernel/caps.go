package kernel

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
)

// DefaultCaps is the set that a container gets when nothing else is asked for; the same fourteen as Docker's: CHOWN,
// DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, NET_RAW, SYS_CHROOT, MKNOD, AUDIT_WRITE,
// SETFCAP.
const DefaultCaps uint64 = 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_FOWNER | 1<<unix.CAP_FSETID |
	1<<unix.CAP_KILL | 1<<unix.CAP_SETGID | 1<<unix.CAP_SETUID | 1<<unix.CAP_SETPCAP | 1<<unix.CAP_NET_BIND_SERVICE |
	1<<unix.CAP_NET_RAW | 1<<unix.CAP_SYS_CHROOT | 1<<unix.CAP_MKNOD | 1<<unix.CAP_AUDIT_WRITE | 1<<unix.CAP_SETFCAP

// capNames lists the capabilities by number.
var capNames = [...]string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW",
	"CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT",
	"CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD",
	"CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG",
	"CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

const allCaps = "ALL"

// NormalizeCap returns the canonical form of a capability's name, "CAP_NET_ADMIN" or "ALL", for any of the spellings that
// users give: "net_admin", "CAP_NET_ADMIN", "all". A name that is no capability is errdefs.ErrInvalidArgument.
func NormalizeCap(name string) (string, error) {
	u := strings.ToUpper(name)
	if u == allCaps {
		return allCaps, nil
	}
	if !strings.HasPrefix(u, "CAP_") {
		u = "CAP_" + u
	}
	for _, n := range capNames {
		if n == u {
			return n, nil
		}
	}
	return "", failure.Invalid("invalid capability: %q", name)
}

// CapNumber returns the number of a capability given in any of the spellings that NormalizeCap takes, ALL excepted.
func CapNumber(name string) (int, error) {
	canonical, err := NormalizeCap(name)
	if err != nil {
		return 0, err
	}
	for i, n := range capNames {
		if n == canonical {
			return i, nil
		}
	}
	return 0, failure.Invalid("invalid capability: %q names more than one", name)
}

// AllCaps is the mask of every capability up to the kernel's highest, lastCap.
func AllCaps(lastCap int) uint64 {
	if lastCap >= 63 {
		return ^uint64(0)
	}
	return 1<<(lastCap+1) - 1
}

// EffectiveCaps computes a container's capability mask by Docker's rules. Privileged is everything that the kernel knows,
// whatever else is asked for. Otherwise: an "ALL" in add starts from everything, less what drop names; an "ALL" in drop
// starts from nothing, plus what add names; with both, the ALL in add wins; with neither, the default set less drop plus
// add (a name in both is added). A capability that this kernel does not have is refused.
func EffectiveCaps(add, drop []string, privileged bool, lastCap int) (uint64, error) {
	all := AllCaps(lastCap)
	addMask, addAll, err := capMask(add, all)
	if err != nil {
		return 0, err
	}
	dropMask, dropAll, err := capMask(drop, all)
	if err != nil {
		return 0, err
	}
	switch {
	case privileged:
		return all, nil
	case addAll:
		return all &^ dropMask, nil
	case dropAll:
		return addMask, nil
	}
	return DefaultCaps&all&^dropMask | addMask, nil
}

// capMask adds up the capabilities in names and reports whether ALL is among them.
func capMask(names []string, known uint64) (mask uint64, all bool, err error) {
	for _, name := range names {
		canonical, err := NormalizeCap(name)
		if err != nil {
			return 0, false, err
		}
		if canonical == allCaps {
			all = true
			continue
		}
		n, err := CapNumber(canonical)
		if err != nil {
			return 0, false, err
		}
		if known>>n&1 == 0 {
			return 0, false, failure.Invalid("capability not supported by your kernel or not available in the current environment: %q", canonical)
		}
		mask |= 1 << n
	}
	return mask, all, nil
}
