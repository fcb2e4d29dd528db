package kernel

import "errors"

// Features is what the running kernel offers. It is a plain value: probe once, then hand it to whoever needs it.
type Features struct {
	Release      string // as uname -r prints it
	Major, Minor int

	OverlayAppendLower bool // overlay takes one "lowerdir+" option per layer (Linux 6.5 and later)
	FsconfigSetFD      bool // overlay takes its layers as file descriptors (Linux 6.13 and later)
	NoexecMemfd        bool // vm.memfd_noexec=2: no memfd can be executed
	CloneIntoCgroup    bool // clone3 puts a child into a cgroup v2 directory
	PidfdInfoExit      bool // PIDFD_GET_INFO tells the exit code of a reaped process (Linux 6.15 and later)
	IDMappedMounts     bool
	Seccomp            bool
	AppArmor           bool
	Userns             bool   // user namespaces can be made
	LastCap            int    // the highest capability number
	CgroupMode         string // "v1", "hybrid" or "v2"

	Warnings []string // what is missing but not needed, each a sentence for the user
}

// Probe finds out what the kernel can do. An error means that the engine cannot work on it, and says what to change.
func Probe() (Features, error) { return Features{}, errors.New("kernel: probe is not available") }

// CheckOverlay reports whether the directory dir can hold the upper and work directories of an overlay mount. The error
// names dir's filesystem and what to choose instead.
func CheckOverlay(dir string) error { return errors.New("kernel: check is not available") }

// BootID returns the kernel's id of the current boot.
func BootID() (string, error) { return "", errors.New("kernel: boot id is not available") }

// StartTime returns when process pid started, in clock ticks since boot: field 22 of /proc/PID/stat. Together with the
// boot id it tells a process from a later one that was given the same pid.
func StartTime(pid int) (uint64, error) { return 0, errors.New("kernel: start time is not available") }
